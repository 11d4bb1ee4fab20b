"""What a reader may ask for, and its limits."""

import unicodedata
from dataclasses import dataclass
from enum import StrEnum

from tinytags_tasks.corpus.keywords import LONGEST, normal_keyword
from tinytags_tasks.derived_fields import split_words
from tinytags_tasks.errors import BadInputError
from tinytags_tasks.tags import LONGEST_TAG

MOST_ROWS = 100
"""Images of a page at most."""

LAST_START = 10_000
"""Where kept addresses with a page's number end; cursors have no end."""

FIRST_CURSOR = "*"
"""The first page, for programs of the old API, which then read on with each page's ``next_cursor``."""

MOST_TAGS = 1_000
"""Tags that are counted."""

MOST_ASKED_TAGS = 50
"""Tags that one search may name, excluded ones included: the page links each of them with all the others."""

MOST_WORDS = 20
"""Words of keywords that one search may name, and corpora; ``tabby-cat`` is two words."""

LAST_SEED = 2**31 - 1


class Sort(StrEnum):
    """The order of what is found."""

    CONFIDENCE = "confidence"
    """The most confident first."""
    POSITION = "position"
    """As in the corpus."""
    RANDOM = "random"
    """Shuffled; the same seed gives the same order."""
    SIMILAR = "similar"
    """The most similar to a picture first."""


