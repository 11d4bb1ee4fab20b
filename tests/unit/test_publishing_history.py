"""An alias' history: what a rollback leads to, whatever was killed, done by hand or done by two at once."""

import os
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_run import SolrHere, quiet

from tinytags_tasks.errors import BadInputError, CorruptError, TransientError
from tinytags_tasks.publish import live as live_module
from tinytags_tasks.publish.live import lock_alias, put_in_place, switch_alias
from tinytags_tasks.publish.publications import (
    of_corpus,
    plan_change,
    previous_collections,
    read_history,
    record_change,
    record_missing_change,
    with_missing_change,
)
from tinytags_tasks.store import layout
from tinytags_tasks.store import record_series as numbered_module
from tinytags_tasks.store.lease import Leases
from tinytags_tasks.store.local import LocalStorage
from tinytags_tasks.store.run_records import Change, NextPublication, Publication, Run
from tinytags_tasks.upkeep.repair_history import repair_history


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Make waiters check often."""
    monkeypatch.setattr(live_module, "_POLL_SECONDS", 0.01)


def collection(letter, corpus="pets"):
    """Return the name of a run's collection, by a letter; empty without one."""
    return letter and f"tinytags-{corpus}-{letter * 12}"


@pytest.fixture
def storage(tmp_path):
    """A store with runs of two corpora, whose collections have the letters a to d."""
    storage = LocalStorage(tmp_path / "store")
    for corpus in ("pets", "birds"):
        for letter in "abcd":
            name = f"{corpus}-{letter * 12}"
            run = Run(
                name=name,
                corpus=corpus,
                corpus_digest="",
                model="",
                threshold=40,
                images=1,
                blocks=1,
                collection=collection(letter, corpus),
                created="",
            )
            run.save(storage, layout.run_file(name))
    return storage


def history_of(*steps, corpus="pets"):
    """Return a corpus' history: ``"a"`` is published, ``"<a"`` rolled back to, ``"-"`` taken out."""
    records, live = [], ""
    for step in steps:
        kinds = {"<": Change.ROLLED_BACK, "-": Change.UNPUBLISHED}
        now_live = collection(step.lstrip("<-"), corpus)
        records.append(
            Publication(
                change=kinds.get(step[0], Change.PUBLISHED),
                run="",
                collection=now_live,
                previous=live,
                time="2024",
                host="here",
                corpus=corpus,
            )
        )
        live = now_live
    return records


def publish(letter, previous, storage, alias="live", corpus="pets", **more):
    """Record that a collection became live."""
    following = NextPublication(collection=collection(letter, corpus), corpus=corpus)
    return record_change(
        Change.PUBLISHED, following, collection(previous, corpus), alias=alias, storage=storage, **more
    )


def letters(collections):
    return [name[-1:] for name in collections]


def in_short(records):
    return [(record.change, record.collection[-1:], record.previous[-1:]) for record in records]


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
        (["a", "b", "-"], ["b", "a"]),
        (["a", "b", "-", "<b"], ["a"]),
        (["a", "b", "-", "c"], ["b", "a"]),
    ],
)
def test_rolling_back_leads_to_what_was_live_before_and_was_not_rolled_back(steps, previous):
    assert letters(previous_collections(history_of(*steps))) == previous


@given(st.lists(st.sampled_from(["a", "b", "c", "-", "back"]), max_size=20))
@settings(deadline=None)
def test_rolling_back_again_and_again_comes_to_an_end(steps):
    records = []
    for step in steps:
        before = previous_collections(records)
        if step == "back" and before:
            records = [*records, *history_of("<" + before[0][-1])]
        elif step != "back":
            records = [*records, *history_of(step)]
    for _ in steps:
        before = previous_collections(records)
        if not before:
            break
        assert before[0] != records[-1].collection
        assert len(set(before)) == len(before)
        records = [*records, *history_of("<" + before[0][-1])]
    assert previous_collections(records) == []


def test_a_change_that_was_not_written_down_is_found_by_the_alias(storage):
    assert in_short(with_missing_change(history_of("a"), [collection("b")], storage))[1:] == [(Change.FOUND, "b", "a")]
    assert in_short(with_missing_change([], [collection("a")], storage)) == [(Change.FOUND, "a", "")]


def test_a_change_back_that_was_not_written_down_counts_as_rolled_back(storage):
    found = with_missing_change(history_of("a", "b"), [collection("a")], storage)
    assert in_short(found)[2:] == [(Change.ROLLED_BACK, "a", "b")]


