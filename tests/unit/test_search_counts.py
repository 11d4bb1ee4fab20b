"""Counts are asked for once, by what they follow from."""

import json
import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest

from tinytags_tasks.errors import EngineDownError
from tinytags_tasks.search.counts import Counts
from tinytags_tasks.search.hidden import NOTHING
from tinytags_tasks.search.request import SearchRequest
from tinytags_tasks.search.solr_filters import make_filters
from tinytags_tasks.search.solr_reader import Parameters


class Solr:
    """Counts everything as one cat, and remembers what it was asked to count."""

    def __init__(self, pause_seconds: float = 0) -> None:
        self.pause_seconds = pause_seconds
        self.asked: list[tuple[set[str], Sequence[str]]] = []
        self.is_away = False

    def ask(self, parameters: Parameters) -> dict[str, Any]:
        if self.is_away:
            raise EngineDownError("away")
        names = json.loads(str(parameters["json.facet"]))
        filters = parameters["fq"]
        assert isinstance(filters, list)
        time.sleep(self.pause_seconds)
        self.asked.append((set(names), filters))
        bucket = {"val": 70, "count": len(self.asked)}
        return {"facets": {name: {"buckets": [bucket]} for name in names}}


def counted(counts: Counts, solr: Solr, documents: object = "one", **asked: Any) -> dict[str, Any]:
    return counts.get(documents, make_filters(SearchRequest(**asked), NOTHING), solr.ask)


def test_everything_is_counted_once_whichever_tag_is_chosen_then() -> None:
    counts, solr = Counts(), Solr()
    counted(counts, solr)
    counted(counts, solr)
    counted(counts, solr, tags=("cat",))
    assert [names for names, _ in solr.asked] == [{"tags", "confidences", "models", "corpora"}, {"confidences"}]


def test_counts_follow_the_filters() -> None:
    counts, solr = Counts(), Solr()
    counted(counts, solr)
    counted(counts, solr, block=3)
    names, filters = solr.asked[1]
    assert names == {"tags", "confidences"}
    assert filters == ["{!term tag=by_block f=block v=$block}"]
    counted(counts, solr, block=4)
    assert len(solr.asked) == 3


def test_other_documents_are_counted_anew() -> None:
    counts, solr = Counts(), Solr()
    counted(counts, solr, (("demo-1",), 5))
    counted(counts, solr, (("demo-1",), 6))
    counted(counts, solr, (("demo-2",), 6))
    assert len(solr.asked) == 3


def test_a_fresh_count_is_counted_again_and_counts_from_then_on() -> None:
    counts, solr = Counts(), Solr()
    filters = make_filters(SearchRequest(), NOTHING)
    counted(counts, solr)
    assert counts.get("one", filters, solr.ask, is_fresh=True)["tags"] == ((70, 2),)
    assert counted(counts, solr)["tags"] == ((70, 2),)
    assert len(solr.asked) == 2


def test_many_at_once_count_once() -> None:
    counts, solr = Counts(), Solr(pause_seconds=0.1)
    threads = [threading.Thread(target=counted, args=(counts, solr)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(solr.asked) == 1


def test_who_waits_for_a_solr_that_hangs_is_told_when_the_first_one_is() -> None:
    """Otherwise each would wait for a failure of its own, one after another."""
    counts, fails, asked = Counts(), threading.Event(), []
    told: list[str] = []

    def hang(_: Parameters) -> dict[str, Any]:
        asked.append(threading.current_thread().name)
        assert fails.wait(60)
        raise EngineDownError("Solr hangs")

    def count() -> None:
        with pytest.raises(EngineDownError, match="Solr hangs"):
            counts.get("one", make_filters(SearchRequest(), NOTHING), hang)
        told.append(threading.current_thread().name)

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)  # time for them to wait, however busy the machine is
    fails.set()
    for thread in threads:
        thread.join()
    assert len(told) == 8
    assert len(asked) < 8
    solr = Solr()
    assert counted(counts, solr)["tags"] == ((70, 1),)


def test_an_old_count_is_given_out_while_it_is_counted_again_even_if_solr_is_away() -> None:
    counts, solr = Counts(kept_seconds=0.05), Solr()
    assert counted(counts, solr)["tags"] == ((70, 1),)
    time.sleep(0.1)
    solr.is_away = True
    assert counted(counts, solr)["tags"] == ((70, 1),)
    solr.is_away = False
    deadline = time.monotonic() + 5
    while counted(counts, solr)["tags"] == ((70, 1),) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert counted(counts, solr)["tags"] != ((70, 1),)
