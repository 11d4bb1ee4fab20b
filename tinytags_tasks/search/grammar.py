"""The search box's language: ``cat dog confidence:70-90 word:tab* -truck corpus:demo sort:random``, both ways.

A text is words separated by spaces. A word without a name is a tag; ``name:value`` says anything else. ``-`` before a
tag or before ``word:`` excludes it. Quotes hold a value together, and make a tag of what would mean something else::

    "hot dog"   keyword:"tabby, tabby cat"   -"-odd"   "sort:of"

:func:`parse` and :func:`write` are inverse: what is written reads as the same search.
"""

import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from tinytags_tasks.errors import BadInputError
from tinytags_tasks.near_names import nearest
from tinytags_tasks.search.request import SearchRequest, Sort

MOST_CHARACTERS = 5_000

NEVER_SHOWN = "takendown"
"""``-takendown`` may be written, and changes nothing: pictures that were taken down are never found."""

_TERM = re.compile(
    r'(?P<minus>-?+)(?:(?P<name>[^\s":]+):)?+(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<bare>[^\s"]+))(?=\s|$)'
)
_RANGE = re.compile(r"(?P<low>\d{1,3})?(?P<dash>-)?(?P<high>\d{1,3})?", re.ASCII)
_NUMBER = re.compile(r"\d{1,10}", re.ASCII)


class GrammarError(BadInputError):
    """A word of a search that cannot be understood.

    Parameters
    ----------
    message
        What is wrong, and what to write instead.
    start, end
        Where the word is in the text: the first character, and the one after the last.
    """

    def __init__(self, message: str, start: int, end: int) -> None:
        super().__init__(message)
        self.start = start
        self.end = end


@dataclass(frozen=True)
class Chip:
    """One condition of a search.

    Attributes
    ----------
    text
        As it is written in the search box.
    without
        The search without it, on its first page.
    """

    text: str
    without: SearchRequest


def parse(text: str, base: SearchRequest | None = None) -> SearchRequest:
    """Return the search that a text asks for.

    Parameters
    ----------
    text
        What somebody wrote into the search box.
    base
        A search that this adds to: tags, words and corpora join its own, anything else takes the place of its own.

    Raises
    ------
    GrammarError
        If a word cannot be understood, or is out of range.
    """
    if len(text) > MOST_CHARACTERS:
        raise GrammarError(f"the search is too long: write up to {MOST_CHARACTERS:,} characters", 0, len(text))
    text = unicodedata.normalize("NFC", text)
    base = base or SearchRequest()
    singles: dict[str, Any] = {}
    search = base
    at = 0
    while at < len(text):
        if text[at].isspace():
            at += 1
            continue
        found = _TERM.match(text, at)
        if found is None:
            raise _unreadable(text, at)
        for name, value in _meaning(found).items():
            if not isinstance(value, tuple):
                if singles.setdefault(name, value) != value:
                    raise GrammarError(f"{found[0]} says otherwise than before: write it once", *found.span())
            else:
                value = tuple(dict.fromkeys((*getattr(search, name), *value)))
            search = _changed(search, {name: value}, found)
        at = found.end()
    return search


def write(search: SearchRequest) -> str:
    """Return a search as a text that :func:`parse` reads; how many pictures a page has is no part of it."""
    return " ".join(chip.text for chip in chips(search))


def chips(search: SearchRequest) -> tuple[Chip, ...]:
    """Return the conditions of a search one by one, each with the search that lacks it."""
    nothing = SearchRequest()
    first_page = replace(search, cursor=None, start=0)
    found = []
    for field, prefix in _LISTS.items():
        values: tuple[str, ...] = getattr(search, field)
        for value in values:
            others = tuple(other for other in values if other != value)
            found.append(Chip(prefix + _quoted(value, is_tag=":" not in prefix), _with(first_page, {field: others})))
    for name, (fields, say) in _SINGLES.items():
        if any(getattr(search, field) != getattr(nothing, field) for field in fields):
            without = _with(first_page, {field: getattr(nothing, field) for field in fields})
            if fields == ("similar_to",) and without.sort is Sort.SIMILAR:
                without = replace(without, sort=nothing.sort)
            found.append(Chip(f"{name}:{say(search)}", without))
    return tuple(found)


def _meaning(found: re.Match[str]) -> dict[str, Any]:
    """Return the fields of a request that a word fills."""
    is_quoted = found["quoted"] is not None
    value = re.sub(r"\\(.)", r"\1", found["quoted"]) if is_quoted else found["bare"]
    name = (found["name"] or "tag").casefold()
    if found["minus"]:
        if name == "tag" and not is_quoted and value.casefold() == NEVER_SHOWN:
            return {}
        if name not in ("tag", "word"):
            raise GrammarError(f"{found[0]}: only tags and words can be excluded", *found.span())
        return {f"without_{name}s": (value,)}
    read = _READ.get(name)
    if read is None:
        near = nearest(name, _READ)
        meant = f"did you mean {near[0]}:? " if near else ""
        raise GrammarError(
            f'{name}: is not known: {meant}use {", ".join(f"{known}:" for known in _READ)} or, for a tag, "{found[0]}"',
            *found.span(),
        )
    try:
        return read(value)
    except BadInputError as error:
        raise GrammarError(f"{found[0]}: {error}", *found.span()) from error


