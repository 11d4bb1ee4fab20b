"""Compares two runs for a page: in the background, a bounded number of blocks, and kept for whoever asks again."""

import threading
from concurrent.futures import Future, ThreadPoolExecutor

from cachetools import LRUCache

from tinytags_tasks.errors import TransientError
from tinytags_tasks.publish.diff import DiffRequest, DiffResult, compare_runs
from tinytags_tasks.runtime import Runtime
from tinytags_tasks.search.word_logs import WordLogs
from tinytags_tasks.store.run_records import Run

MOST_BLOCKS = 200
"""Blocks that a page compares at most; of more, these are spread evenly."""

PATIENCE_SECONDS = 3.0
"""How long a request waits for a comparison before it says that this takes longer."""

MOST_WAITING = 4
KEPT_COMPARISONS = 32

_Key = tuple[str, str, int]


class Comparisons:
    """Compares runs, one pair at a time.

    Parameters
    ----------
    runtime
        Has the store.
    logs
        Know what people said, which changes what a run keeps.
    """

    def __init__(self, runtime: Runtime, logs: WordLogs) -> None:
        self._runtime = runtime
        self._logs = logs
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="comparisons")
        self._known: LRUCache[_Key, Future[DiffResult]] = LRUCache(KEPT_COMPARISONS)
        self._lock = threading.Lock()

    def find(self, old: Run, new: Run) -> DiffResult | None:
        """Return how two runs differ; None if that is not known yet.

        Raises
        ------
        BadInputError
            If the runs are not of the same images.
        TransientError
            If too many other comparisons are under way.
        MissingError, CorruptError
            If a scored file is missing or damaged.
        """
        key = old.name, new.name, self._logs.of(old.corpus).last_public  # what is private changes no run
        with self._lock:
            future = self._known.get(key)
            if future is None:
                if sum(not other.done() for other in self._known.values()) >= MOST_WAITING:
                    raise TransientError("other runs are being compared: try again in a minute")
                future = self._known[key] = self._pool.submit(self._compare, old, new)
        try:
            return future.result(PATIENCE_SECONDS)
        except TimeoutError:
            return None
        except BaseException:
            with self._lock:  # so that what was repaired is compared again
                if self._known.get(key) is future:
                    del self._known[key]
            raise

    def _compare(self, old: Run, new: Run) -> DiffResult:
        request = DiffRequest(old.name, new.name, some_blocks(old.blocks))
        return compare_runs(request, storage=self._runtime.storage, report=lambda line: None)


def some_blocks(blocks: int) -> tuple[int, ...] | None:
    """Return the blocks that are compared of so many; None for all."""
    if blocks <= MOST_BLOCKS:
        return None
    return tuple(number * blocks // MOST_BLOCKS for number in range(MOST_BLOCKS))
