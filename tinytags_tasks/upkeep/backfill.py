"""Backfilling: which blocks of a run are redone, and which records are only written again."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from tinytags_tasks.blocks import format_block_numbers, group_blocks, parse_block_numbers
from tinytags_tasks.clients.solr import SolrClient
from tinytags_tasks.errors import BadInputError
from tinytags_tasks.publish.live import live_collections, refuse_without_collection
from tinytags_tasks.store import layout
from tinytags_tasks.store.block_lease import hold_blocks
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.ledger import is_scored_whole, read_ledger
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.store.run_blocks import RunBlocks
from tinytags_tasks.store.run_identity import corpus_of_run, load_run, refuse_another_corpus
from tinytags_tasks.store.run_records import BlockRecord, BlockState, Run
from tinytags_tasks.upkeep.audit import last_audit
from tinytags_tasks.upkeep.block_check import BlockCheck, damaged_scored_file, read_sources
from tinytags_tasks.upkeep.repair import count_foreign_documents, rebuild_ledger_records


class Selection(StrEnum):
    """Blocks that are chosen by their state."""

    FAILED = "failed"
    MISSING = "missing"
    AUDIT = "audit"


@dataclass(frozen=True)
class BackfillRequest:
    """Which blocks are redone.

    Attributes
    ----------
    run
        The run.
    blocks
        Block numbers as a person writes them, such as ``"3, 17-20"``; empty if ``select`` chooses.
    select
        ``failed``: blocks that failed according to the ledger; ``missing``: blocks that are not verified, or incomplete
        in Solr or in the store; ``audit``: what the last audit found. Empty if ``blocks`` are given.
    blocks_per_task
        Blocks in a group; 0 chooses.
    most_groups
        How many groups there may be at most, whatever ``blocks_per_task`` is; None means any number.
    delete_foreign
        Whether documents are deleted that are of no block of the corpus and of no scored file. Only a person decides
        that, who was shown them.
    """

    run: str
    blocks: str = ""
    select: str = ""
    blocks_per_task: int = 0
    most_groups: int | None = None
    delete_foreign: bool = False

    def __post_init__(self) -> None:
        """Refuse both ways to choose, or none.

        Raises
        ------
        BadInputError
            If blocks are chosen in both ways or in none, or the selection is unknown.
        """
        if bool(self.blocks.strip()) == bool(self.select):
            raise BadInputError(
                "choose blocks by their numbers, such as 3,17-20, or by one of: " + ", ".join(Selection)
            )
        if self.select and self.select not in list(Selection):
            raise BadInputError(f"{self.select!r} selects nothing: use one of {', '.join(Selection)}")


@dataclass(frozen=True)
class BackfillPlan:
    """What is to do: blocks in groups, to be scored if they lack a scored file, and indexed again.

    Attributes
    ----------
    run, blocks, groups
        The run, all blocks, and the same in the groups that mapped tasks take.
    was_live
        Whether readers see the run.
    rebuilt
        Blocks that are good but for their record in the ledger, which was written again; they are not redone.
    """

    run: str
    blocks: tuple[int, ...]
    groups: list[tuple[int, ...]]
    was_live: bool
    rebuilt: tuple[int, ...] = ()

    @property
    def all_blocks(self) -> tuple[int, ...]:
        """The blocks that are redone and those whose record was written again."""
        return tuple(sorted({*self.blocks, *self.rebuilt}))


def plan_backfill(
    request: BackfillRequest,
    *,
    storage: Storage,
    solr: SolrClient,
    alias: str,
    report: Callable[[str], None] = print,
) -> BackfillPlan:
    """Choose blocks, and delete their scored files if these are damaged, so that scoring makes them again.

    Of what an audit found, a block whose scored file and documents are good only gets its record written again.
    Documents of no block of the corpus are left alone unless ``request.delete_foreign``; documents that a scored file
    supports are never deleted.

    Raises
    ------
    BadInputError
        If a block is out of range, or nothing is selected.
    MissingError
        If there is no such run, it was pruned, its collection does not exist, or it was never audited.
    CorruptError
        If the run's record, its corpus' totals or its last audit are damaged.
    """
    run = load_run(request.run, storage)
    run.refuse_pruned()
    refuse_without_collection(run, solr)
    solr.wait_until_settled(run.collection)
    corpus = corpus_of_run(run, storage)
    refuse_another_corpus(run, corpus)
    chosen = _selected(request, run, storage, solr)
    blocks = tuple(block for block in chosen if 0 <= block < run.blocks)
    foreign = count_foreign_documents(run, corpus, storage, solr) if len(blocks) < len(chosen) else {}
    if not blocks and not foreign:
        how = f"is {request.select}" if request.select != Selection.AUDIT else "was found wrong by the last audit"
        raise BadInputError(f"run {run.name}: no block {how}, so there is nothing to backfill")
    _treat_foreign(foreign, request, run, solr, report)
    rebuilt: tuple[int, ...] = ()
    if request.select == Selection.AUDIT:
        rebuilt = rebuild_ledger_records(run, corpus, blocks, storage=storage, solr=solr, report=report)
        blocks = tuple(block for block in blocks if block not in rebuilt)
    _delete_damaged_scored_files(run, corpus, blocks, storage, report)
    was_live = run.collection in live_collections(alias, solr)
    report(f"run {run.name}: blocks {format_block_numbers(blocks) or 'none'} are redone")
    groups = group_blocks(blocks, request.blocks_per_task, request.most_groups)
    return BackfillPlan(run.name, blocks, groups, was_live, rebuilt)


def _treat_foreign(
    foreign: Mapping[int, int], request: BackfillRequest, run: Run, solr: SolrClient, report: Callable[[str], None]
) -> None:
    """Delete documents of no block if a person said so; else say that they stay."""
    for block, count in foreign.items():
        if not request.delete_foreign:
            report(
                f"{count:,} documents of block {block}, which the corpus does not have, are left alone: "
                f"`tinytags audit {run.name} --repair` shows them and asks whether to delete them"
            )
            continue
        solr.delete_block(run.collection, block)
        report(f"{count:,} documents of block {block}, which the corpus does not have, are deleted")
    if foreign and request.delete_foreign:
        solr.commit(run.collection)


def _delete_damaged_scored_files(
    run: Run,
    corpus: Corpus,
    blocks: tuple[int, ...],
    storage: Storage,
    report: Callable[[str], None],
) -> None:
    check = BlockCheck(RunBlocks(run, corpus, storage), read_sources(storage, corpus, blocks), {})
    damaged = [block for block in blocks if damaged_scored_file(check, block)]
    for held in hold_blocks(run.name, damaged, storage=storage, report=report):
        for block in held.blocks:
            if problem := damaged_scored_file(check, block):  # else another writer has scored it again
                report(f"block {block}: its scored file is deleted, to be scored again: {problem}")
                storage.delete(layout.scored_file(run.name, block))


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
    """Tell whether a block is incomplete.

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
