"""Faults of indexing, publishing and auditing: a retry ends as a clean run does, or a clear error says what to do.

The real Solr stands behind a proxy that does to some requests what a network or a sick Solr does to them.
"""

import base64
import itertools
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from configset_upgrades import without_field
from conftest import all_documents, engine_process, hdfs_client
from fault_proxy import (
    FaultProxy,
    after,
    answering,
    cut_before,
    cut_before_answer,
    cut_in_answer,
    cut_in_request,
    delayed,
    proxy_before,
)
from small_run import MODEL, TAGS, VOTES, SparkHere, picture, publish_model, quiet

from tinytags_tasks import services
from tinytags_tasks.clients.solr import SolrClient
from tinytags_tasks.corpus.definition import make_definition
from tinytags_tasks.corpus.formats.tiny_images import to_column_major
from tinytags_tasks.errors import (
    BadInputError,
    CorruptError,
    EngineDownError,
    FinalError,
    MissingError,
    ReconcileError,
    TransientError,
)
from tinytags_tasks.index.step import DeleteRequest, IndexRequest, delete_blocks, index_blocks, prepare_collection
from tinytags_tasks.ingest.step import ingest_corpus
from tinytags_tasks.publish.publications import read_history
from tinytags_tasks.publish.rollback import RollbackRequest, roll_back
from tinytags_tasks.publish.step import PublishRequest, publish_run, reconcile_run
from tinytags_tasks.runtime import Runtime
from tinytags_tasks.score.plan import PlanRequest, plan_run
from tinytags_tasks.score.step import ScoreRequest, score_blocks
from tinytags_tasks.settings import PROJECT_ROOT, load_settings
from tinytags_tasks.store import layout
from tinytags_tasks.store.block_files import read_scored, write_scored
from tinytags_tasks.store.configsets import read_configset
from tinytags_tasks.store.ledger import read_ledger
from tinytags_tasks.store.run_records import BlockState, Change, Run
from tinytags_tasks.upkeep.audit import AuditRequest, AuditResult, audit_run
from tinytags_tasks.upkeep.backfill import BackfillRequest, plan_backfill

STORE = "/index-faults"
CORPUS = "crowd"
COPIES = 30
THRESHOLD = 50
SHARD_IMAGES, BLOCKS = 180, 6
BLOCK_ENDS = (60, 120, 180, 230, 280, 330)

_numbers = itertools.count()


def crowd() -> np.ndarray:
    """Return the pictures of the small corpus many times over, no two alike."""
    images = np.stack([picture(votes) for votes in VOTES] * COPIES)
    images.reshape(len(images), -1)[:, -2:] = np.arange(len(images), dtype=">u2").view(np.uint8).reshape(-1, 2)
    return images


def clean_documents() -> dict[str, dict[str, object]]:
    """Return what a clean run leaves, from the votes and the bytes alone."""
    documents = {}
    for position, (image, votes) in enumerate(zip(crowd(), VOTES * COPIES, strict=True)):
        if max(votes) * 10 < THRESHOLD:
            continue
        documents[f"{CORPUS}:{position}"] = {
            "position": position,
            "tag": TAGS[votes.index(max(votes))],
            "votes": max(votes),
            "accuracy": max(votes) * 10,
            "block": next(block for block, end in enumerate(BLOCK_ENDS) if position < end),
            "shard": position // SHARD_IMAGES,
            "corpus": CORPUS,
            "model": MODEL,
            "width": 32,
            "data": base64.b64encode(image).decode(),
        }
    return documents


CLEAN = clean_documents()


@pytest.fixture(scope="module")
def site(hdfs: Runtime, tmp_path_factory: pytest.TempPathFactory) -> Runtime:
    """Solr beside HDFS, and a store with a corpus and a model."""
    settings = services.up(load_settings(), engines=["solr"], standard_ports=False, die_with_parent=True)
    site = Runtime(settings.model_copy(update={"store": STORE}))
    source = tmp_path_factory.mktemp("crowd") / "crowd.bin"
    source.write_bytes(to_column_major(crowd()))
    fields = {"source": str(source), "format": "tiny-images", "shard_images": SHARD_IMAGES, "blocks_per_shard": 3}
    ingest_corpus(make_definition(CORPUS, fields), storage=site.storage, report=quiet)
    publish_model(site.storage)  # type: ignore[arg-type]
    return site


@pytest.fixture
def proxy(site: Runtime) -> Iterator[FaultProxy]:
    with proxy_before(site.solr.url) as proxy:
        yield proxy


