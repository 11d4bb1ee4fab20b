"""What a cell of the block grid shows, and which cells are sent again."""

import pytest
from grid_page.cells import BlockTask, Cells, CellState, cell_state, latest_tasks

from tinytags_tasks.store.run_records import BlockRecord, BlockState


def record(state: BlockState, **values: object) -> BlockRecord:
    return BlockRecord(run="r", block=3, state=state).replaced(**values)


def task(state: str, started: str = "2026-01-01T00:00:00", blocks: tuple[int, ...] = (3,)) -> BlockTask:
    return BlockTask("tinytags", "manual", "blocks", 0, state, 1, started, blocks)


@pytest.mark.parametrize(
    ("state", "task_state", "cell"),
    [
        (BlockState.PLANNED, "queued", CellState.PLANNED),
        (BlockState.PLANNED, "running", CellState.SCORING),
        (BlockState.PLANNED, "up_for_retry", CellState.PLANNED),
        (BlockState.PLANNED, "failed", CellState.FAILED),
        (BlockState.EMBEDDED, "queued", CellState.EMBEDDED),
        (BlockState.EMBEDDED, "running", CellState.SCORING),
        (BlockState.EMBEDDED, "failed", CellState.FAILED),
        (BlockState.FAILED, "running", CellState.SCORING),
        (BlockState.FAILED, "failed", CellState.FAILED),
        (BlockState.SCORED, "running", CellState.INDEXING),
        (BlockState.SCORED, "up_for_retry", CellState.SCORED),
        (BlockState.SCORED, "failed", CellState.FAILED),
        (BlockState.INDEXED, "success", CellState.INDEXING),
        (BlockState.VERIFIED, "running", CellState.VERIFIED),
        (BlockState.VERIFIED, "failed", CellState.VERIFIED),
    ],
)
def test_a_cell_tells_record_and_task(state: BlockState, task_state: str, cell: CellState) -> None:
    assert cell_state(record(state), task(task_state), None) is cell


@pytest.mark.parametrize(
    ("documents", "unreadable", "cell"),
    [
        (None, 0, CellState.VERIFIED),
        (5, 0, CellState.VERIFIED),
        (5, 1, CellState.UNREADABLE),
        (4, 0, CellState.MISSING),
        (4, 1, CellState.MISSING),
        (6, 0, CellState.MISSING),
        (0, 0, CellState.MISSING),
    ],
)
def test_a_verified_cell_tells_what_solr_has(documents: int | None, unreadable: int, cell: CellState) -> None:
    verified = record(BlockState.VERIFIED, read=7, kept=5, unreadable=unreadable)
    assert cell_state(verified, None, documents) is cell


def test_solr_says_nothing_of_a_block_that_is_not_verified() -> None:
    assert cell_state(record(BlockState.SCORED, kept=5), None, 0) is CellState.SCORED


def test_the_last_task_of_a_block_counts() -> None:
    early, late = task("failed", "2026-01-01", (3, 4)), task("running", "2026-01-02", (4,))
    assert latest_tasks([late, early]) == {3: early, 4: late}


def test_only_what_changed_is_told_again() -> None:
    cells = Cells(3)
    assert cells.changed_since(0) == {}
    cells.update([CellState.PLANNED, CellState.PLANNED, CellState.UNKNOWN])
    first = cells.revision
    assert cells.changed_since(0) == {0: CellState.PLANNED, 1: CellState.PLANNED}
    cells.update([CellState.PLANNED, CellState.SCORED, CellState.UNKNOWN])
    assert cells.changed_since(first) == {1: CellState.SCORED}
    assert cells.changed_since(cells.revision) == {}


def test_an_update_that_changes_nothing_is_no_revision() -> None:
    cells = Cells(2)
    cells.update([CellState.PLANNED] * 2)
    before = cells.revision
    cells.update([CellState.PLANNED] * 2)
    assert cells.revision == before
