"""Identities: a refactoring must never change what a corpus, a model, a training or a run is identified by.

The values were recorded when identities were still hashes of Python's ``repr``. If one changes, users must ingest,
train and index everything again: read ``docs/adr/0017-identities.md`` before touching one.
"""

import ast
import hashlib
import unicodedata
from dataclasses import fields, is_dataclass, replace

import pyarrow as pa
import pytest
from configset_upgrades import FOUNDING_FOLDER, check_out
from hypothesis import given
from hypothesis import strategies as st
from identity_corpora import SOURCES, define
from small_nets import half_card
from small_run import card, quiet

from tinytags_tasks.blocks import Partition
from tinytags_tasks.corpus.definition import make_definition
from tinytags_tasks.corpus.reader import ListedItem
from tinytags_tasks.corpus.sources.files import SourceFile
from tinytags_tasks.corpus.sources.left_out import LeftOutGroup
from tinytags_tasks.errors import BadInputError
from tinytags_tasks.ingest import commit, shards
from tinytags_tasks.ingest.plan_records import IngestPlan, load_plan, same_source
from tinytags_tasks.ingest.refusals import refuse_another_definition
from tinytags_tasks.ingest.step import ingest_corpus
from tinytags_tasks.score.plan import PlanRequest, plan_run
from tinytags_tasks.store import layout
from tinytags_tasks.store.block_documents import documents_checksum, first_checksum
from tinytags_tasks.store.block_files import SCHEMA
from tinytags_tasks.store.corpus_records import BlockManifest, Corpus, ShardManifest, Source, Unreadable
from tinytags_tasks.store.models import model_version
from tinytags_tasks.store.quoting import quoted
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


# Values that must not change


@pytest.fixture(autouse=True)
def same_keywords_file(monkeypatch):
    """Give keywords the same bytes with every version of pyarrow."""
    monkeypatch.setattr(shards, "_keywords_parquet", lambda keywords: b"keywords")


@pytest.fixture
def stored(storage, tmp_path):
    """Ingests a source of a format, and returns its plan and its totals."""

    def store(format_name):
        ingest_corpus(define(format_name, tmp_path), storage=storage, report=quiet)
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
def test_a_run_has_the_same_name_as_ever(stored, storage, monkeypatch, thumbnails, name):
    check_out(monkeypatch, FOUNDING_FOLDER)  # a later configset makes another run
    stored("raw")
    model = card(height=4, width=4, version="forest-0123456789ab")
    model.save(storage, layout.card_file(model.version))
    assert plan_run(PlanRequest("pets", model.version, 40, thumbnails=thumbnails), storage=storage).run == name


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
    request = TrainRequest("l.parquet", features="pixels", head="forest", **changes)
    assert step._training_id(request, hashlib.sha256(b"labelled").hexdigest()) == training


def test_a_model_has_the_same_version_as_ever():
    assert model_version("forest", b"the bytes of an ONNX file") == "forest-977b25831b6c"


def test_what_documents_say_has_the_same_checksum_as_ever():
    rows = {"position": [0, 1], "tag": ["cat", "größe"], "votes": [10, 6], "accuracy": [100, 60]}
    table = pa.table(rows, schema=SCHEMA)
    first_version = "04d0c5fc6499a990325923c91314b1e2d32d5fa1149ff0ef5d46d30025bda4ac"
    assert first_checksum(table, "pets", "forest-0123456789ab") == first_version

    documents = [
        {"id": "pets:0", "position": 0, "tag": "cat", "votes": 10, "accuracy": 100, "block": 0, "width": 32},
        {"position": 1, "id": "pets:1", "tag": "größe", "votes": 6, "accuracy": 60, "block": 0, "keyword": 'a\t"b"'},
    ]
    said = (
        '{"accuracy":100,"block":0,"id":"pets:0","position":0,"tag":"cat","votes":10,"width":32},'
        r'{"accuracy":60,"block":0,"id":"pets:1","keyword":"a\t\"b\"","position":1,"tag":"größe","votes":6}'
    )
    assert documents_checksum(documents) == "2:" + hashlib.sha256(said.encode()).hexdigest()


# Text in identities

like_today = pytest.mark.skipif(
    unicodedata.unidata_version != "14.0.0", reason="repr of this Python knows other characters than identities do"
)


@like_today
def test_every_character_is_written_as_python_311_writes_it():
    assert [code for code in range(0x110000) if quoted(chr(code)) != repr(chr(code))] == []


@like_today
@given(text=st.none() | st.text(alphabet=st.characters() | st.sampled_from("'\"\\\n\x00 ")))
def test_text_is_written_as_python_311_writes_it(text):
    assert quoted(text) == repr(text)


@given(text=st.text(alphabet=st.characters() | st.sampled_from("'\"\\\n\x00 ")))
def test_no_two_texts_are_written_alike(text):
    assert ast.literal_eval(quoted(text)) == text


def test_a_character_that_later_pythons_print_stays_escaped():
    assert quoted("\U0001fae8") == r"'\U0001fae8'"


# Every field is known to be in an identity or not


