"""Publishing: readers get a run if every count agrees, and otherwise keep the one they have."""

import re

import publish_steps
import pytest
from publish_steps import publish
from small_run import (
    CORPUS,
    MODEL,
    VOTES,
    make_another_run,
    quiet,
)

from tinytags_tasks.errors import MissingError, ReconcileError, TransientError
from tinytags_tasks.publish import content
from tinytags_tasks.publish import step as publishing
from tinytags_tasks.publish.inputs import ScoredFiles, compare_scored_files
from tinytags_tasks.publish.publications import read_history
from tinytags_tasks.publish.reconciliation import block_problems, total_problems
from tinytags_tasks.publish.step import PublishRequest, publish_run, reconcile_run
from tinytags_tasks.store import layout
from tinytags_tasks.store.block_documents import first_checksum
from tinytags_tasks.store.block_files import read_scored
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.ledger import read_ledger
from tinytags_tasks.store.run_blocks import RunBlocks
from tinytags_tasks.store.run_records import BlockState, Change, Run

indexed, stricter = publish_steps.indexed, publish_steps.stricter


def change(storage, planned, block, **changes):
    (record,) = read_ledger(storage, planned, [block])
    record.replaced(**changes).save(storage, layout.ledger_file(planned.name, block))


def test_readers_see_the_run_when_everything_agrees(storage, indexed, solr):
    lines = []
    result = publish(storage, indexed, solr, lines.append)
    assert solr.aliases() == {"live": indexed.collection}
    assert (result.collection, result.previous) == (indexed.collection, "")
    totals = result.totals
    assert totals.read == totals.kept + totals.below + totals.none + totals.unreadable == len(VOTES)
    assert totals.kept == totals.documents == solr.count(indexed.collection)
    assert f"{totals.kept:,} documents in Solr" in lines[0]


def test_a_live_collection_of_no_run_of_this_store_stays_and_is_told(storage, indexed, solr):
    solr.visible["tinytags-older"] = {}
    solr.alias_of = {"live": "tinytags-older", "other": "x"}
    lines = []
    result = publish(storage, indexed, solr, lines.append)
    assert (result.previous, result.replaced, result.beside) == ("", (), ("tinytags-older",))
    assert solr.aliases() == {"live": f"tinytags-older,{indexed.collection}", "other": "x"}
    assert any(
        "tinytags-older is live under live, too, but not of a run of this store: it stays" in line for line in lines
    )


def test_a_live_collection_that_solr_has_lost_is_left_out_and_told(storage, indexed, solr):
    solr.alias_of = {"live": "tinytags-gone"}
    lines = []
    publish(storage, indexed, solr, lines.append)
    assert solr.aliases() == {"live": indexed.collection}
    assert any("tinytags-gone is live under live, but Solr does not have it any more" in line for line in lines)


def test_publishing_again_changes_nothing(storage, indexed, solr):
    publish(storage, indexed, solr)
    solr.set_alias = None  # must not be called
    assert publish(storage, indexed, solr).previous == ""
    assert len(read_history("live", storage)) == 1


def test_an_alias_that_did_not_move_is_worth_a_retry(storage, indexed, solr):
    solr.set_alias = lambda alias, collection: None
    with pytest.raises(TransientError, match=f"live does not point at {indexed.collection}"):
        publish(storage, indexed, solr)


def lose_a_document(storage, planned, solr):
    del solr.documents(planned.collection)["pets:0"]


def add_a_stranger(storage, planned, solr):
    solr.documents(planned.collection)["pets:777"] = {"block": 4}


def add_a_stranger_in_no_block(storage, planned, solr):
    solr.documents(planned.collection)["pets:777"] = {"block": 99}


def forget_a_block(storage, planned, solr):
    storage.delete(layout.ledger_file(planned.name, 2))


def damage_a_record(storage, planned, solr):
    storage.write(layout.ledger_file(planned.name, 3), b"{")


def another_model(storage, planned, solr):
    for block in (1, 2, 5):
        change(storage, planned, block, model="another")


def miscount(storage, planned, solr):
    change(storage, planned, 1, below=7)


def move_to_none(storage, planned, solr):
    change(storage, planned, 4, kept=2, below=-1, none=1)


def misread(storage, planned, solr):
    change(storage, planned, 1, read=3, below=3)


def miscount_tags(storage, planned, solr):
    change(storage, planned, 1, kept_by_tag={"cat": 9})


