"""A small store for tests: eleven pictures in two shards, and a forest whose votes a test can choose.

The forest has ten trees. Tree *k* looks only at value *k* of a picture: up to 84.5 it votes for tag 0, up to 169.5 for
tag 1, otherwise for tag 2. So a picture's first ten values determine its votes.
"""

import copy
import hashlib
import io
import itertools
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from read_javabin import read_documents

from tinytags_tasks.blocks import Block
from tinytags_tasks.corpus.definition import CorpusDefinition
from tinytags_tasks.corpus.formats.tiny_images import IMAGE_BYTES, to_column_major
from tinytags_tasks.errors import FinalError, TinyTagsError
from tinytags_tasks.index.step import IndexRequest, index_blocks
from tinytags_tasks.ingest.step import ingest_corpus
from tinytags_tasks.score.plan import PlanRequest, plan_run
from tinytags_tasks.score.step import ScoreRequest, score_blocks
from tinytags_tasks.store import layout
from tinytags_tasks.store.configsets import FOUNDING_CONFIGSET, Configset, current_configset
from tinytags_tasks.store.corpus_records import Corpus, ShardManifest, Unreadable
from tinytags_tasks.store.local import LocalStorage
from tinytags_tasks.store.model_records import ModelCard
from tinytags_tasks.store.models import model_version
from tinytags_tasks.store.protocol import StoreAddress
from tinytags_tasks.store.run_records import Run
from tinytags_tasks.train.forest_trees import Tree, forest_to_onnx

TAGS = ("cat", "dog", "emu")
TREES = 10
CORPUS = "pets"

VOTES = (
    (10, 0, 0),
    (0, 6, 4),
    (3, 3, 4),  # exactly 40 %
    (4, 3, 3),
    (3, 4, 3),
    (4, 4, 2),  # a tie of the first and the second
    (2, 4, 4),  # a tie of the second and the third
    (0, 0, 10),
    (5, 0, 5),
    (1, 9, 0),
    (4, 2, 4),
)
"""The votes of each picture, by position."""

UNREADABLE = (1, 9)
"""Positions that count as unreadable where :func:`make_run` is told so."""

KEYWORDS = ("Tabby", None, 'C++ "x" {!func}', "Säbelzahntiger", None, "${tags}", "x" * 100, "a b", None, "Tabby", "猫")
"""A keyword for each picture, where :func:`make_run` is told to have them."""

SHARD_IMAGES, BLOCKS_PER_SHARD, BLOCKS = 6, 3, 6
"""Shards of 6 and 5 images; blocks of 2, 2, 2, then 1, 2, 2."""


def quiet(line: str) -> None:
    """Report nothing."""


def picture(votes: Sequence[int]) -> np.ndarray:
    """Return a picture that gets these votes; the rest of it is noise."""
    flat = np.random.default_rng(list(votes)).integers(0, 256, IMAGE_BYTES, dtype=np.uint8)
    flat[:TREES] = np.repeat(np.array([0, 128, 255], dtype=np.uint8), votes)
    return flat.reshape(32, 32, 3)


def pictures() -> np.ndarray:
    """Return the corpus, shape (images, 32, 32, 3)."""
    return np.stack([picture(votes) for votes in VOTES])


def forest() -> list[Tree]:
    """Return the ten trees."""
    return [
        Tree(
            feature=np.array([number, -1, number, -1, -1]),
            threshold=np.array([84.5, 0, 169.5, 0, 0]),
            left=np.array([1, -1, 3, -1, -1]),
            right=np.array([2, -1, 4, -1, -1]),
            prediction=np.array([0, 0, 1, 1, 2]),
        )
        for number in range(TREES)
    ]


MODEL_BYTES = forest_to_onnx(forest(), IMAGE_BYTES, TAGS, {})
MODEL = model_version("forest", MODEL_BYTES)


