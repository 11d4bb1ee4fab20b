"""What a head sees of a labelled set: its pixels, or a net's embeddings of them, which are kept in the store."""

import hashlib
import io
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from tinytags_tasks.corpus.labelled import LabelledSet
from tinytags_tasks.errors import CorruptError, MissingError
from tinytags_tasks.nets.catalogue import read_net
from tinytags_tasks.nets.graph import embedding_graph
from tinytags_tasks.nets.running import CPU, embed, open_session
from tinytags_tasks.store import layout
from tinytags_tasks.store.embedding_files import Embeddings, embeddings_sha256
from tinytags_tasks.store.net_records import NetCard
from tinytags_tasks.store.parquet_bytes import read_parquet
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.train.images import check_labels, preparation, read_labelled, read_labels, read_other
from tinytags_tasks.votes import Votes

_BATCH = 5_000

_SHA256_KEY = b"tinytags.embeddings_sha256"
"""Key of the embeddings' hash in the metadata of a file of them."""


@dataclass(frozen=True)
class LabelledFeatures:
    """A labelled set as a head sees it.

    Attributes
    ----------
    path, sha256
        The labelled set, and the hash of its bytes.
    tags
        The names of the tags.
    labels
        int64, shape (images,): indexes into ``tags``.
    values
        Shape (images, values): pixels, uint8, or embeddings, int8.
    embed_seconds
        How long decoding and embedding took; 0 if the embeddings were in the store.
    unlabelled
        How many images of the set were left out because they have no label.
    """

    path: Path
    sha256: str
    tags: tuple[str, ...]
    labels: npt.NDArray[np.int64] = field(repr=False)
    values: npt.NDArray[np.uint8] | Embeddings = field(repr=False)
    embed_seconds: float = 0.0
    unlabelled: int = 0

    def part(self, chosen: npt.NDArray[np.bool_]) -> "LabelledFeatures":
        """Return some of the images."""
        return replace(self, labels=self.labels[chosen], values=self.values[chosen])


@dataclass(frozen=True)
class Sight:
    """What a model sees of a picture.

    Attributes
    ----------
    height, width
        The size of the pictures.
    net
        The card of the net; None if the model sees pixels.
    graph
        The net's graph from pixels to embeddings.
    providers
        ONNX Runtime's execution providers, first choice first.
    """

    height: int
    width: int
    net: NetCard | None = None
    graph: bytes = field(default=b"", repr=False)
    providers: Sequence[str] = (CPU,)

    @property
    def values(self) -> int:
        """How many values it sees of a picture."""
        return self.net.dimensions if self.net else self.height * self.width * 3


def sight_of(
    net: NetCard | None, height: int, width: int, storage: Storage, providers: Sequence[str] = (CPU,)
) -> Sight:
    """Return what a model sees through a net, or of pixels.

    Raises
    ------
    CorruptError
        If the net's file is damaged.
    """
    graph = embedding_graph(read_net(storage, net.version), net, height, width) if net else b""
    return Sight(height, width, net, graph, providers)


