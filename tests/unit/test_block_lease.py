"""One writer per block: a second one waits or finds the work done, and one that comes back too late changes nothing."""

import contextlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from faulty_storage import MODES, FaultyStorage, Killed, files_under
from small_run import BLOCKS, SolrHere, SparkHere, address_of, index_all, make_run, quiet, score_all

from tinytags_tasks.errors import (
    LostWriteError,
    MissingError,
    OtherWriterError,
    ReconcileError,
    TinyTagsError,
    TransientError,
)
from tinytags_tasks.index.step import DeleteRequest, IndexRequest, delete_blocks, index_blocks
from tinytags_tasks.publish.step import reconcile_run
from tinytags_tasks.score import block as block_module
from tinytags_tasks.score import step, worker
from tinytags_tasks.score.block import score_block
from tinytags_tasks.store import block_lease, layout, lease
from tinytags_tasks.store.block_lease import hold_blocks, is_held
from tinytags_tasks.store.ledger import read_ledger
from tinytags_tasks.store.local import LocalStorage
from tinytags_tasks.store.protocol import Storage, temporary_name
from tinytags_tasks.store.run_records import BlockState, Run
from tinytags_tasks.upkeep.backfill import BackfillRequest, plan_backfill

ALL = tuple(range(BLOCKS))
SOON = 0.0
"""Seconds after which a writer counts as gone: at once."""


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    """The result of an undisturbed run."""
    storage = LocalStorage(tmp_path_factory.mktemp("clean") / "store")
    run, solr = make_run(storage), SolrHere()
    score_all(storage, run)
    index_all(storage, run, solr)
    return outcome(storage, run, solr)


def score(storage: Storage, run: Run, blocks=ALL, spark=None, *, redo=False, lease_seconds=60.0, report=quiet):
    return step.score_blocks(
        step.ScoreRequest(run.name, tuple(blocks), redo),
        storage=storage,
        address=address_of(storage.inner if isinstance(storage, FaultyStorage) else storage),
        connect_spark=spark or SparkHere(),
        report=report,
        lease_seconds=lease_seconds,
    )


def outcome(storage: LocalStorage, run: Run, solr: SolrHere) -> dict[str, object]:
    """Return everything that scoring and indexing determine, without times; no temporary file or lease may be left."""
    # The checksum covers the times; that it is right is checked wherever a record is read.
    ever_new = (
        rb'"(scored|indexed|score_seconds|index_seconds|attempts|host|scored_bytes|scored_sha256|record_sha256)": '
        rb"[^,}]+"
    )
    files = files_under(storage.root / layout.run_folder(run.name))
    return {
        "files": sorted(files),
        "ledger": {path: re.sub(ever_new, b"", files[path]) for path in files if path.startswith("ledger/")},
        "documents": solr.documents(run.collection),
        # The ledger matches the existing file.
        "whole": [
            worker.read_scored(storage, run.name, record.block)[1].scored_sha256 == record.scored_sha256
            for record in read_ledger(storage, run)
        ],
    }


@contextlib.contextmanager
def held_by_another(storage: Storage, run: Run, blocks) -> Iterator[str]:
    """Hold blocks in another thread; yield the name of its writer."""
    held, ended = threading.Event(), threading.Event()
    names = []

    def hold() -> None:
        for others in hold_blocks(run.name, blocks, storage=storage, report=quiet):
            names.append(others.writer)
            held.set()
            ended.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(30)
    try:
        yield names[0]
    finally:
        ended.set()
        thread.join()


# One holder


def test_a_block_has_one_holder_and_others_are_free(storage):
    run = make_run(storage)
    with held_by_another(storage, run, [1, 2]) as other:
        for ours in hold_blocks(run.name, [0, 1, 3], storage=storage, report=quiet):
            assert ours.blocks == [0, 3]
            assert is_held(storage, run.name, 1, other)
            assert not is_held(storage, run.name, 1, ours.writer)
            break
    assert files_under(storage.root / layout.leases_folder(run.name)) == {}


