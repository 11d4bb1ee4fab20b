"""Some images of a source, and what is seen in them: pixels, sizes of their own, and keywords."""

import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from PIL import Image

from tinytags_tasks.corpus.definition import CorpusDefinition
from tinytags_tasks.corpus.formats.registry import open_reader
from tinytags_tasks.corpus.keywords import normal_keyword
from tinytags_tasks.corpus.reader import Batch, ListedItem
from tinytags_tasks.corpus.sources.files import SourceFiles

_MOST_KINDS = 100_000
"""Different keywords that are counted: a source may have another one for each image."""


class Sample(Protocol):
    """Chooses images of a source while it is listed; also a :class:`~tinytags_tasks.corpus.reader.Listing` of them."""

    @property
    def positions(self) -> tuple[int, ...]:
        """The positions of the images, in order."""
        ...

    @property
    def ranges(self) -> tuple[tuple[int, int], ...]:
        """The same as ranges, each its first position and how many there are."""
        ...

    def add(self, start: int, item: ListedItem) -> None:
        """Look at the next item, whose first image is at a position."""
        ...

    def items(self, first: int, images: int) -> Iterator[tuple[int, ListedItem]]:
        """See :meth:`tinytags_tasks.corpus.reader.Listing.items`."""
        ...


class RangeSample:
    """The images from a position on.

    Parameters
    ----------
    first, wanted
        The position, and how many images.
    """

    def __init__(self, first: int, wanted: int) -> None:
        self._first, self._stop = first, first + wanted
        self._items: list[tuple[int, ListedItem]] = []

    def add(self, start: int, item: ListedItem) -> None:
        """See :meth:`Sample.add`."""
        if item.images and start < self._stop and start + item.images > self._first:
            self._items.append((start, item))

    @property
    def positions(self) -> tuple[int, ...]:
        """See :attr:`Sample.positions`."""
        return tuple(range(self._first, min(self._stop, self._listed_to)))

    @property
    def ranges(self) -> tuple[tuple[int, int], ...]:
        """See :attr:`Sample.ranges`."""
        return ((self._first, len(self.positions)),)

    @property
    def _listed_to(self) -> int:
        return self._items[-1][0] + self._items[-1][1].images if self._items else 0

    @property
    def images(self) -> int:
        """How many images the items have."""
        return sum(item.images for _, item in self._items)

    def items(self, first: int, images: int) -> Iterator[tuple[int, ListedItem]]:
        """See :meth:`Sample.items`."""
        yield from _overlapping(self._items, first, images)


class RandomSample:
    """Images at random, each position as likely as any other; fewer if one is drawn twice.

    Parameters
    ----------
    wanted
        How many.
    """

    def __init__(self, wanted: int) -> None:
        self._drawn: list[tuple[int, int, ListedItem]] = []
        self._wanted = wanted
        self._random = np.random.default_rng()

    def add(self, start: int, item: ListedItem) -> None:
        """See :meth:`Sample.add`: each draw is replaced as often as keeps it even over all that was listed."""
        if not item.images:
            return
        listed = start + item.images
        if not self._drawn:
            self._drawn = [(start, start, item)] * self._wanted
        drawn = self._random.integers(listed, size=self._wanted)
        for place in np.flatnonzero(drawn >= start).tolist():
            self._drawn[place] = (int(drawn[place]), start, item)

    @property
    def positions(self) -> tuple[int, ...]:
        """See :attr:`Sample.positions`."""
        return tuple(sorted({at for at, _, _ in self._drawn}))

    @property
    def ranges(self) -> tuple[tuple[int, int], ...]:
        """See :attr:`Sample.ranges`."""
        return tuple((at, 1) for at in self.positions)

    def items(self, first: int, images: int) -> Iterator[tuple[int, ListedItem]]:
        """See :meth:`Sample.items`."""
        yield from _overlapping(sorted({start: item for _, start, item in self._drawn}.items()), first, images)


def _overlapping(items: list[tuple[int, ListedItem]], first: int, images: int) -> Iterator[tuple[int, ListedItem]]:
    for start, item in items:
        if images > 0 and start < first + images and first < start + item.images:
            yield start, item


