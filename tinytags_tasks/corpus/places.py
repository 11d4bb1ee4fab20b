"""Where images are in the files that their corpus was read from, as the corpus' listing has it."""

from collections.abc import Iterable, Iterator, MutableMapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import numpy.typing as npt
from cachetools import LRUCache

from tinytags_tasks.corpus.listing import StoredListing, open_listing
from tinytags_tasks.corpus.reader import ListedItem
from tinytags_tasks.store import layout
from tinytags_tasks.store.corpus_records import Source
from tinytags_tasks.store.protocol import Storage

KEPT_LISTINGS = 8


@dataclass(frozen=True)
class SourcePlace:
    """Where an image is in its corpus' source.

    Attributes
    ----------
    source
        The source's path or address.
    path
        The file, as the source names it.
    number, images
        Which of the file's images it is, from 0, and how many the file has.
    offset, size_bytes
        Where the image's own bytes begin in the file, and how many there are; of the whole file if that has more
        images than one.
    member
        The name of the image in the file, if that is a tar.
    """

    source: str
    path: str
    number: int
    images: int
    offset: int
    size_bytes: int
    member: str = ""

    @property
    def name(self) -> str:
        """What the file calls the image: a member's name, or its number; empty if the file is the image."""
        return self.member or (str(self.number) if self.images > 1 else "")

    def __str__(self) -> str:
        """Return it for people."""
        if self.member:
            return f"{self.path}, member {self.member}"
        if self.images > 1:
            return f"{self.path}, image {self.number:,} of {self.images:,} (from 0)"
        if self.offset:
            return f"{self.path}, {self.size_bytes:,} bytes from byte {self.offset:,}"
        return self.path


class ListedPlaces:
    """Looks up the places of a corpus' images; not for several threads at once.

    Parameters
    ----------
    storage
        The store.
    corpus
        The corpus' name.
    sources
        What it was read from, in the order of the positions: what it began with, and what was appended each time.
    listings
        Listings that are open already, by their paths; it is added to. None for those of this object alone.
    """

    def __init__(
        self,
        storage: Storage,
        corpus: str,
        sources: Sequence[Source],
        listings: MutableMapping[str, StoredListing] | None = None,
    ) -> None:
        self._storage = storage
        self._corpus = corpus
        self._sources = sources
        self._begins = [0, *accumulate(source.images for source in sources)][:-1]
        self._listings: MutableMapping[str, StoredListing] = LRUCache(KEPT_LISTINGS) if listings is None else listings

    def find(self, positions: Iterable[int]) -> dict[int, SourcePlace]:
        """Return where images are, by position; without those that are in no file.

        Raises
        ------
        MissingError, CorruptError
            If a listing is missing, as that of a corpus of an older TinyTags is, or damaged.
        """
        found: dict[int, SourcePlace] = {}
        for source, begin, own in self._by_source(np.unique(np.fromiter(positions, np.int64))):
            items = self._listing(source).find(own)
            found |= {begin + at: _place(source, at, first, item) for at, (first, item) in items.items()}
        return found

    def walk(self, positions: npt.NDArray[np.int64]) -> Iterator[tuple[int, SourcePlace]]:
        """Yield what :meth:`find` returns, for however many positions: listings are read once, from front to back.

        Parameters
        ----------
        positions
            In ascending order, each once.

        Raises
        ------
        MissingError, CorruptError
            As :meth:`find`.
        """
        for source, begin, own in self._by_source(positions):
            for at, first, item in self._listing(source).walk(own):
                yield begin + at, _place(source, at, first, item)

    def _by_source(self, positions: npt.NDArray[np.int64]) -> Iterator[tuple[Source, int, npt.NDArray[np.int64]]]:
        """Yield the sources that have some of the positions, where each begins, and its own positions from there."""
        for source, begin in zip(self._sources, self._begins, strict=True):
            own = positions[(positions >= begin) & (positions < begin + source.images)] - begin
            if own.size:
                yield source, begin, own

    @property
    def groups(self) -> int:
        """How many groups of rows its listings have together.

        Raises
        ------
        MissingError, CorruptError
            As :meth:`find`.
        """
        return sum(self._listing(source).groups for source in self._sources)

    def _listing(self, source: Source) -> StoredListing:
        path = layout.source_file(self._corpus, source.listing_sha256)
        listing = self._listings.get(path)
        if listing is None:
            listing = self._listings[path] = open_listing(self._storage, path)
        return listing


def _place(source: Source, at: int, first: int, item: ListedItem) -> SourcePlace:
    return SourcePlace(source.path, item.path, at - first, item.images, item.offset, item.size_bytes, item.member or "")
