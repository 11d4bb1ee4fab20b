"""Where a picture is in the files that its corpus was read from, as the corpus' listing has it."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from cachetools import LRUCache

from tinytags_tasks.corpus.listing import StoredListing, open_listing
from tinytags_tasks.errors import TinyTagsError
from tinytags_tasks.runtime import Runtime
from tinytags_tasks.store import layout
from tinytags_tasks.store.corpus_records import Corpus

PATIENCE_SECONDS = 1.5
"""How long a page waits for a place; it is shown without if that takes longer."""

KEPT_PLACES = 4_096
KEPT_LISTINGS = 8


@dataclass(frozen=True)
class SourcePlace:
    """Where a picture is in its corpus' source.

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
    """

    source: str
    path: str
    number: int
    images: int
    offset: int
    size_bytes: int

    def __str__(self) -> str:
        """Return it for people."""
        if self.images > 1:
            return f"{self.path}, image {self.number:,} of {self.images:,} (from 0)"
        if self.offset:
            return f"{self.path}, {self.size_bytes:,} bytes from byte {self.offset:,}"
        return self.path


class SourcePlaces:
    """Looks places up, one at a time; those that were looked up lately are known."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="source-places")
        self._listings: LRUCache[str, StoredListing] = LRUCache(KEPT_LISTINGS)  # used by the pool's one thread only
        self._places: LRUCache[tuple[str, int], SourcePlace] = LRUCache(KEPT_PLACES)
        self._lock = threading.Lock()

    def find(self, corpus: Corpus, position: int) -> SourcePlace | None:
        """Return where a picture is; None if that is not known, or not soon enough."""
        key = corpus.digest, position
        with self._lock:
            known = self._places.get(key)
        if known is not None:
            return known
        future = self._pool.submit(self._look_up, corpus, position)
        try:
            place = future.result(PATIENCE_SECONDS)
        except TimeoutError:
            future.cancel()
            return None
        except TinyTagsError:  # a corpus of an older TinyTags has no listing
            return None
        if place is not None:
            with self._lock:
                self._places[key] = place
        return place

    def _look_up(self, corpus: Corpus, position: int) -> SourcePlace | None:
        source, begin = corpus.source_at(position)
        path = layout.source_file(corpus.name, source.listing_sha256)
        listing = self._listings.get(path)
        if listing is None:
            listing = self._listings[path] = open_listing(self._runtime.storage, path)
        for first, item in listing.items(position - begin, 1):
            return SourcePlace(
                source.path, item.path, position - begin - first, item.images, item.offset, item.size_bytes
            )
        return None
