"""How many requests may wait long at once: each holds one of the server's few threads, which all readers share."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tinytags_tasks.errors import TransientError

MOST_WAITING = 8


class BusyError(TransientError):
    """Whoever asks has to wait, and may read why: the message is ours, and names no engine."""


class Waiting:
    """Lets a few requests wait; the others are told at once that what they wait for takes longer."""

    def __init__(self, most: int = MOST_WAITING) -> None:
        self._places = threading.BoundedSemaphore(most)

    @contextmanager
    def seconds(self, asked: float) -> Iterator[float]:
        """Yield how long a request may wait: as long as asked, or not at all while too many others wait."""
        if not self._places.acquire(blocking=False):
            yield 0.0
            return
        try:
            yield asked
        finally:
            self._places.release()
