"""Runs that are indexed after people's words: every document, sum and comparison follows them, and damage is named."""

import base64
import json
from types import SimpleNamespace

import orjson
import pytest
from small_run import (
    CORPUS,
    UNREADABLE,
    SparkHere,
    address_of,
    index_all,
    make_another_run,
    make_run,
    picture,
    quiet,
    score_all,
)
from small_words import none, restore, say, tag, takedown, wrong
from typer.testing import CliRunner

from tinytags_tasks.cli import app, blocks, common
from tinytags_tasks.correct.apply import apply_corrections
from tinytags_tasks.errors import CorruptError, ReconcileError
from tinytags_tasks.index.step import DeleteRequest, IndexRequest, delete_blocks, index_blocks
from tinytags_tasks.publish import reconciliation
from tinytags_tasks.publish.diff import DiffRequest, compare_runs
from tinytags_tasks.publish.step import reconcile_run
from tinytags_tasks.review.words import say as say_words
from tinytags_tasks.score.export import ExportRequest, export_run
from tinytags_tasks.score.step import ScoreRequest, score_blocks
from tinytags_tasks.store import layout
from tinytags_tasks.store.block_files import read_scored
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.corrections import CorrectionsReader
from tinytags_tasks.store.ledger import add_up, read_ledger
from tinytags_tasks.store.record import CHECKSUM_KEY
from tinytags_tasks.store.run_records import BlockState
from tinytags_tasks.upkeep import meanwhile as meanwhile_module
from tinytags_tasks.upkeep.audit import AuditRequest, audit_run
from tinytags_tasks.upkeep.backfill import BackfillRequest, plan_backfill

WORDS = (tag(0, "yak"), none(2), wrong(3, "cat"), takedown(7), tag(8, "emu"), takedown(9))
"""Position 9 is unreadable; all others were kept, but for position 1."""

DOCUMENTS = {0: "yak", 4: "dog", 5: "cat", 6: "dog", 8: "emu", 10: "cat"}


@pytest.fixture
def run(storage, solr):
    """A run that was scored, then spoken of, then indexed."""
    planned = make_run(storage, unreadable=UNREADABLE)
    score_all(storage, planned)
    say(storage, *WORDS)
    index_all(storage, planned, solr)
    return planned


def tags(solr, run):
    return {document["position"]: document["tag"] for document in solr.documents(run.collection).values()}


def reconcile(storage, solr, run):
    lines = []
    totals = reconcile_run(run.name, storage=storage, solr=solr, report=lines.append)
    return totals, lines[-1]


def audit(storage, solr, run, **options):
    return audit_run(AuditRequest(run.name, is_deep=True, **options), storage=storage, solr=solr, report=quiet)


def redo(storage, solr, plan):
    for group in plan.groups:
        request = ScoreRequest(plan.run, group)
        score_blocks(request, storage=storage, address=address_of(storage), connect_spark=SparkHere(), report=quiet)
        index_blocks(IndexRequest(plan.run, group, redo=True), storage=storage, solr=solr, report=quiet)


def edit(storage, run, block, **changes):
    """Change a block's record as an older TinyTags, which wrote no checksums, would have written it."""
    path = layout.ledger_file(run.name, block)
    fields = {**json.loads(storage.read(path)), **changes}
    del fields[CHECKSUM_KEY]
    storage.write(path, json.dumps(fields).encode())


def test_documents_say_what_people_say_and_nothing_that_was_taken_down_is_there(storage, solr, run):
    assert tags(solr, run) == DOCUMENTS
    said = solr.documents(run.collection)[f"{CORPUS}:0"]
    assert (said["votes"], said["accuracy"], said["corrected"]) == (10, 100, 1)
    assert said["data"] == picture((10, 0, 0)).tobytes()
    assert "corrected" not in solr.documents(run.collection)[f"{CORPUS}:4"]
    assert all(record.state is BlockState.VERIFIED for record in read_ledger(storage, run))


def test_the_sums_add_up_and_reconciling_says_what_was_taken_down(storage, solr, run):
    totals, said = reconcile(storage, solr, run)
    assert totals.read == totals.accounted == 11
    counts = (totals.kept, totals.below, totals.none, totals.unreadable, totals.taken_down, totals.corrected)
    assert counts == (6, 1, 1, 1, 2, 2)
    assert totals.kept_by_tag == {"cat": 2, "dog": 2, "emu": 1, "yak": 1}
    assert "11 images = 6 kept + 1 below the threshold + 1 none of the tags + 1 unreadable + 2 taken down; 6" in said


