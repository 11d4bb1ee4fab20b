"""Prefetching: a thread produces items before they are needed."""

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import TypeVar, cast

Item = TypeVar("Item")

_END = object()


def prefetch(items: Iterable[Item], depth: int) -> Iterator[Item]:
    """Yield items that a thread produces in advance; an exception in the thread is raised here.

    Reading, hashing and sending release the interpreter's lock, so stages that are chained this way run in parallel.
    The thread ends if the consumer stops early.

    Parameters
    ----------
    items
        What to iterate over, in the thread.
    depth
        How many finished items may wait for the consumer; the thread may be working on one more.
    """
    finished: queue.Queue[object] = queue.Queue(depth)
    stopped = threading.Event()
    failure: list[BaseException] = []

    def put(item: object) -> bool:
        while not stopped.is_set():
            try:
                finished.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def produce() -> None:
        try:
            for item in items:
                if not put(item):
                    return
        except BaseException as error:
            failure.append(error)
        finally:
            if stopped.is_set() and hasattr(items, "close"):
                items.close()
            put(_END)

    thread = threading.Thread(target=produce, daemon=True)
    thread.start()
    try:
        while (item := finished.get()) is not _END:
            yield cast("Item", item)
        if failure:
            raise failure[0]
    finally:
        stopped.set()
        thread.join()
