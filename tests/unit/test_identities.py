"""Identities: what a corpus, a model, a training and a run are known by must never change by a refactoring.

The values were recorded when identities were still hashes of Python's ``repr``. If one changes, users must ingest,
train and index everything again: read ``docs/adr/0017-identities.md`` before touching one.
"""

import hashlib

import pytest
from identity_corpora import SOURCES, define
from small_run import card, quiet

from tinytags_tasks import layout
from tinytags_tasks.block_files import documents_checksum
from tinytags_tasks.ingest import shards
from tinytags_tasks.ingest.plan import load_plan
from tinytags_tasks.ingest.step import run as ingest
from tinytags_tasks.models import model_version
from tinytags_tasks.records import Corpus, ShardManifest
from tinytags_tasks.score.plan import PlanRequest
from tinytags_tasks.score.plan import run as plan
from tinytags_tasks.storage import LocalStorage
from tinytags_tasks.train import step
from tinytags_tasks.train.parameters import TrainRequest

LISTINGS = {
    "raw": "89fc1e6a3ff2c15f62db06de0ba5e62ed69820443dbd100c4db7b2d59f150b5f",
    "cifar-binary": "509e6805e6fd2362a67f2c0527ff27bb6976a4a9cac95806b7ef4b9a50161463",
    "tiny-images": "119ca5335ccccf72859a34aa492098c0a0d82e0ee7e8a7e6ecd31049b1a5ed8b",
    "folder": "32c9228ef1d1423c74eb9a2179d354264888c1f7b98e3626d89b379a0a1b65ca",
    "parquet": "e4777432c9f2a951d8724b94369b21fe125c57bc8cdeb2960c81d2550bb29ead",
    "webdataset": "88e53bf93f3f7df06b506c16be31e0884392a19db934427b2242218c0ddadac8",
}
DIGESTS = {
    "raw": "3cb162e5b8652fc8e40d443312a801a2a34d2548bc64f3b07db68f42b44f96eb",
    "cifar-binary": "e848c92a2317828f256ae913789d6639bfff936e1675a777201e734502991af6",
    "tiny-images": "733593330f7097c2ec9ff908cc3166a03b6080916f211daef4f1b47dd1a6939e",
    "folder": "10cae93b94ef89c199709b1efb26d84d8b581c38367c50ce6f00b6b4b6f9c834",
    "parquet": "7ae35472b32675b8edf0907df5bc1708e601885de1632ab4fac3474b6a226c14",
    "webdataset": "7ae35472b32675b8edf0907df5bc1708e601885de1632ab4fac3474b6a226c14",
}


@pytest.fixture
def storage(tmp_path):
    return LocalStorage(tmp_path / "store")


@pytest.fixture(autouse=True)
def same_keywords_file(monkeypatch):
    """Let keywords have the same bytes with every version of pyarrow."""
    monkeypatch.setattr(shards, "_keywords_parquet", lambda keywords: b"keywords")


@pytest.fixture
def stored(storage, tmp_path):
    """Ingests a source of a format, and returns its plan and its totals."""

    def store(format_name):
        ingest(define(format_name, tmp_path), storage=storage, report=quiet)
        return load_plan(storage, "pets"), Corpus.load(storage, layout.corpus_file("pets"))

    return store


@pytest.mark.parametrize("format_name", SOURCES)
def test_a_corpus_is_known_by_the_same_hashes_as_ever(stored, format_name):
    plan, corpus = stored(format_name)
    assert plan.source.listing_sha256 == LISTINGS[format_name]
    assert corpus.digest == DIGESTS[format_name]


def test_encoded_images_of_a_shard_have_the_same_hash_as_ever(stored, storage):
    stored("folder")
    manifest = ShardManifest.load(storage, layout.shard_manifest_file("pets", 0))
    assert manifest.source_sha256 == "8cdb0b954128af12270f15608c61aded553afe5088216112da32be1f0268bf73"
    assert manifest.blocks[0].sha256 == "cd1f026124f078d5467f357dc84680e15ddabcea0bb8028d44bb288a7a901f65"


@pytest.mark.parametrize(
    ("thumbnails", "name"),
    [("solr", "pets-32f94f61d382"), ("store", "pets-5d1e038f34a6")],
)
def test_a_run_has_the_same_name_as_ever(stored, storage, thumbnails, name):
    stored("raw")
    model = card(height=4, width=4)
    model.save(storage, layout.card_file(model.version))
    assert plan(PlanRequest("pets", model.version, 40, thumbnails=thumbnails), storage=storage).run == name


@pytest.mark.parametrize(
    ("changes", "training"),
    [
        ({}, "3feaa5a088e8f2c8"),
        ({"tags": ("Katze", "größe"), "seed": -1, "name": "other"}, "79ed0c334fbbcaba"),
        ({"test": "t.parquet", "other": "o.parquet", "held_out": 0, "licence": "MIT"}, "3feaa5a088e8f2c8"),
    ],
)
def test_a_training_is_known_by_the_same_hash_as_ever(monkeypatch, changes, training):
    monkeypatch.setattr(step, "version", lambda package: {"pyspark": "4.3.0"}[package])
    assert step._training_id(TrainRequest("l.parquet", **changes), hashlib.sha256(b"labelled").hexdigest()) == training


def test_a_model_has_the_same_version_as_ever():
    assert model_version("forest", b"the bytes of an ONNX file") == "forest-977b25831b6c"


def test_what_documents_say_has_the_same_checksum_as_ever():
    rows = [("pets:0", "cat", 10, 100, "forest-0123456789ab"), ("pets:1", "größe", 6, 60, "forest-0123456789ab")]
    assert documents_checksum(rows) == "04d0c5fc6499a990325923c91314b1e2d32d5fa1149ff0ef5d46d30025bda4ac"
