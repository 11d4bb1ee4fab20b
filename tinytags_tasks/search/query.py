"""Searches the published documents by tag, accuracy, keyword and block.

What a reader asks goes to Solr as parameters that Solr never parses as a query (``{!terms ... v=$tags}``); only checked
numbers stand in a query's text.
"""

import base64
import binascii
import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
import pysolr
import requests

from tinytags_tasks.clients.solr_http import UndefinedFieldError, undefined_field, unknown_user
from tinytags_tasks.corpus.keywords import LONGEST
from tinytags_tasks.errors import BadInputError, CorruptError, EngineDownError, FinalError, MissingError
from tinytags_tasks.settings import Settings

MOST_ROWS = 100
"""Images of one page at most."""

LAST_START = 10_000
"""How far paging goes: Solr sorts everything up to a page's end again, so that far pages cost ever more."""

FIRST_CURSOR = "*"
"""Solr's mark for a cursor's first page."""

MOST_TAGS = 1_000
"""Tags that are counted, and that one search may name."""

TIMEOUT_SECONDS = 30
SORT = "accuracy desc, position asc, id asc"
FIELDS = ("id", "tag", "accuracy", "votes", "block", "position", "model", "corpus", "keyword")

DAMAGED = "unreadable"
"""Why an image is missing whose document does not hold one."""

_WIDTH_UNLESS_TOLD = 32
"""Of documents that were indexed before they told their width: all of these are 32x32."""


@dataclass(frozen=True)
class SearchRequest:
    """What a reader asks for.

    Attributes
    ----------
    tags
        Any of these; empty means all.
    minimum_accuracy
        In percent, 0 to 100.
    block
        Only images of this block.
    keyword
        Only images of exactly this keyword; empty means all.
    rows
        Images of the page, 1 to :data:`MOST_ROWS`.
    start
        Images before the page's first one; up to :data:`LAST_START` with the page itself.
    cursor
        Instead of ``start``: :data:`FIRST_CURSOR`, then each page's ``next_cursor``. Has no limit.
    with_pixels
        Whether images come with their pixels.

    Raises
    ------
    BadInputError
        When one of them is out of range.
    """

    tags: tuple[str, ...] = ()
    minimum_accuracy: int = 0
    block: int | None = None
    keyword: str = ""
    rows: int = 60
    start: int = 0
    cursor: str | None = None
    with_pixels: bool = True

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        if len(self.tags) > MOST_TAGS:
            raise BadInputError(f"{len(self.tags)} tags are too many: name up to {MOST_TAGS:,}")
        for tag in self.tags:
            if not (1 <= len(tag) <= 100 and tag.isprintable()):
                raise BadInputError(f"{tag[:100]!r} is no tag: a tag has 1 to 100 printable characters")
        if not 0 <= self.minimum_accuracy <= 100:
            raise BadInputError(f"minimum accuracy {self.minimum_accuracy} is out of range: give 0 to 100 percent")
        if self.block is not None and not 0 <= self.block < 2**31:
            raise BadInputError(f"block {self.block} is out of range: give its number, 0 or more")
        if self.keyword and not (len(self.keyword) <= LONGEST and self.keyword.isprintable()):
            raise BadInputError(
                f"{self.keyword[:100]!r} is no keyword: a keyword has up to {LONGEST} printable characters"
            )
        if not 1 <= self.rows <= MOST_ROWS:
            raise BadInputError(f"{self.rows} images a page is out of range: give 1 to {MOST_ROWS}")
        if self.start < 0 or self.start + self.rows > LAST_START:
            raise BadInputError(
                f"paging ends at image {LAST_START:,}: ask for a tag, a block or a higher accuracy, "
                "or read on with a cursor"
            )
        if self.cursor is not None and (self.start or not 1 <= len(self.cursor) <= 2_000):
            raise BadInputError(f"a cursor is {FIRST_CURSOR!r} or the next_cursor of a page, and takes no start")


@dataclass(frozen=True, eq=False)
class TaggedImage:
    """One published image.

    Attributes
    ----------
    keyword
        What its source called it; None where it has none.
    image
        uint8, shape (height, width, 3); None when not asked for, or missing.
    is_in_store
        Whether its document has no image, so that it is to be read from the store.
    missing
        Why there is no image although it was asked for.
    """

    id: str
    tag: str
    accuracy: int
    votes: int
    block: int
    position: int
    model: str
    corpus: str
    keyword: str | None
    image: npt.NDArray[np.uint8] | None
    is_in_store: bool = False
    missing: str = ""