@dataclass(frozen=True)
class SearchRequest:
    """What a reader asks for.

    Attributes
    ----------
    tags
        Any of these; empty means all. Upper and lower case make no difference.
    without_tags
        None of these.
    min_confidence, max_confidence
        In percent, 0 to 100, both included.
    min_precision, max_precision
        In percent, 0 to 100: only images whose tag and confidence have meant this, as measured by reviews.
    block
        Only images of this block.
    keyword
        Only images with exactly this keyword; empty means all. It takes the form that documents have, as words do.
    words
        Only images whose keyword has all of these words; ``tab*`` is any word that begins so.
    without_words
        Only images whose keyword has none of these.
    corpora
        Only images of these; empty means all.
    run
        What a verified run found, instead of what is live; empty means what is live.
    sort
        The order.
    seed
        Which of the random orders, 0 to :data:`LAST_SEED`.
    similar_to
        The id of the picture that others are compared with; empty without one.
    is_one_of_alike
        Whether one of each group of near-duplicates is enough.
    rows
        Images of the page, 1 to :data:`MOST_ROWS`.
    start
        Images before the page's first one: only of addresses that were kept from before there were cursors.
    cursor
        The ``next_cursor`` or ``previous_cursor`` of a page of the same search; None for the first page.
    with_pixels
        Whether images come with their pixels.

    Raises
    ------
    BadInputError
        If one of them is out of range.
    """

    tags: tuple[str, ...] = ()
    without_tags: tuple[str, ...] = ()
    min_confidence: int = 0
    max_confidence: int = 100
    min_precision: int = 0
    max_precision: int = 100
    block: int | None = None
    keyword: str = ""
    words: tuple[str, ...] = ()
    without_words: tuple[str, ...] = ()
    corpora: tuple[str, ...] = ()
    run: str = ""
    sort: Sort = Sort.CONFIDENCE
    seed: int = 0
    similar_to: str = ""
    is_one_of_alike: bool = False
    rows: int = 30
    start: int = 0
    cursor: str | None = None
    with_pixels: bool = False

    def __post_init__(self) -> None:
        """Write keywords as documents have them, and refuse values that are out of range."""
        self._write_keywords()
        self._check_names()
        self._check_numbers()
        if self.start and self.sort is Sort.RANDOM:
            raise BadInputError("random orders have no numbered pages: begin at the first page")
        if self.start < 0 or self.start + self.rows > LAST_START:
            raise BadInputError(
                f"numbered pages end at image {LAST_START:,}: begin at the first page, and read on with its cursors"
            )
        if self.cursor is not None and (self.start or not 1 <= len(self.cursor) <= 2_000):
            raise BadInputError(
                "a cursor is the next_cursor or previous_cursor of a page, and takes no page number: "
                "begin again without one"
            )

    def _write_keywords(self) -> None:
        object.__setattr__(self, "keyword", _written(self.keyword))
        for name in ("words", "without_words"):
            object.__setattr__(self, name, tuple(map(_written, getattr(self, name))))

    def _check_names(self) -> None:
        tags = (*self.tags, *self.without_tags)
        if len(tags) > MOST_ASKED_TAGS:
            raise BadInputError(f"{len(tags)} tags are too many: name up to {MOST_ASKED_TAGS}")
        for tag in tags:
            if not can_be_asked_for(tag):
                raise BadInputError(
                    f"{tag[:LONGEST_TAG]!r} is not a tag: a tag has 1 to {LONGEST_TAG} printable characters"
                )
        if self.keyword and not (len(self.keyword) <= LONGEST and self.keyword.isprintable()):
            raise BadInputError(
                f"{self.keyword[:100]!r} is not a keyword: a keyword has up to {LONGEST} printable characters"
            )
        words = (*self.words, *self.without_words)
        if len(words) > MOST_WORDS or len(self.corpora) > MOST_WORDS:
            raise BadInputError(f"too many words or corpora: name up to {MOST_WORDS} of each")
        parts = 0
        for word in words:
            beginning = word.removesuffix("*")
            is_whole = "*" not in beginning and len(word) <= LONGEST and word.isprintable()
            found = split_words(beginning) if is_whole else ()
            if not found:
                raise BadInputError(f"{word[:100]!r} is not a word of a keyword: write a word, or its beginning and *")
            parts += len(found)
        if parts > MOST_WORDS:  # each is a filter of its own
            raise BadInputError(f"{parts} words of keywords are too many: name up to {MOST_WORDS}")
        for name, what in (
            (self.run, "run"),
            (self.similar_to, "picture's id"),
            *((corpus, "corpus") for corpus in self.corpora),
        ):
            if len(name) > 200 or not name.isprintable():
                raise BadInputError(f"{name[:100]!r} is not the name of a {what}")

    def _check_numbers(self) -> None:
        for what, low, high in (
            ("confidence", self.min_confidence, self.max_confidence),
            ("precision", self.min_precision, self.max_precision),
        ):
            for side, percent in (("minimum", low), ("maximum", high)):
                if not 0 <= percent <= 100:
                    raise BadInputError(f"{side} {what} {percent} is out of range: give 0 to 100 percent")
            if low > high:
                raise BadInputError(f"{what} from {low} to {high} is no range: give the lower one first")
        if self.block is not None and not 0 <= self.block < 2**31:
            raise BadInputError(f"block {self.block} is out of range: give its number, 0 or more")
        if not 0 <= self.seed <= LAST_SEED:
            raise BadInputError(f"seed {self.seed} is out of range: give 0 to {LAST_SEED}")
        if not 1 <= self.rows <= MOST_ROWS:
            raise BadInputError(f"{self.rows} images a page is out of range: give 1 to {MOST_ROWS}")

    @property
    def has_precision(self) -> bool:
        """Whether it asks for a precision, which has to be measured for that."""
        return self.min_precision > 0 or self.max_precision < 100

    @property
    def is_filtered(self) -> bool:
        """Whether it asks for less than everything that is published."""
        nothing = SearchRequest(run=self.run, sort=self.sort, seed=self.seed, similar_to=self.similar_to)
        return any(getattr(self, name) != getattr(nothing, name) for name in _FILTERS)


def can_be_asked_for(tag: str) -> bool:
    """Return whether a search can name a tag: indexes from before tags were checked may have others."""
    return 1 <= len(tag) <= LONGEST_TAG and tag.isprintable()


def _written(text: str) -> str:
    """Return a keyword as documents have it; what nobody writes is left as it is, to be refused.

    Without a normal form, a keyword would be empty, which would mean all.
    """
    is_control = any(unicodedata.category(letter) == "Cc" for letter in text)
    return text if is_control else normal_keyword(text) or text


_FILTERS = (
    "tags",
    "without_tags",
    "min_confidence",
    "max_confidence",
    "min_precision",
    "max_precision",
    "block",
    "keyword",
    "words",
    "without_words",
    "corpora",
    "is_one_of_alike",
)
