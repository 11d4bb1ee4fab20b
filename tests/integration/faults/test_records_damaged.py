"""Records edited by hand in real HDFS, and documents lost in real Solr: named, refused, and mended without loss."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import all_documents, assert_one_error_line, hdfs_client
from small_run import MODEL, SparkHere, pictures, publish_model, quiet

from tinytags_tasks import services
from tinytags_tasks.corpus.definition import make_definition
from tinytags_tasks.corpus.formats.tiny_images import to_column_major
from tinytags_tasks.index.step import IndexRequest, index_blocks, prepare_collection
from tinytags_tasks.ingest.step import ingest_corpus
from tinytags_tasks.parts import PROJECT_ROOT
from tinytags_tasks.publish.step import PublishRequest, publish_run
from tinytags_tasks.runtime import Runtime
from tinytags_tasks.score.plan import PlanRequest, plan_run
from tinytags_tasks.score.step import ScoreRequest, score_blocks
from tinytags_tasks.settings import load_settings
from tinytags_tasks.store import layout
from tinytags_tasks.store.ledger import read_ledger
from tinytags_tasks.store.record import CHECKSUM_KEY
from tinytags_tasks.store.run_records import BlockRecord, Run

CORPUS, STORE, ALIAS = "worn", "/planted", "planted"
COPIES, SHARD_IMAGES, BLOCKS = 30, 180, 6
Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def site(hdfs: Runtime, tmp_path_factory: pytest.TempPathFactory) -> Runtime:
    """Solr beside HDFS, and a store with a corpus and a model."""
    settings = services.up(load_settings(), engines=["solr"], standard_ports=False, die_with_parent=True)
    site = Runtime(settings.model_copy(update={"store": STORE, "alias": ALIAS}))
    images = np.concatenate([pictures()] * COPIES)
    images.reshape(len(images), -1)[:, -2:] = np.arange(len(images), dtype=">u2").view(np.uint8).reshape(-1, 2)
    source = tmp_path_factory.mktemp("worn") / "worn.bin"
    source.write_bytes(to_column_major(images))
    fields = {"source": str(source), "format": "tiny-images", "shard_images": SHARD_IMAGES, "blocks_per_shard": 3}
    ingest_corpus(make_definition(CORPUS, fields), storage=site.storage, report=quiet)
    publish_model(site.storage)  # type: ignore[arg-type]
    return site


@pytest.fixture
def run(site: Runtime) -> Iterator[Run]:
    """A run that is verified and live."""
    storage, solr = site.storage, site.solr
    run = Run.load(storage, layout.run_file(plan_run(PlanRequest(CORPUS, MODEL), storage=storage).run))
    score_blocks(
        ScoreRequest(run.name, tuple(range(BLOCKS))),
        storage=storage,
        address=site.store_address,
        connect_spark=SparkHere(),
        report=quiet,
    )
    prepare_collection(run.name, storage=storage, solr=solr)
    index_blocks(IndexRequest(run.name, tuple(range(BLOCKS))), storage=storage, solr=solr, report=quiet)
    publish_run(PublishRequest(run.name, ALIAS), storage=storage, solr=solr, report=quiet)
    yield run
    solr.request("admin/collections", {"action": "DELETEALIAS", "name": ALIAS})
    solr.delete_collection(run.collection)
    storage.delete(layout.run_folder(run.name))
    storage.delete(layout.publications_folder(ALIAS))


@pytest.fixture
def tinytags(tinytags_here: Command) -> Command:
    """Run the command line on this store."""
    return lambda *arguments: tinytags_here(*arguments, TINYTAGS_STORE=STORE, TINYTAGS_ALIAS=ALIAS)


def documents(site: Runtime, run: Run) -> dict[str, dict]:
    found = all_documents(site.solr.url, run.collection)
    for document in found.values():
        document.pop("_version_", None)
    return found


def ledger(site: Runtime, run: Run) -> list[BlockRecord]:
    return [record.replaced(attempts=0, indexed="", index_seconds=0.0) for record in read_ledger(site.storage, run)]


def edit(site: Runtime, path: str, *, with_checksum: bool = True, **changes: object) -> None:
    """Change fields of a record past our own code; without a checksum, it is as an older TinyTags wrote it."""
    fields = {**json.loads(site.storage.read(path)), **changes}
    if not with_checksum:
        del fields[CHECKSUM_KEY]
    hdfs_client(site).write(path, json.dumps(fields).encode(), overwrite=True)


@pytest.mark.parametrize("with_checksum", [True, False], ids=["checksum", "older"])
def test_a_run_that_says_one_block_fewer_costs_no_document(
    site: Runtime, run: Run, tinytags: Command, with_checksum: bool
) -> None:
    before = documents(site, run)
    path = layout.run_file(run.name)
    edit(site, path, with_checksum=with_checksum, blocks=BLOCKS - 1)
    for command, *options in (("audit",), ("backfill", "--select", "missing"), ("delete", "--blocks", "0", "--yes")):
        outcome = tinytags(command, run.name, *options)
        assert_one_error_line(outcome, f"{path}: damaged ")
        assert f"`tinytags audit {run.name} --repair`" in outcome.stderr
    repaired = tinytags("audit", run.name, "--repair", "--yes")
    assert repaired.returncode == 0, repaired.stderr
    assert documents(site, run) == before
    assert Run.load(site.storage, path) == run
    assert tinytags("audit", run.name).returncode == 0


def test_edited_ledger_records_are_named_by_block_and_field_and_rebuilt(
    site: Runtime, run: Run, tinytags: Command
) -> None:
    before, records = documents(site, run), ledger(site, run)
    first, second, *_ = records
    moved = {**second.kept_by_tag, "cat": second.kept_by_tag["cat"] - 1, "dog": second.kept_by_tag["dog"] + 1}
    planted: dict[int, dict[str, object]] = {
        0: {"read": first.read + 1, "none": first.none + 1},
        1: {"kept_by_tag": moved},
        2: {"documents": records[2].kept - 1},
        3: {"checksum": "0" * 64},
        4: {"below": records[4].below + 1, "unreadable": records[4].unreadable - 1},
    }
    for block, changes in planted.items():
        edit(site, layout.ledger_file(run.name, block), with_checksum=False, **changes)
    edit(site, layout.ledger_file(run.name, 5), kept=7)  # its own checksum tells
    found = tinytags("audit", run.name)
    assert found.returncode == 1
    assert "block 3: has documents as they were scored, but another checksum in the ledger" in found.stdout
    for block in (0, 1, 2, 4):
        assert f"block {block}: its record in the ledger is wrong: {next(iter(planted[block]))} is " in found.stdout
    assert f"{layout.ledger_file(run.name, 5)}: damaged " in found.stdout
    repaired = tinytags("audit", run.name, "--repair")
    assert repaired.returncode == 0, repaired.stderr
    assert "run " + run.name + ": blocks none are redone" in repaired.stderr
    assert (documents(site, run), ledger(site, run)) == (before, records)


def test_an_edited_corpus_is_refused_and_added_up_again(
    site: Runtime, run: Run, tinytags: Command, tmp_path: Path
) -> None:
    path = layout.corpus_file(CORPUS)
    before = json.loads(site.storage.read(path))
    edit(site, path, images=before["images"] - 1)
    outcome = tinytags("audit", run.name)
    assert_one_error_line(outcome, f"{path}: damaged ")
    assert f"`tinytags ingest {CORPUS}`" in outcome.stderr
    source = before["source"]["path"]
    fields = {"source": source, "format": "tiny-images", "shard_images": SHARD_IMAGES, "blocks_per_shard": 3}
    ingest_corpus(make_definition(CORPUS, fields), storage=site.storage, report=quiet)
    after = json.loads(site.storage.read(path))
    changing = ("created", CHECKSUM_KEY)
    assert {name: value for name, value in after.items() if name not in changing} == {
        name: value for name, value in before.items() if name not in changing
    }
    assert tinytags("audit", run.name).returncode == 0


def test_an_edited_card_and_manifest_are_named_and_the_blocks_are_compared_nevertheless(
    site: Runtime, run: Run, tinytags: Command
) -> None:
    paths = layout.card_file(MODEL), layout.shard_manifest_file(CORPUS, 0)
    before = {path: site.storage.read(path) for path in paths}
    lost = next(name for name, document in documents(site, run).items() if document["block"] == 4)
    site.solr.delete_ids(run.collection, [lost])
    site.solr.commit(run.collection)
    try:
        edit(site, paths[0], trees=11)
        edit(site, paths[1], images=7)
        found = tinytags("audit", run.name)
        assert found.returncode == 1
        for path in paths:
            assert f"{path}: damaged " in found.stdout
        assert "block 4: has " in found.stdout
    finally:
        for path, content in before.items():
            hdfs_client(site).write(path, content, overwrite=True)
    assert tinytags("audit", run.name, "--repair").returncode == 0


def test_an_edited_publication_is_refused_and_written_again(site: Runtime, run: Run, tinytags: Command) -> None:
    path = layout.publication_file(ALIAS, 1)
    edit(site, path, collection="tinytags-elsewhere")
    for command in (("publish", run.name), ("rollback",), ("prune", "--yes")):
        assert_one_error_line(tinytags(*command), f"{path}: damaged ")
    repaired = tinytags("audit", "--repair")
    assert repaired.returncode == 0, repaired.stderr
    assert tinytags("publish", run.name).returncode == 0


def test_documents_of_no_block_are_shown_and_deleted_only_on_a_word(site: Runtime, run: Run, tinytags: Command) -> None:
    before = documents(site, run)
    document = next(iter(before.values()))
    foreign = {**document, "id": f"{CORPUS}:9999", "position": 9999, "block": 77}
    site.solr._update(run.collection, {"add": {"doc": foreign}})
    site.solr.commit(run.collection)
    kept = tinytags("audit", run.name, "--repair")
    assert kept.returncode == 1
    assert f"1 documents of blocks 77, which corpus {CORPUS} does not have" in kept.stderr
    assert set(documents(site, run)) == {*before, f"{CORPUS}:9999"}
    assert tinytags("audit", run.name, "--repair", "--yes").returncode == 0
    assert documents(site, run) == before


@pytest.mark.parametrize("options", [(), ("--repair", "--yes")], ids=["audit", "repair"])
def test_a_kill_in_the_middle_of_an_audit_or_a_repair_costs_nothing(
    site: Runtime, run: Run, tinytags: Command, options: tuple[str, ...]
) -> None:
    before, records = documents(site, run), ledger(site, run)
    environment = {**os.environ, "TINYTAGS_STORE": STORE, "TINYTAGS_ALIAS": ALIAS}
    command = [sys.executable, "-m", "tinytags_tasks.cli", "audit", run.name, *options]
    for seconds in (1.0, 2.0, 3.0, 4.5):
        lost = [name for name, document in documents(site, run).items() if document["block"] in (1, 4)][::2]
        site.solr.delete_ids(run.collection, lost)
        site.solr.commit(run.collection)
        edit(site, layout.ledger_file(run.name, 0), kept=7)
        edit(site, layout.run_file(run.name), blocks=BLOCKS - 1)
        process = subprocess.Popen(
            command, env=environment, cwd=PROJECT_ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        process.wait(30)
    repaired = tinytags("audit", run.name, "--repair", "--yes")
    assert repaired.returncode == 0, repaired.stderr
    assert (documents(site, run), ledger(site, run)) == (before, records)
    assert tinytags("audit", run.name).returncode == 0
