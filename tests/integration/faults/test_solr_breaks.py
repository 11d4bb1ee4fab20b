"""Solr fails while a run is indexed, published or audited: a retry ends like a clean run, or an error says why.

The real Solr is behind a proxy that fails some requests like a network or a broken Solr.
"""

import threading
import time
import urllib.error
from collections.abc import Callable
from pathlib import Path

import pytest
from configset_upgrades import upload, without_field
from conftest import engine_process
from fault_proxy import (
    FaultProxy,
    after,
    answering,
    cut_before,
    cut_before_answer,
    cut_in_answer,
    cut_in_request,
    delayed,
)
from faulty_site import (
    BLOCKS,
    CLEAN,
    assert_clean,
    assert_history_is_whole,
    audit,
    client,
    index_run,
    leases,
    lose_a_document,
    publish,
    repair,
    states,
    visible,
)
from small_run import quiet

from tinytags_tasks.errors import EngineDownError, FinalError, MissingError, ReconcileError, TransientError
from tinytags_tasks.index.step import DeleteRequest, delete_blocks, prepare_collection
from tinytags_tasks.publish.publications import read_history
from tinytags_tasks.publish.rollback import RollbackRequest, roll_back
from tinytags_tasks.publish.step import reconcile_run
from tinytags_tasks.runtime import Runtime
from tinytags_tasks.settings import load_settings
from tinytags_tasks.store import layout
from tinytags_tasks.store.configsets import read_configset
from tinytags_tasks.store.ledger import read_ledger
from tinytags_tasks.store.run_records import BlockState, Change, Run
from tinytags_tasks.upkeep.audit import AuditRequest, audit_run

pytest_plugins = ["faulty_site"]


# A fault that passes

PASSING = {
    "503 three times": (answering(503, "busy"), 3),
    "429 three times": (answering(429, "too many"), 3),
    "500 once": (answering(500, "a fault of the server"), 1),
    "cut before": (cut_before, 1),
    "cut in the request": (cut_in_request, 1),
    "cut before the answer": (cut_before_answer, 1),
    "cut in the answer": (cut_in_answer, 1),
    "slower than the time-out": (delayed(2), 1),
    "slow": (delayed(0.5), 3),
}


@pytest.mark.parametrize("fault", PASSING)
def test_a_fault_while_posting_that_passes_leaves_no_trace(
    site: Runtime, proxy: FaultProxy, run: Run, fault: str
) -> None:
    befalling, times = PASSING[fault]
    rule = proxy.let(befalling, skip=1, times=times)
    index_run(site, run, client(site, proxy, timeout_seconds=1))
    assert rule.befell == times
    assert_clean(site, run)


@pytest.mark.parametrize(
    ("path", "containing"),
    [("/update", b"commit"), ("/select", b"facet"), ("/export", b""), ("CLUSTERSTATUS", b"")],
    ids=["commit", "counts", "rows", "state"],
)
def test_a_lost_answer_to_any_other_request_leaves_no_trace(
    site: Runtime, proxy: FaultProxy, run: Run, path: str, containing: bytes
) -> None:
    rules = [
        proxy.let(fault, path=path, containing=containing) for fault in (cut_before_answer, cut_in_answer, cut_before)
    ]
    index_run(site, run, client(site, proxy))
    assert [rule.befell for rule in rules] == [1, 1, 1]
    assert_clean(site, run)


# A fault that stays

LASTING = {
    "503": answering(503, "busy"),
    "429": answering(429, "too many"),
    "no space": answering(500, "Exception writing document id x to the index; No space left on device"),
    "cut before": cut_before,
    "cut before the answer": cut_before_answer,
    "slower than the time-out": delayed(1),
}


@pytest.mark.parametrize("fault", LASTING)
def test_a_fault_while_posting_that_stays_is_told_and_a_retry_heals(
    site: Runtime, proxy: FaultProxy, run: Run, fault: str
) -> None:
    proxy.let(LASTING[fault], skip=2, times=None)
    with pytest.raises(TransientError, match=r"Solr answers \d+ \(|Solr does not answer; see `tinytags status`"):
        index_run(site, run, client(site, proxy, timeout_seconds=0.5, tries=2))
    assert visible(site, run.collection) == {}
    assert BlockState.VERIFIED not in states(site, run)
    assert leases(site, run) == []
    index_run(site, run)
    assert_clean(site, run)


