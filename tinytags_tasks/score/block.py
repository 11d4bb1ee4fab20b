"""Scoring one block: bytes in, one committed file of tags and votes out. Runs inside a Spark worker."""

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
    """All that scoring one block takes; small and serialisable.

    Attributes
    ----------
    source
        Where its bytes are.
    run, model
        Names.
    tags, trees
        The model's tags, and what an image's votes add up to: the number of trees, or 100 for percentages.
    threshold
        Confidence in percent from which an image is kept.
    writer
        Who holds the lease on the block; empty where nobody else can write it.
    redo
        Whether a scored file that exists is written again.
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
        If the shard's bytes are not those of the manifest, or the model's output is not a vote count.
    TransientError
        If another writer has taken the block over: this one was silent for too long, or its driver is gone.
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
    if task.redo:  # else a file that another has committed stays
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
    """Open a published model, once a worker process: a version is the hash of the bytes, so it never means others.

    Raises
    ------
    MissingError
        If its file does not exist.
    CorruptError
        If its file is not what was published, or ONNX Runtime cannot read it.
    """
    stored = read_model(open_store(address), version)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # Spark runs one task a core
    options.inter_op_num_threads = 1
    try:
        return onnxruntime.InferenceSession(stored, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own have no common base
        raise CorruptError(
            f"{layout.model_file(version)}: ONNX Runtime cannot use it ({error}); train or import another model"
        ) from error


def count_votes(session: Any, pixels: npt.NDArray[np.uint8], task: BlockTask) -> Votes:  # noqa: ANN401
    """Return the votes for each tag, float32 of shape (images, tags): whole numbers of trees, or percentages.

    Raises
    ------
    CorruptError
        If they do not add up to the number of trees, or to 100, or are not numbers (NaN).
    """
    votes = np.zeros((len(pixels), len(task.tags)), dtype=np.float32)
    for start in range(0, len(pixels), _BATCH):
        (batch,) = session.run(["votes"], {"pixels": pixels[start : start + _BATCH]})
        # Votes of trees are whole numbers, and percentages are rounded in the thousandths: half a vote allows for both.
        if batch.shape[1] != len(task.tags) or not (np.abs(batch.sum(axis=1) - task.trees) < 0.5).all():
            raise CorruptError(
                f"model {task.model}: its votes do not add up to {task.trees} trees; train or publish it again"
            )
        votes[start : start + _BATCH] = batch
    return votes


def previous_attempts(storage: Storage, run: str, block: int) -> int:
    """Return how often a block was tried before."""
    try:
        return BlockRecord.load(storage, layout.ledger_file(run, block)).attempts
    except (MissingError, CorruptError):
        return 0
