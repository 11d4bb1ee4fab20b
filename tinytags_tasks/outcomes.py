"""The outcomes of blocks that Spark workers work on: one block's failure does not stop the others.

Workers import this module, so it imports no client of Spark.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

from tinytags_tasks.errors import EngineDownError, FinalError, OtherWriterError, TransientError

SPARK_COLUMNS = "block long, reason string, kind string, awaited string"
"""An outcome's fields, as a Spark schema."""

Task = TypeVar("Task")


class Kind(StrEnum):
    """The result for a block."""

    COMMITTED = "committed"
    AWAY = "away"
    """An engine is away: ``awaited``."""
    BUSY = "busy"
    """Another writer is at work on it."""
    TRANSIENT = "transient"
    """It failed, and a retry may succeed."""
    FINAL = "final"
    """It failed, and a retry would fail again."""


WAITING = (Kind.AWAY, Kind.BUSY)
"""The outcomes of blocks that did not fail, but have to wait."""


@dataclass(frozen=True)
class Outcome:
    """The result for a block; ``reason`` is empty if it is committed."""

    block: int
    reason: str = ""
    kind: Kind = Kind.COMMITTED
    awaited: str = ""


def outcomes_of(
    tasks: Iterable[Task], block_of: Callable[[Task], int], work: Callable[[Task], object], at_once: int
) -> list[Outcome]:
    """Do each block's work, a few ``at_once``; return failures instead of raising them, so that the others continue."""

    def outcome(task: Task) -> Outcome:
        try:
            work(task)
        except EngineDownError as error:
            return Outcome(block_of(task), str(error), Kind.AWAY, error.awaited)
        except OtherWriterError as error:
            return Outcome(block_of(task), str(error), Kind.BUSY)
        except TransientError as error:
            return Outcome(block_of(task), str(error), Kind.TRANSIENT)
        except FinalError as error:
            return Outcome(block_of(task), str(error), Kind.FINAL)
        return Outcome(block_of(task))

    with ThreadPoolExecutor(at_once) as pool:
        return list(pool.map(outcome, tasks))


def outcomes_among(rows: Iterable[Any]) -> list[Outcome]:
    """Return the outcomes that Spark collected: rows with :data:`SPARK_COLUMNS`."""
    return [Outcome(row.block, row.reason, Kind(row.kind), row.awaited) for row in rows]


def failures_among(outcomes: Sequence[Outcome], blocks: Iterable[int]) -> list[Outcome]:
    """Return the failures, and one for each block that Spark returned nothing for."""
    done = {outcome.block for outcome in outcomes}
    return [outcome for outcome in outcomes if outcome.kind is not Kind.COMMITTED] + [
        Outcome(block, "Spark returned no result for it", Kind.TRANSIENT) for block in blocks if block not in done
    ]


def raise_failures(failures: Collection[Outcome], what: str) -> None:
    """Raise all failures as one error, if there are any; ``what`` says what failed, and for which blocks.

    Raises
    ------
    EngineDownError
        If an engine is away: what else failed is tried again together with that.
    OtherWriterError
        If another writer is at work on a block.
    TransientError, FinalError
        Final if a retry cannot help any of the blocks.
    """
    if not failures:
        return
    message = f"{what}: " + "; ".join(sorted({failure.reason for failure in failures})[:3])
    kinds = {failure.kind for failure in failures}
    if Kind.AWAY in kinds:
        away = next(failure for failure in failures if failure.kind is Kind.AWAY)
        raise EngineDownError(message, away.awaited)
    if Kind.BUSY in kinds:
        raise OtherWriterError(message)
    raise TransientError(message) if Kind.TRANSIENT in kinds else FinalError(message)