def test_a_deletion_whose_answers_are_lost_is_done_again_by_indexing(
    site: Runtime, proxy: FaultProxy, published: Run, alias: str
) -> None:
    proxy.let(cut_before_answer, containing=b"block:3", times=None)
    with pytest.raises(EngineDownError, match="Solr does not answer"):
        delete_blocks(
            DeleteRequest(published.name, (2, 3, 4)),
            storage=site.storage,
            solr=client(site, proxy, tries=2),
            report=quiet,
        )
    assert states(site, published)[3] is BlockState.SCORED
    index_run(site, published)
    assert_clean(site, published)


# Solr itself goes down


def test_a_solr_that_lost_its_session_with_zookeeper_is_waited_for(site: Runtime, proxy: FaultProxy, run: Run) -> None:
    solr = engine_process(load_settings(), "solr")
    waking = threading.Timer(6, solr.resume)  # the session ends after four seconds

    def stop() -> None:
        solr.suspend()
        waking.start()

    proxy.let(after(stop), skip=3)
    try:
        index_run(site, run, client(site, proxy, timeout_seconds=2, tries=200))
    finally:
        waking.join()
        solr.resume()
    deadline = time.monotonic() + 30
    while True:
        try:
            assert_clean(site, run)
            return
        except urllib.error.HTTPError:  # Solr may notice the lost session only now, and takes a second to recover
            assert time.monotonic() < deadline
            time.sleep(0.5)


# A collection that has changed


def test_a_run_whose_collection_was_deleted_is_told_and_indexed_anew(site: Runtime, run: Run) -> None:
    index_run(site, run)
    site.solr.delete_collection(run.collection)
    for work in (
        lambda: index_run(site, run),
        lambda: reconcile_run(run.name, storage=site.storage, solr=site.solr, report=quiet),
        lambda: audit(site, run),
        lambda: repair(site, run, "missing"),
    ):
        with pytest.raises(MissingError, match=rf"{run.collection}.*`tinytags index {run.name}`"):
            work()
    prepare_collection(run.name, storage=site.storage, solr=site.solr)
    index_run(site, run)
    assert_clean(site, run)


def test_a_collection_that_is_deleted_under_a_run_is_told_and_the_run_indexed_anew(
    site: Runtime, proxy: FaultProxy, run: Run
) -> None:
    proxy.let(after(lambda: site.solr.delete_collection(run.collection)), skip=3)
    with pytest.raises(MissingError, match=rf"{run.collection}.*`tinytags index {run.name}`"):
        index_run(site, run, client(site, proxy))
    assert BlockState.VERIFIED not in states(site, run)
    assert leases(site, run) == []
    prepare_collection(run.name, storage=site.storage, solr=site.solr)
    index_run(site, run)
    assert_clean(site, run)


def test_a_read_only_collection_is_told_with_the_remedy_and_indexed_when_it_is_not_any_more(
    site: Runtime, run: Run
) -> None:
    modify = {"action": "MODIFYCOLLECTION", "collection": run.collection}
    site.solr.request("admin/collections", {**modify, "readOnly": "true"})
    with pytest.raises(FinalError, match=r"read-only.*MODIFYCOLLECTION.*readOnly=false"):
        index_run(site, run)
    assert visible(site, run.collection) == {}
    site.solr.request("admin/collections", {**modify, "readOnly": "false"})
    index_run(site, run)
    assert_clean(site, run)


def test_documents_that_the_schema_refuses_are_told_by_block_and_index_under_the_right_schema(
    site: Runtime, run: Run, tmp_path: Path
) -> None:
    site.solr.delete_collection(run.collection)
    lacking = upload(site.solr, read_configset(without_field(tmp_path / "conf", "votes")))
    site.solr.ensure_collection(run.collection, lacking)
    with pytest.raises(FinalError, match=r"blocks 0-5: .*unknown field 'votes'"):
        index_run(site, run)
    assert visible(site, run.collection) == {}
    assert states(site, run) == [BlockState.FAILED] * BLOCKS
    site.solr.delete_collection(run.collection)
    prepare_collection(run.name, storage=site.storage, solr=site.solr)
    index_run(site, run)
    assert_clean(site, run)


