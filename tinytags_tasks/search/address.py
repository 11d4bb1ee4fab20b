"""A search as the address of the page and the API, both ways."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, cast
from urllib.parse import quote, urlencode

from starlette.datastructures import QueryParams

from tinytags_tasks.errors import BadInputError
from tinytags_tasks.search.grammar import parse
from tinytags_tasks.search.request import FIRST_CURSOR, SearchRequest, Sort

RESULTS = "/search"

LISTS = {
    "tag": "tags",
    "without": "without_tags",
    "word": "words",
    "without_word": "without_words",
    "corpus": "corpora",
}
"""Parameters that may be given several times, and the fields of a request that they fill."""

NUMBERS = {
    "confidence": "min_confidence",
    "max_confidence": "max_confidence",
    "precision": "min_precision",
    "max_precision": "max_precision",
    "block": "block",
    "seed": "seed",
    "rows": "rows",
}
TEXTS = {"keyword": "keyword", "run": "run", "to": "similar_to"}

PAGE_PARAMETERS = frozenset({*LISTS, *NUMBERS, *TEXTS, "q", "sort", "alike", "cursor", "page"})
API_PARAMETERS = frozenset({"tag", "confidence", "precision", "block", "keyword", "rows", "page", "cursor", "pixels"})
"""Those of the old API, ``/api/search``."""

_NOTHING = SearchRequest()

OLD_NAMES = {"accuracy": "confidence"}
"""Former names of parameters, which stay valid because people have kept addresses."""

OLD_ROWS = 60
"""Images of a page of the old API, and of kept addresses with a page's number."""


def read_address(parameters: QueryParams, known: frozenset[str]) -> SearchRequest:
    """Return what an address asks for; an empty parameter counts as absent.

    ``q`` is what somebody wrote into the search box: it adds to the other parameters.

    Raises
    ------
    GrammarError
        If a word of ``q`` cannot be understood.
    BadInputError
        If a parameter is unknown, given twice or malformed.
    """
    given: dict[str, str] = {}
    for name, value in parameters.multi_items():
        current = OLD_NAMES.get(name, name)
        if current not in known:
            raise BadInputError(f"{name[:100]!r} is not a parameter: use {', '.join(sorted(known))}")
        if current in given and current not in LISTS:
            raise BadInputError(f"{current} is given twice: give it once")
        given[current] = value.strip()
    given = {name: value for name, value in given.items() if value}
    is_old = known == API_PARAMETERS
    asked: dict[str, Any] = {field: _distinct(parameters.getlist(name)) for name, field in LISTS.items()}
    asked |= {field: given[name] for name, field in TEXTS.items() if name in given}
    asked |= {field: _number(given, name) for name, field in NUMBERS.items() if name in given}
    if "rows" not in given and (is_old or "page" in given):
        asked["rows"] = OLD_ROWS
    if "page" in given:
        asked["start"] = _start(_number(given, "page"), asked.get("rows", SearchRequest.rows))
    if "sort" in given:
        asked["sort"] = _sort(given["sort"])
    if "alike" in given:
        asked["is_one_of_alike"] = _alike(given["alike"])
    if is_old:
        asked["with_pixels"] = "pixels" in given and _number(given, "pixels") > 0
    if given.get("cursor", FIRST_CURSOR) != FIRST_CURSOR:
        asked["cursor"] = given["cursor"]
    search = parse(given.get("q", ""), SearchRequest(**asked))
    if search.sort is Sort.SIMILAR and not search.similar_to:
        raise BadInputError("sort=similar needs a picture to compare with: give its id as to=...")
    return search


def address_parameters(search: SearchRequest) -> list[tuple[str, str]]:
    """Return a search as names and values: of an address, or of the hidden fields of a form."""
    found = [(name, value) for name, field in LISTS.items() for value in getattr(search, field)]
    for name, field in {**NUMBERS, **TEXTS}.items():
        value = getattr(search, field)
        if value != getattr(_NOTHING, field):
            found.append((name, str(value)))
    if search.sort is not _NOTHING.sort:
        found.append(("sort", search.sort.value))
    if search.is_one_of_alike:
        found.append(("alike", "one"))
    if search.cursor:
        found.append(("cursor", search.cursor))
    return found


def page_address(search: SearchRequest, **changes: object) -> str:
    """Return the results page's address for a search; with any change but a cursor it starts at the first page."""
    search = replace(search, **cast(dict[str, Any], {"start": 0, "cursor": None, **changes}))
    return results_address(address_parameters(search))


def tag_addresses(search: SearchRequest) -> Callable[[Iterable[str], Iterable[str]], str]:
    """Return what gives the results page's address for a search with other tags, and without others: soon for many."""
    rest = address_parameters(replace(search, tags=(), without_tags=(), start=0, cursor=None))

    def address(tags: Iterable[str], without: Iterable[str]) -> str:
        return results_address([*(("tag", tag) for tag in tags), *(("without", tag) for tag in without), *rest])

    return address


def results_address(parameters: Iterable[tuple[str, str]]) -> str:
    """Return the results page's address with these parameters."""
    query = urlencode(list(parameters))
    return f"{RESULTS}?{query}" if query else RESULTS


def report_address(model: str) -> str:
    """Return the address of a model's report."""
    return f"/models/{quote(model)}/report"


def _number(given: dict[str, str], name: str) -> int:
    text = given[name]
    if not (text.isascii() and text.isdigit() and len(text) <= 10):
        raise BadInputError(f"{name} must be a whole number, 0 or more (got {text[:100]!r})")
    return int(text)


def _start(page: int, rows: int) -> int:
    if page < 1:
        raise BadInputError("page 0 is out of range: pages are counted from 1")
    return (page - 1) * rows


def _sort(text: str) -> Sort:
    try:
        return Sort(text)
    except ValueError:
        raise BadInputError(f"sort={text[:100]!r} is not an order: use {', '.join(Sort)}") from None


def _alike(text: str) -> bool:
    if text not in ("one", "all"):
        raise BadInputError(f"alike={text[:100]!r} is neither one nor all")
    return text == "one"


def _distinct(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(value.strip() for value in values if value.strip()))