def test_many_blocks_have_one_sign_of_life(storage):
    run = make_run(storage)
    before = threading.active_count()
    for ours in hold_blocks(run.name, range(300), storage=storage, report=quiet):
        assert len(ours.blocks) == 300
        assert threading.active_count() == before + 1
        assert len(files_under(storage.root / layout.leases_folder(run.name))) == 1
    assert threading.active_count() == before
    assert storage.names(layout.leases_folder(run.name)) == []


def test_blocks_are_free_when_the_work_fails(storage):
    run = make_run(storage)
    with pytest.raises(ZeroDivisionError):
        for _ in hold_blocks(run.name, ALL, storage=storage, report=quiet):
            raise ZeroDivisionError
    assert storage.names(layout.leases_folder(run.name)) == []


def test_what_a_dead_process_held_is_taken_at_once(storage):
    run = make_run(storage)
    dead = {"owner": "a", "place": lease._place(), "pid": 2**22 + 1, "started": 1.0, "renewed": 0}
    storage.write(layout.writer_lease_file(layout.leases_folder(run.name), "dead"), json.dumps(dead).encode())
    for block in ALL:
        storage.make_folder(f"{layout.block_lease_folder(layout.leases_folder(run.name), block)}/dead")
    spark = SparkHere()
    assert score(storage, run, spark=spark).scored == BLOCKS
    assert storage.names(layout.leases_folder(run.name)) == []


def test_what_a_dead_process_held_is_cleared_by_the_next_writer_of_other_blocks(storage):
    run = make_run(storage)
    folder = layout.leases_folder(run.name)
    dead = {"owner": "a", "place": lease._place(), "pid": 2**22 + 1, "started": 1.0, "renewed": 0}
    storage.write(layout.writer_lease_file(folder, "dead"), json.dumps(dead).encode())
    for block, writer in ((1, "dead"), (2, "dead"), (3, "nobody")):
        storage.make_folder(f"{layout.block_lease_folder(folder, block)}/{writer}")
    with held_by_another(storage, run, [4]) as other:
        for _ in hold_blocks(run.name, [0], storage=storage, report=quiet):
            pass
        assert storage.names(folder) == ["000004.block", f"{other}.lease"]
        assert is_held(storage, run.name, 4, other)
    assert storage.names(folder) == []


def test_a_lease_without_a_sign_of_life_is_taken_at_once(storage):
    run = make_run(storage)
    storage.make_folder(f"{layout.block_lease_folder(layout.leases_folder(run.name), 3)}/nobody")
    storage.make_folder(layout.block_lease_folder(layout.leases_folder(run.name), 4))  # not even a temporary name
    assert score(storage, run).scored == BLOCKS
    assert storage.names(layout.leases_folder(run.name)) == []


def test_a_writer_elsewhere_is_waited_for_until_it_was_silent_for_long(storage, monkeypatch):
    monkeypatch.setattr("tinytags_tasks.store.block_lease._POLL_SECONDS", 0.05)
    run = make_run(storage)
    elsewhere = {"owner": "a", "place": "elsewhere boot pid:[1]", "pid": 7, "started": 1.0, "renewed": 0}
    storage.write(layout.writer_lease_file(layout.leases_folder(run.name), "silent"), json.dumps(elsewhere).encode())
    storage.make_folder(f"{layout.block_lease_folder(layout.leases_folder(run.name), 3)}/silent")
    told = []
    assert score(storage, run, lease_seconds=0.3, report=told.append).scored == BLOCKS
    assert "block 3 is being written by elsewhere, process 7: waiting for it" in told
    assert {record.state for record in read_ledger(storage, run)} == {BlockState.SCORED}


def losing_the_first_answer(storage: Storage) -> Storage:
    """Let the first move to a block's lease be carried out and denied, as by the second NameNode of a pair."""
    losing, genuine, lost = FaultyStorage(storage, 0), storage.rename, []

    def rename(source: str, target: str) -> bool:
        moved = genuine(source, target)
        if target.endswith(".block") and not lost:
            lost.append(target)
            raise LostWriteError(f"{target}: another writer deleted the temporary file")
        return moved

    losing.rename = rename
    return losing