@pytest.fixture
def new_run(site: Runtime) -> Iterator[Callable[[], Run]]:
    """Make runs that are scored and have an empty collection, as many as a test needs."""
    made = []

    def make() -> Run:
        # The confidences are tens of percent, so that these thresholds keep the same images.
        request = PlanRequest(CORPUS, MODEL, THRESHOLD - len(made))
        run = Run.load(site.storage, layout.run_file(plan_run(request, storage=site.storage).run))
        made.append(run)
        score_run(site, run)
        prepare_collection(run.name, storage=site.storage, solr=site.solr)
        return run

    yield make
    for alias, collection in site.solr.aliases().items():
        if collection in [run.collection for run in made]:
            site.solr.request("admin/collections", {"action": "DELETEALIAS", "name": alias})
    for collection in {run.collection for run in made}.intersection(site.solr.collections()):
        site.solr.delete_collection(collection)
    for run in made:
        site.storage.delete(layout.run_folder(run.name))


@pytest.fixture
def run(new_run: Callable[[], Run]) -> Run:
    return new_run()


@pytest.fixture
def alias() -> str:
    """An alias of one test alone."""
    return f"faults-alias-{next(_numbers)}"


@pytest.fixture
def published(site: Runtime, run: Run, alias: str) -> Run:
    """A run that is whole and live."""
    index_run(site, run)
    publish(site, run, alias)
    return run


def client(site: Runtime, proxy: FaultProxy, timeout_seconds: float = 30, tries: int = 4) -> SolrClient:
    """Return a client that asks the proxy and is not patient."""
    admin, writer = (site.settings.solr_login(role) for role in ("admin", "writer"))
    pauses = (0.05,) * (tries - 1)
    return SolrClient(proxy.url, admin=admin, writer=writer, pauses_seconds=pauses, timeout_seconds=timeout_seconds)


def score_run(site: Runtime, run: Run, blocks: tuple[int, ...] = tuple(range(BLOCKS))) -> None:
    request, address = ScoreRequest(run.name, blocks), site.store_address
    score_blocks(request, storage=site.storage, address=address, connect_spark=SparkHere(), report=quiet)


def index_run(site: Runtime, run: Run, solr: SolrClient | None = None) -> None:
    request = IndexRequest(run.name, tuple(range(run.blocks)))
    index_blocks(request, storage=site.storage, solr=solr or site.solr, report=quiet)


def publish(site: Runtime, run: Run, alias: str, solr: SolrClient | None = None) -> None:
    publish_run(PublishRequest(run.name, alias), storage=site.storage, solr=solr or site.solr, report=quiet)


def audit(site: Runtime, run: Run, solr: SolrClient | None = None) -> AuditResult:
    return audit_run(AuditRequest(run.name), storage=site.storage, solr=solr or site.solr, report=quiet)


def repair(site: Runtime, run: Run, select: str = "audit") -> None:
    """Do what ``tinytags backfill --select`` does."""
    request = BackfillRequest(run.name, select=select)
    chosen = plan_backfill(request, storage=site.storage, solr=site.solr, alias="none", report=quiet)
    for group in chosen.groups:
        score_run(site, run, group)
        index_blocks(IndexRequest(run.name, group, redo=True), storage=site.storage, solr=site.solr, report=quiet)
    reconcile_run(run.name, storage=site.storage, solr=site.solr, report=quiet)


def visible(site: Runtime, collection: str) -> dict[str, dict]:
    """Return all that readers of a collection or an alias see."""
    found = all_documents(site.solr.url, collection)
    for document in found.values():
        document.pop("_version_", None)
    return found


def states(site: Runtime, run: Run) -> list[BlockState]:
    return [record.state for record in read_ledger(site.storage, run)]


def leases(site: Runtime, run: Run) -> list[str]:
    return site.storage.names(f"{layout.run_folder(run.name)}/index")


def assert_clean(site: Runtime, run: Run) -> None:
    """Assert that nothing tells a run from one that met no fault."""
    assert visible(site, run.collection) == CLEAN
    assert states(site, run) == [BlockState.VERIFIED] * BLOCKS
    assert leases(site, run) == []
    reconcile_run(run.name, storage=site.storage, solr=site.solr, report=quiet)


def assert_history_is_whole(site: Runtime, alias: str) -> None:
    """Assert that each change starts where the one before ended, and the last one is what is live."""
    history = read_history(alias, site.storage)
    assert [record.previous for record in history[1:]] == [record.collection for record in history[:-1]]
    assert site.solr.aliases()[alias] == history[-1].collection


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
    [("/update", b"commit"), ("/select", b"facet"), ("/select", b"position asc"), ("CLUSTERSTATUS", b"")],
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


