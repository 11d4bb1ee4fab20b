"""Indexing: the collection has exactly the scored images, however often it is run."""

import threading
from dataclasses import replace
from xml.etree import ElementTree

import index_steps
import numpy as np
import pytest
from configset_upgrades import FOUNDING_FOLDER, check_out, without_field
from index_steps import ALL, KEPT, index, positions
from read_javabin import read_documents
from small_run import (
    BLOCKS,
    CORPUS,
    KEYWORDS,
    MODEL,
    VOTES,
    SolrHere,
    address_of,
    make_run,
    pictures,
    quiet,
    score_all,
)

from tinytags_tasks.derived_fields import keyword_words, shuffle_numbers
from tinytags_tasks.document_fields import LATER_FIELDS, LOOK_FIELDS
from tinytags_tasks.errors import BadInputError, TransientError
from tinytags_tasks.index.documents import MOST_DOCUMENTS, document_bodies, documents_per_body
from tinytags_tasks.index.step import DeleteRequest, IndexRequest, delete_blocks, index_blocks, prepare_collection
from tinytags_tasks.look import looks
from tinytags_tasks.score.block import score_block
from tinytags_tasks.score.step import _block_tasks
from tinytags_tasks.store import layout
from tinytags_tasks.store.block_files import block_sources, read_pixels, read_scored
from tinytags_tasks.store.block_lease import hold_blocks
from tinytags_tasks.store.configsets import CONFIGSET_FOLDER
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.ledger import read_ledger
from tinytags_tasks.store.run_records import BlockState

made, scored = index_steps.made, index_steps.scored


def rescore(storage, planned, threshold, block):
    """Score a block again under the same run's name with another threshold, as after deleting its file."""
    storage.delete(layout.scored_file(planned.name, block))
    (task,) = _block_tasks(planned, [block], storage)
    score_block(replace(task, threshold=threshold), address_of(storage))


def test_the_collection_holds_exactly_what_was_kept(storage, scored, solr):
    result = index(storage, scored, solr)
    assert (result.documents, result.indexed, result.blocks) == (len(KEPT), BLOCKS, ALL)
    assert positions(solr, scored) == KEPT
    records = read_ledger(storage, scored)
    assert {record.state for record in records} == {BlockState.VERIFIED}
    assert [record.documents for record in records] == [record.kept for record in records]


def test_a_document_says_what_was_scored_and_carries_the_picture(storage, scored, solr):
    index(storage, scored, solr)
    document = dict(solr.documents(scored.collection)[f"{CORPUS}:6"])
    picture = np.frombuffer(document.pop("data"), dtype=np.uint8).reshape(32, 32, 3)
    np.testing.assert_array_equal(picture, pictures()[6])
    assert document == {
        "id": "pets:6",
        "tag": "dog",
        "accuracy": 40,
        "votes": 4,
        "block": 3,
        "shard": 1,
        "position": 6,
        "corpus": CORPUS,
        "model": MODEL,
        "width": 32,
        "shuffle": shuffle_numbers(CORPUS, np.array([6]))[0],
        **dict(zip(LOOK_FIELDS, looks(pictures()[6].reshape(1, -1), 32)[0].tolist(), strict=True)),
    }


def test_every_document_carries_its_own_picture(storage, scored, solr):
    index(storage, scored, solr)
    for document in solr.documents(scored.collection).values():
        assert document["data"] == pictures()[document["position"]].tobytes()


def test_bodies_are_cut_without_losing_a_document(storage, scored):
    corpus = Corpus.load(storage, layout.corpus_file(CORPUS))
    (source,) = block_sources(storage, corpus, [1])
    table, _ = read_scored(storage, scored.name, 1)
    many = table.take([index % table.num_rows for index in range(2 * MOST_DOCUMENTS + 1)])
    bodies = document_bodies(many, source, read_pixels(storage, source), MODEL)
    sizes = [len(read_documents(body)) for body in bodies]
    assert sizes == [MOST_DOCUMENTS, MOST_DOCUMENTS, 1]


@pytest.mark.parametrize(("image_bytes", "documents"), [(3, 2_000), (3_072, 2_000), (12_288, 500), (3_145_728, 1)])
def test_bodies_of_large_images_have_fewer_documents(image_bytes, documents):
    assert documents_per_body(image_bytes) == documents


