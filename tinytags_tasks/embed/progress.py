"""Reports how far the embedding of a corpus is: files appear in the store while Spark's job runs."""

import threading
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager, suppress

from tinytags_tasks.errors import TransientError
from tinytags_tasks.store import layout
from tinytags_tasks.store.block_files import BlockSource
from tinytags_tasks.store.protocol import Storage

_REPORT_SECONDS = 10.0


class Progress:
    """Counts the images of the blocks whose files are new since it was made; one request each time.

    Parameters
    ----------
    sources
        The blocks that are being embedded.
    net
        The net's version.
    storage
        The store.
    report
        Called with a line of progress every now and then.
    """

    def __init__(
        self, sources: Iterable[BlockSource], net: str, storage: Storage, report: Callable[[str], None]
    ) -> None:
        sources = list(sources)
        self._corpus = sources[0].corpus
        self._folder = layout.embeddings_folder(self._corpus, net)
        self._storage = storage
        self._report = report
        self._images = {layout.embedding_file_name(source.block): source.images for source in sources}
        self._before = storage.versions(self._folder)
        self._started = time.monotonic()

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
        versions = self._storage.versions(self._folder)
        done = sum(
            images
            for name, images in self._images.items()
            if name in versions and versions[name] != self._before.get(name)
        )
        total = sum(self._images.values())
        speed = done / max(time.monotonic() - self._started, 1e-3)
        minutes, seconds = divmod(round((total - done) / speed) if done else 0, 60)
        hours, minutes = divmod(minutes, 60)
        left = "" if done in (0, total) else f", {hours}:{minutes:02}:{seconds:02} left"
        return f"corpus {self._corpus}: {done:,} of {total:,} images embedded, {speed:,.0f} images/s{left}"

    def _run(self, ended: threading.Event) -> None:
        while not ended.wait(_REPORT_SECONDS):
            with suppress(TransientError):  # the work itself reports it
                self._report(self.line())
