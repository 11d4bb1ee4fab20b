"""Compare indexing with other ways to get the same documents into the same Solr, on real images; then measure searches.

``python benchmarks/index.py`` starts an HDFS and a Solr of its own, and prints Markdown.
"""

import base64
import itertools
import os
import statistics
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import orjson
import pysolr
import requests
import urllib3
from ingest import build_file, definition, timed
from machine import describe_machine, print_table, quiet

from tinytags_tasks import services
from tinytags_tasks.clients.solr import SolrClient
from tinytags_tasks.clients.solr_http import basic_authorization
from tinytags_tasks.corpus.demo.make import make_demo
from tinytags_tasks.index.step import DeleteRequest, IndexRequest, delete_blocks, index_blocks, prepare_collection
from tinytags_tasks.ingest.step import ingest_corpus
from tinytags_tasks.runtime import Runtime
from tinytags_tasks.score.block import score_block
from tinytags_tasks.score.plan import PlanRequest, plan_run
from tinytags_tasks.score.step import _block_tasks
from tinytags_tasks.search.query import search_images
from tinytags_tasks.search.request import SearchRequest
from tinytags_tasks.settings import Similar, Thumbnails, load_settings
from tinytags_tasks.store import layout
from tinytags_tasks.store.block_files import block_sources, read_pixels, read_scored
from tinytags_tasks.store.configsets import current_configset
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.model_records import ModelCard
from tinytags_tasks.store.models import model_version
from tinytags_tasks.store.record import now
from tinytags_tasks.store.run_records import Run
from tinytags_tasks.train.forest_trees import Tree, forest_to_onnx

IMAGE_BYTES = 3_072
IMAGES = 100_000
MANY = 1_000_000
SINGLE = 1_000
"""Documents that are posted one by one; more would take minutes and show the same."""

ROUNDS = 3
QUERIES = 100
TAGS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def forest_of_chance() -> bytes:
    """Return a random forest of random votes: scoring costs the same."""
    chance = np.random.default_rng(1)
    inner, leaves = 15, 16
    trees = [
        Tree(
            feature=np.concatenate([chance.integers(0, IMAGE_BYTES, inner), np.full(leaves, -1)]),
            threshold=np.concatenate([chance.integers(60, 200, inner) + 0.5, np.zeros(leaves)]),
            left=np.concatenate([np.arange(inner) * 2 + 1, np.full(leaves, -1)]),
            right=np.concatenate([np.arange(inner) * 2 + 2, np.full(leaves, -1)]),
            prediction=np.concatenate([np.zeros(inner, dtype=np.int64), chance.integers(0, len(TAGS), leaves)]),
        )
        for _ in range(10)
    ]
    return forest_to_onnx(trees, IMAGE_BYTES, TAGS, {})


FOREST = forest_of_chance()
MODEL = model_version("forest", FOREST)


def publish_model(runtime: Runtime) -> None:
    """Write the forest to the store."""
    runtime.storage.write(layout.model_file(MODEL), FOREST)
    ModelCard(
        version=MODEL,
        tags=TAGS,
        trees=10,
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
        created=now(),
    ).save(runtime.storage, layout.card_file(MODEL))


def make_run(runtime: Runtime, corpus: str, thumbnails: Thumbnails = "solr", similar: Similar = "off") -> Run:
    """Plan a run that keeps every image, and score it without Spark."""
    request = PlanRequest(corpus, MODEL, 0, thumbnails=thumbnails, similar=similar)
    planned = plan_run(request, storage=runtime.storage, report=quiet)
    run = Run.load(runtime.storage, layout.run_file(planned.run))
    for task in _block_tasks(run, range(run.blocks), runtime.storage):
        score_block(task, runtime.store_address)
    return run


class Collections:
    """Creates a new collection for each attempt, and drops it afterwards."""

    def __init__(self, runtime: Runtime) -> None:
        self._solr = runtime.solr
        configset = current_configset()
        runtime.solr.upload_configset(configset)
        self._configset = configset.name
        self._numbers = itertools.count()

    def timed(self, work: Callable[[str], object]) -> float:
        """Return the seconds to fill a collection, including the commit."""
        name = f"bench-{next(self._numbers)}"
        self._solr.ensure_collection(name, self._configset)
        try:
            return timed(lambda: work(name))
        finally:
            self._solr.delete_collection(name)


def bodies_of(runtime: Runtime, run: Run, documents: int) -> list[bytes]:
    """Return the run's documents as prepared JSON, with a given number per body."""
    every = list(all_documents(runtime, run))
    return [orjson.dumps(every[at : at + documents]) for at in range(0, len(every), documents)]