@pytest.mark.parametrize("live", [["b"], []])
def test_a_history_that_tells_what_is_live_lacks_nothing(storage, live):
    records = history_of("a", "b")
    assert with_missing_change(records, [collection(letter) for letter in live], storage) == records


def test_looking_at_a_history_writes_nothing_and_catching_up_does(storage):
    live = [collection("a")]
    with_missing_change([], live, storage)
    assert read_history("live", storage) == []
    caught_up = record_missing_change("live", [], live, storage)
    assert read_history("live", storage) == caught_up
    assert record_missing_change("live", caught_up, live, storage) == caught_up


def test_each_change_is_a_record_of_its_own(storage):
    publish("a", "", storage)
    publish("b", "a", storage)
    publish("c", "", storage, alias="test")
    assert storage.names("publications/live") == ["000001.json", "000002.json"]
    assert letters(record.collection for record in read_history("live", storage)) == ["a", "b"]
    assert letters(record.collection for record in read_history("test", storage)) == ["c"]


def test_a_record_that_another_wrote_meanwhile_is_not_overwritten(storage, monkeypatch):
    publish("a", "", storage)
    with monkeypatch.context() as patch:
        patch.setattr(numbered_module, "record_numbers", lambda path_of, storage: [])
        publish("b", "a", storage)
    assert letters(record.collection for record in read_history("live", storage)) == ["a", "b"]


# Several corpora


def test_each_corpus_lacks_its_own_change(storage):
    history = [*history_of("a", "b"), *history_of("a", corpus="birds")]
    live = [collection("a"), collection("c", "birds"), "customers"]
    missing = with_missing_change(history, live, storage)[3:]
    assert [(one.corpus, one.change, *letters([one.collection, one.previous])) for one in missing] == [
        ("birds", Change.FOUND, "c", "a"),
        ("pets", Change.ROLLED_BACK, "a", "b"),
    ]
    assert [one.beside for one in missing] == [(live[0], "customers"), (live[1], "customers")]


def test_a_corpus_that_the_alias_has_lost_was_taken_out(storage):
    history = [*history_of("a"), *history_of("b", corpus="birds")]
    (missing,) = with_missing_change(history, [collection("b", "birds")], storage)[2:]
    assert (missing.corpus, missing.change, missing.collection) == ("pets", Change.UNPUBLISHED, "")
    assert letters(previous_collections(of_corpus("pets", [*history, missing]))) == ["a"]


def test_older_records_follow_from_their_runs_and_replaced_whatever_was_live(storage):
    previous = ""
    for number, (corpus, letter) in enumerate([("pets", "a"), ("pets", "b"), ("birds", "a"), ("birds", "b")], 1):
        now_live = collection(letter, corpus)
        old = Publication(
            change=Change.PUBLISHED,
            run=f"{corpus}-{letter * 12}",
            collection=now_live,
            previous=previous,
            time="2024",
            host="here",
        )
        old.save(storage, layout.publication_file("live", number))
        previous = now_live
    history = read_history("live", storage)
    assert in_short(of_corpus("pets", history))[1:] == [(Change.PUBLISHED, "b", "a"), (Change.UNPUBLISHED, "", "b")]
    assert letters(previous_collections(of_corpus("birds", history))) == ["a"]
    assert with_missing_change(history, [collection("b", "birds")], storage) == history


def test_what_an_older_tinytags_must_not_replace_has_a_format_of_its_own(storage):
    formats = [
        publish("a", "", storage).written_format,
        publish("a", "", storage, corpus="birds", beside=[collection("a")]).written_format,
    ]
    assert formats == [1, 3]


@pytest.mark.parametrize(
    ("live", "own", "new", "wanted"),
    [
        ([], [], "x", ["x"]),
        (["a", "b", "c"], ["b"], "x", ["a", "x", "c"]),
        (["a", "b"], [], "x", ["a", "b", "x"]),
        (["a", "b", "c"], ["a", "c"], "x", ["x", "b"]),
        (["a", "b"], ["b"], "b", ["a", "b"]),
        (["a", "b"], ["a"], "", ["b"]),
        (["a"], ["a"], "", []),
    ],
)
def test_a_publication_replaces_only_what_is_live_of_its_corpus(live, own, new, wanted):
    solr = SolrHere()
    solr.visible = {name: {} for name in "abcx"}
    assert put_in_place(live, own, new, solr) == (tuple(wanted), ())


