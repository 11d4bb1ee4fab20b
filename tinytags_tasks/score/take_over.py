"""Taking scored files over from a run of the same model and threshold on the corpus before it grew.

What a model says of a block follows from the block's bytes, so nothing is scored twice.
"""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa

from tinytags_tasks.errors import CorruptError, MissingError
from tinytags_tasks.score.block import previous_attempts
from tinytags_tasks.store import layout
from tinytags_tasks.store.block_files import BlockSource, block_sources, read_scored, write_scored
from tinytags_tasks.store.block_lease import refuse_lost
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.store.run_identity import corpus_of_run
from tinytags_tasks.store.run_records import BlockRecord, Run

_AT_ONCE = 8
"""Blocks that are copied at once: each waits for the store a few times."""


def earlier_run(run: Run, corpus: Corpus, known_runs: Iterable[Run]) -> Run | None:
    """Return the run whose scored files a new run takes over: of the longest part of the corpus, then the newest."""
    stages = list(corpus.growth_hashes)
    here = stages.index(run.growth)
    found = [
        known
        for known in known_runs
        if (known.corpus, known.corpus_digest) == (run.corpus, run.corpus_digest)
        and (known.model, known.threshold) == (run.model, run.threshold)
        and known.growth in stages[:here]
    ]
    return max(found, key=lambda known: (stages.index(known.growth), known.created), default=None)


def found_earlier(run: Run, blocks: Iterable[int], storage: Storage) -> list[int]:
    """Return the blocks that can be taken over; their files are read and checked."""
    sources = _old_sources(run, blocks, storage)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        found = pool.map(lambda source: _read_earlier(run, source, storage), sources)
        return [source.block for source, earlier in zip(sources, found, strict=True) if earlier]


def take_over(run: Run, blocks: Iterable[int], storage: Storage, writer: str) -> list[int]:
    """Commit blocks of a run with what an earlier run says of them, and return them; the others have to be scored.

    Parameters
    ----------
    run
        The run.
    blocks
        Blocks without a scored file.
    storage
        The store.
    writer
        Who holds the leases on these blocks.

    Raises
    ------
    TransientError
        If another writer took over a block.
    """

    def commit(source: BlockSource) -> bool:
        earlier = _read_earlier(run, source, storage)
        if earlier is None:
            return False
        table, record = earlier
        record = record.replaced(
            run=run.name,
            scored_bytes=0,
            scored_sha256="",
            attempts=previous_attempts(storage, run.name, source.block) + 1,
        )
        refuse_lost(storage, run.name, source.block, writer)
        record = write_scored(storage, table, record, overwrite=False)
        refuse_lost(storage, run.name, source.block, writer)
        record.save(storage, layout.ledger_file(run.name, source.block))
        return True

    sources = _old_sources(run, blocks, storage)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return [source.block for source, taken in zip(sources, pool.map(commit, sources), strict=True) if taken]


def _old_sources(run: Run, blocks: Iterable[int], storage: Storage) -> list[BlockSource]:
    """Return where the blocks are that the earlier run has, too; none without such a run."""
    if not run.earlier:
        return []
    try:
        earlier = Run.load(storage, layout.run_file(run.earlier))
    except (MissingError, CorruptError):
        return []
    old = [block for block in blocks if block < earlier.blocks]
    if (earlier.model, earlier.threshold) != (run.model, run.threshold) or not old:
        return []
    return block_sources(storage, corpus_of_run(run, storage), old)


def _read_earlier(run: Run, source: BlockSource, storage: Storage) -> tuple[pa.Table, BlockRecord] | None:
    """Return what the earlier run says of a block; None if it does not, or not of the same bytes."""
    try:
        table, record = read_scored(storage, run.earlier, source.block)
    except (MissingError, CorruptError):
        return None
    is_same = (record.model, record.sha256, record.read) == (run.model, source.sha256, source.images)
    return (table, record) if is_same else None
