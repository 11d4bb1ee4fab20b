"""Cursors: Solr's own marks are written byte for byte, and nothing but our own cursors is read."""

import base64
import json
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinytags_tasks.errors import BadInputError
from tinytags_tasks.search.cursor import Cursor, Order, hash_of, order_of, read_cursor
from tinytags_tasks.search.request import SearchRequest, Sort

BY_CONFIDENCE = Order(Sort.CONFIDENCE)


@pytest.mark.parametrize(
    ("order", "edge", "mark"),
    [  # made by Solr 9.10
        (BY_CONFIDENCE, (100, 24, "synth:24"), "AoNUBngBKHN5bnRoOjI0"),
        (BY_CONFIDENCE, (100, 59, "synth:59"), "AoNUBnsDKHN5bnRoOjU5"),
        (BY_CONFIDENCE, None, "*"),
    ],
)
def test_marks_are_those_that_solr_makes(order: Order, edge: tuple[int | str, ...] | None, mark: str) -> None:
    assert order.mark(edge) == mark


@given(st.integers(0, 100), st.integers(0, 2**40), st.text(min_size=1, max_size=50).filter(str.isprintable))
def test_a_cursor_reads_as_it_was_written(confidence: int, position: int, name: str) -> None:
    for is_forward in (True, False):
        cursor = Cursor(hash_of(["a"]), Order(Sort.CONFIDENCE, is_forward=is_forward), (confidence, position, name))
        assert read_cursor(SearchRequest(cursor=cursor.write())) == cursor


@given(st.text(min_size=1, max_size=200) | st.binary(min_size=1).map(base64.urlsafe_b64encode).map(bytes.decode))
def test_any_other_text_is_refused(text: str) -> None:
    if text != "*":
        with pytest.raises(BadInputError, match="begin again without"):
            read_cursor(SearchRequest(cursor=text))


@pytest.mark.parametrize(
    "said",
    [
        [],
        {},
        17,
        None,
        ["x", "confidence", 0, 1, 101, 5, "demo:5"],
        ["x", "confidence", 0, 1, True, 5, "demo:5"],
        ["x", "confidence", 0, 1, 70, -1, "demo:5"],
        ["x", "confidence", 0, 1, 70, 2**63, "demo:5"],
        ["x", "confidence", 0, 1, 70, 5, ""],
        ["x", "confidence", 0, 1, 70, 5, 5],
        ["x", "confidence", 0, 1, 70, 5],
        ["x", "confidence", -1, 1, 70, 5, "demo:5"],
        ["x", "similar", 0, 1, 70, 5, "demo:5"],
        [7, "confidence", 0, 1, 70, 5, "demo:5"],
        ["x", "size", 0, 1, 70, 5, "demo:5"],
    ],
)
def test_a_made_up_cursor_is_refused(said: object) -> None:
    text = base64.urlsafe_b64encode(json.dumps(said).encode()).decode().rstrip("=")
    with pytest.raises(BadInputError):
        read_cursor(SearchRequest(cursor=text))


def test_a_cursor_of_another_order_is_refused() -> None:
    random = SearchRequest(sort=Sort.RANDOM, seed=1)
    cursor = Cursor(hash_of(["a"]), order_of(random), (17, 5, "demo:5")).write()
    assert read_cursor(replace(random, cursor=cursor)) is not None
    for other in (SearchRequest(), SearchRequest(sort=Sort.POSITION), replace(random, seed=2)):
        with pytest.raises(BadInputError, match="another order"):
            read_cursor(replace(other, cursor=cursor))


def test_seeds_that_follow_each_other_begin_far_from_each_other() -> None:
    begins = sorted(order_of(SearchRequest(sort=Sort.RANDOM, seed=seed)).begin for seed in range(5))
    assert min(after - before for before, after in pairwise(begins)) > 2**31 // 1000
