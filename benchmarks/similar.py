"""Measure what vectors cost an index, how well and how soon similar pictures are found in it, and what looks join.

``python benchmarks/similar.py [DOCUMENTS ...]`` starts a Solr of its own, and prints Markdown. Pictures are real ones,
embedded by the net that ships; where more documents are asked for, they are repeated, and their embeddings shaken, so
that no two are the same.
"""

import io
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from machine import describe_machine, print_table
from PIL import Image

from tinytags_tasks import services
from tinytags_tasks.clients.solr import SolrClient
from tinytags_tasks.document_fields import LATER_FIELDS, LOOK_FIELDS, VECTOR_FIELD
from tinytags_tasks.index.documents import document_bodies
from tinytags_tasks.index.javabin import MIME
from tinytags_tasks.look import looks
from tinytags_tasks.nets.graph import embedding_graph
from tinytags_tasks.nets.running import embed, open_session
from tinytags_tasks.nets.shipped import shipped_card, shipped_net
from tinytags_tasks.runtime import Runtime
from tinytags_tasks.search.similar import LOOKED_AT
from tinytags_tasks.settings import load_settings
from tinytags_tasks.store.block_files import CONFIDENCE_COLUMN, BlockSource
from tinytags_tasks.store.configsets import current_configset
from tinytags_tasks.store.embedding_files import Embeddings

SIZES = (20_000, 60_000)
BLOCK = 10_000
SIDE = 32
QUERIES = 300
SHAKEN_BY = 3.0
"""Standard deviation of what is added to the numbers of a repeated embedding: a tenth of the larger ones."""

TAGS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
REAL = ("cifar10-train.parquet", "other-sample.parquet")

Pictures = npt.NDArray[np.uint8]
"""Shape (pictures, values)."""


def decode(stored: bytes) -> Pictures:
    """Return a stored picture in the corpus' size, as one row."""
    picture = Image.open(io.BytesIO(stored)).convert("RGB")
    return np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BOX)).reshape(-1)


def read_files(folder: Path, name: str) -> list[bytes]:
    """Return the encoded pictures of a labelled file."""
    return [row["bytes"] for row in pq.read_table(folder / name, columns=["img"]).column("img").to_pylist()]


def embed_real(folder: Path) -> Embeddings:
    """Return the embeddings of the real pictures by the net that ships."""
    return _embed(np.stack([decode(stored) for file in REAL for stored in read_files(folder, file)]))


def _embed(pictures: Pictures) -> Embeddings:
    graph = embedding_graph(shipped_net(), shipped_card(), SIDE, SIDE)
    return embed(open_session(graph, "the shipped net", threads=0), pictures)


def vectors_of(real: Embeddings, first: int, count: int) -> Embeddings:
    """Return the embeddings of documents from a position on."""
    places = np.arange(first, first + count)
    shaken = np.random.default_rng(first).normal(0.0, SHAKEN_BY, (count, real.shape[1]))
    shaken[places < len(real)] = 0.0
    return np.rint(real[places % len(real)] + shaken).clip(-127, 127).astype(np.int8)


def bodies_of(first: int, count: int, real: Pictures, vectors: Embeddings | None, fields: set[str]) -> Iterator[bytes]:
    """Yield the update requests of one block."""
    source = BlockSource(
        corpus="real",
        block=first // BLOCK,
        shard=0,
        first=first,
        images=count,
        offset_bytes=0,
        image_bytes=real.shape[1],
        width=SIDE,
        sha256="",
        keywords_sha256=None,
        unreadable=(),
    )
    chance = np.random.default_rng(first)
    confidence = chance.integers(40, 101, count)
    scored = pa.table(
        {
            "position": np.arange(first, first + count),
            "tag": [TAGS[number] for number in chance.integers(0, len(TAGS), count)],
            "votes": confidence,
            CONFIDENCE_COLUMN: confidence,
        }
    )
    own = real[np.arange(first, first + count) % len(real)]
    yield from document_bodies(scored, source, own, "bench", None, fields, embeddings=vectors)


class Index:
    """A collection with so many documents, with vectors and looks or without, and what it took to fill it."""

    def __init__(
        self, solr: SolrClient, images: int, real: Pictures, embeddings: Embeddings | None, fields: set[str]
    ) -> None:
        self.solr, self.images = solr, images
        self.name = f"bench-{images}-{'vectors' if embeddings is not None else 'plain'}"
        configset = current_configset()
        solr.upload_configset(configset)
        solr.ensure_collection(self.name, configset.name)
        before, started = _java_seconds(), time.perf_counter()
        with solr.posting(self.name, MIME) as post:
            sent = []
            for first in range(0, images, BLOCK):
                count = min(BLOCK, images - first)
                vectors = None if embeddings is None else vectors_of(embeddings, first, count)
                sent += [post(body) for body in bodies_of(first, count, real, vectors, fields)]
            for answer in sent:
                answer.result()
        solr.commit(self.name)
        self.seconds = time.perf_counter() - started
        self.cpu_seconds = _java_seconds() - before

    def document_bytes(self) -> float:
        """Return the bytes of the index per document."""
        metrics = self.solr.request("admin/metrics", {"group": "core", "prefix": "INDEX.sizeInBytes"})["metrics"]
        own = [value for core, value in metrics.items() if core.startswith(f"solr.core.{self.name}.")]
        return sum(int(value["INDEX.sizeInBytes"]) for value in own) / self.images

    def nearest(self, vector: list[int], tag: str = "") -> tuple[list[int], float]:
        """Return the positions of the ten nearest documents, and the seconds that Solr and the way to it took."""
        query = {
            "query": f"{{!knn f={VECTOR_FIELD} topK={LOOKED_AT} v=$vector}}",
            "filter": ["{!term f=tag v=$tag}"] if tag else [],
            "fields": ["position"],
            "limit": 10,
            "params": {"vector": json.dumps(vector), "tag": tag},
        }
        started = time.perf_counter()
        found = self.solr._select(self.name, query)["response"]["docs"]
        return [document["position"] for document in found], time.perf_counter() - started