def read_features(
    path: Path,
    sha256: str,
    tags: tuple[str, ...] | None,
    sight: Sight,
    storage: Storage,
    report: Callable[[str], None],
    *,
    is_other: bool = False,
    keep: Callable[[npt.NDArray[np.uint8]], None] = lambda _: None,
) -> LabelledFeatures:
    """Read a labelled set as a head sees it.

    Embeddings are made once: whatever is learned from the same set through the same net reads them from the store.

    Parameters
    ----------
    path, sha256
        The labelled set, and the hash of its bytes.
    tags
        The names of its labels; None takes those that it has.
    sight
        What the head sees.
    storage
        The store.
    report
        Receives progress.
    is_other
        Whether its images are of other things: labels may be -1 (none of the tags) or -2 (left out).
    keep
        Gets the prepared images, uint8, shape (images, height, width, 3), if they are read.

    Raises
    ------
    BadInputError
        If the set cannot be used.
    """

    def decoded(tags: tuple[str, ...] | None) -> LabelledSet:
        if is_other:
            return read_other(path, tags or (), sight.height, sight.width)
        return read_labelled(path, tags, sight.height, sight.width)

    if sight.net is None:
        labelled = decoded(tags)
        keep(labelled.images)
        flat = labelled.images.reshape(len(labelled.images), -1)
        return LabelledFeatures(path, sha256, labelled.tags, labelled.labels, flat, unlabelled=labelled.unlabelled)
    names, labels, unlabelled = read_labels(path, tags, is_other=is_other)
    stored = layout.labelled_embeddings_file(_identity(sha256, sight, sight.net, unlabelled))
    storage.delete_leftovers(stored)
    check_labels(path, labels, names, is_other=is_other)
    embeddings = _stored_embeddings(storage, stored, (len(labels), sight.net.dimensions), report)
    if embeddings is not None:
        return LabelledFeatures(path, sha256, names, labels, embeddings, unlabelled=unlabelled)
    started = time.monotonic()
    labelled = decoded(names)
    keep(labelled.images)
    report(f"embedding {len(labels):,} images of {path.name} with {sight.net.version}")
    embeddings = see(sight, labelled.images)
    storage.write(stored, _parquet(embeddings))
    return LabelledFeatures(path, sha256, names, labels, embeddings, time.monotonic() - started, unlabelled)


def see(sight: Sight, images: npt.NDArray[np.uint8]) -> Embeddings:
    """Return a net's embeddings of images, uint8, shape (images, height, width, 3), made on all cores."""
    assert sight.net is not None  # noqa: S101 - for the type checker
    session: Any = open_session(sight.graph, layout.net_file(sight.net.version), sight.providers, threads=0)
    return embed(session, images.reshape(len(images), -1))


def are_among(rows: npt.NDArray[np.generic], others: npt.NDArray[np.generic]) -> npt.NDArray[np.bool_]:
    """Return which rows are equal to one of the others, bool, shape (rows,): the same picture looks the same."""
    known = {other.tobytes() for other in others}
    return np.array([row.tobytes() in known for row in rows], dtype=np.bool_)


def head_votes(head: bytes, values: npt.NDArray[np.uint8] | Embeddings) -> Votes:
    """Return the votes of a head, a graph whose only input is what it sees; float32, shape (images, classes)."""
    session: Any = open_session(head, "the head", threads=0)
    name = session.get_inputs()[0].name
    starts = range(0, len(values), _BATCH)
    return np.concatenate([session.run(["votes"], {name: values[start : start + _BATCH]})[0] for start in starts])


def _identity(sha256: str, sight: Sight, net: NetCard, unlabelled: int) -> str:
    """Hash everything that determines a labelled set's embeddings; not its tags, which only name them."""
    decisive: list[object] = [sha256, sight.height, sight.width, preparation(sight.height, sight.width), net.version]
    if unlabelled:  # as images of other things, the same file has them, too
        decisive.append("labelled only")
    return hashlib.sha256(json.dumps(decisive).encode()).hexdigest()[:16]


def _stored_embeddings(
    storage: Storage, path: str, shape: tuple[int, int], report: Callable[[str], None]
) -> Embeddings | None:
    """Return the embeddings in the store; None if there are none, or they are damaged."""
    try:
        stored = storage.read(path)
        table = read_parquet(stored)
        rows = memoryview(table.column("embedding").combine_chunks().buffers()[1])
        embeddings = np.frombuffer(rows, dtype=np.int8).reshape(shape)
        if table.schema.metadata[_SHA256_KEY].decode() != embeddings_sha256(embeddings):
            raise CorruptError("its sha256 differs")
    except MissingError:
        return None
    except (CorruptError, pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        report(f"{path}: damaged ({error}); embedding the labelled images again")
        return None
    return embeddings


def _parquet(embeddings: Embeddings) -> bytes:
    kind = pa.binary(embeddings.shape[1])
    column = pa.Array.from_buffers(kind, len(embeddings), [None, pa.py_buffer(np.ascontiguousarray(embeddings))])
    schema = pa.schema([("embedding", kind)], metadata={_SHA256_KEY: embeddings_sha256(embeddings).encode()})
    sink = io.BytesIO()
    pq.write_table(pa.table([column], schema=schema), sink, compression="zstd", use_dictionary=False)
    return sink.getvalue()
