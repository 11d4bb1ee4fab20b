"""Damage planted in records of a verified run: named with the file and the remedy, and mended by that remedy."""

import contextlib
import json
import os
import re
import shutil
from types import SimpleNamespace

import pytest
from faulty_storage import FaultyStorage, Killed
from small_run import (
    BLOCKS,
    BLOCKS_PER_SHARD,
    CORPUS,
    MODEL,
    SHARD_IMAGES,
    SolrHere,
    SparkHere,
    address_of,
    copy_run,
    index_all,
    make_run,
    quiet,
    score_all,
)
from typer.testing import CliRunner

from tinytags_tasks.cli import app, blocks, common, corpora, publishing, stages
from tinytags_tasks.corpus.definition import CorpusDefinition
from tinytags_tasks.corpus.registry import save_definition
from tinytags_tasks.errors import CorruptError, MissingError, TinyTagsError
from tinytags_tasks.publish.publications import read_history
from tinytags_tasks.publish.step import PublishRequest, publish_run
from tinytags_tasks.store import layout
from tinytags_tasks.store.block_files import read_scored, write_scored
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.ledger import read_ledger
from tinytags_tasks.store.local import LocalStorage
from tinytags_tasks.store.record import CHECKSUM_KEY
from tinytags_tasks.store.run_identity import load_run, rebuild_run
from tinytags_tasks.store.run_records import Audit, BlockState, Run
from tinytags_tasks.upkeep.backfill import BackfillRequest, plan_backfill

ALIAS = "live"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    storage, solr = LocalStorage(tmp_path_factory.mktemp("prepared") / "store"), SolrHere()
    planned = make_run(storage)
    score_all(storage, planned)
    solr.visible[planned.collection] = {}
    index_all(storage, planned, solr)
    publish_run(PublishRequest(planned.name, ALIAS), storage=storage, solr=solr, report=quiet)
    return storage, solr, planned


@pytest.fixture
def run(prepared, storage, solr, monkeypatch):
    """A run that is verified and live, and the commands at work on it."""
    planned = copy_run(prepared, storage, solr)
    runtime = SimpleNamespace(
        storage=storage,
        solr=solr,
        settings=SimpleNamespace(alias=ALIAS, keep_collections=1, solr_shards=1, solr_replicas=1),
        store_address=address_of(storage),
        connect_spark=SparkHere(),
    )
    for module in (common, publishing, blocks, stages):
        monkeypatch.setattr(module, "clients", lambda: runtime)
    return planned


def tinytags(*arguments, code=0, typed=None):
    outcome = CliRunner().invoke(app, arguments, input=typed)
    if isinstance(outcome.exception, TinyTagsError):
        raise outcome.exception
    assert outcome.exit_code == code, outcome.output
    return outcome.stdout


def edit(storage, path, *, with_checksum=True, **changes):
    """Change fields of a stored record, as a person would; without a checksum, it is as an older TinyTags wrote it."""
    fields = {**json.loads(storage.read(path)), **changes}
    if not with_checksum:
        del fields[CHECKSUM_KEY]
    storage.write(path, json.dumps(fields).encode())


def documents(solr, run):
    return {name: dict(document) for name, document in solr.documents(run.collection).items()}


def ledger(storage, run):
    return [record.replaced(attempts=0, indexed="", index_seconds=0.0) for record in read_ledger(storage, run)]


# A run's record


