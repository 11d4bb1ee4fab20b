"""An alias' history: what a rollback leads to, whatever was killed, done by hand or done by two at once."""

import os
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_run import SolrHere, quiet

from tinytags_tasks.errors import BadInputError, CorruptError, TransientError
from tinytags_tasks.publish import publications as history_module
from tinytags_tasks.publish.publications import (
    lock_alias,
    previous_collections,
    read_history,
    record_change,
    record_missing_change,
    switch_alias,
    with_missing_change,
)
from tinytags_tasks.store import layout
from tinytags_tasks.store import record_series as numbered_module
from tinytags_tasks.store.lease import Leases
from tinytags_tasks.store.local import LocalStorage
from tinytags_tasks.store.run_records import Change, Publication, Run
from tinytags_tasks.upkeep.repair import repair_history


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Make waiters check often."""
    monkeypatch.setattr(history_module, "_POLL_SECONDS", 0.01)


@pytest.fixture
def storage(tmp_path):
    return LocalStorage(tmp_path / "store")


def history_of(*steps):
    """Return a history: ``"a"`` is published, ``"<a"`` rolled back to."""
    records, live = [], ""
    for step in steps:
        change, collection = (Change.ROLLED_BACK, step[1:]) if step[0] == "<" else (Change.PUBLISHED, step)
        records.append(
            Publication(change=change, run="", collection=collection, previous=live, time="2024", host="here")
        )
        live = collection
    return records


def in_short(records):
    return [(record.change, record.collection, record.previous) for record in records]


@pytest.mark.parametrize(
    ("steps", "previous"),
    [
        ([], []),
        (["a"], []),
        (["a", "b", "c"], ["b", "a"]),
        (["a", "b", "<a"], []),
        (["a", "b", "c", "<b"], ["a"]),
        (["a", "b", "<a", "c"], ["a"]),
        (["a", "b", "a"], ["b"]),
        (["a", "b", "c", "b"], ["c", "a"]),
        (["a", "a"], []),
        (["b", "<a"], ["b"]),
        (["a", "b", "c", "<b", "<a"], []),
    ],
)
def test_rolling_back_leads_to_what_was_live_before_and_was_not_rolled_back(steps, previous):
    assert previous_collections(history_of(*steps)) == previous


@given(st.lists(st.sampled_from(["a", "b", "c", "back"]), max_size=20))
@settings(deadline=None)
def test_rolling_back_again_and_again_comes_to_an_end(steps):
    records = []
    for step in steps:
        before = previous_collections(records)
        if step == "back" and before:
            records = [*records, *history_of("<" + before[0])]
        elif step != "back":
            records = [*records, *history_of(step)]
    for _ in steps:
        before = previous_collections(records)
        if not before:
            break
        assert before[0] != records[-1].collection
        assert len(set(before)) == len(before)
        records = [*records, *history_of("<" + before[0])]
    assert previous_collections(records) == []


def test_a_change_that_was_not_written_down_is_found_by_the_alias(storage):
    assert in_short(with_missing_change(history_of("a"), "b", storage))[1:] == [(Change.FOUND, "b", "a")]
    assert in_short(with_missing_change([], "a", storage)) == [(Change.FOUND, "a", "")]


def test_a_change_back_that_was_not_written_down_counts_as_rolled_back(storage):
    assert in_short(with_missing_change(history_of("a", "b"), "a", storage))[2:] == [(Change.ROLLED_BACK, "a", "b")]


@pytest.mark.parametrize("live", ["b", ""])
def test_a_history_that_tells_what_is_live_lacks_nothing(storage, live):
    records = history_of("a", "b")
    assert with_missing_change(records, live, storage) == records


def test_looking_at_a_history_writes_nothing_and_catching_up_does(storage):
    with_missing_change([], "a", storage)
    assert read_history("live", storage) == []
    caught_up = record_missing_change("live", [], "a", storage)
    assert read_history("live", storage) == caught_up
    assert record_missing_change("live", caught_up, "a", storage) == caught_up


def test_each_change_is_a_record_of_its_own(storage):
    for collection in ("a", "b"):
        record_change(Change.PUBLISHED, collection, "", alias="live", storage=storage)
    record_change(Change.PUBLISHED, "c", "", alias="test", storage=storage)
    assert storage.names("publications/live") == ["000001.json", "000002.json"]
    assert [record.collection for record in read_history("live", storage)] == ["a", "b"]
    assert [record.collection for record in read_history("test", storage)] == ["c"]


def test_a_record_that_another_wrote_meanwhile_is_not_overwritten(storage, monkeypatch):
    record_change(Change.PUBLISHED, "a", "", alias="live", storage=storage)
    with monkeypatch.context() as patch:
        patch.setattr(numbered_module, "record_numbers", lambda path_of, storage: [])
        record_change(Change.PUBLISHED, "b", "a", alias="live", storage=storage)
    assert [record.collection for record in read_history("live", storage)] == ["a", "b"]


def test_many_who_write_at_once_lose_no_record(storage):
    names = [f"c{number}" for number in range(8)]
    threads = [
        threading.Thread(
            target=record_change, args=(Change.PUBLISHED, name, ""), kwargs={"alias": "x", "storage": storage}
        )
        for name in names
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(record.collection for record in read_history("x", storage)) == names


def test_a_record_cut_short_is_named(storage):
    record_change(Change.PUBLISHED, "a", "", alias="live", storage=storage)
    storage.write(layout.publication_file("live", 2), b'{"change": "publ')
    with pytest.raises(CorruptError, match=r"publications/live/000002\.json"):
        read_history("live", storage)


def test_other_files_beside_the_records_are_left_alone(storage):
    storage.write("publications/live/notes.txt", b"")
    record_change(Change.PUBLISHED, "a", "", alias="live", storage=storage)
    assert len(read_history("live", storage)) == 1


def test_an_alias_that_could_leave_the_folder_is_refused(storage):
    with pytest.raises(BadInputError, match="cannot be the name of a"):
        read_history("../runs", storage)


def test_the_history_of_a_run_of_this_store_names_the_run(storage):
    run = Run(
        name="pets-1",
        corpus="pets",
        corpus_digest="",
        model="",
        threshold=40,
        images=1,
        blocks=1,
        collection="tinytags-pets-1",
        created="",
    )
    run.save(storage, layout.run_file(run.name))
    record = record_change(Change.PUBLISHED, "tinytags-pets-1", "", alias="live", storage=storage)
    assert record.run == "pets-1"
    assert record_change(Change.PUBLISHED, "tinytags-pets-2", "", alias="live", storage=storage).run == ""


# One at a time


def test_only_one_changes_an_alias_at_a_time(storage):
    at_work, most = [], []
    lock = threading.Lock()

    def change():
        with lock_alias("live", storage, quiet):
            with lock:
                at_work.append(1)
                most.append(len(at_work))
            with lock:
                at_work.pop()

    threads = [threading.Thread(target=change) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1, 1, 1, 1]
    assert storage.names("publications") == []


def test_whoever_waits_says_for_whom_and_gives_up_in_the_end(storage):
    lines = []
    path = layout.alias_lease_file("live")
    longer = rf"alias live has been changed by .*, process {os.getpid()} for more than 0\.1 s; try again"
    with (
        Leases(storage).hold(path),
        pytest.raises(TransientError, match=longer),
        lock_alias("live", storage, lines.append, wait_seconds=0.1),
    ):
        pytest.fail("two changed it at once")
    assert len(lines) == 1
    assert "waiting for it" in lines[0]


def test_aliases_do_not_wait_for_each_other(storage):
    with lock_alias("live", storage, quiet), lock_alias("test", storage, quiet, wait_seconds=0):
        assert storage.names("publications") == ["live.lease", "test.lease"]


def test_an_alias_that_did_not_move_is_worth_a_retry():
    solr = SolrHere()
    solr.set_alias = lambda alias, collection: None
    with pytest.raises(TransientError, match="alias live does not point at a after it was moved there"):
        switch_alias("live", "a", solr)


def test_a_damaged_rollback_is_written_again_as_one_so_that_the_next_leads_further_back(storage):
    solr = SolrHere()
    live = ""
    for record in history_of("a", "b", "c", "<b"):
        record_change(record.change, record.collection, live, alias="live", storage=storage)
        live = record.collection
    solr.alias_of = {"live": live}
    storage.write(layout.publication_file("live", 4), b"{")
    repair_history("live", storage, solr, quiet)
    assert previous_collections(read_history("live", storage))[:1] == ["a"]


def test_of_two_damaged_changes_in_a_row_none_is_made_of_what_is_live_now(storage):
    solr = SolrHere()
    live = ""
    for record in history_of("a", "b", "c", "d"):
        record_change(record.change, record.collection, live, alias="live", storage=storage)
        live = record.collection
    solr.alias_of = {"live": live}
    for number in (2, 3):
        storage.write(layout.publication_file("live", number), b"{")
    repair_history("live", storage, solr, quiet)
    assert [record.collection for record in read_history("live", storage)] == ["a", "c", "d"]
