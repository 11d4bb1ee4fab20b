"""The keywords of pictures that are about to be shown; a picture is shown without its own if that takes too long."""

import time
from collections.abc import Iterable

from cachetools import LRUCache

from tinytags_tasks.errors import TinyTagsError
from tinytags_tasks.review.draw import Drawn
from tinytags_tasks.store.block_files import KeywordsReader, block_sources
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.protocol import Storage

PATIENCE_SECONDS = 1.0
"""How long reading the keywords of some pictures may take: each shard's are one file."""

_KEPT = 10_000


class PictureKeywords:
    """Finds keywords by position; one thread at a time may read.

    Parameters
    ----------
    corpus
        The corpus.
    storage
        The store.
    """

    def __init__(self, corpus: Corpus, storage: Storage) -> None:
        self._corpus = corpus
        self._storage = storage
        self._reader = KeywordsReader(storage)
        self._known: LRUCache[int, str] = LRUCache(_KEPT)

    def get(self, position: int) -> str:
        """Return a picture's keyword; empty if it has none, or none was read."""
        return self._known.get(position, "")

    def read(self, pictures: Iterable[Drawn]) -> None:
        """Read the keywords of pictures, as many as there is time for."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        for picture in sorted(pictures, key=lambda picture: picture.position):
            if time.monotonic() > deadline:
                return
            try:
                (source,) = block_sources(self._storage, self._corpus, [picture.block])
                keywords = self._reader.read(source)
            except TinyTagsError:  # a picture can be looked at without its keyword
                return
            if keywords is None:  # the corpus has none
                return
            self._known[picture.position] = keywords[picture.position - source.first] or ""
