"""The ledger: what became of each block of a run, read from the store alone."""

from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from tinytags_tasks import layout
from tinytags_tasks.errors import CorruptError, MissingError
from tinytags_tasks.records import BlockRecord, BlockState, Run
from tinytags_tasks.storage import Storage

_READERS = 8


@dataclass(frozen=True)
class Totals:
    """Sums over the blocks of a ledger."""

    blocks: int
    read: int
    kept: int
    below: int
    unreadable: int
    documents: int
    by_state: dict[str, int]
    kept_by_tag: dict[str, int]
    score_seconds: float
    index_seconds: float


def list_runs(storage: Storage) -> list[Run]:
    """Return all runs, the latest planned last."""
    runs = [
        Run.load(storage, layout.run_file(name))
        for name in storage.names(layout.RUNS)
        if storage.exists(layout.run_file(name))
    ]
    return sorted(runs, key=lambda run: (run.created, run.name))


def read_ledger(storage: Storage, run: Run, blocks: Iterable[int] | None = None) -> list[BlockRecord]:
    """Return the records of a run's blocks in order; a block without one is planned, a damaged one failed.

    Parameters
    ----------
    storage
        The store.
    run
        The run.
    blocks
        Block numbers; None means all.
    """
    recorded = set(storage.names(layout.ledger_folder(run.name)))

    def read(block: int) -> BlockRecord:
        path = layout.ledger_file(run.name, block)
        planned = BlockRecord(run=run.name, block=block, state=BlockState.PLANNED, model=run.model)
        if layout.file_name(path) not in recorded:
            return planned
        try:
            record = BlockRecord.load(storage, path)
        except MissingError:  # deleted since the listing
            return planned
        except CorruptError as error:
            return planned.replaced(state=BlockState.FAILED, reason=str(error))
        if (record.run, record.block) != (run.name, block):
            reason = f"{path}: is the record of block {record.block} of run {record.run}; delete it and score again"
            return planned.replaced(state=BlockState.FAILED, reason=reason)
        return record

    with ThreadPoolExecutor(_READERS) as pool:
        return list(pool.map(read, range(run.blocks) if blocks is None else blocks))


def add_up(records: Iterable[BlockRecord]) -> Totals:
    """Sum the records of a ledger."""
    records = list(records)
    kept_by_tag: Counter[str] = Counter()
    for record in records:
        kept_by_tag.update(record.kept_by_tag)
    return Totals(
        blocks=len(records),
        read=sum(record.read for record in records),
        kept=sum(record.kept for record in records),
        below=sum(record.below for record in records),
        unreadable=sum(record.unreadable for record in records),
        documents=sum(record.documents or 0 for record in records),
        by_state={state.value: count for state, count in Counter(record.state for record in records).items()},
        kept_by_tag=dict(kept_by_tag),
        score_seconds=round(sum(record.score_seconds for record in records), 3),
        index_seconds=round(sum(record.index_seconds for record in records), 3),
    )
