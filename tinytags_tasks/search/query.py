"""Searches the published documents: one page of them, and counts of all that is found.

See :mod:`tinytags_tasks.search.solr_filters` for what keeps a reader's words out of queries.
"""

import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import takewhile
from typing import Any

from tinytags_tasks.clients.solr_http import UndefinedFieldError
from tinytags_tasks.search.counts import Counts
from tinytags_tasks.search.cursor import Cursor, Order, Values, hash_of, order_of, read_cursor
from tinytags_tasks.search.hidden import NOTHING, Hidden
from tinytags_tasks.search.images import TaggedImage, foreign_documents, read_document, read_fields
from tinytags_tasks.search.request import SearchRequest, can_be_asked_for
from tinytags_tasks.search.solr_filters import LACKING, Filter, make_filters, refuse_lacking, solr_filters
from tinytags_tasks.search.solr_reader import Parameters, ask_solr
from tinytags_tasks.search.windows import windows
from tinytags_tasks.settings import Settings

_Ask = Callable[[Parameters], dict[str, Any]]


@dataclass(frozen=True, eq=False)
class SearchPage:
    """One page of what was found.

    Attributes
    ----------
    total
        Images found, on all pages.
    tag_counts
        Images by tag, whichever tags were asked for, so that another one can be chosen; only tags that can be.
    confidence_counts
        Images by confidence, whatever range was asked for.
    models, corpora
        Of everything that is searched.
    next_cursor, previous_cursor
        For the page after this one and for the one before it, at any depth; None where there is none.
    collections
        Solr's collections that were searched.
    moved
        Whether something was published since the page that the cursor is from, so that this page goes on in what is
        live now.
    left_out
        Corpora that were not searched, because they were indexed before what is asked for was there.
    request
        What was asked for, with tags as they are written in documents; None if tags were not compared.
    seconds
        How long the search took.
    """

    total: int
    images: tuple[TaggedImage, ...]
    tag_counts: dict[str, int]
    confidence_counts: dict[int, int]
    models: tuple[str, ...]
    corpora: tuple[str, ...]
    next_cursor: str | None
    seconds: float
    previous_cursor: str | None = None
    collections: tuple[str, ...] = ()
    moved: bool = False
    left_out: tuple[str, ...] = ()
    request: SearchRequest | None = None


@dataclass(frozen=True)
class Searched:
    """What is searched.

    Attributes
    ----------
    collections
        Solr's collections; empty searches what the alias names.
    changes
        How many words on pictures readers see in them, or anything else that changes when documents do.
    is_fresh
        Whether they are counted again, whatever is known.
    """

    collections: tuple[str, ...] = ()
    changes: Hashable = ()
    is_fresh: bool = False


@dataclass(frozen=True)
class _Found:
    """The documents of a page in the order in which people read, and whether there are others on either side.

    ``total`` is exact only if one picture stands for all alike.
    """

    documents: list[dict[str, Any]]
    total: int
    has_previous: bool
    has_next: bool


def search_images(
    settings: Settings,
    request: SearchRequest,
    hidden: Hidden = NOTHING,
    searched: Searched | None = None,
    counts: Counts | None = None,
) -> SearchPage:
    """Return one page of the published images that are not hidden.

    Parameters
    ----------
    settings
        Where Solr is, and the alias.
    request
        What a reader asks for.
    hidden
        Pictures that are not found.
    searched
        What is searched; None searches what the alias names.
    counts
        Keeps counts from search to search; None counts every time.

    Raises
    ------
    EngineDownError
        If Solr does not answer in time.
    MissingError
        If there is nothing to search.
    BadInputError
        If the request's cursor is none of this search, or what is published lacks a field that is needed.
    CorruptError
        If the documents are not TinyTags' own.
    """
    started = time.monotonic()
    searched = searched or Searched()
    names = searched.collections or (settings.alias,)
    cursor = read_cursor(request)
    lacking: frozenset[str] = frozenset()
    while True:
        try:
            filters = make_filters(request, hidden, lacking)
            return _read_page(settings, request, hidden, searched, filters, cursor, counts or Counts(), started)
        except UndefinedFieldError as error:
            # What is published was indexed before that field was added.
            refuse_lacking(error.field, frozenset(LACKING))
            if error.field in lacking:
                raise
            lacking |= {error.field}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise foreign_documents(",".join(names), error) from error


