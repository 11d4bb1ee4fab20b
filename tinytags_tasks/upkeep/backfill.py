"""Backfilling: which blocks of a run are done again, and what must be thrown away before."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from tinytags_tasks.blocks import format_block_numbers, group_blocks, parse_block_numbers
from tinytags_tasks.clients.solr import SolrClient
from tinytags_tasks.errors import BadInputError, CorruptError, MissingError
from tinytags_tasks.publish.publications import live_collection, refuse_without_collection
from tinytags_tasks.store import layout
from tinytags_tasks.store.block_files import read_scored
from tinytags_tasks.store.block_lease import hold_blocks
from tinytags_tasks.store.ledger import is_scored_whole, read_ledger
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.store.run_records import BlockRecord, BlockState, Run
from tinytags_tasks.upkeep.audit import last_audit


class Selection(StrEnum):
    """Blocks that are chosen by what became of them."""

    FAILED = "failed"
    MISSING = "missing"
    AUDIT = "audit"


@dataclass(frozen=True)
class BackfillRequest:
    """Which blocks are done again.

    Attributes
    ----------
    run
        The run.
    blocks
        Block numbers as a person writes them, such as ``"3, 17-20"``; empty where ``select`` chooses.
    select
        ``failed``: what the ledger calls so; ``missing``: what is not verified, or not whole in Solr or the store;
        ``audit``: what the last audit found. Empty where ``blocks`` are given.
    blocks_per_task
        Blocks a group; 0 chooses.
    """

    run: str
    blocks: str = ""
    select: str = ""
    blocks_per_task: int = 0

    def __post_init__(self) -> None:
        """Refuse both ways to choose, or none.

        Raises
        ------
        BadInputError
            When it is so.
        """
        if bool(self.blocks.strip()) == bool(self.select):
            raise BadInputError(
                "choose blocks by their numbers, such as 3,17-20, or by one of: " + ", ".join(Selection)
            )
        if self.select and self.select not in list(Selection):
            raise BadInputError(f"{self.select!r} selects nothing: use one of {', '.join(Selection)}")


@dataclass(frozen=True)
class BackfillPlan:
    """What is to do: blocks in groups, to be scored where they lack a scored file, and indexed again.

    Attributes
    ----------
    run, blocks, groups
        The run, all blocks, and the same in the groups that mapped tasks take.
    was_live
        Whether readers see the run.
    """

    run: str
    blocks: tuple[int, ...]
    groups: list[tuple[int, ...]]
    was_live: bool


def plan_backfill(
    request: BackfillRequest,
    *,
    storage: Storage,
    solr: SolrClient,
    alias: str,
    report: Callable[[str], None] = print,
) -> BackfillPlan:
    """Choose blocks, and delete their scored files where these are damaged, so that scoring makes them anew.

    Documents of blocks that the run has not, which an audit found, are deleted at once.

    Raises
    ------
    BadInputError
        When a block is out of range, or nothing is selected.
    MissingError
        When there is no such run, it was pruned, its collection is not there, or it was never audited.
    """
    run = Run.load(storage, layout.run_file(request.run))
    run.refuse_pruned()
    refuse_without_collection(run, solr)
    solr.wait_until_settled(run.collection)
    blocks = _selected(request, run, storage, solr)
    strays = [block for block in blocks if not 0 <= block < run.blocks]
    for block in strays:
        solr.delete_block(run.collection, block)
        report(f"documents of block {block}, which the run has not, are deleted")
    if strays:
        solr.commit(run.collection)
    blocks = tuple(block for block in blocks if block not in strays)
    if not blocks and not strays:
        chosen = f"is {request.select}" if request.select != Selection.AUDIT else "was found wrong by the last audit"
        raise BadInputError(f"run {run.name}: no block {chosen}, so there is nothing to backfill")
    damaged = [record.block for record in read_ledger(storage, run, blocks) if _damage(run, record, storage)]
    for held in hold_blocks(run.name, damaged, storage=storage, report=report):
        for record in read_ledger(storage, run, held.blocks):
            if problem := _damage(run, record, storage):  # else another writer has made it anew
                report(f"block {record.block}: its scored file is deleted, to be made anew: {problem}")
                storage.delete(layout.scored_file(run.name, record.block))
    was_live = live_collection(alias, solr) == run.collection
    report(f"run {run.name}: blocks {format_block_numbers(blocks) or 'none'} are done again")
    return BackfillPlan(run.name, blocks, group_blocks(blocks, request.blocks_per_task), was_live)


def _selected(request: BackfillRequest, run: Run, storage: Storage, solr: SolrClient) -> tuple[int, ...]:
    if request.blocks:
        return parse_block_numbers(request.blocks, run.blocks)
    if request.select == Selection.AUDIT:
        return tuple(sorted(last_audit(run.name, storage).problems))
    records = read_ledger(storage, run)
    if request.select == Selection.FAILED:
        return tuple(record.block for record in records if record.state is BlockState.FAILED)
    counts = solr.count_by_block(run.collection)
    sizes = storage.sizes(layout.scored_folder(run.name))
    return tuple(record.block for record in records if _is_missing(record, counts, sizes))


def _is_missing(record: BlockRecord, counts: Mapping[int, int], sizes: Mapping[str, int]) -> bool:
    """Tell whether a block is not whole.

    Parameters
    ----------
    record
        Of the ledger.
    counts
        Solr's documents in each block that has any.
    sizes
        Bytes of the run's scored files, by name.
    """
    return (
        record.state is not BlockState.VERIFIED
        or record.kept != counts.get(record.block, 0)
        or not is_scored_whole(record, sizes)
    )


def _damage(run: Run, record: BlockRecord, storage: Storage) -> str:
    """Return how a scored file is not what was committed; empty when it is, or does not exist."""
    try:
        _, scored = read_scored(storage, run.name, record.block)
    except MissingError:
        return ""
    except CorruptError as error:
        return str(error)
    if record.scored_sha256 and scored.scored_sha256 != record.scored_sha256:
        return "it is not the file that was committed"
    return "" if scored.model == run.model else f"it was scored by {scored.model}"
