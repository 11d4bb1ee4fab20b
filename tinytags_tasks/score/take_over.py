"""Taking scored files over from a run of the same model and threshold on the corpus before it grew.

What a model says of a block follows from the block's bytes, so nothing is scored twice.
"""

from collections.abc import Iterable

import pyarrow as pa

from tinytags_tasks.errors import CorruptError, MissingError
from tinytags_tasks.score.block import previous_attempts
from tinytags_tasks.store import layout
from tinytags_tasks.store.block_files import BlockSource, block_sources, read_scored, write_scored
from tinytags_tasks.store.block_lease import refuse_lost
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.ledger import list_runs
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.store.run_identity import corpus_of_run
from tinytags_tasks.store.run_records import BlockRecord, Run


def earlier_run(run: Run, corpus: Corpus, storage: Storage) -> Run | None:
    """Return the run whose scored files a new run takes over: of the longest part of the corpus, then the newest."""
    stages = list(corpus.growth_hashes)
    here = stages.index(run.growth)
    found = [
        known
        for known in list_runs(storage, on_damage=lambda problem: None)  # another run's damage is not this one's
        if (known.corpus, known.corpus_digest) == (run.corpus, run.corpus_digest)
        and (known.model, known.threshold) == (run.model, run.threshold)
        and known.growth in stages[:here]
    ]
    return max(found, key=lambda known: (stages.index(known.growth), known.created), default=None)


def found_earlier(run: Run, blocks: Iterable[int], storage: Storage) -> list[int]:
    """Return the blocks that can be taken over; their files are read and checked."""
    return [source.block for source, _, _ in _found(run, blocks, storage)]


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
    taken = []
    for source, table, earlier in _found(run, blocks, storage):
        record = earlier.replaced(
            run=run.name,
            scored_bytes=0,
            scored_sha256="",
            attempts=previous_attempts(storage, run.name, source.block) + 1,
        )
        refuse_lost(storage, run.name, source.block, writer)
        record = write_scored(storage, table, record, overwrite=False)
        refuse_lost(storage, run.name, source.block, writer)
        record.save(storage, layout.ledger_file(run.name, source.block))
        taken.append(source.block)
    return taken


def _found(run: Run, blocks: Iterable[int], storage: Storage) -> Iterable[tuple[BlockSource, pa.Table, BlockRecord]]:
    """Yield the blocks that the earlier run scored from the same bytes, with their tables and records."""
    if not run.earlier:
        return
    try:
        earlier = Run.load(storage, layout.run_file(run.earlier))
    except (MissingError, CorruptError):
        return
    old = [block for block in blocks if block < earlier.blocks]
    if (earlier.model, earlier.threshold) != (run.model, run.threshold) or not old:
        return
    for source in block_sources(storage, corpus_of_run(run, storage), old):
        try:
            table, record = read_scored(storage, earlier.name, source.block)
        except (MissingError, CorruptError):
            continue
        if (record.model, record.sha256, record.read) == (run.model, source.sha256, source.images):
            yield source, table, record