def solr_parameters(
    request: SearchRequest, lacking: frozenset[str] = frozenset(), hidden: Hidden = NOTHING
) -> Parameters:
    """Return a request as the parameters of Solr's ``/select``, for a search of one page that counts nothing.

    Parameters
    ----------
    request
        What a reader asks for.
    lacking
        Fields that do not exist in what is published.
    hidden
        Pictures that are not found.

    Raises
    ------
    BadInputError
        If a field that is needed is lacking.
    """
    return {
        "q": "*:*",
        "sort": order_of(request).solr_sort,
        "rows": request.rows,
        "fl": ",".join(read_fields(request.with_pixels)),
        **solr_filters(make_filters(request, hidden, lacking)),
    }


def _read_page(
    settings: Settings,
    request: SearchRequest,
    hidden: Hidden,
    searched: Searched,
    filters: tuple[Filter, ...],
    cursor: Cursor | None,
    counts: Counts,
    started: float,
) -> SearchPage:
    names = searched.collections or (settings.alias,)

    def ask(parameters: Parameters) -> dict[str, Any]:
        return ask_solr(settings, {**parameters, "collection": ",".join(names)})

    counted = counts.get((names, searched.changes), filters, ask, is_fresh=searched.is_fresh)
    confidences = {int(value): count for value, count in counted["confidences"]}
    matching = {
        value: count
        for value, count in confidences.items()
        if request.min_confidence <= value <= request.max_confidence
    }
    read = partial(_find, request, filters, ask, matching, sum(count for _, count in counted["corpora"]))
    order = cursor.order if cursor else order_of(request)
    found = read(order, cursor.edge if cursor else None)
    if cursor and not order.is_forward and not found.has_previous and len(found.documents) < request.rows:
        # Pages were of another size, or something was published: the first page shall not be shorter than others.
        found = read(order_of(request), None)

    def cursor_at(place: int, is_forward: bool) -> str:
        order = replace(order_of(request), is_forward=is_forward)
        return Cursor(hash_of(names), order, order.edge_of(found.documents[place])).write()

    return SearchPage(
        # Each image has one confidence, so the counts by confidence say how many there are.
        total=found.total if request.is_one_of_alike else sum(matching.values()),
        images=hidden.leave_out(read_document(document, request.with_pixels) for document in found.documents),
        # Each is a link to a search for it, which refuses what cannot be a tag.
        tag_counts={str(value): count for value, count in counted["tags"] if can_be_asked_for(str(value))},
        confidence_counts=confidences,
        models=tuple(str(value) for value, _ in counted["models"]),
        corpora=tuple(str(value) for value, _ in counted["corpora"]),
        next_cursor=cursor_at(-1, is_forward=True) if found.has_next else None,
        previous_cursor=cursor_at(0, is_forward=False) if found.has_previous else None,
        collections=names,
        moved=cursor is not None and cursor.searched != hash_of(names),
        seconds=time.monotonic() - started,
    )


def _find(
    request: SearchRequest,
    filters: tuple[Filter, ...],
    ask: _Ask,
    matching: Mapping[int, int],
    all_documents: int,
    order: Order,
    edge: Values | None,
) -> _Found:
    """Return the documents of a page; one more than fits says whether there is another page behind it."""
    wanted = request.rows + 1
    documents: list[dict[str, Any]] = []
    total = 0

    def read(start: Values | None, is_above: bool, window: tuple[str, ...]) -> list[dict[str, Any]]:
        nonlocal total
        rows = wanted - len(documents)
        parameters: Parameters = {
            "q": "*:*",
            "sort": order.solr_sort,
            "rows": rows,
            "fl": ",".join(dict.fromkeys((*read_fields(request.with_pixels), *order.fields))),
            **solr_filters((*filters, *(Filter("", query) for query in window))),
        }
        if request.start and edge is None:
            parameters["start"] = request.start
        else:
            parameters["cursorMark"] = order.mark(start)
        response = ask(parameters)["response"]
        total = int(response["numFound"])
        return list(takewhile(partial(order.is_in, is_above=is_above), response["docs"]))

    # One of alike pictures is chosen among all that match, and numbered pages are counted from the first picture.
    is_whole = request.is_one_of_alike or (request.start > 0 and edge is None)
    for start, is_above in order.parts_from(edge):
        rows = wanted - len(documents)
        found: list[dict[str, Any]] = []
        for window in [()] if is_whole else windows(order, start, matching, all_documents, rows):
            found = read(start, is_above, window)
            if len(found) >= rows:
                break
        documents += found
        if len(documents) >= wanted:
            break
    has_more = len(documents) > request.rows
    documents = documents[: request.rows]
    has_come_far = bool(documents) and (edge is not None or request.start > 0)
    if order.is_forward:
        return _Found(documents, total, has_previous=has_come_far, has_next=has_more)
    return _Found(documents[::-1], total, has_previous=has_more, has_next=has_come_far)
