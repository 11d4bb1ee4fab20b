"""What a Spark worker does with the blocks of one Spark task.

Workers import this module again in every session. It does not import Spark's client, which would double the time.
"""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from tinytags_tasks.errors import CorruptError, MissingError
from tinytags_tasks.outcomes import Outcome, outcomes_of
from tinytags_tasks.score.block import BlockTask, score_block
from tinytags_tasks.store import layout
from tinytags_tasks.store.block_files import read_scored
from tinytags_tasks.store.block_lease import refuse_lost
from tinytags_tasks.store.model_records import PIXELS
from tinytags_tasks.store.opening import open_store
from tinytags_tasks.store.protocol import Storage, StoreAddress
from tinytags_tasks.store.run_records import BlockRecord, BlockState, Run
from tinytags_tasks.store.some_files import sizes_of

_AT_ONCE = 2
"""How many blocks a worker scores at the same time: while one waits for HDFS, the other's votes are counted."""

_EMBEDDED_AT_ONCE = 4
"""The same for blocks whose embeddings are read: a head is so fast that most of the time is spent waiting for HDFS."""


_READERS = 8


def score_tasks(tasks: Sequence[BlockTask], address: StoreAddress, *, is_retried: bool) -> list[Outcome]:
    """Score and commit each block separately; return failures instead of raising them, so that the others continue.

    Parameters
    ----------
    tasks
        Blocks of one run.
    address
        The store.
    is_retried
        Whether another worker died while scoring these blocks; if so, what it committed is kept, and what it was
        writing is deleted.
    """
    committed: set[int] = set()
    if is_retried:
        blocks, storage = [task.source.block for task in tasks], open_store(address)
        clear_leftovers(tasks[0].run, blocks, storage)
        missing = uncommitted_blocks(tasks[0].run, blocks, storage, tasks[0].writer)
        committed = set(blocks) - set(missing)

    def work(task: BlockTask) -> None:
        if task.source.block not in committed:
            score_block(task, address)

    at_once = _EMBEDDED_AT_ONCE if any(task.features != PIXELS for task in tasks) else _AT_ONCE
    return outcomes_of(tasks, lambda task: task.source.block, work, at_once)


def clear_leftovers(run: str, blocks: Sequence[int], storage: Storage) -> None:
    """Delete what killed writers of these blocks left; the caller holds the leases on them."""
    storage.delete_leftovers(*(layout.ledger_file(run, block) for block in blocks))
    storage.delete_leftovers(*(layout.scored_file(run, block) for block in blocks))


def unsettled_blocks(run: str, blocks: Iterable[int], storage: Storage) -> tuple[int, ...]:
    """Return the blocks without a scored file of the size in the ledger; nothing is written."""
    blocks = list(blocks)
    scored = _scored_sizes(run, blocks, storage)

    def is_settled(block: int) -> bool:
        return block in scored and _is_recorded(storage, run, block, scored[block])

    with ThreadPoolExecutor(_READERS) as pool:
        return tuple(block for block, settled in zip(blocks, pool.map(is_settled, blocks), strict=True) if not settled)


def uncommitted_blocks(run: str, blocks: Iterable[int], storage: Storage, writer: str) -> list[int]:
    """Return the blocks without a scored file; repair the ledger where a writer was killed between file and record.

    A file whose size differs from the one in the ledger is read: it is either damaged, and deleted, or the ledger is
    out of date.

    Parameters
    ----------
    run, blocks
        The run's name and the blocks' numbers.
    storage
        The store.
    writer
        Who holds the leases on these blocks; empty if nobody else can.

    Raises
    ------
    TransientError
        If another writer took over a block that is to be repaired.
    """
    blocks = list(blocks)
    scored = _scored_sizes(run, blocks, storage)
    missing = []
    for block in blocks:
        if block not in scored:
            missing.append(block)
        elif not _is_recorded(storage, run, block, scored[block]):
            try:
                _, record = read_scored(storage, run, block)
            except CorruptError:
                record = None
            if writer:  # after the file was read, which takes a while
                refuse_lost(storage, run, block, writer)
            if record is None:
                storage.delete(layout.scored_file(run, block))
                missing.append(block)
            else:
                record.save(storage, layout.ledger_file(run, block))
    return missing


def _scored_sizes(run: str, blocks: Sequence[int], storage: Storage) -> dict[int, int]:
    """Return the size of each block's scored file, if it has one."""
    paths = {layout.scored_file(run, block): block for block in blocks}
    found = sizes_of(storage, list(paths), lambda: Run.load(storage, layout.run_file(run)).blocks)
    return {paths[path]: size for path, size in found.items()}


def _is_recorded(storage: Storage, run: str, block: int, size: int) -> bool:
    """Return whether the ledger says that a block was scored into a file of this size."""
    try:
        record = BlockRecord.load(storage, layout.ledger_file(run, block))
    except (MissingError, CorruptError):
        return False
    return record.state is not BlockState.FAILED and record.scored_bytes in (0, size)
