"""Publishing: readers get a run when every count agrees, and otherwise keep the one they have."""

import pytest
from small_run import BLOCKS, CORPUS, UNREADABLE, VOTES, SolrHere, make_run, quiet, score_all

from tinytags_tasks import layout
from tinytags_tasks.errors import MissingError, ReconcileError, TransientError
from tinytags_tasks.index.step import IndexRequest
from tinytags_tasks.index.step import run as index
from tinytags_tasks.ledger import read_ledger
from tinytags_tasks.publish.step import PublishRequest, reconcile, run
from tinytags_tasks.records import BlockState, Corpus
from tinytags_tasks.storage import LocalStorage


@pytest.fixture
def storage(tmp_path):
    return LocalStorage(tmp_path / "store")


@pytest.fixture
def solr():
    return SolrHere()


@pytest.fixture
def indexed(storage, solr):
    """A run that is scored and indexed."""
    planned = make_run(storage, unreadable=UNREADABLE)
    score_all(storage, planned)
    index(IndexRequest(planned.name, tuple(range(BLOCKS))), storage=storage, solr=solr, report=quiet)
    return planned


def publish(storage, planned, solr, report=quiet):
    return run(PublishRequest(planned.name, "live"), storage=storage, solr=solr, report=report)


def change(storage, planned, block, **changes):
    (record,) = read_ledger(storage, planned, [block])
    record.replaced(**changes).save(storage, layout.ledger_file(planned.name, block))


def test_readers_see_the_run_when_everything_agrees(storage, indexed, solr):
    lines = []
    result = publish(storage, indexed, solr, lines.append)
    assert solr.aliases() == {"live": indexed.collection}
    assert (result.collection, result.previous) == (indexed.collection, "")
    totals = result.totals
    assert totals.read == totals.kept + totals.below + totals.unreadable == len(VOTES)
    assert totals.kept == totals.documents == solr.count(indexed.collection)
    assert f"{totals.kept:,} documents in Solr" in lines[0]


def test_the_collection_that_readers_had_is_told(storage, indexed, solr):
    solr.alias_of = {"live": "tinytags-older", "other": "x"}
    assert publish(storage, indexed, solr).previous == "tinytags-older"
    assert solr.aliases() == {"live": indexed.collection, "other": "x"}


def test_publishing_again_changes_nothing(storage, indexed, solr):
    publish(storage, indexed, solr)
    solr.set_alias = None  # must not be called
    assert publish(storage, indexed, solr).previous == indexed.collection


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


DIFFERENCES = [
    (lose_a_document, "kept is not Solr's count: blocks 0; "),
    (add_a_stranger, "kept is not Solr's count: blocks 4; "),
    (add_a_stranger_in_no_block, "Solr holds 10 documents, 9 images were kept"),
    (forget_a_block, "not verified: blocks 2; read is not what the block holds: blocks 2; "),
    (damage_a_record, "not verified: blocks 3; "),
    (another_model, "scored by another model: blocks 1-2, 5"),
    (miscount, r"read is not kept \+ below \+ unreadable: blocks 1"),
    (misread, "read is not what the block holds: blocks 1; .*12 images were read, the corpus has 11"),
    (miscount_tags, "kept is not the sum over the tags: blocks 1"),
    (not_verified, "not verified: blocks 4$"),
    (ingest_anew, "the corpus is not the one that the run was planned on$"),
    (cut_into_fewer_blocks, "the ledger has 6 blocks, the corpus 2"),
    (cut_into_more_blocks, "the ledger has 6 blocks, the corpus 8"),
    (more_unreadable, "2 images were unreadable, at ingestion 3$"),
    (exchange_records, "not verified: blocks 0; "),
]


@pytest.mark.parametrize(("make", "message"), DIFFERENCES, ids=[make.__name__ for make, _ in DIFFERENCES])
def test_a_difference_is_named_and_the_alias_left_alone(storage, indexed, solr, make, message):
    solr.alias_of = {"live": "tinytags-older"}
    make(storage, indexed, solr)
    with pytest.raises(ReconcileError, match=f"run {indexed.name} is not published: .*{message}"):
        publish(storage, indexed, solr)
    assert solr.aliases() == {"live": "tinytags-older"}


def test_everything_that_differs_is_told_at_once(storage, indexed, solr):
    for make in (lose_a_document, another_model, not_verified):
        make(storage, indexed, solr)
    with pytest.raises(ReconcileError) as caught:
        publish(storage, indexed, solr)
    for message in ("not verified: blocks 4", "Solr's count: blocks 0", "another model: blocks 1-2, 5"):
        assert message in str(caught.value)


def test_nothing_is_told_when_everything_agrees(storage, indexed, solr):
    corpus = Corpus.load(storage, layout.corpus_file(CORPUS))
    counts, documents = solr.count_by_block(indexed.collection), solr.count(indexed.collection)
    assert reconcile(indexed, corpus, read_ledger(storage, indexed), counts, documents) == []


def test_a_run_that_was_never_planned_is_missing(storage, solr):
    with pytest.raises(MissingError, match="none"):
        run(PublishRequest("none"), storage=storage, solr=solr, report=quiet)
