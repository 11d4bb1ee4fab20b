"""Prefetching: a thread produces items before they are needed."""

import threading

import pytest

from tinytags_tasks.prefetch import in_order, prefetch


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


def test_results_come_in_the_order_of_their_items():
    later = threading.Event()

    def work(number):
        if number == 0:
            assert later.wait(10)  # the first item ends last
        else:
            later.set()
        return number

    assert list(in_order(work, range(50), threads=2, ahead=3)) == list(range(50))
    assert list(in_order(work, [], threads=2, ahead=3)) == []


def test_no_more_results_are_held_than_asked_for():
    asked = []

    def items():
        for number in range(10):
            asked.append(number)
            yield number

    results = in_order(lambda number: number, items(), threads=1, ahead=1)
    assert next(results) == 0
    assert asked == [0, 1]
    results.close()
    assert asked == [0, 1]


def test_an_error_in_the_work_is_raised():
    with pytest.raises(ZeroDivisionError):
        list(in_order(lambda number: 1 // number, [2, 1, 0], threads=1, ahead=1))
