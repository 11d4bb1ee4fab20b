"""Prefetching: threads produce items before they are needed."""

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar, cast

Item = TypeVar("Item")
Result = TypeVar("Result")

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


def in_order(work: Callable[[Item], Result], items: Iterable[Item], *, threads: int, ahead: int) -> Iterator[Result]:
    """Yield the results of work on items, in the order of the items; an exception in a thread is raised here.

    Parameters
    ----------
    work
        What is done with each item, in a thread.
    items
        What to iterate over, in the thread of the consumer.
    threads
        How many items are worked on at once.
    ahead
        How many results there are at most, finished or not, besides the one that the consumer has.
    """
    pending: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                pending.append(pool.submit(work, item))
                if len(pending) > ahead:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