def test_the_ledger_command_counts_what_was_taken_down(storage, solr, run, monkeypatch):
    runtime = SimpleNamespace(storage=storage, solr=solr)
    for module in (common, blocks):
        monkeypatch.setattr(module, "clients", lambda: runtime)
    outcome = CliRunner().invoke(app, ["ledger", run.name])
    assert outcome.exit_code == 0, outcome.output
    assert "11 read = 6 kept + 1 below + 1 none + 1 unreadable + 2 taken down; 6 documents" in outcome.stdout


def test_an_audit_of_a_run_that_follows_the_words_finds_nothing(storage, solr, run):
    found = audit(storage, solr, run)
    assert (found.problems, found.input_problems, found.pending, found.sampled) == ({}, (), (), 6)


@pytest.mark.parametrize(
    ("position", "document", "said"),
    [
        (7, None, "has 2 of 1 documents"),  # what was taken down comes back
        (0, {"tag": "cat"}, "differ from what was scored"),  # the model's own tag
        (8, {"corrected": 2}, "differ from what was scored"),
    ],
)
def test_a_document_against_the_words_is_named_with_its_block_and_redone(storage, solr, run, position, document, said):
    block = Corpus.load(storage, layout.corpus_file(CORPUS)).partition.block_at(position)
    found = solr.documents(run.collection)
    name = f"{CORPUS}:{position}"
    own = next(document for document in found.values() if document["block"] == block)
    found[name] = {**found.get(name, {**own, "id": name, "position": position}), **(document or {})}
    with pytest.raises(ReconcileError, match=rf"blocks {block}\b"):
        reconcile(storage, solr, run)
    audited = audit(storage, solr, run)
    assert list(audited.problems) == [block] and said in audited.problems[block]
    redo(
        storage,
        solr,
        plan_backfill(BackfillRequest(run.name, select="audit"), storage=storage, solr=solr, alias="live"),
    )
    assert tags(solr, run) == DOCUMENTS
    assert audit(storage, solr, run).problems == {}


@pytest.mark.parametrize(
    "changes", [{"taken_down": 0}, {"corrected": 0}, {"kept_by_tag": {"cat": 1}}, {"taken_down": 0, "none": 1}], ids=str
)
def test_a_record_of_the_ledger_against_the_words_is_named_and_written_again(storage, solr, run, changes):
    block = 4  # positions 7 and 8
    before = read_ledger(storage, run)[block]
    edit(storage, run, block, **changes)
    with pytest.raises(ReconcileError, match=rf"blocks {block}\b"):
        reconcile(storage, solr, run)
    assert f"{next(iter(changes))} is " in audit(storage, solr, run).problems[block]
    posted = solr.posted
    plan = plan_backfill(BackfillRequest(run.name, select="audit"), storage=storage, solr=solr, alias="live")
    assert (plan.rebuilt, plan.blocks, solr.posted) == ((block,), (), posted)
    assert read_ledger(storage, run)[block].replaced(attempts=before.attempts, indexed=before.indexed) == before


def test_a_lost_record_of_the_ledger_is_written_again_with_the_words(storage, solr, run):
    before = read_ledger(storage, run)[4]
    storage.delete(layout.ledger_file(run.name, 4))
    assert list(audit(storage, solr, run).problems) == [4]
    plan = plan_backfill(BackfillRequest(run.name, select="audit"), storage=storage, solr=solr, alias="live")
    assert (plan.rebuilt, plan.blocks) == ((4,), ())
    assert read_ledger(storage, run)[4].replaced(indexed="", index_seconds=0.0) == before.replaced(
        indexed="", index_seconds=0.0
    )


def test_words_that_are_not_applied_yet_are_pending_and_nothing_is_wrong(storage, solr, run):
    say(storage, takedown(4), tag(10, "dog"))
    lines = []
    found = audit_run(AuditRequest(run.name), storage=storage, solr=solr, report=lines.append)
    assert (found.problems, found.pending) == ({}, (2, 5))
    assert any("blocks 2, 5 are pending" in line for line in lines)
    assert reconcile(storage, solr, run)[0].kept == 6