def card(**changes: object) -> ModelCard:
    """Return the forest's card."""
    return ModelCard(
        version=MODEL,
        tags=TAGS,
        trees=TREES,
        height=32,
        width=32,
        preparation="",
        labelled_set="",
        labelled_sha256="",
        labelled_images=0,
        parameters={},
        metrics={},
        libraries={},
        seconds={},
        created="2024-01-01T00:00:00+00:00",
    ).replaced(**changes)


def make_corpus(
    storage: LocalStorage,
    *,
    name: str = CORPUS,
    unreadable: Sequence[int] = (),
    keywords: Sequence[str | None] = (),
) -> Corpus:
    """Ingest the pictures; ``unreadable`` and ``keywords`` are written to the manifests afterwards."""
    source = Path(storage.root).with_name("pets.bin")
    source.write_bytes(to_column_major(pictures()))
    definition = CorpusDefinition(
        name=name,
        source=str(source),
        format="tiny-images",
        shard_images=SHARD_IMAGES,
        blocks_per_shard=BLOCKS_PER_SHARD,
    )
    ingest_corpus(definition, storage=storage, report=quiet)
    corpus = Corpus.load(storage, layout.corpus_file(name))
    for shard in range(corpus.partition.shards):
        path = layout.shard_manifest_file(name, shard)
        manifest = ShardManifest.load(storage, path)
        here = range(manifest.first, manifest.first + manifest.images)
        manifest = manifest.replaced(
            unreadable=tuple(Unreadable(position=at, reason="a test says so") for at in unreadable if at in here)
        )
        if keywords:
            sha256 = write_keywords(storage, shard, keywords[here.start : here.stop])
            manifest = manifest.replaced(keywords_sha256=sha256)
        manifest.save(storage, path)
    corpus = corpus.replaced(unreadable=len(unreadable))
    corpus.save(storage, layout.corpus_file(name))
    return corpus


def write_keywords(storage: LocalStorage, shard: int, keywords: Sequence[str | None]) -> str:
    """Write a shard's keywords as ingestion does; return the file's sha256."""
    sink = io.BytesIO()
    pq.write_table(pa.table({"keyword": pa.array(keywords, pa.string()).dictionary_encode()}), sink)
    storage.write(layout.keywords_file(CORPUS, shard), sink.getvalue())
    return hashlib.sha256(sink.getvalue()).hexdigest()


def publish_model(storage: LocalStorage, model_card: ModelCard | None = None) -> None:
    """Publish the forest, as training does."""
    storage.write(layout.model_file(MODEL), MODEL_BYTES)
    (model_card or card()).save(storage, layout.card_file(MODEL))


def make_run(
    storage: LocalStorage,
    *,
    threshold: int = 40,
    unreadable: Sequence[int] = (),
    keywords: Sequence[str | None] = (),
) -> Run:
    """Create the corpus, the model and a run."""
    make_corpus(storage, unreadable=unreadable, keywords=keywords)
    publish_model(storage)
    planned = plan_run(PlanRequest(CORPUS, MODEL, threshold), storage=storage)
    return Run.load(storage, layout.run_file(planned.run))


def make_another_run(storage: LocalStorage, threshold: int, created: str = "", corpus: str = CORPUS) -> Run:
    """Create another run of the same model; ``created`` changes its time."""
    name = plan_run(PlanRequest(corpus, MODEL, threshold), storage=storage).run
    run = Run.load(storage, layout.run_file(name))
    run = run.replaced(created=created or run.created)
    run.save(storage, layout.run_file(name))
    return run


def address_of(storage: LocalStorage) -> StoreAddress:
    """Return a local store's address."""
    return StoreAddress(str(storage.root))


def score_all(storage: LocalStorage, run: Run) -> None:
    """Score every block of a run."""
    score_blocks(
        ScoreRequest(run.name, tuple(range(run.blocks))),
        storage=storage,
        address=address_of(storage),
        connect_spark=SparkHere(),
        report=quiet,
    )


def index_all(storage: LocalStorage, run: Run, solr: "SolrHere") -> None:
    """Index every block of a run that is scored."""
    index_blocks(IndexRequest(run.name, tuple(range(run.blocks))), storage=storage, solr=solr, report=quiet)


