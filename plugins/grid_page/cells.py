"""The cells of the grid: what each shows of its block, and which cells have changed.

A cell's state follows from three things: the block's record in the ledger, the task that works on it, and the number of
its documents in Solr.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from tinytags_tasks.store.run_records import UNRECORDED, BlockRecord, BlockState


class CellState(StrEnum):
    """What a cell shows."""

    UNKNOWN = "unknown"
    """The block's record has not been read yet."""
    PLANNED = "planned"
    EMBEDDED = "embedded"
    """The corpus holds its embeddings by the model's net."""
    SCORING = "scoring"
    """A task is embedding or scoring it."""
    SCORED = "scored"
    INDEXING = "indexing"
    """Its documents are being posted, or are posted but not verified."""
    VERIFIED = "verified"
    UNREADABLE = "unreadable"
    """Verified, but some images could not be read."""
    MISSING = "missing"
    """Verified once, but the number of its documents in Solr has changed."""
    FAILED = "failed"


@dataclass(frozen=True)
class BlockTask:
    """One of Airflow's task instances that works on blocks.

    Attributes
    ----------
    dag, dag_run, task, map_index
        What identifies it.
    state
        Its state in Airflow.
    attempt
        Number of the current or last try.
    started
        Time of its start, ISO 8601; empty if it has not started.
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
    """Return, for each block, the task that worked on it last.

    Parameters
    ----------
    tasks
        Tasks of any Dag runs, in any order.
    """
    return {block: task for task in sorted(tasks, key=lambda task: task.started) for block in task.blocks}


def cell_state(record: BlockRecord, task: BlockTask | None, documents: int | None) -> CellState:
    """Return what the cell of a block shows.

    Parameters
    ----------
    record
        The block's record.
    task
        The task that worked on it last; None if there is none.
    documents
        How many documents of it are in Solr; None if unknown.
    """
    state = record.state
    if state is BlockState.VERIFIED:
        if documents is not None and documents != record.kept:
            return CellState.MISSING
        return CellState.UNREADABLE if record.unreadable else CellState.VERIFIED
    # A task does its blocks one after the other: those that it has finished have another state already.
    if task and task.state == "running":
        return CellState.SCORING if state in (*UNRECORDED, BlockState.FAILED) else CellState.INDEXING
    if state is BlockState.FAILED or (task and task.state == "failed"):
        return CellState.FAILED
    if state is BlockState.INDEXED:
        return CellState.INDEXING
    return CellState(state)


class Cells:
    """The states of a run's cells, with the revision at which each changed last.

    Parameters
    ----------
    blocks
        Number of blocks.
    """

    def __init__(self, blocks: int) -> None:
        self.states = [CellState.UNKNOWN] * blocks
        self.revision = 0
        """Increases with every update that changes a cell."""
        self._revisions = [0] * blocks

    def update(self, states: Sequence[CellState]) -> None:
        """Set the current state of each cell.

        Parameters
        ----------
        states
            One state for each block, in the order of their numbers.
        """
        self.change(dict(enumerate(states)))

    def change(self, states: Mapping[int, CellState]) -> None:
        """Set the current states of some cells, by block."""
        changed = {block: state for block, state in states.items() if state is not self.states[block]}
        self.revision += bool(changed)
        for block, state in changed.items():
            self.states[block] = state
            self._revisions[block] = self.revision

    def changed_since(self, revision: int) -> dict[int, CellState]:
        """Return the cells that changed after a revision, by block; cells that never changed are unknown."""
        return {
            block: state
            for block, (state, changed) in enumerate(zip(self.states, self._revisions, strict=True))
            if changed > revision
        }