def not_verified(storage, planned, solr):
    change(storage, planned, 4, state=BlockState.INDEXED)


def ingest_anew(storage, planned, solr):
    corpus = Corpus.load(storage, layout.corpus_file(CORPUS))
    corpus.replaced(digest="other bytes").save(storage, layout.corpus_file(CORPUS))


def cut_into_fewer_blocks(storage, planned, solr):
    corpus = Corpus.load(storage, layout.corpus_file(CORPUS))
    corpus.replaced(blocks_per_shard=1).save(storage, layout.corpus_file(CORPUS))


def cut_into_more_blocks(storage, planned, solr):
    corpus = Corpus.load(storage, layout.corpus_file(CORPUS))
    corpus.replaced(blocks_per_shard=4).save(storage, layout.corpus_file(CORPUS))


def more_unreadable(storage, planned, solr):
    corpus = Corpus.load(storage, layout.corpus_file(CORPUS))
    corpus.replaced(unreadable=3).save(storage, layout.corpus_file(CORPUS))


def exchange_records(storage, planned, solr):
    storage.write(layout.ledger_file(planned.name, 0), storage.read(layout.ledger_file(planned.name, 3)))


def truncate_a_scored_file(storage, planned, solr):
    path = layout.scored_file(planned.name, 5)
    storage.write(path, storage.read(path)[:-1])


def lose_a_scored_file(storage, planned, solr):
    storage.delete(layout.scored_file(planned.name, 5))


ANOTHER_FILE = (
    "the scored file is missing or not the one that was committed: blocks 5; redo them with "
    "`tinytags backfill .* --blocks 5`$"
)

DIFFERENCES = [
    (truncate_a_scored_file, ANOTHER_FILE),
    (lose_a_scored_file, ANOTHER_FILE),
    (lose_a_document, "kept is not Solr's count: blocks 0; "),
    (add_a_stranger, "kept is not Solr's count: blocks 4; "),
    (add_a_stranger_in_no_block, "Solr holds 10 documents, 9 images were kept"),
    (forget_a_block, "not verified: blocks 2; read is not what the block holds: blocks 2; "),
    (damage_a_record, "not verified: blocks 3; "),
    (another_model, "scored by another model: blocks 1-2, 5"),
    (miscount, r"read is not kept \+ below \+ none \+ unreadable: blocks 1"),
    (move_to_none, r"the ledger contradicts the scored file: blocks 4 \(block 4: below is -1, .*, none is 1, and must"),
    (misread, "read is not what the block holds: blocks 1; .*12 images were read, the corpus has 11"),
    (miscount_tags, "kept is not the sum over the tags: blocks 1"),
    (not_verified, "not verified: blocks 4$"),
    (ingest_anew, "the corpus is not the one that the run was planned on; make a new run with `tinytags run pets`$"),
    (cut_into_fewer_blocks, "the ledger has 6 blocks, the corpus 2"),
    (cut_into_more_blocks, "the ledger has 6 blocks, the corpus 8"),
    (more_unreadable, "2 images were unreadable, at ingestion 3$"),
    (exchange_records, "not verified: blocks 0; "),
]


@pytest.mark.parametrize(("make", "message"), DIFFERENCES, ids=[make.__name__ for make, _ in DIFFERENCES])
def test_a_difference_is_named_and_the_alias_left_alone(storage, indexed, solr, make, message):
    solr.alias_of = {"live": "tinytags-older"}
    make(storage, indexed, solr)
    with pytest.raises(ReconcileError, match=f"run {indexed.name} cannot be published: .*{message}"):
        publish(storage, indexed, solr)
    assert solr.aliases() == {"live": "tinytags-older"}


@pytest.mark.parametrize("is_recorded", [True, False], ids=["a record of the ledger", "a document"])
def test_a_run_that_is_written_while_it_is_compared_is_not_published(storage, indexed, solr, monkeypatch, is_recorded):
    reconcile = publishing.reconcile_run

    def reconcile_and_write(*arguments, **options):
        totals = reconcile(*arguments, **options)
        if is_recorded:
            change(storage, indexed, 0, state=BlockState.INDEXED)
        else:
            solr.documents(indexed.collection).popitem()
        return totals

    monkeypatch.setattr(publishing, "reconcile_run", reconcile_and_write)
    with pytest.raises(TransientError, match=f"run {indexed.name} was written while it was compared"):
        publish(storage, indexed, solr)
    assert solr.aliases() == {}


