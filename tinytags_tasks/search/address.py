"""A search as the address of the page and the API, both ways."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, cast
from urllib.parse import urlencode

from starlette.datastructures import QueryParams

from tinytags_tasks.errors import BadInputError
from tinytags_tasks.search.request import SearchRequest

PAGE_PARAMETERS = frozenset({"tag", "confidence", "precision", "block", "keyword", "rows", "page"})
API_PARAMETERS = PAGE_PARAMETERS | {"cursor", "pixels"}

OLD_NAMES = {"accuracy": "confidence"}
"""Former names of parameters, which stay valid because people have kept addresses."""


def read_address(parameters: QueryParams, known: frozenset[str]) -> SearchRequest:
    """Return what an address asks for; an empty parameter counts as absent.

    Raises
    ------
    BadInputError
        If a parameter is unknown, given twice or malformed.
    """
    given: dict[str, str] = {}
    for name, value in parameters.multi_items():
        current = OLD_NAMES.get(name, name)
        if current not in known:
            raise BadInputError(f"{name[:100]!r} is not a parameter: use {', '.join(sorted(known))}")
        if current in given and current != "tag":
            raise BadInputError(f"{current} is given twice: give it once")
        given[current] = value
    rows = _number(given, "rows", SearchRequest.rows)
    block = _number(given, "block", -1)
    page = _number(given, "page", 1)
    if page < 1:
        raise BadInputError("page 0 is out of range: pages are counted from 1")
    return SearchRequest(
        tags=_distinct(parameters.getlist("tag")),
        min_confidence=_number(given, "confidence", 0),
        min_precision=_number(given, "precision", 0),
        block=None if block < 0 else block,
        keyword=given.get("keyword", "").strip(),
        rows=rows,
        start=(page - 1) * rows,
        cursor=given.get("cursor") or None,
        with_pixels="pixels" not in known or _number(given, "pixels", 0) > 0,
    )


def page_address(search: SearchRequest, **changes: object) -> str:
    """Return the page's address for a search; any change but that of the page starts at the first page again."""
    search = replace(search, **cast(dict[str, Any], {"start": 0, **changes}))
    parameters: list[tuple[str, str | int]] = [("tag", tag) for tag in search.tags]
    if search.min_confidence:
        parameters.append(("confidence", search.min_confidence))
    if search.min_precision:
        parameters.append(("precision", search.min_precision))
    if search.block is not None:
        parameters.append(("block", search.block))
    if search.keyword:
        parameters.append(("keyword", search.keyword))
    if search.rows != SearchRequest.rows:
        parameters.append(("rows", search.rows))
    if search.start:
        parameters.append(("page", search.start // search.rows + 1))
    return "/?" + urlencode(parameters) if parameters else "/"


def _number(given: dict[str, str], name: str, default: int) -> int:
    text = given.get(name, "").strip()
    if text and not (text.isascii() and text.isdigit() and len(text) <= 10):
        raise BadInputError(f"{name} must be a whole number, 0 or more (got {text[:100]!r})")
    return int(text) if text else default


def _distinct(tags: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(tag for tag in tags if tag))