def all_documents(runtime: Runtime, run: Run) -> Iterator[dict[str, object]]:
    corpus = Corpus.load(runtime.storage, layout.corpus_file(run.corpus))
    for source in block_sources(runtime.storage, corpus, range(run.blocks)):
        table, _ = read_scored(runtime.storage, run.name, source.block)
        pixels = read_pixels(runtime.storage, source)
        for row in table.to_pylist():
            yield row | {
                "id": layout.document_id(corpus.name, row["position"]),
                "block": source.block,
                "shard": source.shard,
                "corpus": corpus.name,
                "model": run.model,
                "width": source.width,
                "data": base64.b64encode(pixels[row["position"] - source.first]).decode(),
            }


class Poster:
    """Posts prepared bodies over keep-alive connections, and does nothing else: the limit."""

    def __init__(self, solr: SolrClient, login: tuple[str, str], connections: int) -> None:
        self._url = solr.url
        self._headers = {"Content-Type": "application/json", **basic_authorization(login)}
        self._pool = urllib3.PoolManager(maxsize=connections, block=True)
        self._connections = connections

    def post(self, collection: str, body: bytes) -> None:
        """Post one body."""
        answer = self._pool.request("POST", f"{self._url}/{collection}/update", body=body, headers=self._headers)
        assert answer.status == 200, answer.data[:500]

    def fill(self, collection: str, bodies: list[bytes]) -> None:
        """Post all bodies and commit."""
        with ThreadPoolExecutor(self._connections) as threads:
            list(threads.map(lambda body: self.post(collection, body), bodies))
        self.post(collection, b'{"commit": {}}')


def compare(runtime: Runtime, run: Run) -> None:
    """Print the documents per second of each way."""
    solr, storage, settings = runtime.solr, runtime.storage, runtime.settings
    login = settings.solr_login("writer")
    assert login is not None  # the Solr that was started asks for one
    collections = Collections(runtime)
    documents = list(all_documents(runtime, run))

    def one_by_one(collection: str) -> None:
        for document in documents[:SINGLE]:
            answer = requests.post(f"{solr.url}/{collection}/update/json/docs", json=document, auth=login, timeout=60)
            answer.raise_for_status()
        Poster(solr, login, 1).post(collection, b'{"commit": {}}')

    def by_pysolr(collection: str) -> None:
        client = pysolr.Solr(f"{solr.url}/{collection}", auth=login, timeout=180)
        for at in range(0, len(documents), 1_000):
            client.add(documents[at : at + 1_000])
        client.commit()

    rates: dict[str, tuple[int, list[float]]] = {
        "(a) as the original: one POST per document": (SINGLE, [collections.timed(one_by_one)]),
        "(b) `pysolr.add`, a thousand at a time": (IMAGES, [collections.timed(by_pysolr) for _ in range(2)]),
    }
    del documents[SINGLE:]  # a hundred thousand objects would slow down every later allocation
    tried = {}
    for size in (500, 1_000, 2_000, 5_000):
        bodies = bodies_of(runtime, run, size)
        for connections in (1, 2, 4):
            poster = Poster(solr, login, connections)
            tried[size, connections] = [collections.timed(partial(poster.fill, bodies=bodies))]
    print_table(
        ["documents per request", *(f"{connections} connection{'s' * (connections > 1)}" for connections in (1, 2, 4))],
        [
            [f"{size:,}", *(f"{IMAGES / tried[size, connections][0]:,.0f}" for connections in (1, 2, 4))]
            for size in (500, 1_000, 2_000, 5_000)
        ],
    )
    print("\nPrepared JSON, in documents/s.\n")
    best = min(tried, key=lambda key: tried[key][0])
    bodies = bodies_of(runtime, run, best[0])
    poster = Poster(solr, login, best[1])
    blocks = tuple(range(run.blocks))

    def ours(redo: bool) -> float:
        request = IndexRequest(run.name, blocks, redo)
        return timed(lambda: index_blocks(request, storage=storage, solr=solr, report=quiet))

    limit, first, again = tried[best], [], []
    for _ in range(ROUNDS):
        limit.append(collections.timed(lambda name: poster.fill(name, bodies)))
        if run.collection in solr.collections():
            solr.delete_collection(run.collection)
        storage.delete(layout.ledger_folder(run.name))
        prepare_collection(run.name, storage=storage, solr=solr)
        first.append(ours(False))
        again.append(ours(True))
    name = f"(c) the limit: prepared JSON, {best[0]:,} per request, {best[1]} connections"
    rates[name] = IMAGES, limit
    rates["TinyTags: `index`, read from HDFS and verified"] = IMAGES, first
    rates["TinyTags: the same over existing documents, `--redo`"] = IMAGES, again

    def delete_and_redo() -> None:
        delete_blocks(DeleteRequest(run.name, (1,)), storage=storage, solr=solr, report=quiet)
        index_blocks(IndexRequest(run.name, (1,)), storage=storage, solr=solr, report=quiet)

    rates["TinyTags: delete one block and index it again"] = (
        IMAGES // run.blocks,
        [timed(delete_and_redo) for _ in range(ROUNDS)],
    )
    speed = {way: count / statistics.median(seconds) for way, (count, seconds) in rates.items()}
    own = speed["TinyTags: `index`, read from HDFS and verified"]
    print_table(
        ["way", "documents", "seconds of each round", "documents/s (median)", "speed of TinyTags, ratio"],
        [
            [
                way,
                f"{count:,}",
                ", ".join(f"{value:.1f}" for value in seconds),
                f"{speed[way]:,.0f}",
                f"{own / speed[way]:.2f}",
            ]
            for way, (count, seconds) in rates.items()
        ],
    )
    print()