def _changed(search: SearchRequest, change: Mapping[str, Any], found: re.Match[str]) -> SearchRequest:
    try:
        return _with(search, change)
    except BadInputError as error:
        raise GrammarError(f"{found[0][:100]}: {error}", *found.span()) from error


def _with(search: SearchRequest, change: Mapping[str, Any]) -> SearchRequest:
    return replace(search, **change)


def _unreadable(text: str, at: int) -> GrammarError:
    end = next((place for place in range(at, len(text)) if text[place].isspace()), len(text))
    word = text[at:end]
    if '"' not in word:
        return GrammarError(f"{word[:100]}: a value is missing", at, end)
    if text.count('"', at) % 2:
        return GrammarError(f"{word[:100]}: the quote does not end", at, len(text))
    return GrammarError(f"{word[:100]}: put quotes around the whole value, and a space after it", at, end)


def _list(field: str) -> Callable[[str], dict[str, Any]]:
    return lambda value: {field: (value,)}


def _text(field: str) -> Callable[[str], dict[str, Any]]:
    return lambda value: {field: value}


def _number(field: str) -> Callable[[str], dict[str, Any]]:
    def read(value: str) -> dict[str, Any]:
        if not _NUMBER.fullmatch(value):
            raise BadInputError("write a whole number, 0 or more")
        return {field: int(value)}

    return read


def _range(name: str) -> Callable[[str], dict[str, Any]]:
    def read(value: str) -> dict[str, Any]:
        found = _RANGE.fullmatch(value)
        if found is None or not (found["low"] or found["high"]):
            raise BadInputError("write percentages such as 70-90, 70- or -90")
        low, high = int(found["low"] or 0), int(found["high"] or 100)
        if low > high or high > 100:
            raise BadInputError("write percentages from 0 to 100, the lower one first")
        return {f"min_{name}": low, f"max_{name}": high}

    return read


def _sort(value: str) -> dict[str, Any]:
    try:
        return {"sort": Sort(value.casefold())}
    except ValueError:
        raise BadInputError(f"an order is {', '.join(Sort)}") from None


def _alike(value: str) -> dict[str, Any]:
    if value not in ("one", "all"):
        raise BadInputError("write one or all")
    return {"is_one_of_alike": value == "one"}


def _quoted(value: str, is_tag: bool = False) -> str:
    is_plain = re.fullmatch(r'[^\s":\\-][^\s":\\]*' if is_tag else r'[^\s"\\]+', value)
    if is_plain and value.casefold() != NEVER_SHOWN:
        return value
    return '"' + re.sub(r'(["\\])', r"\\\1", value) + '"'


def _say_range(name: str) -> Callable[[SearchRequest], str]:
    def say(search: SearchRequest) -> str:
        low, high = getattr(search, f"min_{name}"), getattr(search, f"max_{name}")
        return f"{low}-" if high == 100 else f"{low}-{high}"

    return say


_READ: dict[str, Callable[[str], dict[str, Any]]] = {
    "tag": _list("tags"),
    "word": _list("words"),
    "keyword": _text("keyword"),
    "confidence": _range("confidence"),
    "precision": _range("precision"),
    "block": _number("block"),
    "corpus": _list("corpora"),
    "run": _text("run"),
    "similar": _text("similar_to"),
    "sort": _sort,
    "seed": _number("seed"),
    "alike": _alike,
}
_LISTS = {
    "tags": "",
    "without_tags": "-",
    "words": "word:",
    "without_words": "-word:",
    "corpora": "corpus:",
}
_SINGLES: dict[str, tuple[tuple[str, ...], Callable[[SearchRequest], str]]] = {
    "keyword": (("keyword",), lambda search: _quoted(search.keyword)),
    "confidence": (("min_confidence", "max_confidence"), _say_range("confidence")),
    "precision": (("min_precision", "max_precision"), _say_range("precision")),
    "block": (("block",), lambda search: str(search.block)),
    "run": (("run",), lambda search: _quoted(search.run)),
    "similar": (("similar_to",), lambda search: _quoted(search.similar_to)),
    "alike": (("is_one_of_alike",), lambda _: "one"),
    "sort": (("sort",), lambda search: search.sort.value),
    "seed": (("seed",), lambda search: str(search.seed)),
}
