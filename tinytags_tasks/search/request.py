"""What a reader may ask for, and its limits."""

from dataclasses import dataclass

from tinytags_tasks.corpus.keywords import LONGEST
from tinytags_tasks.errors import BadInputError

MOST_ROWS = 100
"""Images of a page at most."""

LAST_START = 10_000
"""Where paging ends: Solr sorts everything up to the end of a page again, so later pages take ever longer."""

FIRST_CURSOR = "*"
"""Solr's mark for the first page of a cursor."""

MOST_TAGS = 1_000
"""Tags that are counted, and that one search may name."""


@dataclass(frozen=True)
class SearchRequest:
    """What a reader asks for.

    Attributes
    ----------
    tags
        Any of these; empty means all.
    min_confidence
        In percent, 0 to 100.
    min_precision
        In percent, 0 to 100: only images whose tag and confidence have meant at least this, as measured by reviews.
    block
        Only images of this block.
    keyword
        Only images with exactly this keyword; empty means all.
    rows
        Images of the page, 1 to :data:`MOST_ROWS`.
    start
        Images before the page's first one; the page must end by :data:`LAST_START`.
    cursor
        Instead of ``start``: :data:`FIRST_CURSOR`, then the ``next_cursor`` of each page. Has no limit.
    with_pixels
        Whether images come with their pixels.
    similar_to
        A document's id: the images that look most like its own.
    is_one_of_alike
        Whether only one image of each group of near-duplicates is found.

    Raises
    ------
    BadInputError
        If one of them is out of range.
    """

    tags: tuple[str, ...] = ()
    min_confidence: int = 0
    min_precision: int = 0
    block: int | None = None
    keyword: str = ""
    rows: int = 60
    start: int = 0
    cursor: str | None = None
    with_pixels: bool = True
    similar_to: str = ""
    is_one_of_alike: bool = False

    def __post_init__(self) -> None:
        """Refuse values that are out of range."""
        self._check_filters()
        if not 1 <= self.rows <= MOST_ROWS:
            raise BadInputError(f"{self.rows} images a page is out of range: give 1 to {MOST_ROWS}")
        if self.start < 0 or self.start + self.rows > LAST_START:
            raise BadInputError(
                f"paging ends at image {LAST_START:,}: ask for a tag, a block or a higher confidence, "
                "or read on with a cursor"
            )
        if self.cursor is not None and (self.start or not 1 <= len(self.cursor) <= 2_000):
            raise BadInputError(f"a cursor is {FIRST_CURSOR!r} or a next_cursor, and takes no start")

    def _check_filters(self) -> None:
        if len(self.tags) > MOST_TAGS:
            raise BadInputError(f"{len(self.tags)} tags are too many: name up to {MOST_TAGS:,}")
        for tag in self.tags:
            if not (1 <= len(tag) <= 100 and tag.isprintable()):
                raise BadInputError(f"{tag[:100]!r} is not a tag: a tag has 1 to 100 printable characters")
        if not 0 <= self.min_confidence <= 100:
            raise BadInputError(f"minimum confidence {self.min_confidence} is out of range: give 0 to 100 percent")
        if not 0 <= self.min_precision <= 100:
            raise BadInputError(f"minimum precision {self.min_precision} is out of range: give 0 to 100 percent")
        if self.block is not None and not 0 <= self.block < 2**31:
            raise BadInputError(f"block {self.block} is out of range: give its number, 0 or more")
        if self.keyword and not (len(self.keyword) <= LONGEST and self.keyword.isprintable()):
            raise BadInputError(
                f"{self.keyword[:100]!r} is not a keyword: a keyword has up to {LONGEST} printable characters"
            )

    @property
    def is_filtered(self) -> bool:
        """Whether it asks for less than everything that is published."""
        return bool(self.tags or self.min_confidence or self.min_precision or self.block is not None or self.keyword)
