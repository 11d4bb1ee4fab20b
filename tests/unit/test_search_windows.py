"""Windows: each holds a beginning of what is left to read, and the last one holds all of it."""

import re
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinytags_tasks.search import windows as module
from tinytags_tasks.search.cursor import Order, order_of
from tinytags_tasks.search.request import SearchRequest, Sort
from tinytags_tasks.search.windows import windows

Document = dict[str, int]

documents = st.lists(
    st.fixed_dictionaries(
        {"accuracy": st.integers(95, 100) | st.integers(0, 100), "shuffle": st.integers(0, 2**31 - 1)}
    ),
    max_size=60,
)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FEW", 3)


_RANGE = r"(\w+):\[(\d+) TO (\d+)\]"


def matches(document: Document, window: tuple[str, ...]) -> bool:
    """Return whether a document matches a window, without Solr."""

    def is_in(text: str) -> bool:
        found = re.fullmatch(_RANGE, text)
        assert found is not None, text
        return int(found[2]) <= document[found[1]] <= int(found[3])

    if not window:
        return True
    (query,) = window
    choices = query.removeprefix("{!cache=false}").split(" OR ")
    return any(all(is_in(part) for part in choice.strip("(+)").split(" +")) for choice in choices)


def key(order: Order, document: Document) -> tuple[int, ...]:
    found = tuple(document[name] if name != "accuracy" else -document[name] for name in order.fields if name != "id")
    return found if order.is_forward else tuple(-value for value in found)


@settings(max_examples=300)
@given(documents, st.sampled_from([Sort.CONFIDENCE, Sort.POSITION, Sort.RANDOM]), st.booleans(), st.data())
def test_each_window_holds_a_beginning_of_what_is_left(
    made: list[Document], sort: Sort, is_forward: bool, data: st.DataObject
) -> None:
    every = [{**document, "position": 3 * number} for number, document in enumerate(made)]
    order = replace(order_of(SearchRequest(sort=sort)), begin=0, is_forward=is_forward)
    ordered = sorted(every, key=lambda document: key(order, document))
    edge = data.draw(st.none() | st.sampled_from(ordered)) if ordered else None
    left = [document for document in ordered if edge is None or key(order, document) > key(order, edge)]
    values = tuple(edge[name] if name != "id" else "x" for name in order.fields if name in (edge or {}) or name == "id")
    confidences = Counter(document["accuracy"] for document in every)
    if data.draw(st.booleans()):  # counts may be old
        confidences = Counter({value: data.draw(st.sampled_from([0, 0, 1, 9])) for value in confidences})
    asked = list(windows(order, values if edge else None, confidences, len(every), 2))
    for window in asked:
        found = [document for document in left if matches(document, window)]
        assert found == left[: len(found)]
    assert [document for document in left if matches(document, asked[-1])] == left


def test_few_are_read_at_once() -> None:
    assert list(windows(order_of(SearchRequest()), None, {70: 3}, 10**9, 31)) == [()]


def test_of_many_the_first_window_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FEW", 150_000)
    first = next(windows(order_of(SearchRequest()), None, {100: 5_000_000, 70: 5_000_000}, 10**7, 31))
    assert first == ("{!cache=false}(+accuracy:[100 TO 100] +position:[0 TO 248])",)
    first = next(windows(order_of(SearchRequest()), (72, 9_000, "x"), {72: 1, 71: 1, 70: 5_000_000}, 5_000_002, 31))
    assert first == ("{!cache=false}accuracy:[71 TO 72] OR (+accuracy:[70 TO 70] +position:[0 TO 124])",)
    first = next(windows(order_of(SearchRequest()), (70, 9_000, "x"), dict.fromkeys(range(101), 10**5), 10**7, 31))
    assert first == ("{!cache=false}accuracy:[69 TO 70]",)