@pytest.fixture(params=["counts", "documents", "the ledger, later"])
def being_applied(request, storage, solr, run, monkeypatch):
    """Words are applied when the counts or the documents are read first, or the ledger follows the documents late."""
    corpus = Corpus.load(storage, layout.corpus_file(CORPUS))
    say_words(corpus, [takedown(4), tag(10, "dog")], by="ann", storage=storage, report=quiet)

    def apply():
        apply_corrections(run, storage=storage, solr=solr, report=quiet)

    if request.param != "the ledger, later":
        name = "count_by_block" if request.param == "counts" else "field_names"
        real = getattr(solr, name)

        def meanwhile(*asked):
            monkeypatch.setattr(solr, name, real)
            apply()
            return real(*asked)

        monkeypatch.setattr(solr, name, meanwhile)
        return
    paths = [layout.ledger_file(run.name, block) for block in (2, 5)]
    before = [storage.read(path) for path in paths]
    apply()
    after = [storage.read(path) for path in paths]

    def write(records):
        for path, stored in zip(paths, records, strict=True):
            storage.write(path, stored)

    write(before)
    for module in (meanwhile_module, reconciliation):
        monkeypatch.setattr(module, "time", SimpleNamespace(sleep=lambda _: write(after)))


def test_an_audit_while_words_are_applied_blames_no_block(storage, solr, run, being_applied):
    assert audit(storage, solr, run).problems == {}
    found = audit(storage, solr, run)
    assert (found.problems, found.pending) == ({}, ())


def test_a_run_is_reconciled_while_words_are_applied(storage, solr, run, being_applied):
    totals, said = reconcile(storage, solr, run)
    assert (totals.kept, totals.taken_down) == (5, 3)
    assert "2 below" not in said and "3 taken down; 5 documents" in said


def test_a_backfill_of_blocks_brings_nothing_back(storage, solr, run):
    plan = plan_backfill(BackfillRequest(run.name, "0-5"), storage=storage, solr=solr, alias="live")
    redo(storage, solr, plan)
    assert tags(solr, run) == DOCUMENTS
    say(storage, restore(7))
    redo(storage, solr, plan)
    assert tags(solr, run) == {**DOCUMENTS, 7: "emu"}


def test_another_run_of_the_corpus_follows_the_words_and_a_diff_compares_what_both_keep(storage, solr, run):
    other = make_another_run(storage, 50)
    score_all(storage, other)
    index_all(storage, other, solr)
    assert tags(solr, other) == {0: "yak", 8: "emu"}
    found = compare_runs(DiffRequest(run.name, other.name), storage=storage, report=quiet)
    assert (found.same, found.changed, found.gained, found.lost) == (2, 0, 0, 4)
    assert {example.position for example in found.lost_examples} == {4, 5, 6, 10}
    assert (found.old_by_tag, found.old_none) == ({"cat": 2, "dog": 2, "emu": 1, "yak": 1}, 1)


def test_an_export_has_what_people_say_and_nothing_that_was_taken_down(storage, run, tmp_path):
    path = tmp_path / "export.jsonl"
    export_run(ExportRequest(run.name, tuple(range(6)), str(path)), storage=storage, report=quiet)
    lines = [orjson.loads(line) for line in path.read_bytes().splitlines()]
    assert [line["label"] for line in lines] == list(DOCUMENTS.values())
    assert base64.b64decode(lines[0]["data"]) == picture((10, 0, 0)).tobytes()


def test_a_block_whose_documents_are_deleted_has_the_models_counts_again(storage, solr, run):
    delete_blocks(DeleteRequest(run.name, (4,)), storage=storage, solr=solr, report=quiet)
    record = read_ledger(storage, run)[4]
    assert (record.state, record.kept, record.taken_down, record.corrections) == (BlockState.SCORED, 2, 0, 0)
    index_all(storage, run, solr)
    assert tags(solr, run) == DOCUMENTS
    assert add_up(read_ledger(storage, run)).taken_down == 2


def test_scored_files_are_the_models_word_whatever_people_say(storage, solr, run):
    table, scored = read_scored(storage, run.name, 4)
    assert table.column("position").to_pylist() == [7, 8]
    assert (scored.kept, scored.taken_down, scored.corrections) == (2, 0, 0)


def test_a_damaged_log_is_named_and_no_block_is_blamed(storage, solr, run):
    storage.write(layout.review_log_file(CORPUS, 1), b"")
    for do in (reconcile, audit):
        with pytest.raises(CorruptError, match=r"log/000001\.parquet: damaged"):
            do(storage, solr, run)


def test_a_reader_of_words_reads_again_only_what_is_new(storage, solr, run, monkeypatch):
    corpus = Corpus.load(storage, layout.corpus_file(CORPUS))
    reader = CorrectionsReader(lambda: storage)
    known = reader.read(corpus)
    assert known.taken_down(0, 11) == {7, 9}
    assert reader.read(corpus) is known
    say(storage, restore(7))
    assert reader.read(corpus).taken_down(0, 11) == {9}
    assert reader.read(corpus.replaced(digest="another")).taken_down(0, 11) == frozenset()
