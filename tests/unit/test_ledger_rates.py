"""A run's speed and remaining time, and reading its ledger repeatedly."""

from datetime import UTC, datetime, timedelta

import pytest
from faulty_storage import FaultyStorage
from small_run import BLOCKS, make_run, score_all

from tinytags_tasks.store import layout
from tinytags_tasks.store.ledger import LedgerReader, rates
from tinytags_tasks.store.run_records import BlockRecord, BlockState

NOON = datetime(2025, 6, 1, 12, 0, tzinfo=UTC)


@pytest.fixture
def planned(storage):
    return make_run(storage)


def verified(block, minutes_ago, read=1_000, kept=600):
    """A block that took 30 s to score and 30 s to index."""
    indexed = NOON - timedelta(minutes=minutes_ago)
    return BlockRecord(
        run="pets",
        block=block,
        state=BlockState.VERIFIED,
        read=read,
        kept=kept,
        score_seconds=30,
        index_seconds=30,
        scored=(indexed - timedelta(seconds=30)).isoformat(),
        indexed=indexed.isoformat(),
    )


def test_a_run_under_way_tells_its_last_minutes_and_what_is_left(planned):
    run = planned.replaced(images=10_000, blocks=10)
    records = [verified(0, 9), verified(1, 4), verified(2, 1)]
    found = rates(run, records, at=NOON)
    assert found.documents_per_second == pytest.approx(1_800 / (9.5 * 60))
    assert found.images_per_second == pytest.approx(3_000 / 600)
    assert found.seconds_left == pytest.approx(7_000 / (3_000 / (9.5 * 60)))


def test_what_was_long_ago_does_not_count(planned):
    run = planned.replaced(images=10_000, blocks=10)
    records = [verified(0, 500), verified(1, 2)]
    assert rates(run, records, at=NOON).documents_per_second == pytest.approx(600 / 150)


def test_a_run_that_stands_still_has_no_time_left_to_tell(planned):
    found = rates(planned.replaced(images=10_000), [verified(0, 60)], at=NOON)
    assert (found.images_per_second, found.documents_per_second, found.seconds_left) == (0, 0, None)


def test_a_run_that_has_ended_tells_all_of_it(planned):
    found = rates(planned.replaced(images=2_000), [verified(0, 1_000), verified(1, 990)], at=NOON)
    assert found.seconds_left == 0
    assert found.documents_per_second == pytest.approx(1_200 / (10 * 60 + 30))


def test_a_run_that_has_not_begun_has_no_rates(planned):
    found = rates(planned, [BlockRecord(run="pets", block=0, state=BlockState.PLANNED)], at=NOON)
    assert (found.images_per_second, found.seconds_left) == (0, None)


def test_only_records_that_changed_are_read_again(storage, planned):
    class Counts(FaultyStorage):
        reads = 0

        def read(self, path, *arguments):
            self.reads += path.startswith(layout.ledger_folder(planned.name))
            return super().read(path, *arguments)

    score_all(storage, planned)
    counting = Counts(storage, 0)
    reader = LedgerReader(counting, planned)
    first = reader.read()
    assert counting.reads == BLOCKS
    assert reader.read() == first
    assert counting.reads == BLOCKS
    first[2].replaced(state=BlockState.VERIFIED).save(storage, layout.ledger_file(planned.name, 2))
    storage.delete(layout.ledger_file(planned.name, 4))
    states = [record.state for record in reader.read()]
    assert counting.reads == BLOCKS + 1
    assert states == [*[BlockState.SCORED] * 2, BlockState.VERIFIED, BlockState.SCORED, BlockState.PLANNED, states[5]]
