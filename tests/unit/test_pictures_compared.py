"""Pictures in Solr are compared with the shards page by page, and each difference is found wherever it is."""

import pytest
from small_run import BLOCKS, index_all, make_run, score_all

from tinytags_tasks.errors import CorruptError
from tinytags_tasks.publish import pictures
from tinytags_tasks.publish.pictures import PictureComparison
from tinytags_tasks.store import layout
from tinytags_tasks.store.block_files import read_scored
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.ledger import read_ledger

IMAGE_BYTES = 3_072


@pytest.fixture
def run(storage, solr):
    planned = make_run(storage)
    score_all(storage, planned)
    index_all(storage, planned, solr)
    return planned


@pytest.fixture
def comparison(run, storage, solr):
    return PictureComparison(run, Corpus.load(storage, layout.corpus_file(run.corpus)), storage, solr)


def compare_all(comparison):
    """Return each block's problem, if there is one."""
    found = {}
    for block in range(BLOCKS):
        positions = read_scored(comparison.storage, comparison.run.name, block)[0].column("position").to_pylist()
        for batch in comparison.read_batches(block):
            if problem := comparison.block_problem(positions, batch):
                found.setdefault(block, problem)
    return found


@pytest.mark.parametrize("page", [1, 2, 3, 1_000])
def test_a_changed_byte_is_found_whatever_page_it_is_on(monkeypatch, comparison, solr, page):
    monkeypatch.setattr(pictures, "_PAGE_BYTES", page * IMAGE_BYTES)
    assert compare_all(comparison) == {}
    documents = solr.documents(comparison.run.collection)
    for name, document in documents.items():
        good = document["data"]
        document["data"] = good[:-1] + bytes([good[-1] ^ 1])
        assert compare_all(comparison) == {document["block"]: f"document {name} has other bytes than the shard"}
        document["data"] = good


def test_a_picture_larger_than_a_page_is_compared(monkeypatch, comparison):
    monkeypatch.setattr(pictures, "_PAGE_BYTES", 100)
    assert compare_all(comparison) == {}


def test_no_request_is_for_more_than_a_page(monkeypatch, comparison, solr):
    monkeypatch.setattr(pictures, "_PAGE_BYTES", 2 * IMAGE_BYTES)
    asked = []
    images_at = solr.images_at
    monkeypatch.setattr(solr, "images_at", lambda *which: asked.append(which) or images_at(*which))
    compare_all(comparison)
    assert max(most for *_, most in asked) <= 2


def test_a_second_document_at_a_position_is_found(comparison, solr):
    documents = solr.documents(comparison.run.collection)
    documents["pets:stranger"] = {**documents["pets:6"], "id": "pets:stranger"}
    (problem,) = compare_all(comparison).values()
    assert problem == "has 2 documents at positions 6 to 6, not 1"


def test_a_document_of_another_block_at_a_position_is_left_to_the_counts(comparison, solr):
    documents = solr.documents(comparison.run.collection)
    documents["pets:stranger"] = {**documents["pets:6"], "id": "pets:stranger", "block": 77}
    assert compare_all(comparison) == {}


def test_a_picture_under_a_foreign_id_is_none(comparison, solr):
    documents = solr.documents(comparison.run.collection)
    documents["pets:stranger"] = {**documents.pop("pets:6"), "id": "pets:stranger"}
    assert list(compare_all(comparison).values()) == ["document pets:6 has other bytes than the shard"]


def test_a_sample_of_all_finds_each_changed_picture(comparison, solr, storage):
    records = read_ledger(storage, comparison.run)
    assert comparison.sample(records, 1_000) == {}
    for name, document in solr.documents(comparison.run.collection).items():
        good, document["data"] = document["data"], bytes(IMAGE_BYTES)
        assert comparison.sample(records, 1_000) == {
            document["block"]: f"document {name} has other bytes than the shard"
        }
        document["data"] = good


def test_a_block_that_is_not_what_was_ingested_is_refused(comparison, storage):
    path = layout.shard_file(comparison.run.corpus, 0)
    storage.write(path, b"\x01" + storage.read(path)[1:])
    with pytest.raises(CorruptError, match=r"block 0 .*is not what was ingested"):
        list(comparison.read_batches(0))


def test_a_block_is_compared_batch_by_batch(comparison, solr, monkeypatch):
    monkeypatch.setattr("tinytags_tasks.store.block_files.BATCH_BYTES", 1)
    batches = list(comparison.read_batches(0))
    assert [(batch.first, len(batch.pixels)) for batch in batches] == [(0, 1), (1, 1)]
    assert compare_all(comparison) == {}
    name = layout.document_id(comparison.run.corpus, 1)
    solr.documents(comparison.run.collection)[name]["data"] = b"\1" * IMAGE_BYTES
    assert compare_all(comparison) == {0: f"document {name} has other bytes than the shard"}
