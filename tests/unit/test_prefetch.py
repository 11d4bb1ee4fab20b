"""Prefetching: a thread produces items before they are needed."""

import threading

import pytest

from tinytags_tasks.prefetch import prefetch


def test_items_keep_their_order():
    assert list(prefetch(range(1_000), 3)) == list(range(1_000))
    assert list(prefetch([], 1)) == []


def test_no_more_are_made_in_advance_than_asked_for():
    made = []
    two_wait_and_one_is_made = threading.Event()

    def make():
        for number in range(10):
            made.append(number)
            if number == 3:
                two_wait_and_one_is_made.set()
            yield number

    items = prefetch(make(), 2)
    assert next(items) == 0
    assert two_wait_and_one_is_made.wait(10)
    assert made == [0, 1, 2, 3]
    items.close()


def test_an_error_is_raised_after_the_items_before_it():
    def make():
        yield 1
        raise ValueError("the second cannot be made")

    items = prefetch(make(), 5)
    assert next(items) == 1
    with pytest.raises(ValueError, match="the second cannot be made"):
        next(items)


def test_a_consumer_that_stops_early_ends_the_thread_and_closes_what_it_read():
    closed = threading.Event()
    threads = threading.active_count()

    def make():
        try:
            while True:
                yield b""
        finally:
            closed.set()

    items = prefetch(make(), 1)
    next(items)
    items.close()
    assert closed.is_set()
    assert threading.active_count() == threads