def test_a_batch_that_is_refused_for_one_document_fails_its_block_alone(
    site: Runtime, proxy: FaultProxy, run: Run, alias: str
) -> None:
    proxy.let(answering(400, "Document contains at least one immense term"), containing=b"crowd:121", times=None)
    with pytest.raises(FinalError, match=r"block 2: .*Solr answers 400 \(Document contains"):
        index_run(site, run, client(site, proxy))
    assert states(site, run) == [BlockState.FAILED if block == 2 else BlockState.VERIFIED for block in range(BLOCKS)]
    (record,) = read_ledger(site.storage, run, [2])
    assert "immense term" in record.reason
    with pytest.raises(ReconcileError, match="not verified: blocks 2"):
        publish(site, run, alias)
    assert alias not in site.solr.aliases()
    repair(site, run, "failed")
    assert_clean(site, run)


# The alias


def test_a_switch_whose_answer_is_lost_is_made_once(
    site: Runtime, proxy: FaultProxy, published: Run, new_run: Callable[[], Run], alias: str
) -> None:
    second = new_run()
    index_run(site, second)
    proxy.let(cut_before_answer, path="CREATEALIAS")
    publish(site, second, alias, client(site, proxy))
    assert [record.run for record in read_history(alias, site.storage)] == [published.name, second.name]
    assert_history_is_whole(site, alias)


def test_a_switch_that_was_made_while_solr_went_away_is_written_down_by_the_retry(
    site: Runtime, proxy: FaultProxy, published: Run, new_run: Callable[[], Run], alias: str
) -> None:
    second = new_run()
    index_run(site, second)
    proxy.let(cut_before_answer, path="CREATEALIAS", times=None)
    with pytest.raises(EngineDownError, match="Solr does not answer"):
        publish(site, second, alias, client(site, proxy, tries=2))
    publish(site, second, alias)
    assert [record.run for record in read_history(alias, site.storage)] == [published.name, second.name]
    assert_history_is_whole(site, alias)


def test_an_alias_that_is_missing_is_told_and_publishing_brings_it_back(
    site: Runtime, published: Run, alias: str
) -> None:
    site.solr.request("admin/collections", {"action": "DELETEALIAS", "name": alias})
    with pytest.raises(MissingError, match=rf"alias {alias} points at nothing: publish a run with"):
        audit_run(AuditRequest(alias=alias), storage=site.storage, solr=site.solr, report=quiet)
    with pytest.raises(MissingError, match=rf"alias {alias} points at nothing: publish a run with"):
        roll_back(RollbackRequest(alias), storage=site.storage, solr=site.solr, report=quiet)
    publish(site, published, alias)
    assert visible(site, alias) == CLEAN
    assert_history_is_whole(site, alias)


def test_an_alias_that_was_moved_by_hand_is_written_down_by_the_next_change(
    site: Runtime, published: Run, new_run: Callable[[], Run], alias: str
) -> None:
    by_hand, third = new_run(), new_run()
    for run in (by_hand, third):
        index_run(site, run)
    site.solr.set_alias(alias, by_hand.collection)
    found = audit_run(AuditRequest(alias=alias), storage=site.storage, solr=site.solr, report=quiet)
    assert (found.run, found.problems) == (by_hand.name, {})
    publish(site, third, alias)
    roll_back(RollbackRequest(alias), storage=site.storage, solr=site.solr, report=quiet)
    assert [(record.change, record.run) for record in read_history(alias, site.storage)] == [
        (Change.PUBLISHED, published.name),
        (Change.FOUND, by_hand.name),
        (Change.PUBLISHED, third.name),
        (Change.ROLLED_BACK, by_hand.name),
    ]
    assert_history_is_whole(site, alias)


# An audit


def test_an_audit_that_solr_disturbs_says_what_a_quiet_one_does_or_nothing(
    site: Runtime, proxy: FaultProxy, run: Run
) -> None:
    index_run(site, run)
    lose_a_document(site, run)
    for fault in (cut_in_answer, answering(503, "busy"), cut_before_answer):
        proxy.let(fault, path="/select", skip=1)
    assert audit(site, run, client(site, proxy)).wrong == (2,)
    proxy.let(answering(503, "busy"), path="/export", times=None)
    with pytest.raises(TransientError, match="Solr answers 503"):
        audit(site, run, client(site, proxy, tries=2))
    assert site.storage.names(f"{layout.run_folder(run.name)}/audits") == ["000001.json"]
    repair(site, run)
    assert_clean(site, run)
