"""What the API may be asked for: the parameters of the results page's address, each with its type and limits."""

from dataclasses import replace
from typing import Annotated, Any, Literal

from fastapi import Request
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, model_validator

from tinytags_tasks.corpus.keywords import LONGEST
from tinytags_tasks.errors import BadInputError
from tinytags_tasks.search.request import MOST_ASKED_TAGS, MOST_ROWS, MOST_WORDS, SearchRequest, Sort

LONGEST_NAME = 200
LONGEST_CURSOR = 2_000

_WHOLE_DIGITS = 10


def _whole(value: object) -> object:
    """Refuse what only Python takes for a whole number, such as ``1_000``, ``+1`` or ``1.0``."""
    if isinstance(value, str) and not (value.isascii() and value.isdigit() and len(value) <= _WHOLE_DIGITS):
        raise ValueError("must be a whole number, 0 or more")
    return value


Whole = Annotated[int, BeforeValidator(_whole), Field(ge=0, le=2**31 - 1)]
Percent = Annotated[int, BeforeValidator(_whole), Field(ge=0, le=100)]
Rows = Annotated[int, BeforeValidator(_whole), Field(ge=1, le=MOST_ROWS)]
Tag = Annotated[str, StringConstraints(min_length=1, max_length=100)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_NAME)]
KeywordWord = Annotated[str, StringConstraints(min_length=1, max_length=LONGEST)]
Cursor = Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_CURSOR)]


class _Parameters(BaseModel):
    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def leave_out_empty(cls, given: dict[str, Any]) -> dict[str, Any]:
        """Take an empty parameter as absent, because a form of a page without scripts sends all of its fields."""
        kept = {
            name: [one for one in value if one] if isinstance(value, list) else value for name, value in given.items()
        }
        return {name: value for name, value in kept.items() if value not in ("", [])}


class FilterParameters(_Parameters):
    """Which images are meant."""

    tag: list[Tag] = Field([], max_length=MOST_ASKED_TAGS, description="any of these tags, in upper or lower case")
    without: list[Tag] = Field([], max_length=MOST_ASKED_TAGS, description="none of these tags")
    confidence: Percent = Field(0, description="at least this confidence, in percent")
    max_confidence: Percent = Field(100, description="at most this confidence, in percent")
    precision: Percent = Field(0, description="only what reviews measured to be at least this precise, in percent")
    max_precision: Percent = Field(100, description="only what reviews measured to be at most this precise")
    block: Whole | None = Field(None, description="only this block of the corpus")
    # Unicode's NFD has up to four times as many characters as what it is made into.
    keyword: str = Field("", max_length=4 * LONGEST, description="exactly this keyword")
    word: list[KeywordWord] = Field(
        [], max_length=MOST_WORDS, description="all of these words in the keyword; tab* is any word that begins so"
    )
    without_word: list[KeywordWord] = Field([], max_length=MOST_WORDS, description="none of these in the keyword")
    corpus: list[Name] = Field([], max_length=MOST_WORDS, description="only these corpora; default: all that are live")
    run: str = Field("", max_length=LONGEST_NAME, description="a verified run, instead of what is live")
    alike: Literal["all", "one"] = Field("all", description="one: only one of each group of near-duplicates")

    def filters(self) -> dict[str, Any]:
        """Return them as the fields of a request."""
        return {
            "tags": _distinct(self.tag),
            "without_tags": _distinct(self.without),
            "min_confidence": self.confidence,
            "max_confidence": self.max_confidence,
            "min_precision": self.precision,
            "max_precision": self.max_precision,
            "block": self.block,
            "keyword": self.keyword.strip(),
            "words": _distinct(self.word),
            "without_words": _distinct(self.without_word),
            "corpora": _distinct(self.corpus),
            "run": self.run.strip(),
            "is_one_of_alike": self.alike == "one",
        }

    def request(self) -> SearchRequest:
        """Return what is asked for; raises ``BadInputError`` as :class:`SearchRequest`."""
        return SearchRequest(**self.filters(), rows=1)


class SearchParameters(FilterParameters):
    """Which images are meant, in which order, and which page of them."""

    sort: Literal["confidence", "position", "random"] = Field("confidence", description="the order")
    seed: Whole = Field(0, description="which of the random orders")
    rows: Rows = Field(SearchRequest.rows, description="images a page")
    cursor: Cursor | None = Field(None, description="the next_cursor or previous_cursor of a page of the same search")

    def request(self) -> SearchRequest:
        """Return what is asked for; raises ``BadInputError`` as :class:`SearchRequest`."""
        return SearchRequest(**self.filters(), sort=Sort(self.sort), seed=self.seed, rows=self.rows, cursor=self.cursor)


class UploadParameters(FilterParameters):
    """Among which images those are looked for that are most like one, and how many."""

    rows: Rows = Field(SearchRequest.rows, description="images at most")

    def request(self) -> SearchRequest:
        """Return what is asked for; raises ``BadInputError`` as :class:`SearchRequest`, or if it names a run."""
        if self.run.strip():
            raise BadInputError("similar images are looked for in what is live: leave out run")
        return SearchRequest(**self.filters(), sort=Sort.SIMILAR, rows=self.rows)


class SimilarParameters(UploadParameters):
    """As for an upload, and which published image is compared with the others."""

    to: Name = Field(description="the id of a published image")

    def request(self) -> SearchRequest:
        """Return what is asked for; raises as :meth:`UploadParameters.request`."""
        return replace(super().request(), similar_to=self.to)


class PageParameters(_Parameters):
    """Which page of a list."""

    rows: Rows = Field(SearchRequest.rows, description="entries a page")
    cursor: Name | None = Field(None, description="the next_cursor of a page")


class ImageParameters(_Parameters):
    """Where an image is looked for."""

    run: str = Field("", max_length=LONGEST_NAME, description="a verified run, instead of what is live")


class NoParameters(_Parameters):
    """None."""


LISTS = frozenset(
    name for name, field in FilterParameters.model_fields.items() if field.get_default(call_default_factory=True) == []
)
"""Parameters that may be given several times."""


def refuse_repeated(request: Request) -> None:
    """Refuse a parameter that is given twice although it has one value: of which others would only see the last.

    Raises
    ------
    BadInputError
        If there is one.
    """
    seen: set[str] = set()
    for name, _ in request.query_params.multi_items():
        if name in seen and name not in LISTS:
            raise BadInputError(f"{name[:100]} is given twice: give it once")
        seen.add(name)


def _distinct(values: list[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(value.strip() for value in values if value.strip()))