def _java_seconds() -> float:
    """Return the processor time that this process' Solr has taken."""
    children = psutil.Process().children(recursive=True)
    return sum(sum(child.cpu_times()[:2]) for child in children if child.name() == "java")


def recall(index: Index, embeddings: Embeddings) -> tuple[float, list[float], list[float]]:
    """Return the share of the ten exactly nearest pictures that are found, and seconds without and with a filter."""
    every = np.concatenate(
        [vectors_of(embeddings, first, min(BLOCK, index.images - first)) for first in range(0, index.images, BLOCK)]
    ).astype(np.float32)
    every /= np.linalg.norm(every, axis=1, keepdims=True)
    chance = np.random.default_rng(7)
    hits, plain, filtered = 0, [], []
    for place in chance.choice(index.images, QUERIES, replace=False).tolist():
        first = place - place % BLOCK
        vector = vectors_of(embeddings, first, min(BLOCK, index.images - first))[place - first]
        likeness = every @ every[place]
        tenth = np.partition(likeness, -10)[-10]
        found, seconds = index.nearest(vector.tolist())
        hits += int((likeness[found] >= tenth - 1e-6).sum())
        plain.append(seconds)
        filtered.append(index.nearest(vector.tolist(), str(chance.choice(TAGS)))[1])
    return hits / (10 * QUERIES), plain, filtered


def print_looks(stored: list[bytes], others: Pictures) -> None:
    """Print which copies of pictures share a look with them, and how many different pictures do."""
    own = looks(np.stack([decode(one) for one in stored]), SIDE)
    ways = {
        "JPEG again, quality 90": (90, 1.0, 0),
        "JPEG again, quality 75": (75, 1.0, 0),
        "JPEG again, quality 50": (50, 1.0, 0),
        "three quarters of the size, quality 85": (85, 0.75, 0),
        "twice the size, quality 85": (85, 2.0, 0),
        "one pixel of 64 cut off, quality 90": (90, 1.0, 1),
        "two pixels of 64 cut off, quality 90": (90, 1.0, 2),
    }
    rows = []
    for way, (quality, scale, cut) in ways.items():
        copies = looks(np.stack([decode(copy_of(one, quality, scale, cut)) for one in stored]), SIDE)
        rows.append([way, f"{100 * (copies == own).any(axis=1).mean():.1f} %"])
    print_table(["copy", "shares a look with its picture"], rows)
    every = np.concatenate([own, looks(others, SIDE)])
    same = sum(len(every) - len(np.unique(every[:, column])) for column in (0, 1))
    print(f"\nOf {len(every):,} different pictures, {same:,} share a look with another one.\n", flush=True)


def copy_of(stored: bytes, quality: int, scale: float, cut: int) -> bytes:
    """Return a picture encoded again, in another size or without its first rows and columns."""
    picture = Image.open(io.BytesIO(stored)).convert("RGB")
    picture = picture.resize((round(picture.width * scale), round(picture.height * scale)), Image.Resampling.BICUBIC)
    picture = picture.crop((cut, cut, picture.width, picture.height))
    encoded = io.BytesIO()
    picture.save(encoded, "JPEG", quality=quality)
    return encoded.getvalue()


def measure(solr: SolrClient, sizes: tuple[int, ...], real: Pictures, embeddings: Embeddings) -> None:
    """Print the tables of what vectors cost, and of what they give."""
    costs, answers = [], []
    for images in sizes:
        without = Index(solr, images, real, None, set(LATER_FIELDS.difference(LOOK_FIELDS)))
        index = Index(solr, images, real, embeddings, set(LATER_FIELDS))
        for kind, one in (("without", without), ("with vectors and looks", index)):
            costs.append(
                [
                    f"{images:,}",
                    kind,
                    f"{one.document_bytes():,.0f}",
                    f"{images / one.seconds:,.0f}",
                    f"{images / one.cpu_seconds:,.0f}",
                ]
            )
        solr.delete_collection(without.name)
        found, plain, filtered = recall(index, embeddings)
        times = [f"{1e3 * float(np.quantile(of, share)):.0f}" for of in (plain, filtered) for share in (0.5, 0.95)]
        answers.append([f"{images:,}", f"{found:.3f}", *times])
        solr.delete_collection(index.name)
    print_table(["documents", "", "bytes a document", "documents/s", "documents per CPU second of Solr"], costs)
    print()
    print_table(
        ["documents", "recall at 10", "p50, ms", "p95, ms", "p50 with a tag, ms", "p95 with a tag, ms"], answers
    )


def main() -> None:
    sizes = tuple(int(each.replace(",", "")) for each in sys.argv[1:]) or SIZES
    with tempfile.TemporaryDirectory(prefix="tinytags-bench-") as name:
        os.environ["TINYTAGS_HOME"] = str(Path(name) / "home")
        settings = load_settings()
        print(f"## Similar pictures\n\n{describe_machine()}.\n", flush=True)
        files = [read_files(settings.demo_source, file) for file in REAL]
        real = np.stack([decode(stored) for file in files for stored in file])
        print_looks(files[1], real[: len(files[0])])
        embeddings = _embed(real)
        settings = services.up(settings, engines=["solr"], standard_ports=False, die_with_parent=True)
        try:
            measure(Runtime(settings).solr, sizes, real, embeddings)
        finally:
            services.down(load_settings())


if __name__ == "__main__":
    main()