@pytest.mark.parametrize("with_checksum", [True, False], ids=["checksum", "older"])
@pytest.mark.parametrize(
    "changes",
    [
        {"blocks": BLOCKS - 1},
        {"images": 10},
        {"threshold": 50},
        {"model": "forest-0123456789ab"},
        {"collection": "tinytags-other"},
        {"corpus_digest": "0" * 64},
        {"thumbnails": "store"},
        {"name": "pets-0123456789ab"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_an_edited_run_is_named_and_written_again_and_no_document_is_touched(
    storage, solr, run, changes, with_checksum
):
    before = documents(solr, run)
    edit(storage, layout.run_file(run.name), with_checksum=with_checksum, **changes)
    said = rf"runs/{run.name}/run\.json: damaged .*`tinytags audit {run.name} --repair`"
    for command in (("audit", run.name), ("backfill", run.name, "--select", "missing"), ("score", run.name)):
        with pytest.raises(CorruptError, match=said):
            tinytags(*command)
    tinytags("audit", run.name, "--repair", "--yes")
    assert Run.load(storage, layout.run_file(run.name)) == run
    assert documents(solr, run) == before
    assert solr.deleted == []
    assert "everything matches" in tinytags("audit", run.name)


@pytest.mark.parametrize("stored", [b"", b"{", b"[]", b"\xff\xfe", b'{"created": 3}'])
def test_a_run_whose_record_says_nothing_any_more_is_proved_by_its_name(storage, run, stored):
    storage.write(layout.run_file(run.name), stored)
    rebuilt = rebuild_run(run.name, storage)
    assert rebuilt.replaced(created=run.created) == run


def test_times_of_a_damaged_run_are_kept_if_they_are_times(storage, run):
    path = layout.run_file(run.name)
    edit(storage, path, created="2024-01-01T00:00:00+00:00", pruned="yesterday", blocks=1)
    rebuilt = rebuild_run(run.name, storage)
    assert (rebuilt.created, rebuilt.pruned, rebuilt.blocks) == ("2024-01-01T00:00:00+00:00", "", BLOCKS)


def test_a_run_that_nothing_proves_is_refused_with_a_remedy(storage, run):
    storage.delete(layout.model_folder(MODEL))
    edit(storage, layout.run_file(run.name), blocks=1)
    with pytest.raises(MissingError, match=r"no corpus and model in the store make a run of this name; restore"):
        tinytags("audit", run.name, "--repair")


def test_a_run_record_under_another_name_is_named(storage, run):
    storage.write(layout.run_file("pets-0123456789ab"), storage.read(layout.run_file(run.name)))
    with pytest.raises(CorruptError, match=f"is the record of run {run.name}"):
        load_run("pets-0123456789ab", storage)


# The ledger

LEDGER_EDITS = [
    {"read": 3},
    {"kept": 0},
    {"below": 7},
    {"unreadable": 1},
    {"kept_by_tag": {"cat": 1, "dog": 0, "emu": 0}},
    {"documents": 0},
    {"documents": None},
    {"checksum": ""},
    {"checksum": "0" * 64},
    {"model": "forest-0123456789ab"},
    {"sha256": "0" * 64},
    {"scored_bytes": 3},
]


@pytest.mark.parametrize("changes", LEDGER_EDITS, ids=lambda changes: "-".join(map(str, *changes.items()))[:24])
def test_an_edited_field_of_an_older_ledger_is_named_and_the_record_is_rebuilt(storage, solr, run, changes):
    before, records = documents(solr, run), ledger(storage, run)
    edit(storage, layout.ledger_file(run.name, 3), with_checksum=False, **changes)
    said = tinytags("audit", run.name, code=1)
    if "checksum" in changes:
        assert "block 3: has documents as they were scored, but another checksum in the ledger" in said
    else:
        assert f"block 3: its record in the ledger is wrong: {next(iter(changes))} is " in said
    assert "1 blocks differ" in said
    solr.posted = 0
    tinytags("audit", run.name, "--repair")
    assert (documents(solr, run), ledger(storage, run)) == (before, records)
    assert (solr.posted, solr.deleted) == (0, [])


def test_ledger_records_whose_errors_cancel_each_other_out_are_both_named(storage, run):
    """``read`` is one more in one block and one less in another."""
    for block, difference in ((1, 1), (2, -1)):
        (record,) = read_ledger(storage, run, [block])
        path = layout.ledger_file(run.name, block)
        edit(storage, path, with_checksum=False, read=record.read + difference, below=record.below + difference)
    said = tinytags("audit", run.name, code=1)
    assert "block 1: its record in the ledger is wrong: read is 3, and must be 2, below is" in said
    assert "block 2: its record in the ledger is wrong: read is 1, and must be 2, below is" in said


@pytest.mark.parametrize("block", range(BLOCKS))
def test_a_ledger_record_that_fails_its_checksum_is_rebuilt(storage, solr, run, block):
    before, records = documents(solr, run), ledger(storage, run)
    edit(storage, layout.ledger_file(run.name, block), kept=77)
    assert f"block {block}: is failed, not verified (runs/{run.name}/ledger/" in tinytags("audit", run.name, code=1)
    plan = plan_backfill(
        BackfillRequest(run.name, select="audit"), storage=storage, solr=solr, alias=ALIAS, report=print
    )
    assert (plan.blocks, plan.rebuilt) == ((), (block,))
    assert (documents(solr, run), ledger(storage, run)) == (before, records)


def test_the_remedy_that_a_damaged_ledger_record_names_mends_it(storage, solr, run):
    before, records = documents(solr, run), ledger(storage, run)
    edit(storage, layout.ledger_file(run.name, 3), kept=77)
    (record,) = read_ledger(storage, run, [3])
    assert f"`tinytags backfill {run.name} --blocks 3`" in record.reason
    tinytags("backfill", run.name, "--blocks", "3")
    assert (documents(solr, run), ledger(storage, run)) == (before, records)


def test_a_block_that_failed_is_redone_and_not_called_verified(storage, solr, run):
    (record,) = read_ledger(storage, run, [3])
    failed = record.replaced(state=BlockState.FAILED, reason="a bad byte")
    failed.save(storage, layout.ledger_file(run.name, 3))
    tinytags("audit", run.name, code=1)
    plan = plan_backfill(
        BackfillRequest(run.name, select="audit"), storage=storage, solr=solr, alias=ALIAS, report=print
    )
    assert (plan.blocks, plan.rebuilt) == ((3,), ())


def test_a_damaged_record_of_a_block_whose_documents_differ_is_redone(storage, solr, run):
    before, records = documents(solr, run), ledger(storage, run)
    edit(storage, layout.ledger_file(run.name, 3), kept=77)
    solr.documents(run.collection)["pets:6"]["tag"] = "gnu"
    tinytags("audit", run.name, "--repair")
    assert (documents(solr, run), ledger(storage, run)) == (before, records)


# Documents of no block


def test_a_repair_shows_documents_of_no_block_and_leaves_them_without_a_word(storage, solr, run):
    solr.documents(run.collection)["pets:777"] = {
        **solr.documents(run.collection)["pets:6"],
        "position": 777,
        "block": 99,
    }
    outcome = CliRunner().invoke(app, ["audit", run.name, "--repair"])
    assert outcome.exit_code == 1
    assert "1 documents of blocks 99, which corpus pets does not have, are in tinytags-" in outcome.stderr
    assert "they stay" in outcome.stderr
    assert "pets:777" in solr.documents(run.collection)
    tinytags("audit", run.name, "--repair", "--yes")
    assert "pets:777" not in solr.documents(run.collection)


def test_a_repair_redoes_other_blocks_and_leaves_documents_of_no_block(storage, solr, run):
    solr.documents(run.collection)["pets:777"] = {
        **solr.documents(run.collection)["pets:6"],
        "position": 777,
        "block": 99,
    }
    del solr.documents(run.collection)["pets:6"]
    assert "block 99: 1 documents" in tinytags("audit", run.name, "--repair", code=1)
    assert {"pets:6", "pets:777"} <= set(solr.documents(run.collection))


# Other records


def test_a_damaged_manifest_is_named_and_the_blocks_are_compared_nevertheless(storage, solr, run):
    edit(storage, layout.shard_manifest_file(CORPUS, 0), images=7)
    del solr.documents(run.collection)["pets:6"]
    said = tinytags("audit", run.name, code=1)
    assert f"corpora/{CORPUS}/shards/00000.json: damaged" in said
    assert f"`tinytags ingest {CORPUS} --redo 0`" in said
    assert "block 3: has 0 of 1 documents" in said
    assert "1 blocks differ, 1 files or records are damaged" in said


def test_a_damaged_card_is_named_by_an_audit(storage, run):
    edit(storage, layout.card_file(MODEL), trees=11)
    assert f"models/{MODEL}/model.json: damaged" in tinytags("audit", run.name, code=1)


def test_damaged_totals_of_a_corpus_are_refused_by_name(storage, run):
    edit(storage, layout.corpus_file(CORPUS), images=10)
    with pytest.raises(CorruptError, match=rf"corpora/{CORPUS}/corpus\.json: damaged .*`tinytags ingest {CORPUS}`"):
        tinytags("audit", run.name)


def test_a_run_whose_corpus_was_removed_names_the_command_that_brings_both_back(
    prepared, storage, run, monkeypatch, tmp_path
):
    storage.delete(layout.corpus_folder(CORPUS))
    blocks_3 = (run.name, "--blocks", "3")
    remedy = f"corpora/{CORPUS}/corpus.json: .*`tinytags ingest {CORPUS}`"
    for command in (
        ("publish", run.name),
        ("audit", run.name),
        ("backfill", *blocks_3),
        ("score", *blocks_3, "--redo"),
    ):
        with pytest.raises(MissingError, match=remedy):
            tinytags(*command)
    source = shutil.copy(prepared[0].root.with_name("pets.bin"), tmp_path)
    os.utime(source, (1, 1))
    definition = CorpusDefinition(
        name=CORPUS,
        source=str(source),
        format="tiny-images",
        shard_images=SHARD_IMAGES,
        blocks_per_shard=BLOCKS_PER_SHARD,
    )
    save_definition(tmp_path / "corpora", definition)
    runtime = SimpleNamespace(
        storage=storage,
        settings=SimpleNamespace(corpora_folder=tmp_path / "corpora"),
        source_files=lambda definition: None,
    )
    monkeypatch.setattr(corpora, "clients", lambda: runtime)
    tinytags("ingest", CORPUS)
    tinytags("publish", run.name)
    assert "everything matches" in tinytags("audit", run.name)


def test_a_run_whose_corpus_is_another_one_by_now_names_the_command_that_makes_a_new_run(storage, run):
    path = layout.corpus_file(CORPUS)
    Corpus.load(storage, path).replaced(digest="0123").save(storage, path)
    for command in (("publish", run.name), ("audit", run.name), ("backfill", run.name, "--blocks", "3")):
        with pytest.raises(TinyTagsError, match=f"planned on; make a new run with `tinytags run {CORPUS}`"):
            tinytags(*command)
    for stage in ("score", "index"):
        with pytest.raises(CorruptError, match=f"planned on; make a new run with `tinytags run {CORPUS}`"):
            tinytags(stage, run.name, "--blocks", "3", "--redo")


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_damaged_publication_is_refused_and_written_again(storage, solr, run, number):
    for collection in ("tinytags-first", "tinytags-second"):
        solr.visible[collection] = documents(solr, run)
        solr.alias_of[ALIAS] = collection
        tinytags("publish", run.name)
    history = read_history(ALIAS, storage)
    edit(storage, layout.publication_file(ALIAS, number), collection="tinytags-elsewhere")
    damaged = rf"publications/live/00000{number}\.json: damaged .*`tinytags audit --alias live --repair`"
    for command in (("publish", run.name), ("rollback",), ("prune", "--yes")):
        with pytest.raises(CorruptError, match=damaged):
            tinytags(*command)
    assert f"publications/{ALIAS}/00000{number}.json: damaged" in tinytags("audit", code=1)
    tinytags("audit", "--repair")
    mended = read_history(ALIAS, storage)
    assert [(change.collection, change.previous) for change in mended] == [
        (change.collection, change.previous) for change in history
    ]
    assert "everything matches" in tinytags("audit")


def test_the_told_remedy_mends_a_publication_of_any_alias(storage, solr, run):
    solr.visible["tinytags-first"] = documents(solr, run)
    solr.alias_of["attic"] = "tinytags-first"
    publish_run(PublishRequest(run.name, "attic"), storage=storage, solr=solr, report=quiet)
    history = read_history("attic", storage)
    edit(storage, layout.publication_file("attic", 1), collection="tinytags-elsewhere")
    with pytest.raises(CorruptError, match=r"publications/attic/000001\.json: damaged") as raised:
        tinytags("prune", "--yes")
    remedy = re.search("`tinytags ([^`]+)`", str(raised.value))[1]
    assert "everything matches" in tinytags(*remedy.split())
    assert [one.collection for one in read_history("attic", storage)] == [one.collection for one in history]
    tinytags("prune", "--yes")


def test_a_damaged_audit_is_refused_and_the_next_audit_counts(storage, solr, run):
    del solr.documents(run.collection)["pets:6"]
    tinytags("audit", run.name, code=1)
    edit(storage, layout.audit_file(run.name, 1), problems={})
    with pytest.raises(CorruptError, match=rf"audits/000001\.json: damaged .*`tinytags audit {run.name}`"):
        tinytags("backfill", run.name, "--select", "audit")
    tinytags("audit", run.name, code=1)
    tinytags("backfill", run.name, "--select", "audit")
    assert Audit.load(storage, layout.audit_file(run.name, 2)).problems
    assert "everything matches" in tinytags("audit", run.name)


def test_a_scored_file_that_counts_wrongly_is_scored_again(storage, solr, run):
    """Its own record is edited, and so is the ledger: both agree, and the block's images contradict."""
    before, records = documents(solr, run), ledger(storage, run)
    table, scored = read_scored(storage, run.name, 3)
    wrong = scored.replaced(kept_by_tag={"cat": 1, "dog": 0, "emu": 0}, read=2, below=1)
    again = write_scored(storage, table, wrong)
    (record,) = read_ledger(storage, run, [3])
    changes = ("kept_by_tag", "read", "below", "scored_bytes", "scored_sha256")
    record.replaced(**{name: getattr(again, name) for name in changes}).save(storage, layout.ledger_file(run.name, 3))
    assert "block 3: its scored file is damaged (wrong read 2, and must be 1)" in tinytags("audit", run.name, code=1)
    tinytags("audit", run.name, "--repair")
    assert documents(solr, run) == before
    assert [record.replaced(scored="", score_seconds=0, scored_bytes=0, scored_sha256="") for record in records] == [
        record.replaced(scored="", score_seconds=0, scored_bytes=0, scored_sha256="") for record in ledger(storage, run)
    ]


@pytest.mark.parametrize("fail_at", range(1, 13))
@pytest.mark.parametrize("mode", ["before", "after"])
def test_a_repair_that_is_killed_and_run_again_ends_as_one_that_was_not(storage, solr, run, monkeypatch, fail_at, mode):
    before, records = documents(solr, run), ledger(storage, run)
    edit(storage, layout.run_file(run.name), blocks=BLOCKS - 1)
    edit(storage, layout.publication_file(ALIAS, 1), collection="tinytags-elsewhere")
    edit(storage, layout.ledger_file(run.name, 0), kept=7)
    del solr.documents(run.collection)["pets:6"]
    good = blocks.clients()
    faulty = SimpleNamespace(**{**vars(good), "storage": FaultyStorage(storage, fail_at, mode, Killed)})
    with monkeypatch.context() as patch:
        for module in (common, blocks):
            patch.setattr(module, "clients", lambda: faulty)
        with contextlib.suppress(Killed):
            tinytags("audit", run.name, "--repair", "--yes")
    tinytags("audit", run.name, "--repair", "--yes")
    assert (documents(solr, run), ledger(storage, run)) == (before, records)
    assert "everything matches" in tinytags("audit", run.name)