def test_documents_say_their_keyword_where_they_have_one(storage, solr):
    planned = make_run(storage, keywords=KEYWORDS)
    score_all(storage, planned)
    index(storage, planned, solr)
    documents = solr.documents(planned.collection).values()
    assert {document["position"]: document.get("keyword") for document in documents} == dict(enumerate(KEYWORDS))
    assert all(document["keyword"] for document in documents if "keyword" in document)
    assert {document["position"]: tuple(document.get("word", ())) for document in documents} == {
        position: keyword_words(keyword or "") for position, keyword in enumerate(KEYWORDS)
    }


def test_an_empty_keyword_is_none(storage, solr):
    planned = make_run(storage, keywords=["", *KEYWORDS[1:]])
    score_all(storage, planned)
    index(storage, planned, solr, [0])
    assert "keyword" not in solr.documents(planned.collection)["pets:0"]


def test_verified_blocks_are_not_posted_again(storage, scored, solr):
    index(storage, scored, solr, [0, 1])
    posted = solr.posted
    result = index(storage, scored, solr, [0, 1])
    assert (result.indexed, solr.posted, result.documents) == (0, posted, 3)
    assert index(storage, scored, solr).indexed == BLOCKS - 2
    assert positions(solr, scored) == KEPT


def test_a_block_indexed_twice_leaves_no_orphans_and_no_doubles(storage, scored, solr):
    index(storage, scored, solr)
    for record in read_ledger(storage, scored):
        record.replaced(state=BlockState.SCORED).save(storage, layout.ledger_file(scored.name, record.block))
    before = dict(solr.documents(scored.collection))
    assert index(storage, scored, solr).indexed == BLOCKS
    assert solr.documents(scored.collection) == before
    assert solr.deleted == []


def test_foreign_documents_of_a_block_are_deleted_by_id_and_others_are_not(storage, scored, solr):
    solr.documents(scored.collection).update(
        {
            "pets:777": {"id": "pets:777", "block": 2, "position": 777},
            "pets:778": {"id": "pets:778", "block": 99, "position": 778},
        }
    )
    index(storage, scored, solr)
    assert solr.deleted == ["pets:777"]
    assert positions(solr, scored) == [*KEPT, 778]


def test_a_verified_block_with_a_stranger_is_indexed_again(storage, scored, solr):
    index(storage, scored, solr)
    solr.documents(scored.collection)["pets:777"] = {"id": "pets:777", "block": 2, "position": 777}
    assert index(storage, scored, solr).indexed == 1
    assert positions(solr, scored) == KEPT


def test_a_verified_block_that_lost_a_document_is_indexed_again(storage, scored, solr):
    index(storage, scored, solr)
    del solr.documents(scored.collection)["pets:0"]
    assert index(storage, scored, solr).indexed == 1
    assert positions(solr, scored) == KEPT


def test_a_higher_threshold_leaves_no_orphans(storage, scored, solr):
    index(storage, scored, solr)
    rescore(storage, scored, 60, 1)  # positions 2 and 3 had 40 %
    assert index(storage, scored, solr).indexed == 1
    assert solr.deleted == ["pets:2", "pets:3"]
    assert positions(solr, scored) == [at for at in KEPT if at not in (2, 3)]


def test_a_lower_threshold_adds_what_was_missing(storage, scored, solr):
    rescore(storage, scored, 60, 1)
    index(storage, scored, solr)
    assert positions(solr, scored) == [at for at in KEPT if at not in (2, 3)]
    rescore(storage, scored, 40, 1)
    index(storage, scored, solr)
    assert positions(solr, scored) == KEPT


def test_blocks_are_indexed_again_when_asked_to(storage, scored, solr):
    index(storage, scored, solr)
    posted = solr.posted
    assert index(storage, scored, solr).indexed == 0
    request = IndexRequest(scored.name, (3, 4), redo=True)
    assert index_blocks(request, storage=storage, solr=solr, report=quiet).indexed == 2
    assert solr.posted == posted + sum(record.kept for record in read_ledger(storage, scored, [3, 4]))
    assert positions(solr, scored) == KEPT


