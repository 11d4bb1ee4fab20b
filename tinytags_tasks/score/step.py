"""The scoring step: one Spark job commits one file per block."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import pyarrow as pa
from pyspark import TaskContext

from tinytags_tasks.blocks import format_block_numbers
from tinytags_tasks.clients.spark import ConnectSpark, spark_errors
from tinytags_tasks.errors import CorruptError
from tinytags_tasks.nets.catalogue import load_net_card
from tinytags_tasks.outcomes import SPARK_COLUMNS, WAITING, Outcome, failures_among, outcomes_among, raise_failures
from tinytags_tasks.score.block import BlockTask, input_name, load_model, previous_attempts
from tinytags_tasks.score.take_over import found_earlier, take_over
from tinytags_tasks.score.worker import clear_leftovers, score_tasks, uncommitted_blocks, unsettled_blocks
from tinytags_tasks.store import layout
from tinytags_tasks.store.block_files import block_sources
from tinytags_tasks.store.block_lease import HeldBlocks, hold_blocks, is_held
from tinytags_tasks.store.lease import LEASE_SECONDS
from tinytags_tasks.store.model_records import PIXELS, ModelCard
from tinytags_tasks.store.models import read_model
from tinytags_tasks.store.opening import address_for_workers
from tinytags_tasks.store.protocol import Storage, StoreAddress
from tinytags_tasks.store.run_identity import corpus_of_run, load_run, refuse_another_corpus
from tinytags_tasks.store.run_records import BlockRecord, BlockState, Run

_BYTES_PER_SPARK_TASK = 128 * 2**20
"""The size at which Spark splits files: a Spark task costs a tenth of a second, a small block not much more."""

_IMAGES_PER_SPARK_TASK = 90_000
"""Embeddings are small, so it is the images that are divided: a head scores as many of them in a second or two."""


@dataclass(frozen=True)
class ScoreRequest:
    """Which blocks of which run to score; ``redo`` also scores blocks that are committed already."""

    run: str
    blocks: tuple[int, ...]
    redo: bool = False


@dataclass(frozen=True)
class ScoreResult:
    """The blocks that are committed; ``scored`` counts those that this call scored, ``taken_over`` those it copied."""

    run: str
    blocks: tuple[int, ...]
    scored: int
    taken_over: int = 0


def score_blocks(
    request: ScoreRequest,
    *,
    storage: Storage,
    address: StoreAddress,
    connect_spark: ConnectSpark,
    report: Callable[[str], None] = print,
    lease_seconds: float = LEASE_SECONDS,
) -> ScoreResult:
    """Score and commit each block that is not committed yet; if one fails, the others stay committed.

    What a run of the same model said of a block before the corpus grew is taken over.

    A block that another writer holds is left to that writer, and checked again once that writer is done.

    Raises
    ------
    BadInputError
        If the run does not have one of these blocks.
    TransientError, FinalError
        If blocks failed: which ones. The error is final if a retry cannot help any of them.
    """
    run = load_run(request.run, storage)
    run.check_blocks(request.blocks)
    open_blocks = request.blocks if request.redo else unsettled_blocks(run.name, request.blocks, storage)
    report(
        f"{len(request.blocks) - len(open_blocks)} of {len(request.blocks)} blocks are committed, "
        f"{len(open_blocks)} to score"
    )
    scored, taken_over, failures = 0, 0, []
    for held in hold_blocks(run.name, open_blocks, storage=storage, report=report, lease_seconds=lease_seconds):
        clear_leftovers(run.name, held.blocks, storage)
        # Another writer may have scored them while we waited for it.
        blocks = held.blocks if request.redo else uncommitted_blocks(run.name, held.blocks, storage, held.writer)
        taken = [] if request.redo else take_over(run, blocks, storage, held.writer)
        if taken:
            report(f"blocks {format_block_numbers(taken)} are taken over from run {run.earlier}")
            taken_over += len(taken)
            blocks = [block for block in blocks if block not in set(taken)]
        if blocks:
            tasks = [
                replace(task, writer=held.writer, redo=request.redo) for task in _block_tasks(run, blocks, storage)
            ]
            read_model(storage, run.model)  # a session that is already open would not notice a replaced file
            _refuse_wrong_shapes(tasks[0], load_model(address, run.model, tasks[0].features))
            failed = _score(tasks, address, connect_spark, redo=request.redo)
            failures += _recorded(failed, held, run, storage)
            scored += len(blocks)
    numbers = format_block_numbers(failure.block for failure in failures)
    raise_failures(failures, f"run {run.name}: scoring failed for blocks {numbers}")
    return ScoreResult(run.name, request.blocks, scored, taken_over)


def needed_embeddings(request: ScoreRequest, *, storage: Storage) -> tuple[str, tuple[int, ...]]:
    """Return the net and the blocks whose embeddings are read when these blocks are scored: embed them first.

    Returns
    -------
    tuple
        The net's version, empty if the model reads pixels; and the blocks that are to be scored.
    """
    run = load_run(request.run, storage)
    net = ModelCard.load(storage, layout.card_file(run.model)).features
    if net == PIXELS:
        return "", ()
    if request.redo:
        return net, request.blocks
    unsettled = unsettled_blocks(run.name, request.blocks, storage)
    earlier = set(found_earlier(run, unsettled, storage))
    return net, tuple(block for block in unsettled if block not in earlier)


def _block_tasks(run: Run, blocks: Iterable[int], storage: Storage) -> list[BlockTask]:
    corpus = corpus_of_run(run, storage)
    refuse_another_corpus(run, corpus)
    card = ModelCard.load(storage, layout.card_file(run.model))
    net = None if card.features == PIXELS else load_net_card(storage, card.features)
    return [
        BlockTask(
            source=source,
            run=run.name,
            model=card.version,
            tags=card.tags,
            trees=card.trees,
            threshold=run.threshold,
            features=card.features,
            columns=net.dimensions if net else source.image_bytes,
            none=card.none,
        )
        for source in block_sources(storage, corpus, blocks)
    ]


def _refuse_wrong_shapes(task: BlockTask, session: Any) -> None:  # noqa: ANN401 - onnxruntime has no types
    """Refuse a model whose file does not match its card, before it is sent to any worker."""
    reads = "" if task.features == PIXELS else f" by net {task.features}"
    for what, found, name, columns in (
        ("input", session.get_inputs(), input_name(task.features), task.columns),
        ("output", session.get_outputs(), "votes", task.outputs),
    ):
        shapes = {value.name: value.shape for value in found}
        # A dimension of any size is a name or None.
        if len(shapes.get(name, ())) != 2 or (isinstance(shapes[name][1], int) and shapes[name][1] != columns):
            raise CorruptError(
                f"{layout.model_file(task.model)}: its {what} is {shapes}; images of corpus {task.source.corpus}"
                f"{reads} and {len(task.tags)} tags{' with none' if task.none else ''} need {name} of "
                f"(images, {columns:,}): train or import the model again"
            )


def _score(tasks: list[BlockTask], address: StoreAddress, connect_spark: ConnectSpark, *, redo: bool) -> list[Outcome]:
    """Score all blocks in one Spark job; return the failures."""
    address = address_for_workers(address)

    def score_numbers(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        context = TaskContext.get()
        is_retried = context is not None and context.attemptNumber() > 0 and not redo
        for batch in batches:
            chosen = [tasks[index] for index in batch.column(0).to_pylist()]
            outcomes = score_tasks(chosen, address, is_retried=is_retried)
            yield pa.RecordBatch.from_pylist([asdict(outcome) for outcome in outcomes])

    partitions = _spark_tasks(tasks)
    spark = connect_spark()
    try:
        with spark_errors(f"scoring blocks {format_block_numbers(task.source.block for task in tasks)}"):
            numbers = spark.range(0, len(tasks), 1, numPartitions=partitions)
            rows = numbers.mapInArrow(score_numbers, SPARK_COLUMNS).collect()
    finally:
        spark.stop()
    return failures_among(outcomes_among(rows), [task.source.block for task in tasks])


def _spark_tasks(tasks: list[BlockTask]) -> int:
    """Return into how many Spark tasks blocks are divided, by what is read and by the work."""
    images = sum(task.source.images for task in tasks)
    read_bytes = sum(task.source.images * task.columns for task in tasks)
    wanted = max(-(-read_bytes // _BYTES_PER_SPARK_TASK), -(-images // _IMAGES_PER_SPARK_TASK))
    return max(1, min(len(tasks), wanted))


def _recorded(failures: Iterable[Outcome], held: HeldBlocks, run: Run, storage: Storage) -> list[Outcome]:
    """Record failures in the ledger and return them, except for blocks that another writer took over.

    A block that only has to wait has not failed.
    """
    ours = [failure for failure in failures if is_held(storage, run.name, failure.block, held.writer)]
    for failure in (failure for failure in ours if failure.kind not in WAITING):
        BlockRecord(
            run=run.name,
            block=failure.block,
            state=BlockState.FAILED,
            model=run.model,
            reason=failure.reason,
            attempts=previous_attempts(storage, run.name, failure.block) + 1,
        ).save(storage, layout.ledger_file(run.name, failure.block))
    return ours
