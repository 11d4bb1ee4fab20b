"""Corpora as they are in the store now, give or take a few seconds."""

import threading

from cachetools import TTLCache

from tinytags_tasks.runtime import Runtime
from tinytags_tasks.store.corpus_records import Corpus, load_corpus

KNOWN_SECONDS = 3.0
"""How long a corpus' record counts as known."""

_MOST_CORPORA = 100


class PresentCorpora:
    """Reads corpora's records, each at most every few seconds."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._known = TTLCache[str, Corpus](_MOST_CORPORA, KNOWN_SECONDS)
        self._lock = threading.Lock()

    def find(self, name: str) -> Corpus:
        """Return a corpus; raises the errors of :func:`~tinytags_tasks.store.corpus_records.load_corpus`."""
        with self._lock:
            corpus = self._known.get(name)
        if corpus is None:
            corpus = load_corpus(name, self._runtime.storage)
            with self._lock:
                self._known[name] = corpus
        return corpus