def test_a_writer_holds_a_block_whose_lease_it_was_told_it_had_lost(storage):
    run = make_run(storage)
    told, held = [], []
    losing = losing_the_first_answer(storage)
    for ours in hold_blocks(run.name, [0, 1], storage=losing, report=told.append, patience_seconds=0.0):
        held += ours.blocks
    assert held == [0, 1]
    assert told == []
    assert storage.names(layout.leases_folder(run.name)) == []


def test_a_lease_that_was_moved_away_to_be_checked_and_is_back_is_its_writers_again(storage):
    run = make_run(storage)
    lease_path = layout.block_lease_folder(layout.leases_folder(run.name), 0)
    moved = temporary_name(lease_path)
    told, held = [], []

    def move_back(message: str) -> None:
        told.append(message)
        storage.rename(moved, lease_path)

    for ours in hold_blocks(run.name, [0], storage=storage, report=move_back, patience_seconds=0.0):
        held += ours.blocks
        if not told:
            storage.rename(lease_path, moved)
    assert held == [0, 0]
    assert told == ["blocks 0 were taken over by another writer: checking them again"]
    assert storage.names(layout.leases_folder(run.name)) == []


# Two at once


def at_once(*steps: Callable[[], object]) -> list[BaseException]:
    errors: list[BaseException] = []

    def guarded(work: Callable[[], object]) -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(work,)) for work in steps]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return errors


@pytest.fixture(autouse=True)
def hasty(monkeypatch):
    monkeypatch.setattr("tinytags_tasks.store.block_lease._POLL_SECONDS", 0.02)


@pytest.mark.parametrize("redo", [False, True])
@pytest.mark.parametrize("others", [ALL, (5, 4, 3, 2), (2,)])
def test_two_scorers_of_the_same_blocks_both_end_well(storage, clean, others, redo):
    run, solr = make_run(storage), SolrHere()
    first, second = SparkHere(), SparkHere()
    errors = at_once(
        lambda: score(storage, run, ALL, first, redo=redo), lambda: score(storage, run, others, second, redo=redo)
    )
    assert errors == []
    assert first.ran + second.ran == BLOCKS + (len(others) if redo else 0)
    index_all(storage, run, solr)
    assert outcome(storage, run, solr) == clean


def test_a_backfill_beside_a_run_finds_the_work_done(storage, clean):
    run, solr = make_run(storage), SolrHere()
    solr.visible[run.collection] = {}
    score(storage, run, [3])
    storage.write(layout.scored_file(run.name, 3), b"PAR1")

    def whole_run() -> None:
        score(storage, run)
        index_all(storage, run, solr)

    def backfill() -> None:
        plan_backfill(BackfillRequest(run.name, "2-4"), storage=storage, solr=solr, alias="live", report=quiet)
        score(storage, run, [2, 3, 4])
        index_blocks(IndexRequest(run.name, (2, 3, 4)), storage=storage, solr=solr, report=quiet)

    assert at_once(whole_run, backfill) == []
    score_all(storage, run)
    index_all(storage, run, solr)
    assert outcome(storage, run, solr) == clean


def test_counts_that_differ_while_a_backfill_writes_are_compared_again_when_it_has_ended(storage):
    run, solr = make_run(storage), SolrHere()
    score(storage, run)
    index_all(storage, run, solr)
    (record,) = read_ledger(storage, run, [3])
    told, errors = [], []

    def reconcile() -> None:
        try:
            reconcile_run(run.name, storage=storage, solr=solr, report=told.append)
        except TinyTagsError as error:
            errors.append(error)

    with held_by_another(storage, run, [3]):
        record.replaced(state=BlockState.INDEXED).save(storage, layout.ledger_file(run.name, 3))
        work = threading.Thread(target=reconcile)
        work.start()
        while not any("block 3 is being written by" in line for line in told):
            assert work.is_alive()
            work.join(0.01)
        record.save(storage, layout.ledger_file(run.name, 3))
    work.join(30)
    assert errors == []
    assert f"run {run.name}: its blocks were written meanwhile, so it is compared again" in told
    assert told[-1].startswith(f"reconciled {BLOCKS} blocks: ")


