"""Blocks that cannot be scored because they could not be embedded: the ledger says why."""

from collections.abc import Callable, Iterable

from tinytags_tasks.score.block import previous_attempts
from tinytags_tasks.score.worker import uncommitted_blocks
from tinytags_tasks.store import layout
from tinytags_tasks.store.block_files import block_sources
from tinytags_tasks.store.block_lease import hold_blocks, is_held
from tinytags_tasks.store.embedding_files import unembedded
from tinytags_tasks.store.lease import LEASE_SECONDS
from tinytags_tasks.store.model_records import ModelCard
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.store.run_identity import corpus_of_run, load_run
from tinytags_tasks.store.run_records import BlockRecord, BlockState


def record_unembedded(
    run_name: str,
    blocks: Iterable[int],
    reason: str,
    *,
    storage: Storage,
    report: Callable[[str], None] = print,
    lease_seconds: float = LEASE_SECONDS,
) -> tuple[int, ...]:
    """Record in the run's ledger that blocks failed, except those that have embeddings or are scored.

    Returns
    -------
    tuple
        The blocks that failed.
    """
    run = load_run(run_name, storage)
    net = ModelCard.load(storage, layout.card_file(run.model)).features
    sources = block_sources(storage, corpus_of_run(run, storage), blocks)
    missing = [source.block for source in unembedded(sources, net, storage)]
    failed: list[int] = []
    for held in hold_blocks(run.name, missing, storage=storage, report=report, lease_seconds=lease_seconds):
        for block in uncommitted_blocks(run.name, held.blocks, storage, held.writer):
            if is_held(storage, run.name, block, held.writer):
                BlockRecord(
                    run=run.name,
                    block=block,
                    state=BlockState.FAILED,
                    model=run.model,
                    reason=reason,
                    attempts=previous_attempts(storage, run.name, block) + 1,
                ).save(storage, layout.ledger_file(run.name, block))
                failed.append(block)
    return tuple(sorted(set(failed)))
