"""The pictures that somebody takes along or acts on: all that a search finds, or those that were ticked."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import QueryParams
from starlette.requests import Request

from tinytags_tasks.errors import BadInputError, CorruptError, TransientError
from tinytags_tasks.search.address import PAGE_PARAMETERS, address_parameters, page_address, read_address
from tinytags_tasks.search.context import PageContext
from tinytags_tasks.search.corrections import Picture
from tinytags_tasks.search.documents import find_documents
from tinytags_tasks.search.forms import Form
from tinytags_tasks.search.images import TaggedImage
from tinytags_tasks.search.request import MOST_ROWS, SearchRequest, Sort
from tinytags_tasks.search.similar import similar_to
from tinytags_tasks.store import layout

PAUSES_SECONDS = (1.0, 4.0)
"""Pauses before another attempt at some of the pictures, if Solr or the store does not answer."""

FOUND = "found"
"""The field of the form with the search whose pictures are exported, as the query of its address."""

CHOSEN = "chosen"
"""The field with the run that was searched instead of what is live; ``run`` has those that were live."""

NOT_FOR_ALL = frozenset({"cursor", "page", "rows"})
"""Parameters of a page of a search that all it finds together does not have."""

_PARAMETERS = PAGE_PARAMETERS - NOT_FOR_ALL
_PAGE_IDS = 500

T = TypeVar("T")


class MovedError(CorruptError):
    """Something was published while pictures were read, so that they are not of one run."""


@dataclass(frozen=True)
class Wanted:
    """What somebody asked for.

    Attributes
    ----------
    name
        What a file of them is called after.
    images, found
        How many pictures these are, and how many were found.
    pages
        Yields them, with the pixels that Solr has if asked.
    fields
        The hidden fields of the form that asks for them again.
    back
        The page that they are from.
    gone
        How many of those that were named readers cannot find.
    run
        The run that they are of; empty if that is what is live.
    """

    name: str
    images: int
    found: int
    pages: Callable[[bool], Iterator[tuple[TaggedImage, ...]]]
    fields: tuple[tuple[str, str], ...]
    back: str
    gone: int = 0
    run: str = ""


def without_page(request: Request) -> str:
    """Return the search of an address, without which of its pages that is."""
    return urlencode([pair for pair in request.query_params.multi_items() if pair[0] not in NOT_FOR_ALL])


def read_wanted(context: PageContext, form: Form, most: int) -> Wanted:
    """Return the pictures that a form asks for: all that its search finds, or those that were ticked; ``most`` at most.

    Raises
    ------
    BadInputError
        If it is no search, or no picture was ticked.
    """
    return of_search(context, form[FOUND], most) if FOUND in form else _of_selection(context, form, most)


def of_search(context: PageContext, query: str, most: int) -> Wanted:
    """Return what a search finds, ``most`` pictures at most.

    Raises
    ------
    BadInputError
        If it is no search.
    """
    try:
        pairs = parse_qsl(query, max_num_fields=2_000)
    except ValueError as error:
        raise BadInputError(f"the search cannot be read ({error})") from error
    search = replace(read_address(QueryParams(pairs), _PARAMETERS), cursor=None, start=0)
    fields = ((FOUND, urlencode(address_parameters(replace(search, rows=SearchRequest.rows)))),)
    if search.sort is Sort.SIMILAR:
        nearest = similar_to(context, replace(search, rows=min(most, MOST_ROWS))).images
        return _of_ids(context, [image.id for image in nearest], search.run, "similar", fields, page_address(search))
    found = context.searches.page(replace(search, rows=1), fresh=True).total
    images = min(found, most)

    def pages(with_pixels: bool) -> Iterator[tuple[TaggedImage, ...]]:
        return _search_pages(context, replace(search, rows=MOST_ROWS, with_pixels=with_pixels), images)

    name = " ".join((*search.corpora, *search.tags, *search.words, search.keyword, search.run))
    return Wanted(name, images, found, pages, fields, page_address(search), run=search.run)


def _search_pages(context: PageContext, search: SearchRequest, images: int) -> Iterator[tuple[TaggedImage, ...]]:
    left = images
    while left > 0:
        page = patiently(lambda: context.searches.page(search))  # noqa: B023 - called before it changes
        if page.moved:
            raise MovedError("something was published meanwhile: ask for them again")
        yield page.images[:left]
        left -= len(page.images)
        if page.next_cursor is None:
            return
        search = replace(search, cursor=page.next_cursor)


def _of_selection(context: PageContext, form: Form, most: int) -> Wanted:
    chosen = [Picture.parse(text) for text in dict.fromkeys(form.getlist("picture"))]
    if not chosen:
        raise BadInputError("no picture was chosen: tick at least one")
    ids = [layout.document_id(picture.corpus, picture.position) for picture in chosen]
    ids = list(dict.fromkeys(ids))[:most]
    run = form.get(CHOSEN, "")
    fields = ((CHOSEN, run), *(("picture", text) for text in form.getlist("picture")))
    back = form.get("back", "/search")
    return _of_ids(context, ids, run, "selection", fields, back if back.startswith("/search") else "/search")


def _of_ids(
    context: PageContext, ids: Sequence[str], run: str, name: str, fields: tuple[tuple[str, str], ...], back: str
) -> Wanted:
    """Return pictures by their ids, as far as readers can find them in a run, or in what is live."""

    def find(some: Sequence[str], with_pixels: bool) -> dict[str, TaggedImage]:
        hidden = context.searches.hidden(SearchRequest(run=run))
        collection = context.searches.chosen.get(run).run.collection if run else ""
        return find_documents(context.settings, some, hidden, with_pixels=with_pixels, collection=collection)

    known = find(ids, False)
    there = [one for one in ids if one in known]

    def pages(with_pixels: bool) -> Iterator[tuple[TaggedImage, ...]]:
        for start in range(0, len(there), _PAGE_IDS):
            some = there[start : start + _PAGE_IDS]
            found = patiently(lambda: find(some, with_pixels))  # noqa: B023 - called before it changes
            yield tuple(found[one] for one in some if one in found)

    return Wanted(name, len(there), len(there), pages, fields, back, gone=len(ids) - len(there), run=run)


def patiently(ask: Callable[[], T]) -> T:
    """Return what ``ask`` returns, asked again if Solr or the store does not answer."""
    for pause in PAUSES_SECONDS:
        try:
            return ask()
        except TransientError:
            time.sleep(pause)
    return ask()
