"""Reports how far the embedding of a corpus is: files appear in the store while Spark's job runs."""

import threading
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager, suppress

from tinytags_tasks.errors import TransientError
from tinytags_tasks.store import layout
from tinytags_tasks.store.block_files import BlockSource
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.store.some_files import versions_of

_REPORT_SECONDS = 10.0


class Progress:
    """Counts the images of the blocks whose files are new since it was made.

    Parameters
    ----------
    sources
        The blocks that are being embedded.
    blocks
        How many blocks the corpus has.
    net
        The net's version.
    storage
        The store.
    report
        Called with a line of progress every now and then.
    """

    def __init__(
        self, sources: Iterable[BlockSource], blocks: int, net: str, storage: Storage, report: Callable[[str], None]
    ) -> None:
        sources = list(sources)
        self._blocks = blocks
        self._corpus = sources[0].corpus
        self._storage = storage
        self._report = report
        self._waiting = {layout.embeddings_file(self._corpus, net, source.block): source.images for source in sources}
        self._total = sum(self._waiting.values())
        self._before = self._versions()
        self._started = time.monotonic()

    def _versions(self) -> dict[str, str]:
        """Return the versions of the waiting blocks' files that exist."""
        return versions_of(self._storage, list(self._waiting), lambda: self._blocks)

    @contextmanager
    def reported(self) -> Generator[None]:
        """Report the progress from another thread while the ``with`` block runs, and the final state after it."""
        ended = threading.Event()
        thread = threading.Thread(target=self._run, args=(ended,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
        with suppress(TransientError):
            self._report(self.line())

    def line(self) -> str:
        """Return how many images are embedded, how fast, and the time left."""
        for path, version in self._versions().items():
            if version != self._before.get(path):
                del self._waiting[path]
        total = self._total
        done = total - sum(self._waiting.values())
        speed = done / max(time.monotonic() - self._started, 1e-3)
        minutes, seconds = divmod(round((total - done) / speed) if done else 0, 60)
        hours, minutes = divmod(minutes, 60)
        left = "" if done in (0, total) else f", {hours}:{minutes:02}:{seconds:02} left"
        return f"corpus {self._corpus}: {done:,} of {total:,} images embedded, {speed:,.0f} images/s{left}"

    def _run(self, ended: threading.Event) -> None:
        while not ended.wait(_REPORT_SECONDS):
            with suppress(TransientError):  # the work itself reports it
                self._report(self.line())