def training_of(request):
    """Return the identity of a training through a net that has a background."""
    if request.features == "pixels":
        return step._training_id(request, "")
    net = half_card().replaced(version=f"{request.features}-0123456789ab", background_sha256="1" * 64)
    return step._training_id(request, "", net, has_none=request.none is None)


def digest_of(manifest):
    digest = hashlib.sha256()
    commit._add_to_digest(digest, manifest)
    return digest.hexdigest()


def digest_with_block(block):
    return digest_of(MANIFEST.replaced(blocks=(block,)))


def digest_with_unreadable(image):
    return digest_of(MANIFEST.replaced(unreadable=(image,)))


def is_accepted(plan):
    """Return whether an ingestion that was started as :data:`PLAN` may continue as another."""
    try:
        refuse_another_definition(PLAN, plan)
    except BadInputError:
        return False
    return same_source(PLAN.source, plan.source)


def is_accepted_definition(definition):
    return is_accepted(PLAN.replaced(definition=definition))


def is_accepted_source(source):
    return is_accepted(PLAN.replaced(source=source))


SOURCE = Source(
    path="/a", format="raw", files=1, size_bytes=2, images=3, listing_sha256="l", head_sha256="h", tail_sha256="t"
)
DEFINITION = make_definition("pets", {"source": "/a", "format": "raw"})
PLAN = IngestPlan(definition=DEFINITION, source=SOURCE)
BLOCK = BlockManifest(number=0, first=0, images=1, sha256="b")
UNREADABLE = Unreadable(position=0, reason="broken")
MANIFEST = ShardManifest(
    corpus="pets", shard=0, first=0, images=1, image_bytes=1, source=SOURCE, blocks=(BLOCK,), unreadable=(UNREADABLE,)
)

OF_WORDS = ("reviews", "new_tags", "least_reviews")
"""Fields that only say which people's words are learned from; these words are in the identity, and not in a request."""


DECIDED = [
    (ListedItem("a", 1, 2, 3, "v"), lambda item: item.identity, {"member"}),
    (SourceFile("a", 1, "v"), lambda file: file.identity, set()),
    (Partition(10, 5, 2), lambda partition: partition.identity, set()),
    # Of a listing, all but the times of the files is compared item by item.
    (SOURCE, is_accepted_source, {"path", "listing_sha256"}),
    (
        DEFINITION,
        is_accepted_definition,
        # The stop list counts by its bytes: see IngestPlan.stop_list_sha256.
        {"source", "description", "options", "most_unreadable_percent", "keyword_stop_list"},
    ),
    # Each growth has a hash of its own: see ``commit_corpus``.
    (PLAN, is_accepted, {"growths", "left_out"}),
    (BLOCK, digest_with_block, {"first", "images"}),
    (UNREADABLE, digest_with_unreadable, {"reason"}),
    (
        MANIFEST,
        digest_of,
        {"corpus", "shard", "first", "images", "image_bytes", "source", "source_sha256", "checksum"},
    ),
    (
        TrainRequest("l", features="pixels", head="forest"),
        training_of,
        {
            "labelled",
            "test",
            "other",
            "held_out",
            "licence",
            "corpus",
            "none",
            "regularization",
            "iterations",
            *OF_WORDS,
        },
    ),
    (
        TrainRequest("l"),
        training_of,
        # The seed only chooses what is held out.
        {"labelled", "test", "other", "held_out", "licence", "corpus", "trees", "depth", "bins", "seed", *OF_WORDS},
    ),
]
"""An object, what is made of it, and its fields that decide nothing. A new field is in the identity or in this list.

Before you add one, read the rule in ``docs/adr/0017-identities.md``: an identity leaves a new field out at its default.
"""


def names_of(sample):
    return [field.name for field in fields(sample)] if is_dataclass(sample) else list(type(sample).model_fields)


def with_another(sample, name):
    """Return a copy with another value in a field."""
    value = getattr(sample, name)
    if name in ("head", "features"):
        changed = {"forest": "logistic", "logistic": "forest", "pixels": "general32", "general32": "other32"}[value]
    elif name == "none":
        changed = False
    elif isinstance(value, int | float):
        changed = value + 1
    elif value is None or isinstance(value, str):
        changed = f"{value or ''}x"
    elif isinstance(value, dict):
        changed = {"anon": True}
    else:
        changed = {
            "definition": DEFINITION.model_copy(update={"height": 5}),
            "source": SOURCE.replaced(files=9),
            "blocks": (),
            "unreadable": (),
            "appended": (1,),
            "growths": (SOURCE,),
            "left_out": (LeftOutGroup(reason="junk", count=1, example="Thumbs.db"),),
        }[name]
    return replace(sample, **{name: changed}) if is_dataclass(sample) else sample.model_copy(update={name: changed})


@pytest.mark.parametrize(("sample", "identity", "indifferent"), DECIDED, ids=lambda value: type(value).__name__)
def test_every_field_is_in_the_identity_or_known_to_decide_nothing(sample, identity, indifferent):
    same = {name for name in names_of(sample) if identity(with_another(sample, name)) == identity(sample)}
    assert same == indifferent