def test_a_collection_that_solr_has_lost_is_left_out():
    solr = SolrHere()
    solr.visible = {name: {} for name in "ax"}
    assert put_in_place(["a", "gone"], ["a"], "x", solr) == (("x",), ("gone",))


def test_many_who_write_at_once_lose_no_record(storage):
    names = [f"c{number}" for number in range(8)]
    threads = [
        threading.Thread(
            target=record_change,
            args=(Change.PUBLISHED, NextPublication(collection=name, corpus="pets"), ""),
            kwargs={"alias": "x", "storage": storage},
        )
        for name in names
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(record.collection for record in read_history("x", storage)) == names


def test_a_record_cut_short_is_named(storage):
    publish("a", "", storage)
    storage.write(layout.publication_file("live", 2), b'{"change": "publ')
    with pytest.raises(CorruptError, match=r"publications/live/000002\.json"):
        read_history("live", storage)


def test_other_files_beside_the_records_are_left_alone(storage):
    storage.write("publications/live/notes.txt", b"")
    publish("a", "", storage)
    assert len(read_history("live", storage)) == 1


def test_an_alias_that_could_leave_the_folder_is_refused(storage):
    with pytest.raises(BadInputError, match="cannot be the name of a"):
        read_history("../runs", storage)


def test_the_history_of_a_run_of_this_store_names_the_run(storage):
    assert publish("a", "", storage).run == "pets-aaaaaaaaaaaa"
    assert publish("f", "", storage).run == ""


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
    solr.set_alias = lambda alias, collections: None
    with pytest.raises(TransientError, match="alias live does not point at a,b after it was moved there"):
        switch_alias("live", ["a", "b"], solr)


def record(history, storage):
    """Write a history down, and return a Solr whose alias points at what it leads to."""
    live = {}
    for one in history:
        following = NextPublication(collection=one.collection, corpus=one.corpus)
        record_change(one.change, following, one.previous, alias="live", storage=storage)
        live[one.corpus] = one.collection
    solr = SolrHere()
    solr.alias_of = {"live": ",".join(filter(None, live.values()))}
    return solr


def test_a_damaged_rollback_is_written_again_as_one_so_that_the_next_leads_further_back(storage):
    solr = record(history_of("a", "b", "c", "<b"), storage)
    storage.write(layout.publication_file("live", 4), b"{")
    repair_history("live", storage, solr, quiet)
    assert letters(previous_collections(read_history("live", storage)))[:1] == ["a"]


def test_of_two_damaged_changes_in_a_row_none_is_made_of_what_is_live_now(storage):
    solr = record(history_of("a", "b", "c", "d"), storage)
    for number in (2, 3):
        storage.write(layout.publication_file("live", number), b"{")
    repair_history("live", storage, solr, quiet)
    assert letters(record.collection for record in read_history("live", storage)) == ["a", "c", "d"]


def test_a_last_change_whose_thresholds_are_lost_is_written_again_with_a_warning(storage):
    pets, birds = history_of("a", "b"), history_of("a", corpus="birds")
    solr = record([pets[0], pets[1], birds[0]], storage)
    time = read_history("live", storage)[2].time
    plan_change(NextPublication(collection=birds[0].collection, corpus="birds"), alias="live", storage=storage)
    storage.write(layout.publication_file("live", 2), b"{")
    lines = []
    repair_history("live", storage, solr, lines.append)
    assert "its thresholds are unknown" in lines[-1]
    assert "`tinytags publish RUN --gate-measured-precision PERCENT`" in lines[-1]
    assert read_history("live", storage)[1].time == time


@pytest.mark.parametrize("number", range(1, 8))
def test_a_damaged_change_of_one_corpus_is_written_again_by_its_own(storage, number):
    pets, birds = history_of("a", "b", "-", "c"), history_of("a", "b", "<a", corpus="birds")
    solr = record([pets[0], birds[0], pets[1], birds[1], pets[2], birds[2], pets[3]], storage)
    before = read_history("live", storage)
    storage.write(layout.publication_file("live", number), b"{")
    repair_history("live", storage, solr, quiet)
    told = [
        [(one.corpus, one.collection, one.previous) for one in history]
        for history in (before, read_history("live", storage))
    ]
    assert told[0] == told[1]
