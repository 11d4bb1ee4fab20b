"""Where a picture is in the files that its corpus was read from, as the corpus' listing has it."""

import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

from cachetools import LRUCache

from tinytags_tasks.corpus.listing import StoredListing
from tinytags_tasks.corpus.places import KEPT_LISTINGS, ListedPlaces, SourcePlace
from tinytags_tasks.errors import FinalError, TinyTagsError
from tinytags_tasks.runtime import Runtime
from tinytags_tasks.search.images import TaggedImage
from tinytags_tasks.store.corpus_records import Corpus

PATIENCE_SECONDS = 1.5
"""How long a page waits for a place; it is shown without if that takes longer."""

KEPT_PLACES = 4_096


class SourcePlaces:
    """Looks places up, one at a time; those that were looked up lately are known."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="source-places")
        self._listings: LRUCache[str, StoredListing] = LRUCache(KEPT_LISTINGS)  # used by the pool's one thread only
        self._places: LRUCache[tuple[str, str, int], SourcePlace] = LRUCache(KEPT_PLACES)
        self._lock = threading.Lock()

    def find(self, corpus: Corpus, position: int) -> SourcePlace | None:
        """Return where a picture is; None if that is not known, or not soon enough."""
        key = corpus.digest, corpus.growth, position
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

    def find_all(self, corpus: Corpus, positions: Iterable[int]) -> dict[int, SourcePlace]:
        """Return where pictures are, by position, however long that takes; nothing if it is not known.

        Raises
        ------
        TransientError
            If the store does not answer.
        """
        try:
            return self._pool.submit(lambda: self._listed(corpus).find(positions)).result()
        except FinalError:  # a corpus of an older TinyTags has no listing
            return {}

    def of_images(self, images: Iterable[TaggedImage], corpora: Mapping[str, Corpus]) -> dict[str, SourcePlace]:
        """Return where found pictures are, by the id of their documents; without those whose place is not known.

        Parameters
        ----------
        images
            The pictures.
        corpora
            Their corpora, of the version that was searched.
        """
        by_corpus: dict[str, dict[int, str]] = {}
        for image in images:
            by_corpus.setdefault(image.corpus, {})[image.position] = image.id
        found: dict[str, SourcePlace] = {}
        for name, ids in by_corpus.items():
            if corpus := corpora.get(name):
                found |= {ids[position]: place for position, place in self.find_all(corpus, ids).items()}
        return found

    def _look_up(self, corpus: Corpus, position: int) -> SourcePlace | None:
        return self._listed(corpus).find([position]).get(position)

    def _listed(self, corpus: Corpus) -> ListedPlaces:
        return ListedPlaces(self._runtime.storage, corpus.name, corpus.sources, self._listings)
