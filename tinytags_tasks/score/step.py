"""The scoring step: blocks in, one committed file a block out, by one Spark job."""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa

from tinytags_tasks import layout
from tinytags_tasks.block_files import block_sources, read_scored
from tinytags_tasks.blocks import format_block_numbers
from tinytags_tasks.errors import CorruptError, FinalError, TransientError
from tinytags_tasks.records import BlockRecord, BlockState, Corpus, ModelCard, Run
from tinytags_tasks.score.block import BlockTask, previous_attempts, score_block
from tinytags_tasks.spark import ConnectSpark, spark_errors
from tinytags_tasks.storage import Storage, StoreAddress


@dataclass(frozen=True)
class ScoreRequest:
    """Which blocks of which run."""

    run: str
    blocks: tuple[int, ...]


@dataclass(frozen=True)
class ScoreResult:
    """What stands now; ``scored`` counts the blocks that were not committed before."""

    run: str
    blocks: tuple[int, ...]
    scored: int


def run(
    request: ScoreRequest,
    *,
    storage: Storage,
    address: StoreAddress,
    connect_spark: ConnectSpark,
    report: Callable[[str], None] = print,
) -> ScoreResult:
    """Commit each block that is not committed yet; one that fails does not undo the others.

    Raises
    ------
    BadInputError
        When the run has no such block.
    TransientError, FinalError
        Naming exactly the blocks that failed; final when a retry cannot help any of them.
    """
    plan = Run.load(storage, layout.run_file(request.run))
    plan.check_blocks(request.blocks)
    if request.blocks:
        storage.delete_leftovers(*(layout.ledger_file(plan.name, block) for block in request.blocks))
    open_blocks = _uncommitted(request, storage)
    report(
        f"{len(request.blocks) - len(open_blocks)} of {len(request.blocks)} blocks are committed, "
        f"{len(open_blocks)} to score"
    )
    if open_blocks:
        tasks = _block_tasks(plan, open_blocks, storage)
        storage.delete_leftovers(*(layout.scored_file(plan.name, block) for block in open_blocks))
        failures = _score(tasks, address, connect_spark)
        _raise_failures(failures, plan, storage)
    return ScoreResult(plan.name, request.blocks, len(open_blocks))


def _uncommitted(request: ScoreRequest, storage: Storage) -> list[int]:
    """Return the blocks without a scored file; mend the ledger where a kill came between file and record."""
    scored = set(storage.names(layout.scored_folder(request.run)))
    recorded = set(storage.names(layout.ledger_folder(request.run)))
    missing = []
    for block in request.blocks:
        if layout.file_name(layout.scored_file(request.run, block)) not in scored:
            missing.append(block)
        elif not _has_record(storage, request.run, block, recorded):
            try:
                _, record = read_scored(storage, request.run, block)
            except CorruptError:
                missing.append(block)
            else:
                record.save(storage, layout.ledger_file(request.run, block))
    return missing


def _has_record(storage: Storage, run: str, block: int, recorded: set[str]) -> bool:
    """Tell whether the ledger says that a block was scored."""
    path = layout.ledger_file(run, block)
    if layout.file_name(path) not in recorded:
        return False
    try:
        return BlockRecord.load(storage, path).state is not BlockState.FAILED
    except CorruptError:
        return False


def _block_tasks(plan: Run, blocks: Iterable[int], storage: Storage) -> list[BlockTask]:
    corpus = Corpus.load(storage, layout.corpus_file(plan.corpus))
    if corpus.digest != plan.corpus_digest:
        raise CorruptError(f"corpus {corpus.name} is not what run {plan.name} was planned on; plan a new run")
    card = ModelCard.load(storage, layout.card_file(plan.model))
    return [
        BlockTask(source, plan.name, card.version, card.tags, card.trees, plan.threshold)
        for source in block_sources(storage, corpus, blocks)
    ]


@dataclass(frozen=True)
class _Failure:
    block: int
    reason: str
    is_transient: bool


def _score(tasks: list[BlockTask], address: StoreAddress, connect_spark: ConnectSpark) -> list[_Failure]:
    """Score every block in one Spark job, a Spark task each; return those that failed."""

    def score_numbers(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            outcomes = [_outcome(tasks[index], address) for index in batch.column(0).to_pylist()]
            yield pa.record_batch([pa.array(outcomes, pa.string())], names=["outcome"])

    spark = connect_spark()
    try:
        with spark_errors(f"scoring blocks {format_block_numbers(task.source.block for task in tasks)}"):
            numbers = spark.range(0, len(tasks), 1, numPartitions=len(tasks))
            outcomes = [
                json.loads(row.outcome) for row in numbers.mapInArrow(score_numbers, "outcome string").collect()
            ]
    finally:
        spark.stop()
    done = {outcome["block"] for outcome in outcomes}
    failures = [
        _Failure(outcome["block"], outcome["reason"], outcome["is_transient"])
        for outcome in outcomes
        if outcome["reason"]
    ]
    return failures + [
        _Failure(task.source.block, "Spark returned nothing for it", is_transient=True)
        for task in tasks
        if task.source.block not in done
    ]


def _outcome(task: BlockTask, address: StoreAddress) -> str:
    """Score one block in a worker; say how it went instead of raising, so that the others go on."""
    reason, is_transient = "", False
    try:
        score_block(task, address)
    except TransientError as error:
        reason, is_transient = str(error), True
    except FinalError as error:
        reason = str(error)
    return json.dumps({"block": task.source.block, "reason": reason, "is_transient": is_transient})


def _raise_failures(failures: list[_Failure], plan: Run, storage: Storage) -> None:
    """Write failures down and raise them as one error."""
    if not failures:
        return
    for failure in failures:
        BlockRecord(
            run=plan.name,
            block=failure.block,
            state=BlockState.FAILED,
            model=plan.model,
            reason=failure.reason,
            attempts=previous_attempts(storage, plan.name, failure.block) + 1,
        ).save(storage, layout.ledger_file(plan.name, failure.block))
    message = (
        f"run {plan.name}: scoring failed for blocks {format_block_numbers(failure.block for failure in failures)}: "
        + "; ".join(sorted({failure.reason for failure in failures})[:3])
    )
    if any(failure.is_transient for failure in failures):
        raise TransientError(message)
    raise FinalError(message)
