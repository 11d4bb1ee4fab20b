"""Documents, scored files and records that are lost or changed: found, named, and repaired by a backfill."""

import base64
import re
from collections.abc import Callable

import pytest
from conftest import hdfs_client
from faulty_site import BLOCKS, CLEAN, assert_clean, audit, index_run, lose_a_document, repair, states, visible
from small_run import TAGS, quiet

from tinytags_tasks.errors import BadInputError, CorruptError, ReconcileError
from tinytags_tasks.index.step import DeleteRequest, IndexRequest, delete_blocks, index_blocks
from tinytags_tasks.publish.step import reconcile_run
from tinytags_tasks.runtime import Runtime
from tinytags_tasks.store import layout
from tinytags_tasks.store.block_files import read_scored, write_scored
from tinytags_tasks.store.ledger import read_ledger
from tinytags_tasks.store.run_records import BlockState, Run
from tinytags_tasks.upkeep.backfill import BackfillRequest, plan_backfill

pytest_plugins = ["faulty_site"]


def change_a_tag(site: Runtime, run: Run) -> None:
    (identity, tag) = next((name, found["tag"]) for name, found in CLEAN.items() if found["block"] == 2)
    changed = {**CLEAN[identity], "id": identity, "tag": next(other for other in TAGS if other != tag)}
    add(site, run, changed)


def change_a_picture(site: Runtime, run: Run) -> None:
    identity = next(name for name, found in CLEAN.items() if found["block"] == 2)
    add(site, run, {**CLEAN[identity], "id": identity, "data": base64.b64encode(bytes(3_072)).decode()})


def add_a_stranger(site: Runtime, run: Run) -> None:
    add(site, run, {**CLEAN["crowd:121"], "id": "crowd:999"})


def add(site: Runtime, run: Run, document: dict[str, object]) -> None:
    site.solr._update(run.collection, {"add": {"doc": document}})
    site.solr.commit(run.collection)


def claim_that_a_block_is_verified(site: Runtime, run: Run) -> None:
    (record,) = read_ledger(site.storage, run, [2])
    delete_blocks(DeleteRequest(run.name, (2,)), storage=site.storage, solr=site.solr, report=quiet)
    record.save(site.storage, layout.ledger_file(run.name, 2))


def truncate_the_scored_file(site: Runtime, run: Run) -> None:
    path = layout.scored_file(run.name, 2)
    overwrite(site, path, site.storage.read(path)[:-20])


def spoil_the_scored_file(site: Runtime, run: Run) -> None:
    path = layout.scored_file(run.name, 2)
    stored = bytearray(site.storage.read(path))
    stored[60] ^= 0xFF
    overwrite(site, path, bytes(stored))


def score_by_another_model(site: Runtime, run: Run) -> None:
    table, record = read_scored(site.storage, run.name, 2)
    record = write_scored(site.storage, table, record.replaced(model="other-0123456789ab"))
    record.save(site.storage, layout.ledger_file(run.name, 2))


def cut_the_record_short(site: Runtime, run: Run) -> None:
    path = layout.ledger_file(run.name, 2)
    overwrite(site, path, site.storage.read(path)[:100])


def take_the_record_of_another_block(site: Runtime, run: Run) -> None:
    overwrite(site, layout.ledger_file(run.name, 2), site.storage.read(layout.ledger_file(run.name, 4)))


def overwrite(site: Runtime, path: str, content: bytes) -> None:
    """Write without our own code."""
    hdfs_client(site).write(path, content, overwrite=True)


LOSSES: dict[Callable[[Runtime, Run], None], str] = {
    lose_a_document: r"has \d+ of \d+ documents",
    change_a_tag: "ids or fields that differ from what was scored",
    change_a_picture: "has other bytes than the shard",
    add_a_stranger: r"has \d+ of \d+ documents",
    claim_that_a_block_is_verified: r"has 0 of \d+ documents",
    truncate_the_scored_file: "damaged",
    spoil_the_scored_file: "damaged",
    score_by_another_model: "not verified|was scored by other-0123456789ab",
    cut_the_record_short: "is failed, not verified",
    take_the_record_of_another_block: "is the record of block 4",
}

LEFT_TO_AUDITS = (change_a_picture,)
"""What reconciling may miss, as it compares a sample of the pictures."""


@pytest.mark.parametrize("plant", LOSSES, ids=lambda plant: plant.__name__)
def test_a_planted_loss_is_found_by_reconciling_and_auditing_and_repaired_by_a_backfill(
    site: Runtime, run: Run, plant: Callable[[Runtime, Run], None]
) -> None:
    index_run(site, run)
    plant(site, run)
    if plant not in LEFT_TO_AUDITS:
        with pytest.raises(ReconcileError, match="blocks 2"):
            reconcile_run(run.name, storage=site.storage, solr=site.solr, report=quiet)
    found = audit(site, run)
    assert found.wrong == (2,)
    assert re.search(LOSSES[plant], found.problems[2])
    repair(site, run)
    assert_clean(site, run)
    assert audit(site, run).problems == {}


def test_documents_of_no_block_of_the_corpus_are_found_and_deleted_only_on_request(site: Runtime, run: Run) -> None:
    index_run(site, run)
    add(site, run, {**CLEAN["crowd:121"], "id": "crowd:999", "block": 77})
    with pytest.raises(ReconcileError, match=rf"Solr holds {len(CLEAN) + 1} documents, {len(CLEAN)} images were kept"):
        reconcile_run(run.name, storage=site.storage, solr=site.solr, report=quiet)
    assert audit(site, run).wrong == (77,)
    with pytest.raises(ReconcileError):  # the repair leaves them alone
        repair(site, run)
    assert "crowd:999" in visible(site, run.collection)
    request = BackfillRequest(run.name, select="audit", delete_foreign=True)
    plan_backfill(request, storage=site.storage, solr=site.solr, alias="none", report=quiet)
    assert_clean(site, run)
    assert audit(site, run).problems == {}


# What cannot be indexed

UNUSABLE: dict[Callable[[Runtime, Run], None], str] = {
    truncate_the_scored_file: r"000002\.parquet: damaged .*score block 2 again",
    spoil_the_scored_file: r"000002\.parquet: damaged .*score block 2 again",
    score_by_another_model: r"000002\.parquet: was scored by other-0123456789ab, .*--blocks 2 --redo",
}


@pytest.mark.parametrize("plant", UNUSABLE, ids=lambda plant: plant.__name__)
def test_a_scored_file_that_cannot_be_used_fails_its_block_alone(
    site: Runtime, run: Run, plant: Callable[[Runtime, Run], None]
) -> None:
    plant(site, run)
    with pytest.raises(CorruptError, match=UNUSABLE[plant]):
        index_run(site, run)
    assert {document["block"] for document in visible(site, run.collection).values()} == {0, 1, 3, 4, 5}
    assert states(site, run) == [BlockState.FAILED if block == 2 else BlockState.VERIFIED for block in range(BLOCKS)]
    repair(site, run, "missing")
    assert_clean(site, run)


def test_a_block_out_of_range_is_refused_and_nothing_is_posted(site: Runtime, run: Run) -> None:
    with pytest.raises(BadInputError, match=rf"block 6 is out of range: run {run.name} has blocks 0 to 5"):
        index_blocks(IndexRequest(run.name, (0, 6)), storage=site.storage, solr=site.solr, report=quiet)
    assert visible(site, run.collection) == {}
    assert states(site, run) == [BlockState.SCORED] * BLOCKS