def test_counts_that_differ_are_told_at_once_if_nobody_writes(storage):
    run, solr = make_run(storage), SolrHere()
    score(storage, run)
    index_all(storage, run, solr)
    (record,) = read_ledger(storage, run, [3])
    record.replaced(state=BlockState.INDEXED).save(storage, layout.ledger_file(run.name, 3))
    with held_by_another(storage, run, [4]), pytest.raises(ReconcileError, match="not verified: blocks 3"):
        reconcile_run(run.name, storage=storage, solr=solr, blocks=(2, 3), report=quiet)


def test_a_writer_whose_sign_of_life_is_deleted_as_a_leftover_takes_no_block_without_one(storage, monkeypatch):
    run = make_run(storage)
    monkeypatch.setattr(lease, "_POLL_SECONDS", 0.01)
    genuine, lost = lease.Leases._create, []

    def create(leases, path, content):
        if not lost:
            lost.append(path)
            return False
        return genuine(leases, path, content)

    monkeypatch.setattr(lease.Leases, "_create", create)
    for ours in hold_blocks(run.name, [0], storage=storage, report=quiet):
        assert storage.exists(layout.writer_lease_file(layout.leases_folder(run.name), ours.writer))
    assert lost


def test_a_writer_whose_temporary_folder_is_deleted_while_it_makes_it_takes_the_block_at_its_next_try(
    storage, monkeypatch
):
    run = make_run(storage)
    monkeypatch.setattr(block_lease, "_POLL_SECONDS", 0.01)
    genuine, lost = LocalStorage.make_folder, []

    def make_folder(inner, path):
        if not lost:
            lost.append(path)
            raise MissingError(f"{path}: no such file in the store")
        genuine(inner, path)

    monkeypatch.setattr(LocalStorage, "make_folder", make_folder)
    assert [ours.blocks for ours in hold_blocks(run.name, [0], storage=storage, report=quiet)] == [[0]]
    assert lost


def test_documents_are_deleted_when_the_writer_of_their_block_is_done(storage):
    run, solr = make_run(storage), SolrHere()
    score(storage, run)
    index_all(storage, run, solr)
    told = []
    with held_by_another(storage, run, [3]):
        work = threading.Thread(
            target=delete_blocks,
            args=(DeleteRequest(run.name, (3,)),),
            kwargs={"storage": storage, "solr": solr, "report": told.append},
        )
        work.start()
        while not told:
            work.join(0.01)
        assert solr.count_by_block(run.collection, [3]) != {}
    work.join(30)
    assert solr.count_by_block(run.collection, [3]) == {}


# Writers that come back too late


def tasks_of_a_zombie(storage: Storage, run: Run) -> list[block_module.BlockTask]:
    return [replace(task, writer="zombie") for task in step._block_tasks(run, ALL, storage)]


def test_a_worker_whose_driver_is_gone_writes_nothing_after_the_retry(storage, clean):
    run, solr = make_run(storage), SolrHere()
    tasks = tasks_of_a_zombie(storage, run)
    score(storage, run)
    index_all(storage, run, solr)
    for task in tasks:
        with pytest.raises(OtherWriterError, match=f"block {task.source.block} was taken over by another writer"):
            score_block(task, address_of(storage))
    assert outcome(storage, run, solr) == clean


def test_a_zombie_repairs_no_record_of_a_block_that_another_has_indexed(storage, clean):
    run, solr = make_run(storage), SolrHere()
    score(storage, run)
    index_all(storage, run, solr)
    (record,) = read_ledger(storage, run, [2])
    record.replaced(state=BlockState.FAILED, reason="a test says so").save(storage, layout.ledger_file(run.name, 2))
    with pytest.raises(TransientError, match="block 2 was taken over by another writer"):
        worker.uncommitted_blocks(run.name, ALL, storage, "zombie")
    assert read_ledger(storage, run, [2])[0].reason == "a test says so"
    storage.write(layout.scored_file(run.name, 2), b"PAR1")
    with pytest.raises(TransientError, match="block 2 was taken over by another writer"):
        worker.uncommitted_blocks(run.name, ALL, storage, "zombie")
    assert storage.exists(layout.scored_file(run.name, 2))


