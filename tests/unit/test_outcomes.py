"""What blocks that failed in Spark's workers become together: a wait, a retry, or a final error."""

from types import SimpleNamespace

import pytest

from tinytags_tasks.errors import (
    BadInputError,
    EngineDownError,
    FinalError,
    OtherWriterError,
    TransientError,
    WaitError,
)
from tinytags_tasks.outcomes import Kind, failures_among, outcomes_among, outcomes_of, raise_failures

AWAY = EngineDownError("HDFS does not answer", "HDFS")
BUSY = OtherWriterError("block 1 was taken over")
BROKEN = TransientError("embeddings are damaged")
BAD = BadInputError("no such provider")


def raised(*errors: Exception | None) -> Exception:
    """Return what a step raises whose blocks end like this in the workers."""

    def work(block: int) -> None:
        if error := errors[block]:
            raise error

    outcomes = outcomes_of(range(len(errors)), lambda block: block, work, 2)
    rows = [SimpleNamespace(**vars(outcome)) for outcome in outcomes]
    with pytest.raises((TransientError, FinalError), match="run 1: ") as caught:
        raise_failures(failures_among(outcomes_among(rows), range(len(errors))), "run 1")
    return caught.value


def test_an_engine_that_is_away_for_some_blocks_is_waited_for():
    error = raised(BAD, None, BROKEN, BUSY, AWAY)
    assert isinstance(error, EngineDownError)
    assert error.awaited == "HDFS"


def test_another_writer_is_waited_for():
    assert isinstance(raised(BROKEN, BUSY, None), OtherWriterError)


def test_what_a_retry_can_mend_counts_as_a_failure():
    error = raised(BAD, BROKEN)
    assert isinstance(error, TransientError)
    assert not isinstance(error, WaitError)


def test_what_no_retry_can_mend_is_final():
    assert type(raised(None, BAD)) is FinalError


def test_a_block_that_spark_returned_nothing_for_is_tried_again():
    (lost,) = failures_among([], [3])
    assert (lost.block, lost.kind) == (3, Kind.TRANSIENT)
