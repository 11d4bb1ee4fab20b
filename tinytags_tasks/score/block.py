"""Scores one block: reads its pixels or embeddings, and commits one file of tags and votes. Runs in a Spark worker."""

import socket
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tinytags_tasks.errors import CorruptError, MissingError, OtherWriterError, TransientError
from tinytags_tasks.nets.running import open_session
from tinytags_tasks.store import layout
from tinytags_tasks.store.block_files import (
    BATCH_BYTES,
    SCHEMA,
    BlockSource,
    images_per_batch,
    read_pixel_batches,
    with_none_bits,
    write_scored,
)
from tinytags_tasks.store.block_lease import embedding_leases, refuse_lost
from tinytags_tasks.store.embedding_files import read_embeddings
from tinytags_tasks.store.model_records import PIXELS
from tinytags_tasks.store.models import read_model
from tinytags_tasks.store.opening import open_store
from tinytags_tasks.store.protocol import Storage, StoreAddress
from tinytags_tasks.store.record import now
from tinytags_tasks.store.run_records import BlockRecord, BlockState
from tinytags_tasks.votes import Votes, confidence, decide

_BATCH = 5_000
"""Images that a model scores at a time, if they are not large."""

_LOADING = threading.Lock()
"""Held while a model is opened, so that the threads of a worker do not all open it."""

Features = npt.NDArray[np.uint8] | npt.NDArray[np.int8]
"""What a model's head reads, one row per image: pixels (uint8) or embeddings (int8)."""


@dataclass(frozen=True)
class BlockTask:
    """Everything needed to score one block; small and serialisable.

    Attributes
    ----------
    source
        Where its bytes are.
    run, model
        The names of the run and of the model version.
    tags, trees
        The model's tags, and the sum of an image's votes: the number of trees, or 100 for percentages.
    threshold
        The lowest confidence, in percent, with which an image is kept.
    features
        The version of the net whose embeddings the model reads, or ``pixels``.
    columns
        How many values of an image the model reads.
    none
        Whether the last column of the model's output is "none of the tags".
    writer
        Who holds the lease on the block; empty if nobody else can write the block.
    redo
        Whether an existing scored file is written again.
    """

    source: BlockSource
    run: str
    model: str
    tags: tuple[str, ...]
    trees: int
    threshold: int
    features: str
    columns: int
    none: bool
    writer: str = ""
    redo: bool = False

    @property
    def outputs(self) -> int:
        """How many columns the model's output has."""
        return len(self.tags) + self.none


def score_block(task: BlockTask, address: StoreAddress) -> BlockRecord:
    """Commit a block's scored file and then its ledger record.

    Raises
    ------
    CorruptError
        If the shard's bytes do not match the manifest, or the model's output is not votes.
    OtherWriterError
        If another writer took the block over because this one was silent for too long, or its driver is gone; or if the
        block's embeddings are damaged and another process is embedding it.
    TransientError
        If the block's embeddings are missing or damaged. A damaged file is deleted, so that embedding makes it again.
    """
    started = time.monotonic()
    storage = open_store(address)
    source = task.source
    batches, embed_seconds = read_features(storage, task)
    votes = count_votes(load_model(address, task.model, task.features), batches, task)
    decided = decide(votes, len(task.tags), task.threshold, task.trees)
    winner, won = decided.winner, decided.won
    positions = np.arange(source.first, source.first + source.images, dtype=np.int64)
    readable = ~np.isin(positions, source.unreadable)
    kept, none = readable & decided.is_kept, readable & decided.is_none
    table = pa.table(
        [
            pa.array(positions[kept]),
            pa.array([task.tags[index] for index in winner[kept]], pa.string()),
            pa.array(won[kept].astype(np.int16)),
            pa.array(confidence(won[kept], task.trees).astype(np.int16)),
        ],
        schema=SCHEMA,
    )
    if task.none:
        table = with_none_bits(table, none)
    record = BlockRecord(
        run=task.run,
        block=source.block,
        state=BlockState.SCORED,
        model=task.model,
        sha256=source.sha256,
        read=source.images,
        kept=int(kept.sum()),
        below=int((readable & ~kept & ~none).sum()),
        none=int(none.sum()),
        unreadable=int((~readable).sum()),
        kept_by_tag={tag: int((winner[kept] == index).sum()) for index, tag in enumerate(task.tags)},
        host=socket.gethostname(),
        attempts=previous_attempts(storage, task.run, source.block) + 1,
        embed_seconds=embed_seconds,
        score_seconds=round(time.monotonic() - started, 3),
        scored=now(),
    )
    if task.redo:  # otherwise a file that another writer committed is kept
        _refuse_lost(task, storage)
    record = write_scored(storage, table, record, overwrite=task.redo)
    _refuse_lost(task, storage)
    record.save(storage, layout.ledger_file(task.run, source.block))
    return record


def _refuse_lost(task: BlockTask, storage: Storage) -> None:
    if task.writer:
        refuse_lost(storage, task.run, task.source.block, task.writer)