def change_document(**changes):
    """Change fields of a document of block 4."""

    def plant(storage, planned, solr):
        solr.documents(planned.collection)["pets:7"].update(changes)

    return plant


def exchange_a_document(storage, planned, solr):
    documents = solr.documents(planned.collection)
    documents["pets:777"] = {**documents.pop("pets:7"), "id": "pets:777"}


def take_a_field_away(storage, planned, solr):
    del solr.documents(planned.collection)["pets:7"]["width"]


def flip_a_bit_of_a_scored_file(storage, planned, solr):
    path = layout.scored_file(planned.name, 4)
    stored = bytearray(storage.read(path))
    stored[len(stored) // 2] ^= 1
    storage.write(path, bytes(stored))


def replace_the_model(storage, planned, solr):
    storage.write(layout.model_file(MODEL), b"another model")


def truncate_a_shard(storage, planned, solr):
    path = layout.shard_file(CORPUS, 1)
    storage.write(path, storage.read(path)[:-1])


def zero_a_checksum(storage, planned, solr):
    change(storage, planned, 4, checksum="2:" + "0" * 64)


CONTENT = {
    "tag": (change_document(tag="gnu"), "block 4 has documents with ids or fields that differ"),
    "votes": (change_document(votes=3), "block 4 has documents with ids or fields that differ"),
    "accuracy": (change_document(accuracy=41), "block 4 has documents with ids or fields that differ"),
    "keyword": (change_document(keyword="gnu"), "block 4 has documents with ids or fields that differ"),
    "width": (change_document(width=16), "block 4 has documents with ids or fields that differ"),
    "no width": (take_a_field_away, "block 4 has documents with ids or fields that differ"),
    "shard": (change_document(shard=0), "block 4 has documents with ids or fields that differ"),
    "corpus": (change_document(corpus="other"), "block 4 has documents with ids or fields that differ"),
    "position": (change_document(position=8), "block 4 has documents with ids or fields that differ"),
    "position of another block": (change_document(position=2), "block 1 has documents .*; block 4 has documents"),
    "position outside the corpus": (change_document(position=-1), "block 4 has documents"),
    "another document": (exchange_a_document, "block 4 has documents with ids or fields that differ"),
    "picture": (change_document(data=bytes(3_072)), "block 4 document pets:7 has other bytes than the shard"),
    "scored file": (flip_a_bit_of_a_scored_file, "scored file is missing or not the one that was committed: blocks 4"),
    "model": (replace_the_model, "model.onnx: is not the model that was published"),
    "shard file": (truncate_a_shard, "shard 1 .*has 15,359 bytes, not 15,360; .*tinytags ingest pets --redo 1"),
    "checksum": (zero_a_checksum, "block 4 has documents as they were scored, but another checksum in the ledger"),
}


@pytest.mark.parametrize("changed", CONTENT)
def test_what_changed_after_a_run_was_verified_is_named_and_not_published(storage, indexed, solr, changed):
    make, message = CONTENT[changed]
    make(storage, indexed, solr)
    with pytest.raises(ReconcileError, match=message):
        publish(storage, indexed, solr)
    with pytest.raises(ReconcileError, match=message):
        reconcile_run(indexed.name, storage=storage, solr=solr, blocks=(1, 4), report=quiet)
    assert solr.aliases() == {}


def test_blocks_of_other_sizes_are_read_in_parts_and_together(monkeypatch, storage, indexed, solr):
    for positions in (1, 2, 3, 5, 100):
        monkeypatch.setattr(content, "EXPORT_POSITIONS", positions)
        publish(storage, indexed, solr)
    solr.documents(indexed.collection)["pets:7"]["tag"] = "gnu"
    for positions in (1, 2, 3, 5, 100):
        monkeypatch.setattr(content, "EXPORT_POSITIONS", positions)
        with pytest.raises(ReconcileError, match="published: block 4 has documents"):
            publish(storage, indexed, solr)


def test_blocks_that_the_first_checksum_verified_are_compared_as_well(storage, indexed, solr):
    for record in read_ledger(storage, indexed):
        table, _ = read_scored(storage, indexed.name, record.block)
        change(storage, indexed, record.block, checksum=first_checksum(table, CORPUS, MODEL))
    publish(storage, indexed, solr)
    solr.documents(indexed.collection)["pets:7"]["keyword"] = "gnu"
    with pytest.raises(ReconcileError, match="block 4 has documents with ids or fields that differ"):
        publish(storage, indexed, solr)


def test_progress_and_the_time_left_are_reported(monkeypatch, storage, indexed, solr):
    monkeypatch.setattr(content, "EXPORT_POSITIONS", 2)
    monkeypatch.setattr(content, "_REPORT_SECONDS", 0.0)
    lines = []
    publish(storage, indexed, solr, lines.append)
    assert any(
        re.fullmatch(r"compared \d of 9 documents with what was scored; about \d+ s left", line) for line in lines
    )


def test_everything_that_differs_is_told_at_once(storage, indexed, solr):
    for make in (lose_a_document, another_model, not_verified):
        make(storage, indexed, solr)
    with pytest.raises(ReconcileError) as caught:
        publish(storage, indexed, solr)
    for message in ("not verified: blocks 4", "Solr's count: blocks 0", "another model: blocks 1-2, 5"):
        assert message in str(caught.value)


def test_nothing_is_told_when_everything_agrees(storage, indexed, solr):
    corpus = Corpus.load(storage, layout.corpus_file(CORPUS))
    records, counts = read_ledger(storage, indexed), solr.count_by_block(indexed.collection)
    files = compare_scored_files(records, RunBlocks(indexed, corpus, storage))
    assert files == ScoredFiles([], {})
    assert block_problems(indexed, corpus, records, counts, files) == []
    assert total_problems(indexed, corpus, records, solr.count(indexed.collection), files) == []


def test_some_blocks_can_be_reconciled_alone_and_the_alias_is_left(storage, indexed, solr):
    lose_a_document(storage, indexed, solr)  # of block 0
    totals = reconcile_run(indexed.name, storage=storage, solr=solr, blocks=(1, 3), report=quiet)
    assert (totals.blocks, totals.read) == (2, 3)
    with pytest.raises(ReconcileError, match=r"kept is not Solr's count: blocks 0$"):
        reconcile_run(indexed.name, storage=storage, solr=solr, blocks=(0, 1), report=quiet)
    assert solr.aliases() == {}


def test_a_run_that_was_never_planned_is_missing(storage, solr):
    with pytest.raises(MissingError, match="none"):
        publish_run(PublishRequest("none"), storage=storage, solr=solr, report=quiet)


# A run without a collection


def test_a_run_that_was_never_indexed_says_so(storage, indexed, solr):
    planned = make_another_run(storage, 50)
    with pytest.raises(MissingError, match=f"run {planned.name} has no collection yet .*tinytags index {planned.name}"):
        publish(storage, planned, solr)


def test_a_pruned_run_says_when_and_how_it_comes_back(storage, indexed, solr):
    del solr.visible[indexed.collection]
    indexed.replaced(pruned="2024-05-01T00:00:00+00:00").save(storage, layout.run_file(indexed.name))
    with pytest.raises(MissingError, match=r"was dropped by `tinytags prune` \(2024-05-01.*tinytags index"):
        publish(storage, indexed, solr)
    assert solr.aliases() == {}


def test_a_run_that_was_indexed_again_after_pruning_is_pruned_no_more(storage, indexed, solr):
    indexed.replaced(pruned="2024-05-01T00:00:00+00:00").save(storage, layout.run_file(indexed.name))
    publish(storage, indexed, solr)
    assert Run.load(storage, layout.run_file(indexed.name)) == indexed


# What is recorded


def test_what_became_live_is_written_down_with_what_was_live_before(storage, stricter, indexed, solr):
    publish(storage, indexed, solr)
    result = publish(storage, stricter, solr)
    assert result.previous == indexed.collection
    first, second = read_history("live", storage)
    assert (first.change, first.run, first.collection, first.previous) == (
        Change.PUBLISHED,
        indexed.name,
        indexed.collection,
        "",
    )
    assert (second.run, second.previous) == (stricter.name, indexed.collection)
    assert second.time >= first.time > "2024"
    assert second.host


def test_what_was_switched_past_tinytags_is_found_and_written_down_first(storage, stricter, indexed, solr):
    publish(storage, indexed, solr)
    solr.visible["by-hand"] = {}
    solr.alias_of["live"] = "by-hand"
    publish(storage, stricter, solr)
    assert [
        (record.change, record.run, record.collection, record.previous) for record in read_history("live", storage)
    ][1:] == [
        (Change.UNPUBLISHED, "", "", indexed.collection),
        (Change.PUBLISHED, stricter.name, stricter.collection, ""),
    ]
    assert solr.aliases()["live"] == f"by-hand,{stricter.collection}"