# Solr itself goes away


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
        except urllib.error.HTTPError:  # Solr may notice the lost session only now, and takes a second to come back
            assert time.monotonic() < deadline
            time.sleep(0.5)


# A collection that is not as it was


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
    lacking = site.solr.ensure_configset(read_configset(without_field(tmp_path / "conf", "votes")))
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


# Several at once, and killed ones


def start(site: Runtime, *command: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *command],
        env={**os.environ, "TINYTAGS_STORE": STORE},
        cwd=PROJECT_ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_two_indexers_of_the_same_blocks_leave_each_block_whole(site: Runtime, run: Run) -> None:
    indexers = [start(site, "-m", "tinytags_tasks.cli", "index", run.name, "--blocks", "0-5") for _ in range(2)]
    for indexer in indexers:
        _, told = indexer.communicate(timeout=120)
        assert indexer.returncode == 0, told
    assert_clean(site, run)


KILLED_WHILE_POSTING = """
import os, signal, sys
from tinytags_tasks.cli import main
from tinytags_tasks.clients.solr import SolrClient
SolrClient.commit = lambda *arguments: os.kill(os.getpid(), signal.SIGKILL)
sys.argv = ["tinytags", "index", {run!r}, "--blocks", "0-5"]
main()
"""


def test_the_leases_of_a_killed_indexer_are_taken_over_at_once(site: Runtime, run: Run) -> None:
    killed = start(site, "-c", KILLED_WHILE_POSTING.format(run=run.name))
    killed.communicate(timeout=120)
    assert killed.returncode == -signal.SIGKILL
    assert len(leases(site, run)) == BLOCKS
    index_run(site, run)
    assert_clean(site, run)


def test_two_publishers_at_once_with_a_slow_solr_take_turns(
    site: Runtime, proxy: FaultProxy, new_run: Callable[[], Run], alias: str
) -> None:
    runs = new_run(), new_run()
    for run in runs:
        index_run(site, run)
    slow = proxy.let(delayed(0.5), path="CREATEALIAS", times=None)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda run: publish(site, run, alias, client(site, proxy)), runs))
    assert slow.befell == 2
    assert_history_is_whole(site, alias)
    assert {record.run for record in read_history(alias, site.storage)} == {run.name for run in runs}
    assert visible(site, alias) == CLEAN


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


# Planted losses: found by the audit, repaired by a backfill of what it found


def lose_a_document(site: Runtime, run: Run) -> None:
    site.solr.delete_ids(run.collection, ["crowd:121"])
    site.solr.commit(run.collection)


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
    """Write past our own code."""
    hdfs_client(site).write(path, content, overwrite=True)


LOSSES: dict[Callable[[Runtime, Run], None], str] = {
    lose_a_document: r"has \d+ of \d+ documents",
    change_a_tag: "other ids, tags, votes or accuracies",
    change_a_picture: "has other bytes than the shard",
    add_a_stranger: r"has \d+ of \d+ documents",
    claim_that_a_block_is_verified: r"has 0 of \d+ documents",
    truncate_the_scored_file: "damaged",
    spoil_the_scored_file: "damaged",
    score_by_another_model: "not verified|was scored by other-0123456789ab",
    cut_the_record_short: "is failed, not verified",
    take_the_record_of_another_block: "is the record of block 4",
}

UNSEEN_BY_COUNTS = (change_a_tag, change_a_picture, spoil_the_scored_file)
"""What only an audit finds: reconciling counts documents and bytes."""


@pytest.mark.parametrize("plant", LOSSES, ids=lambda plant: plant.__name__)
def test_a_planted_loss_is_found_by_reconciling_and_auditing_and_repaired_by_a_backfill(
    site: Runtime, run: Run, plant: Callable[[Runtime, Run], None]
) -> None:
    index_run(site, run)
    plant(site, run)
    if plant not in UNSEEN_BY_COUNTS:
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


def test_an_audit_that_solr_disturbs_says_what_a_quiet_one_does_or_nothing(
    site: Runtime, proxy: FaultProxy, run: Run
) -> None:
    index_run(site, run)
    lose_a_document(site, run)
    for fault in (cut_in_answer, answering(503, "busy"), cut_before_answer):
        proxy.let(fault, path="/select", skip=1)
    assert audit(site, run, client(site, proxy)).wrong == (2,)
    proxy.let(answering(503, "busy"), path="/select", containing=b"position asc", times=None)
    with pytest.raises(TransientError, match="Solr answers 503"):
        audit(site, run, client(site, proxy, tries=2))
    assert site.storage.names(f"{layout.run_folder(run.name)}/audits") == ["000001.json"]
    repair(site, run)
    assert_clean(site, run)