def read_features(storage: Storage, task: BlockTask) -> tuple[Iterable[Features], float]:
    """Return what the model reads of a block, in batches, and how long its embeddings took when they were made.

    Raises
    ------
    MissingError, CorruptError
        If the model reads pixels, and the shard is missing or not what was ingested. This is found while the batches
        are read.
    TransientError
        If the model reads embeddings, and they are missing or damaged.
    """
    source, net = task.source, task.features
    if net == PIXELS:
        images = images_per_batch(source.image_bytes, _images_at_once(task))
        return read_pixel_batches(storage, source, images), 0.0
    try:
        embeddings, seconds = _read_embeddings(storage, task)
        return [embeddings], seconds
    except MissingError as error:
        path = layout.embeddings_file(source.corpus, net, source.block)
        raise TransientError(f"{path}: block {source.block} is not embedded; {_embed_again(task)}") from error
    except CorruptError as error:
        if not _drop_damaged(storage, task):
            raise OtherWriterError(f"{error}; another process is embedding the block: try again") from error
        raise TransientError(f"{error}; the file is deleted: {_embed_again(task)}") from error


def _read_embeddings(storage: Storage, task: BlockTask) -> tuple[Features, float]:
    source, net = task.source, task.features
    embeddings, record = read_embeddings(storage, source, net)
    if record.dimensions != task.columns:
        path = layout.embeddings_file(source.corpus, net, source.block)
        raise CorruptError(f"{path}: has {record.dimensions} numbers an image, and net {net} gives {task.columns}")
    return embeddings, record.seconds


def _drop_damaged(storage: Storage, task: BlockTask) -> bool:
    """Delete a block's damaged embeddings; return False if another process is embedding the block.

    Whoever embeds takes an existing file for good, so without this the next try would read the same file.
    """
    source = task.source
    leases = embedding_leases(source.corpus, task.features)
    for _ in leases.hold([source.block], storage=storage, report=lambda line: None, patience_seconds=0.0):
        try:
            _read_embeddings(storage, task)  # it may have been made again since it was read
        except MissingError:
            pass
        except CorruptError:
            storage.delete(layout.embeddings_file(source.corpus, task.features, source.block))
        return True
    return False


def _embed_again(task: BlockTask) -> str:
    source = task.source
    command = f"`tinytags embed {source.corpus} --net {task.features} --blocks {source.block}`"
    return f"{command} makes it, and so does the next try"


def load_model(address: StoreAddress, version: str, features: str) -> Any:  # noqa: ANN401 - onnxruntime has no types
    """Open what scores, once per worker process: a version is a hash, so its bytes never change.

    Parameters
    ----------
    address
        The store.
    version
        A published model.
    features
        What it reads. Of a model that reads a net's embeddings, only the head is opened, which takes ``embedding``.

    Raises
    ------
    MissingError
        If its file does not exist.
    CorruptError
        If its file is not what was published, or ONNX Runtime cannot read it.
    """
    with _LOADING:
        return _open_model(address, version, features)


@lru_cache(maxsize=2)
def _open_model(address: StoreAddress, version: str, features: str) -> Any:  # noqa: ANN401 - as above
    stored = read_model(open_store(address), version)
    if features != PIXELS:
        stored = _head_of(stored, version)
    return open_session(stored, layout.model_file(version))


def _head_of(model: bytes, version: str) -> bytes:
    from tinytags_tasks.nets.compose import split_head  # it imports onnx, which a model of pixels does not need

    try:
        return split_head(model)
    except StopIteration as error:
        raise CorruptError(
            f"{layout.model_file(version)}: its graph has no tensor `embedding`, but its card says that it reads a "
            "net's embeddings; train the model again"
        ) from error


def input_name(features: str) -> str:
    """Return the name of the input of what scores."""
    return "pixels" if features == PIXELS else "embedding"


def _images_at_once(task: BlockTask) -> int:
    """Return how many images a model scores at a time."""
    return max(1, min(_BATCH, BATCH_BYTES // task.columns))


def count_votes(session: Any, batches: Iterable[Features], task: BlockTask) -> Votes:  # noqa: ANN401 - as above
    """Return the votes of a block's images, float32, shape (images, tags), with "none" (images, tags + 1).

    They are numbers of trees, or percentages.

    Raises
    ------
    CorruptError
        If they do not add up to the number of trees or to 100, or are not numbers (NaN).
    """
    votes = np.zeros((task.source.images, task.outputs), dtype=np.float32)
    name, images, at = input_name(task.features), _images_at_once(task), 0
    for features in batches:
        for start in range(0, len(features), images):
            (batch,) = session.run(["votes"], {name: features[start : start + images]})
            # Trees cast whole votes, and percentages are off by thousandths at most: half a vote suits both.
            if batch.shape[1] != task.outputs or not (np.abs(batch.sum(axis=1) - task.trees) < 0.5).all():
                raise CorruptError(
                    f"model {task.model}: its votes do not add up to {task.trees} trees; train or publish it again"
                )
            votes[at : at + len(batch)] = batch
            at += len(batch)
    return votes


def previous_attempts(storage: Storage, run: str, block: int) -> int:
    """Return how many earlier attempts there were at a block."""
    try:
        return BlockRecord.load(storage, layout.ledger_file(run, block)).attempts
    except (MissingError, CorruptError):
        return 0