def index_bytes(runtime: Runtime, collection: str) -> int:
    """Return the size of a collection's index on disk, after merging deleted documents away."""
    solr = runtime.solr
    solr.request(f"{collection}/update?optimize=true&waitSearcher=true&wt=json", body=b"{}", mime="application/json")
    cores = solr.request("admin/metrics", {"group": "core", "prefix": "INDEX.sizeInBytes"})["metrics"]
    return sum(
        int(found["INDEX.sizeInBytes"]) for core, found in cores.items() if core.startswith(f"solr.core.{collection}.")
    )


def latencies(runtime: Runtime, run: Run) -> list[str]:
    """Return the milliseconds of three kinds of searches under the alias, median and 95th percentile of each."""
    runtime.solr.set_alias(runtime.settings.alias, run.collection)
    chance = np.random.default_rng(7)
    cells = []
    for rows, with_pixels in ((60, True), (60, False), (1, False)):
        seconds = []
        for _ in range(QUERIES):
            request = SearchRequest(
                tags=(str(chance.choice(TAGS)),),
                min_confidence=int(chance.integers(0, 60)),
                rows=rows,
                start=int(chance.integers(0, 50)) * rows,
                with_pixels=with_pixels,
            )
            seconds.append(timed(partial(search_images, runtime.settings, request)))
        cells.append(f"{statistics.median(seconds) * 1e3:.0f}, {np.percentile(seconds, 95) * 1e3:.0f}")
    return cells


def measure(runtime: Runtime, folder: Path) -> None:
    """Run everything."""
    demo = make_demo(folder / "demo", runtime.settings.demo_source, report=quiet)
    publish_model(runtime)
    for name, images, per_shard in (("small", IMAGES, 5), ("large", MANY, 50)):
        source = folder / f"{name}.bin"
        build_file(source, demo.corpus_path, images * IMAGE_BYTES)
        ingest_corpus(definition(name, source, blocks_per_shard=per_shard), storage=runtime.storage, report=quiet)
        source.unlink()
    small = make_run(runtime, "small")
    compare(runtime, small)
    rows, searches = [], []
    ways: tuple[tuple[str, Thumbnails], ...] = (("small", "solr"), ("small", "store"), ("large", "solr"))
    for corpus, thumbnails in ways:
        run = make_run(runtime, corpus, thumbnails)
        prepare_collection(run.name, storage=runtime.storage, solr=runtime.solr)
        blocks = tuple(range(run.blocks))
        seconds = 0.0
        for at in range(0, len(blocks), 5):
            request = IndexRequest(run.name, blocks[at : at + 5], redo=True)
            seconds += timed(partial(index_blocks, request, storage=runtime.storage, solr=runtime.solr, report=quiet))
        count = runtime.solr.count(run.collection)
        assert count == run.images
        if corpus == "small":
            size = index_bytes(runtime, run.collection)
            rows.append(
                [thumbnails, f"{count / seconds:,.0f}", f"{size / count:,.0f}", f"{size / count * 79.3e6 / 1e9:,.0f}"]
            )
        if thumbnails == "solr":
            searches.append([f"{count:,}", f"{count / seconds:,.0f}", *latencies(runtime, run)])
    print_table(["thumbnails", "documents/s", "index bytes per document", "GB for 79.3 million"], rows)
    print()
    print_table(
        [
            "documents",
            "documents/s when indexing",
            "a page of 60 with pixels and facets: ms (median, 95 %)",
            "without pixels",
            "facets and one image",
        ],
        searches,
    )


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="tinytags-bench-") as name:
        folder = Path(name)
        os.environ["TINYTAGS_HOME"] = str(folder / "home")
        settings = services.up(load_settings(), engines=["hdfs", "solr"], standard_ports=False, die_with_parent=True)
        try:
            print(f"## Indexing and searching\n\n{describe_machine()}; {IMAGES:,} documents of 32x32 images.\n")
            measure(Runtime(settings), folder)
        finally:
            services.down(load_settings())


if __name__ == "__main__":
    main()
