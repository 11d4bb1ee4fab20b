"""Scores one block: reads its bytes, and commits one file of tags and votes. Runs inside a Spark worker."""

import socket
import time
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import pyarrow as pa

from tinytags_tasks.errors import CorruptError, MissingError
from tinytags_tasks.store import layout
from tinytags_tasks.store.block_files import SCHEMA, BlockSource, read_pixels, write_scored
from tinytags_tasks.store.block_lease import refuse_lost
from tinytags_tasks.store.models import read_model
from tinytags_tasks.store.opening import open_store
from tinytags_tasks.store.protocol import Storage, StoreAddress
from tinytags_tasks.store.record import now
from tinytags_tasks.store.run_records import BlockRecord, BlockState
from tinytags_tasks.votes import Votes, confidence, is_kept, winners

_BATCH = 5_000


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
    writer: str = ""
    redo: bool = False


def score_block(task: BlockTask, address: StoreAddress) -> BlockRecord:
    """Commit a block's scored file and then its ledger record.

    Raises
    ------
    CorruptError
        If the shard's bytes do not match the manifest, or the model's output is not votes.
    TransientError
        If another writer took the block over because this one was silent for too long, or its driver is gone.
    """
    started = time.monotonic()
    storage = open_store(address)
    source = task.source
    votes = count_votes(load_model(address, task.model), read_pixels(storage, source), task)
    winner, won = winners(votes)
    positions = np.arange(source.first, source.first + source.images, dtype=np.int64)
    readable = ~np.isin(positions, source.unreadable)
    kept = readable & is_kept(won, task.threshold, task.trees)
    table = pa.table(
        [
            pa.array(positions[kept]),
            pa.array([task.tags[index] for index in winner[kept]], pa.string()),
            pa.array(won[kept].astype(np.int16)),
            pa.array(confidence(won[kept], task.trees).astype(np.int16)),
        ],
        schema=SCHEMA,
    )
    record = BlockRecord(
        run=task.run,
        block=source.block,
        state=BlockState.SCORED,
        model=task.model,
        sha256=source.sha256,
        read=source.images,
        kept=int(kept.sum()),
        below=int((readable & ~kept).sum()),
        unreadable=int((~readable).sum()),
        kept_by_tag={tag: int((winner[kept] == index).sum()) for index, tag in enumerate(task.tags)},
        host=socket.gethostname(),
        attempts=previous_attempts(storage, task.run, source.block) + 1,
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


@lru_cache(maxsize=2)
def load_model(address: StoreAddress, version: str) -> Any:  # noqa: ANN401 - onnxruntime has no types
    """Open a published model, once per worker process: a version is a hash, so its bytes never change.

    Raises
    ------
    MissingError
        If its file does not exist.
    CorruptError
        If its file is not what was published, or ONNX Runtime cannot read it.
    """
    stored = read_model(open_store(address), version)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # Spark runs one task per core
    options.inter_op_num_threads = 1
    try:
        return onnxruntime.InferenceSession(stored, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no common base class
        raise CorruptError(
            f"{layout.model_file(version)}: ONNX Runtime cannot use it ({error}); train or import another model"
        ) from error


def count_votes(session: Any, pixels: npt.NDArray[np.uint8], task: BlockTask) -> Votes:  # noqa: ANN401
    """Return the votes for each tag, float32, shape (images, tags): numbers of trees, or percentages.

    Raises
    ------
    CorruptError
        If they do not add up to the number of trees or to 100, or are not numbers (NaN).
    """
    votes = np.zeros((len(pixels), len(task.tags)), dtype=np.float32)
    for start in range(0, len(pixels), _BATCH):
        (batch,) = session.run(["votes"], {"pixels": pixels[start : start + _BATCH]})
        # Trees cast whole votes, and percentages are off by thousandths at most: a tolerance of half a vote suits both.
        if batch.shape[1] != len(task.tags) or not (np.abs(batch.sum(axis=1) - task.trees) < 0.5).all():
            raise CorruptError(
                f"model {task.model}: its votes do not add up to {task.trees} trees; train or publish it again"
            )
        votes[start : start + _BATCH] = batch
    return votes


def previous_attempts(storage: Storage, run: str, block: int) -> int:
    """Return how many earlier attempts there were at a block."""
    try:
        return BlockRecord.load(storage, layout.ledger_file(run, block)).attempts
    except (MissingError, CorruptError):
        return 0