@dataclass(frozen=True, eq=False)
class SearchPage:
    """One page of what was found.

    Attributes
    ----------
    total
        Images found, on all pages.
    tag_counts
        Images by tag, whichever tags were asked for, so that another one can be chosen; empty on a cursor's later
        pages, as are the next three.
    accuracy_counts
        Images by accuracy, whatever minimum was asked for.
    models, corpora
        Of everything that is published.
    next_cursor
        For the next page; None on the last one and without a cursor.
    seconds
        How long the search took.
    """

    total: int
    images: tuple[TaggedImage, ...]
    tag_counts: dict[str, int]
    accuracy_counts: dict[int, int]
    models: tuple[str, ...]
    corpora: tuple[str, ...]
    next_cursor: str | None
    seconds: float


def search_images(settings: Settings, request: SearchRequest) -> SearchPage:
    """Return one page of the published images, the surest first.

    Raises
    ------
    EngineDownError
        When Solr does not answer.
    MissingError
        When there is no alias to search.
    BadInputError
        When Solr does not know the cursor.
    CorruptError
        When the documents are not TinyTags' own.
    """
    started = time.monotonic()
    answer = _ask_for_fields_there(settings, request)
    try:
        facets = answer.get("facets", {})
        cursor = answer.get("nextCursorMark")
        return SearchPage(
            total=answer["response"]["numFound"],
            images=tuple(_read_document(document, request.with_pixels) for document in answer["response"]["docs"]),
            tag_counts={str(value): count for value, count in _buckets(facets, "tags")},
            accuracy_counts={int(value): count for value, count in _buckets(facets, "accuracies")},
            models=tuple(str(value) for value, _ in _buckets(facets, "models")),
            corpora=tuple(str(value) for value, _ in _buckets(facets, "corpora")),
            next_cursor=cursor if cursor != request.cursor else None,
            seconds=time.monotonic() - started,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CorruptError(
            f"the alias {settings.alias!r} holds documents that TinyTags did not write ({type(error).__name__}: "
            f"{error}): set TINYTAGS_ALIAS to the alias of a TinyTags run"
        ) from error


def iterate_images(settings: Settings, request: SearchRequest, limit: int | None = None) -> Iterator[TaggedImage]:
    """Yield all images that a request finds, or the first ``limit``, in pages of its ``rows``.

    Raises the errors of :func:`search_images` while it goes.
    """
    return islice(_all_images(settings, replace(request, start=0, cursor=FIRST_CURSOR)), limit)


def _all_images(settings: Settings, request: SearchRequest) -> Iterator[TaggedImage]:
    cursor: str | None = request.cursor
    while cursor:
        page = search_images(settings, replace(request, cursor=cursor))
        yield from page.images
        cursor = page.next_cursor


def _ask_for_fields_there(settings: Settings, request: SearchRequest) -> dict[str, Any]:
    """Ask once more, without a field, when what is live is older than that field."""
    lacking: frozenset[str] = frozenset()
    while True:
        try:
            return _ask(settings, solr_parameters(request, lacking))
        except UndefinedFieldError as error:
            if error.field in lacking:
                raise
            lacking |= {error.field}


def solr_parameters(request: SearchRequest, lacking: frozenset[str] = frozenset()) -> dict[str, str | int | list[str]]:
    """Return a request as the parameters of Solr's ``/select``.

    Parameters
    ----------
    request
        What a reader asks for.
    lacking
        Fields that what is live does not have: nothing is found by them, and nothing is counted by them.
    """
    filters = []
    parameters: dict[str, str | int | list[str]] = {
        "q": "*:*",
        "sort": SORT,
        "rows": request.rows,
        "fl": ",".join((*FIELDS, "width", "data") if request.with_pixels else FIELDS),
        # Otherwise Solr puts another parameter in the place of a ${name} in a tag or keyword.
        "expandMacros": "false",
    }
    if request.tags:
        # A line end separates tags: no printable tag has one, where a comma may well be part of a tag.
        filters.append(r'{!terms tag=by_tag f=tag separator="\n" v=$tags}')
        parameters["tags"] = "\n".join(request.tags)
    if request.minimum_accuracy:
        filters.append(f"{{!tag=by_accuracy}}accuracy:[{request.minimum_accuracy:d} TO *]")
    if request.block is not None:
        filters.append("{!term tag=by_block f=block v=$block}")
        parameters["block"] = request.block
    if request.keyword:
        found_by = "{!term tag=by_keyword f=keyword v=$keyword}"
        filters.append("{!tag=by_keyword}-*:*" if "keyword" in lacking else found_by)
        parameters["keyword"] = request.keyword
    parameters["fq"] = filters
    if request.cursor is None:
        parameters["start"] = request.start
    else:
        parameters["cursorMark"] = request.cursor
    if request.cursor in (None, FIRST_CURSOR):
        facets = {
            "tags": _facet("tag", MOST_TAGS, ["by_tag"]),
            "accuracies": _facet("accuracy", 101, ["by_accuracy"]),
            "models": _facet("model", 20, ["by_tag", "by_accuracy", "by_block", "by_keyword"]),
            "corpora": _facet("corpus", 20, ["by_tag", "by_accuracy", "by_block", "by_keyword"]),
        }
        parameters["json.facet"] = json.dumps(
            {name: facet for name, facet in facets.items() if facet["field"] not in lacking}
        )
    return parameters


def _facet(field: str, limit: int, without_filters: list[str]) -> dict[str, Any]:
    domain = {"excludeTags": without_filters}
    return {"type": "terms", "field": field, "limit": limit, "sort": "index asc", "domain": domain}


def _buckets(facets: dict[str, Any], name: str) -> list[tuple[Any, int]]:
    return [(bucket["val"], bucket["count"]) for bucket in facets.get(name, {}).get("buckets", ())]


def _ask(settings: Settings, parameters: dict[str, str | int | list[str]]) -> dict[str, Any]:
    try:
        address = settings.address("solr_url")
        login = settings.solr_login("reader")
    except BadInputError as error:
        raise EngineDownError(str(error)) from error
    shown = re.sub(r"//[^/@]*@", "//", address) if "@" in urlsplit(address).netloc else address
    away = EngineDownError(
        f"Solr does not answer at {shown}: start the engines with `tinytags up`, or correct TINYTAGS_SOLR_URL"
    )
    # As bytes, because requests writes text in Latin-1.
    auth = tuple(part.encode() for part in login) if login else None
    solr = pysolr.Solr(f"{address}/{settings.alias}", timeout=TIMEOUT_SECONDS, auth=auth)
    try:
        answer = solr.search(**parameters).raw_response
    except pysolr.SolrError as error:
        status = re.search(r"\(HTTP (\d{3})\)", str(error))
        if not status:
            raise away from error
        if status[1] == "401":
            raise FinalError(unknown_user(shown, "reader", login)) from error
        if status[1] in ("403", "404"):  # whoever may only search is not told which of the two it is
            or_hidden = f", or none that {login[0]!r} may search" if login and status[1] == "403" else ""
            raise MissingError(
                f"nothing is published yet: run `tinytags run` (Solr at {shown} has no {settings.alias!r}{or_hidden})"
            ) from error
        if field := undefined_field(str(error)):
            message = f"Solr at {shown}: what is live under {settings.alias!r} has no field {field}"
            raise UndefinedFieldError(message, field) from error
        if "cursorMark" in parameters and "cursorMark" in str(error):
            raise BadInputError("Solr does not know this cursor: start again with '*'") from error
        if status[1][0] == "5" or status[1] == "429":
            raise EngineDownError(
                f"Solr at {shown} cannot search {settings.alias!r} now (HTTP {status[1]}): try again, or look into "
                "its log"
            ) from error
        raise FinalError(f"Solr at {shown} refused the search: {str(error)[:300]}") from error
    except requests.RequestException as error:
        raise away from error
    except (ValueError, AttributeError) as error:
        raise EngineDownError(f"what answers at {shown} is not Solr: correct TINYTAGS_SOLR_URL") from error
    return dict(answer)


def _read_document(document: dict[str, Any], with_pixels: bool) -> TaggedImage:
    image = None
    if with_pixels and "data" in document:
        image = _decode_pixels(document["data"], int(document.get("width", _WIDTH_UNLESS_TOLD)))
    return TaggedImage(
        id=str(document["id"]),
        tag=str(document["tag"]),
        accuracy=int(document["accuracy"]),
        votes=int(document["votes"]),
        block=int(document["block"]),
        position=int(document["position"]),
        model=str(document["model"]),
        corpus=str(document["corpus"]),
        keyword=str(document["keyword"]) if "keyword" in document else None,
        image=image,
        is_in_store=with_pixels and "data" not in document,
        missing=DAMAGED if with_pixels and "data" in document and image is None else "",
    )


def _decode_pixels(stored: object, width: int) -> npt.NDArray[np.uint8] | None:
    if not isinstance(stored, str):
        return None
    try:
        pixels = base64.b64decode(stored, validate=True)
    except (binascii.Error, ValueError):
        return None
    if not pixels or width < 1 or len(pixels) % (3 * width):
        return None
    return np.frombuffer(pixels, dtype=np.uint8).reshape(-1, width, 3)
