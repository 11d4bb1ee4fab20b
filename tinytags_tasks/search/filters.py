"""What results can be narrowed by, beside them: chips of what is asked for, tags with counts, and ranges."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import sqrt

from tinytags_tasks.search.address import page_address, tag_addresses
from tinytags_tasks.search.grammar import chips
from tinytags_tasks.search.query import SearchPage
from tinytags_tasks.search.request import MOST_ASKED_TAGS, SearchRequest

USUAL_LEAST = 40
"""Where the range of confidence begins, in percent, if nothing below is kept."""

HISTOGRAM_HEIGHT = 40.0
_LOWEST_BAR = 1.5
"""Of a confidence with any image, so that it is seen."""

_MARKS = 5


@dataclass(frozen=True)
class Chip:
    """A part of a search, and the address of the search without it."""

    label: str
    href: str
    is_without: bool = False


@dataclass(frozen=True)
class TagChoice:
    """A tag among the filters; its addresses take it in or leave it, and exclude it or do not."""

    label: str
    count: int
    is_chosen: bool
    is_without: bool
    href: str
    without_href: str


@dataclass(frozen=True)
class Bar:
    """A bar of a histogram: the images with one confidence."""

    percent: int
    count: int
    height: float
    is_inside: bool


@dataclass(frozen=True)
class Range:
    """A range from one percentage to another, to be changed at both ends."""

    least: int
    low: int
    high: int
    bars: tuple[Bar, ...] = ()

    @property
    def marks(self) -> list[int]:
        """Percentages that are written below it."""
        return [round(self.least + (100 - self.least) * step / (_MARKS - 1)) for step in range(_MARKS)]


def make_chips(search: SearchRequest) -> list[Chip]:
    """Return the parts of a search as they are written in the search box; removing one keeps the others."""
    return [Chip(chip.text, page_address(chip.without), is_without=chip.text.startswith("-")) for chip in chips(search)]


def make_tag_choices(search: SearchRequest, counts: Mapping[str, int]) -> list[TagChoice]:
    """Return the tags that were found and those that are asked for: chosen and excluded ones first, then by count.

    If a search can name no more tags, only those that it names are returned.
    """
    known = {tag.casefold(): tag for tag in counts}
    chosen = {known.get(tag.casefold(), tag) for tag in search.tags}
    without = {known.get(tag.casefold(), tag) for tag in search.without_tags}
    choices = []
    address = tag_addresses(search)
    is_full = len(search.tags) + len(search.without_tags) >= MOST_ASKED_TAGS
    for tag in {*chosen, *without} if is_full else {*counts, *chosen, *without}:
        left, not_without = _others(search.tags, tag), _others(search.without_tags, tag)
        more_without = not_without if tag in without else (*not_without, tag)
        choices.append(
            TagChoice(
                label=tag,
                count=counts.get(tag, 0),
                is_chosen=tag in chosen,
                is_without=tag in without,
                href=address(left if tag in chosen else (*left, tag), not_without),
                without_href=address(left, more_without),
            )
        )
    return sorted(choices, key=lambda one: (not (one.is_chosen or one.is_without), -one.count, one.label))


def _others(tags: Iterable[str], tag: str) -> tuple[str, ...]:
    return tuple(other for other in tags if other.casefold() != tag.casefold())


def confidence_range(search: SearchRequest, page: SearchPage) -> Range:
    """Return the range of confidence with how many images have each, whatever range is asked for."""
    counts = page.confidence_counts
    asked = (search.min_confidence,) if search.min_confidence else ()
    least = min((USUAL_LEAST, search.max_confidence, *asked, *counts))
    low = max(least, search.min_confidence)
    most = max(counts.values(), default=0)
    bars = tuple(
        Bar(percent, count, _height(count, most), low <= percent <= search.max_confidence)
        for percent in range(least, 101)
        for count in (counts.get(percent, 0),)
    )
    return Range(least, low, search.max_confidence, bars if most else ())


def precision_range(search: SearchRequest) -> Range:
    """Return the range of measured precision."""
    return Range(0, search.min_precision, search.max_precision)


def _height(count: int, most: int) -> float:
    """Return a bar's height: the square root, so that what is rare is seen beside what is frequent."""
    return round(max(_LOWEST_BAR, HISTOGRAM_HEIGHT * sqrt(count / most)), 1) if count else 0.0