def test_a_deletion_whose_blocks_were_taken_over_leaves_the_rest_of_them_alone(storage):
    run, solr = make_run(storage), SolrHere()
    score(storage, run)
    index_all(storage, run, solr)
    before = {block: solr.count_by_block(run.collection, [block]) for block in ALL}
    delete = solr.delete_block

    def delete_and_lose(collection, block):
        delete(collection, block)
        storage.delete(layout.block_lease_folder(layout.leases_folder(run.name), 4))

    solr.delete_block = delete_and_lose
    with pytest.raises(TransientError, match="block 4 was taken over by another writer"):
        delete_blocks(DeleteRequest(run.name, (3, 4)), storage=storage, solr=solr, report=quiet)
    assert read_ledger(storage, run, [4])[0].state is BlockState.VERIFIED
    assert solr.count_by_block(run.collection, [4]) == before[4]


class Interrupted(FaultyStorage):
    """Lets other writers act just before the n-th change; its own calls always succeed."""

    def __init__(self, inner: Storage, at: int, others: Callable[[], object]) -> None:
        super().__init__(inner, at)
        self.others = others

    def _change(self, what, act):
        self.calls += 1
        if self.calls == self.fail_at:
            self.others()
        return act()


def through(monkeypatch: pytest.MonkeyPatch, storage: Storage) -> None:
    """Let workers use this storage as well."""
    for module in (block_module, worker):
        monkeypatch.setattr(module, "open_store", lambda address: storage)
    monkeypatch.setattr(worker, "_AT_ONCE", 1)


def test_a_run_that_is_taken_over_at_any_change_and_goes_on_as_a_zombie(tmp_path, monkeypatch, clean):
    """A writer sleeps until another has scored and indexed all of its blocks, and then continues unaware."""
    at = met = 0
    while met == at:
        at += 1
        storage = LocalStorage(tmp_path / str(at) / "store")
        storage.root.parent.mkdir()
        run, solr = make_run(storage), SolrHere()

        def another(storage=storage, run=run, solr=solr) -> None:
            with monkeypatch.context() as patch:
                through(patch, storage)
                score(storage, run, lease_seconds=SOON)
                index_blocks(IndexRequest(run.name, ALL), storage=storage, solr=solr, report=quiet, lease_seconds=SOON)

        sleepy = Interrupted(storage, at, another)
        with monkeypatch.context() as patch, contextlib.suppress(TransientError):
            through(patch, sleepy)
            score(sleepy, run)
        met = min(sleepy.calls, at)
        retry = SparkHere()
        assert score(storage, run, spark=retry).scored == (0 if met == at else retry.ran)
        index_all(storage, run, solr)
        assert outcome(storage, run, solr) == clean, f"taken over before change {at}"
    assert at > 4 * BLOCKS


@pytest.mark.parametrize("fault", [Killed, TransientError])
@pytest.mark.parametrize("mode", MODES)
def test_scoring_that_fails_at_any_change_and_is_run_again_is_as_if_it_never_had(
    tmp_path, monkeypatch, clean, mode, fault
):
    at = met = 0
    while met == at:
        at += 1
        storage = LocalStorage(tmp_path / str(at) / "store")
        storage.root.parent.mkdir()
        run, solr = make_run(storage), SolrHere()
        faulty = FaultyStorage(storage, at, mode, fault)
        with monkeypatch.context() as patch, contextlib.suppress(fault, TinyTagsError):
            through(patch, faulty)
            score(faulty, run)
        met = min(faulty.calls, at)
        score_all(storage, run)
        index_all(storage, run, solr)
        assert outcome(storage, run, solr) == clean, f"{fault.__name__} {mode} change {at}"
    assert at > 4 * BLOCKS
