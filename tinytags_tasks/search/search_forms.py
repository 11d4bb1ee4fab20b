"""What the forms of the search page send, as the search that it means; its address is then the usual one."""

from dataclasses import replace
from typing import Any

from starlette.datastructures import QueryParams

from tinytags_tasks.errors import BadInputError
from tinytags_tasks.search.address import PAGE_PARAMETERS, read_address
from tinytags_tasks.search.grammar import parse
from tinytags_tasks.search.request import SearchRequest

TEXT = "q"
"""A whole search as text."""

RANGES = ("confidence", "precision")
ENDS = ("from", "to")
WORDS = "words"
"""Words of the keyword, with those that it must not have after a minus."""

LEAST = "least"
"""Where the form's range of confidence began: an end that was left there asks for nothing."""

FIELDS = frozenset({TEXT, WORDS, LEAST, *(f"{name}_{end}" for name in RANGES for end in ENDS)})
"""Parameters that only forms send: an address with one of them is read, and then left for the usual one."""


def is_form(parameters: QueryParams) -> bool:
    """Return whether a form sent these parameters."""
    return any(name in FIELDS for name in parameters)


def read_form(parameters: QueryParams) -> SearchRequest:
    """Return the search that a form of the page means.

    Raises
    ------
    BadInputError
        If it cannot be read; a ``GrammarError`` says which word of the text is wrong.
    """
    usual = QueryParams([(name, value) for name, value in parameters.multi_items() if name not in FIELDS])
    search = read_address(usual, PAGE_PARAMETERS)
    changes: dict[str, Any] = {"cursor": None, "start": 0}
    if text := _only(parameters, TEXT):
        search = parse(text, SearchRequest(rows=search.rows))
    least = _percent(parameters, LEAST) if LEAST in parameters else 0
    for name in RANGES:
        if all(f"{name}_{end}" in parameters for end in ENDS):
            # Without scripts, one end can be moved past the other: the range between them is meant.
            low, high = sorted(_percent(parameters, f"{name}_{end}") for end in ENDS)
            changes[f"min_{name}"] = 0 if name == "confidence" and low <= least else low
            changes[f"max_{name}"] = high
    if WORDS in parameters:
        changes |= _words(_only(parameters, WORDS))
    return replace(search, **changes)


def words_as_text(search: SearchRequest) -> str:
    """Return the words of the keyword as the form shows them."""
    return " ".join((*search.words, *(f"-{word}" for word in search.without_words)))


def _words(text: str) -> dict[str, tuple[str, ...]]:
    words = dict.fromkeys(text.split())
    return {
        "words": tuple(word for word in words if not word.startswith("-")),
        "without_words": tuple(word[1:] for word in words if word.startswith("-") and word != "-"),
    }


def _only(parameters: QueryParams, name: str) -> str:
    values = parameters.getlist(name)
    if len(values) > 1:
        raise BadInputError(f"{name} is given twice: give it once")
    return values[0].strip() if values else ""


def _percent(parameters: QueryParams, name: str) -> int:
    text = _only(parameters, name)
    if not (text.isascii() and text.isdigit() and len(text) <= 3 and int(text) <= 100):
        raise BadInputError(f"{name} must be a whole number from 0 to 100 (got {text[:100]!r})")
    return int(text)