def test_a_block_is_left_to_the_writer_that_has_it_and_looked_at_afterwards(storage, scored, solr):
    ended = threading.Event()
    told = []

    def report(line):
        told.append(line)
        if "waiting for it" in line:
            ended.set()

    def hold_block_3():
        for others in hold_blocks(scored.name, [3], storage=storage, report=quiet):
            assert others.blocks == [3]
            held.set()
            ended.wait(10)

    held = threading.Event()
    other = threading.Thread(target=hold_block_3)
    other.start()
    held.wait(10)
    result = index_blocks(IndexRequest(scored.name, (2, 3)), storage=storage, solr=solr, report=report)
    other.join()
    assert result.indexed == 2
    assert any("block 3 is being written by" in line for line in told)
    assert storage.names(layout.leases_folder(scored.name)) == []


def test_deleted_blocks_have_no_documents_and_can_be_indexed_again(storage, scored, solr):
    index(storage, scored, solr)
    result = delete_blocks(DeleteRequest(scored.name, (3, 4)), storage=storage, solr=solr, report=quiet)
    gone = read_ledger(storage, scored, [3, 4])
    assert result.documents == sum(record.kept for record in gone)
    assert {record.state for record in gone} == {BlockState.SCORED}
    assert solr.count_by_block(scored.collection, [3, 4]) == {}
    assert index(storage, scored, solr).indexed == 2
    assert positions(solr, scored) == KEPT


def test_documents_that_stay_after_they_were_deleted_are_worth_a_retry(storage, scored, solr):
    index(storage, scored, solr)
    solr.delete_block = lambda collection, block: None
    with pytest.raises(TransientError, match=r"blocks 3 still have 1 documents .* delete them again"):
        delete_blocks(DeleteRequest(scored.name, (3,)), storage=storage, solr=solr, report=quiet)


def test_blocks_that_the_run_does_not_have_are_not_deleted(storage, scored, solr):
    with pytest.raises(BadInputError, match="block 6 is out of range"):
        delete_blocks(DeleteRequest(scored.name, (6,)), storage=storage, solr=solr, report=quiet)


def test_a_run_gets_its_own_collection(storage, scored):
    class Records(SolrHere):
        def ensure_collection(self, *arguments, **options):
            self.asked = (arguments, options)
            return super().ensure_collection(*arguments, **options)

    solr = Records()
    assert prepare_collection(scored.name, storage=storage, solr=solr, shards=2, replicas=3) == scored.collection
    assert solr.asked == ((scored.collection, scored.configset), {"shards": 2, "replicas": 3})


@pytest.mark.parametrize(
    ("images", "shards"), [(1, 1), (20_000_000, 1), (20_000_001, 2), (79_302_017, 4), (1_000_000_000, 50)]
)
def test_a_collection_has_as_many_shards_as_its_images_ask_for_unless_told_and_keeps_them(
    storage, scored, images, shards
):
    asked = []

    class Records(SolrHere):
        def ensure_collection(self, *arguments, **options):
            asked.append(options["shards"])
            return super().ensure_collection(*arguments, **options)

    solr = Records()
    scored.replaced(images=images).save(storage, layout.run_file(scored.name))
    prepare_collection(scored.name, storage=storage, solr=solr)
    prepare_collection(scored.name, storage=storage, solr=solr, shards=7)
    assert asked == [shards]


REQUIRED = {"id", "tag", "accuracy", "votes", "block", "shard", "position", "corpus", "model"}


@pytest.mark.parametrize("lacking", ["width", "keyword"])
def test_a_collection_from_before_a_field_is_indexed_without_it(storage, lacking, monkeypatch, tmp_path):
    check_out(monkeypatch, without_field(tmp_path / "conf", lacking))
    planned = make_run(storage, keywords=["bird"] * len(VOTES))
    score_all(storage, planned)
    solr = SolrHere()
    prepare_collection(planned.name, storage=storage, solr=solr)
    check_out(monkeypatch, FOUNDING_FOLDER)
    index(storage, planned, solr)
    assert {record.state for record in read_ledger(storage, planned)} == {BlockState.VERIFIED}
    fields = {frozenset(document) for document in solr.documents(planned.collection).values()}
    assert fields == {frozenset(REQUIRED | {"width", "keyword", "data"} - {lacking})}


def test_documents_can_do_without_every_field_that_the_schema_got_later():
    """Otherwise runs from before a field was added could no longer be indexed."""
    fields = {field.get("name") for field in ElementTree.parse(CONFIGSET_FOLDER / "schema.xml").iter("field")}
    assert fields - LATER_FIELDS == REQUIRED | {"data", "_version_"}