class SparkHere:
    """The part of a Spark session that scoring uses; the function runs in this process, one batch per partition."""

    def __init__(self) -> None:
        self.sessions = 0
        self.stopped = 0
        self.ran = 0
        self.partitions = 0

    def __call__(self) -> "SparkHere":
        self.sessions += 1
        return self

    def range(self, start: int, end: int, step: int, numPartitions: int) -> "SparkHere":
        assert (start, step) == (0, 1)
        bounds = [number * end // numPartitions for number in range(numPartitions + 1)]
        self._batches = [
            pa.record_batch([pa.array(range(first, last), pa.int64())], names=["id"])
            for first, last in itertools.pairwise(bounds)
        ]
        self.partitions = numPartitions
        return self

    def mapInArrow(self, function, schema: str) -> "SparkHere":
        assert schema == "block long, reason string, kind string, awaited string"
        self._function = function
        return self

    def collect(self) -> list[SimpleNamespace]:
        def rows() -> Iterator[SimpleNamespace]:
            for batch in self._batches:
                self.ran += batch.num_rows
                for result in self._function(iter([batch])):
                    yield from (SimpleNamespace(**row) for row in result.to_pylist())

        return list(rows())

    def stop(self) -> None:
        self.stopped += 1


class SolrHere:
    """The part of a ``SolrClient`` that indexing and publishing use; documents are visible after a commit."""

    def __init__(self) -> None:
        self.visible: dict[str, dict[str, dict]] = {}
        self.pending: dict[str, list[tuple[str, object]]] = {}
        self.alias_of: dict[str, str] = {}
        self.configset_of: dict[str, str] = {}
        self.uploaded: dict[str, Configset] = {}
        self.first_configset = current_configset()
        """Of collections that were not created, but only written."""
        self.posted = 0
        self.deleted: list[str] = []
        self.commits = 0
        self.segments_of: dict[str, int] = {}

    def documents(self, collection: str) -> dict[str, dict]:
        """Return the visible documents by id."""
        return self.visible.setdefault(collection, {})

    def wait_until_settled(self, collection: str) -> None:
        """Return at once."""

    def segments(self, collection: str) -> tuple[int, ...]:
        return (self.segments_of.get(collection, 1),)

    def merge_segments(self, collection: str, most: int) -> None:
        self.segments_of[collection] = most

    def count(self, collection: str) -> int:
        return len(self.documents(collection))

    def count_by_block(self, collection: str, blocks: Sequence[int] | None = None) -> dict[int, int]:
        found = Counter(document["block"] for document in self.documents(collection).values())
        return {block: count for block, count in found.items() if blocks is None or block in blocks}

    def ids_of_block(self, collection: str, block: int) -> list[str]:
        return sorted(name for name, document in self.documents(collection).items() if document["block"] == block)

    def export_cores(self, collection: str) -> tuple[str, ...]:
        return (collection,)

    def export(
        self,
        cores: Sequence[str],
        fields: Sequence[str],
        *,
        first: int | None = None,
        last: int | None = None,
        block: int | None = None,
    ) -> list[dict]:
        (collection,) = cores
        found = [
            {name: document[name] for name in fields if name in document}
            for document in self.documents(collection).values()
            if (first is None or document["position"] >= first)
            and (last is None or document["position"] <= last)
            and block in (None, document["block"])
        ]
        return sorted(found, key=lambda document: (document["position"], document["id"]))

    def export_block(self, cores: Sequence[str], fields: Sequence[str], block: Block) -> Iterator[list[dict]]:
        last = block.first + block.images - 1
        yield self.export(cores, fields, first=block.first, last=last, block=block.number)

    def images_at(self, collection: str, block: int, first: int, last: int, most: int) -> tuple[int, dict[str, bytes]]:
        own = [document for document in self.documents(collection).values() if document["block"] == block]
        found = [document for document in own if first <= document["position"] <= last]
        return len(found), {document["id"]: document["data"] for document in found[:most] if "data" in document}

    def picture_values_at(
        self, collection: str, block: int, first: int, last: int, most: int, fields: Sequence[str]
    ) -> tuple[int, dict[str, dict]]:
        own = [document for document in self.documents(collection).values() if document["block"] == block]
        found = [document for document in own if first <= document["position"] <= last]
        kept = {"id", *fields}
        return len(found), {one["id"]: {name: one[name] for name in kept & one.keys()} for one in found[:most]}

    def delete_block(self, collection: str, block: int) -> None:
        self.delete_ids(collection, self.ids_of_block(collection, block))

    @contextmanager
    def posting(self, collection: str, mime: str) -> Iterator[Callable[[bytes], Future]]:
        assert mime == "application/javabin"

        def post(body: bytes) -> Future:
            answer: Future = Future()
            try:
                self.take(collection, read_documents(body))
            except TinyTagsError as error:
                answer.set_exception(error)
            else:
                answer.set_result({})
            return answer

        yield post

    def take(self, collection: str, documents: list[dict]) -> None:
        """Add the documents of one body."""
        self.posted += len(documents)
        self.pending.setdefault(collection, []).extend(("add", document) for document in documents)

    def delete_ids(self, collection: str, ids: Sequence[str]) -> None:
        self.deleted.extend(ids)
        self.pending.setdefault(collection, []).extend(("delete", name) for name in ids)

    def commit(self, collection: str) -> None:
        self.commits += 1
        for what, subject in self.pending.pop(collection, []):
            if what == "add":
                self.documents(collection)[subject["id"]] = subject
            else:
                self.documents(collection).pop(subject, None)

    def aliases(self) -> dict[str, str]:
        return dict(self.alias_of)

    def set_alias(self, alias: str, collections: str) -> None:
        for name in collections.split(","):
            if name not in self.visible:
                raise FinalError(f"Can't create collection alias: '{name}' is not an existing collection or alias")
        self.alias_of[alias] = collections

    def delete_alias(self, alias: str) -> None:
        self.alias_of.pop(alias, None)

    def collections(self) -> list[str]:
        return sorted(self.visible)

    def configset_names(self) -> list[str]:
        return sorted(self.uploaded)

    def upload_configset(self, configset: Configset) -> None:
        self.uploaded[configset.name] = configset

    def delete_configset(self, name: str) -> None:
        """Delete an existing configset that no collection uses; Solr also rejects others."""
        if name not in self.uploaded or name in self.configsets().values():
            raise FinalError(f"configset {name} cannot be deleted")
        del self.uploaded[name]

    def ensure_collection(self, name: str, configset: str, *, shards: int = 1, replicas: int = 1) -> bool:
        if name in self.visible:
            return False
        if configset not in self.uploaded:
            raise FinalError(f"Can not find the specified config set: {configset}")
        self.visible[name] = {}
        self.configset_of[name] = configset
        return True

    def field_names(self, collection: str) -> frozenset[str]:
        configset = self.uploaded.get(self.configset_of.get(collection, ""), self.first_configset)
        names = (field.get("name", "") for field in ElementTree.fromstring(configset.files["schema.xml"]).iter("field"))
        return frozenset(names)

    def configsets(self) -> dict[str, str]:
        return {name: self.configset_of.get(name, FOUNDING_CONFIGSET) for name in self.visible}

    def delete_collection(self, name: str) -> None:
        """Delete an existing collection that is in no alias; Solr also rejects others."""
        if name not in self.visible:
            raise FinalError(f"Could not find collection : {name}")
        if any(name in collections.split(",") for collections in self.alias_of.values()):
            raise FinalError(f"Collection : {name} is part of aliases")
        del self.visible[name]


def copy_run(made, storage, solr):
    """Copy a store and a Solr that a module has made once into empty ones, and return the run: faster than making them.

    ``made`` is the store, the Solr and the run.
    """
    stored, indexed, planned = made
    shutil.copytree(stored.root, storage.root)
    vars(solr).update(copy.deepcopy(vars(indexed)))
    return planned
