"""Work that a thread does ahead of its consumer."""

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import TypeVar, cast

Item = TypeVar("Item")

_END = object()


def run_ahead(items: Iterable[Item], depth: int) -> Iterator[Item]:
    """Yield items that a thread makes in advance; what it raises is raised here.

    Reading, hashing and sending release the interpreter's lock, so stages chained by this run side by side. A consumer
    that stops early ends the thread.

    Parameters
    ----------
    items
        Iterated in the thread.
    depth
        How many finished items may wait for the consumer; one more may be in the making.
    """
    made: queue.Queue[object] = queue.Queue(depth)
    stopped = threading.Event()
    failure: list[BaseException] = []

    def put(item: object) -> bool:
        while not stopped.is_set():
            try:
                made.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def make() -> None:
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

    thread = threading.Thread(target=make, daemon=True)
    thread.start()
    try:
        while (item := made.get()) is not _END:
            yield cast("Item", item)
        if failure:
            raise failure[0]
    finally:
        stopped.set()
        thread.join()
