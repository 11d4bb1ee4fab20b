"""The block grid: what a run's blocks look like to a person who watches them.

A cell's state comes of three: the block's record in the ledger, the tasks that work on it, and its documents in Solr.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from tinytags_tasks.records import BlockRecord, BlockState


class CellState(StrEnum):
    """What a cell shows."""

    UNKNOWN = "unknown"
    """The block's record has not been read yet."""
    PLANNED = "planned"
    SCORING = "scoring"
    SCORED = "scored"
    INDEXING = "indexing"
    """Its documents are being posted, or are posted and not verified."""
    VERIFIED = "verified"
    UNREADABLE = "unreadable"
    """Verified, with images that could not be read."""
    MISSING = "missing"
    """Verified once, but Solr holds fewer or more documents of it now."""
    FAILED = "failed"


@dataclass(frozen=True)
class BlockTask:
    """One of Airflow's task instances that works on blocks.

    Attributes
    ----------
    dag, dag_run, task, map_index
        Which it is.
    state
        Airflow's word for it.
    attempt
        Which try this is or was.
    started
        When, ISO 8601; empty when it was not.
    blocks
        The blocks that it works on.
    """

    dag: str
    dag_run: str
    task: str
    map_index: int
    state: str
    attempt: int
    started: str
    blocks: tuple[int, ...]


def latest_tasks(tasks: Iterable[BlockTask]) -> dict[int, BlockTask]:
    """Return the task that worked on each block last.

    Parameters
    ----------
    tasks
        Of any Dag runs, in any order.
    """
    return {block: task for task in sorted(tasks, key=lambda task: task.started) for block in task.blocks}


def cell_state(record: BlockRecord, task: BlockTask | None, documents: int | None) -> CellState:
    """Return what the cell of a block shows.

    Parameters
    ----------
    record
        The block's record.
    task
        The one that worked on it last; None when none did.
    documents
        How many documents of it Solr has; None when that is not known.
    """
    state = record.state
    if state is BlockState.VERIFIED:
        if documents is not None and documents != record.kept:
            return CellState.MISSING
        return CellState.UNREADABLE if record.unreadable else CellState.VERIFIED
    # A task comes to its blocks one after the other: those that are done already say so themselves.
    if task and task.state == "running":
        return CellState.SCORING if state in (BlockState.PLANNED, BlockState.FAILED) else CellState.INDEXING
    if state is BlockState.FAILED or (task and task.state == "failed"):
        return CellState.FAILED
    if state is BlockState.INDEXED:
        return CellState.INDEXING
    return CellState.SCORED if state is BlockState.SCORED else CellState.PLANNED


class Cells:
    """The states of a run's cells, and which of them changed since somebody looked.

    Parameters
    ----------
    blocks
        How many there are.
    """

    def __init__(self, blocks: int) -> None:
        self.states = [CellState.UNKNOWN] * blocks
        self.revision = 0
        """Grows with every update that changes a cell."""
        self._revisions = [0] * blocks

    def update(self, states: Sequence[CellState]) -> None:
        """Take in the present state of each cell.

        Parameters
        ----------
        states
            One for each block, by number.
        """
        changed = [block for block, state in enumerate(states) if state is not self.states[block]]
        if not changed:
            return
        self.revision += 1
        for block in changed:
            self.states[block] = states[block]
            self._revisions[block] = self.revision

    def changed_since(self, revision: int) -> dict[int, CellState]:
        """Return the cells that changed after a revision, by block; those that never did are unknown."""
        return {
            block: state
            for block, (state, changed) in enumerate(zip(self.states, self._revisions, strict=True))
            if changed > revision
        }