@dataclass(frozen=True)
class FoundKeywords:
    """What a source calls its images.

    Attributes
    ----------
    where
        What ``keywords`` of the definition is or may be; empty if nothing is known.
    counts
        How many images have each, the most frequent first.
    images
        Among how many images they were counted.
    possible
        What else ``keywords`` may be.
    """

    where: str = ""
    counts: tuple[tuple[str, int], ...] = ()
    images: int = 0
    possible: tuple[str, ...] = ()


class KeywordCounts:
    """Counts the keywords that the listing of a source has: those of folders and of tars."""

    def __init__(self) -> None:
        self.where = ""
        self._counts: Counter[str] = Counter()
        self._images = 0

    def add_listed(self, definition: CorpusDefinition, item: ListedItem) -> None:
        """Look at an item of the listing; pictures in folders may have keywords although the definition has none."""
        keyword, where = item.keyword, definition.keywords
        if definition.format == "folder" and not where:
            keyword, where = item.path.rpartition("/")[0].partition("/")[0], "folder"
        self._images += item.images
        if keyword and (keyword := normal_keyword(keyword)):
            self.where = where
            if keyword in self._counts or len(self._counts) < _MOST_KINDS:
                self._counts[keyword] += item.images

    def joined(self, read: "FoundKeywords", possible: tuple[str, ...]) -> FoundKeywords:
        """Return the keywords of the listing; if it has none, those that were read with the images."""
        found = read
        if self._counts:
            found = FoundKeywords(self.where, tuple(self._counts.most_common()), self._images)
        others = tuple(other for other in possible if other != found.where)
        return replace(found, possible=others if found.counts else possible)


def with_possible_keywords(
    definition: CorpusDefinition, possible: tuple[str, ...], listed: KeywordCounts
) -> CorpusDefinition:
    """Return a definition with the first of the keywords that its source may have, if it has none."""
    if definition.keywords or listed.where or not possible:
        return definition
    return definition.model_copy(update={"keywords": possible[0]})


class Seen:
    """What is seen in the images of a sample.

    Parameters
    ----------
    definition
        The corpus.
    positions
        Of the images that are shown.

    Attributes
    ----------
    shown
        uint8, shape (images, height, width, 3); unreadable images are zeros.
    unreadable
        Why images are unreadable, by position.
    histogram
        int64, shape (3, 256): how often each byte occurs in R, G and B of the readable images.
    sizes
        How many pictures have a size of their own, such as ``640x480``.
    keywords
        Those that were read with the images.
    """

    def __init__(self, definition: CorpusDefinition, positions: tuple[int, ...]) -> None:
        self._places = {position: place for place, position in enumerate(positions)}
        self.shown = np.zeros((len(positions), definition.height, definition.width, 3), dtype=np.uint8)
        self.unreadable: dict[int, str] = {}
        self.histogram = np.zeros((3, 256), dtype=np.int64)
        self.sizes: Counter[str] = Counter()
        self.keywords = FoundKeywords()
        self._counts: Counter[str] = Counter()

    def read(self, definition: CorpusDefinition, files: SourceFiles, sample: Sample) -> None:
        """Read the images."""
        reader = open_reader(definition, files, sample)
        try:
            for first, images in sample.ranges:
                for batch in reader.batches(first, images):
                    self._add(batch)
        finally:
            reader.close()
        if self._counts:
            counts = tuple(self._counts.most_common())
            self.keywords = FoundKeywords(definition.keywords, counts, len(sample.positions))

    def _add(self, batch: Batch) -> None:
        assert batch.pixels is not None  # noqa: S101 - they were requested
        for offset in range(batch.images):
            if (place := self._places.get(batch.first + offset)) is not None:
                self.shown[place] = batch.pixels[offset]
        self.unreadable |= batch.unreadable
        readable = np.delete(batch.pixels, [position - batch.first for position in batch.unreadable], axis=0)
        for channel in range(3):
            self.histogram[channel] += np.bincount(readable[..., channel].ravel(), minlength=256)
        self.sizes.update(size for encoded in batch.encoded if (size := _size_of(encoded)))
        self._counts.update(normal for keyword in batch.keywords if keyword and (normal := normal_keyword(keyword)))


def _size_of(encoded: bytes) -> str:
    """Return the width and height that a picture's head names; empty if it cannot be read."""
    try:
        with Image.open(io.BytesIO(encoded)) as picture:
            return f"{picture.width}x{picture.height}"
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return ""
