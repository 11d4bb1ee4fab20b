"""The outcomes of blocks that Spark workers work on: one block's failure does not stop the others.

Workers import this module, so it imports no client of Spark.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from tinytags_tasks.errors import FinalError, TransientError

SPARK_COLUMNS = "block long, reason string, is_transient boolean"
"""An outcome's fields, as a Spark schema."""

Task = TypeVar("Task")


@dataclass(frozen=True)
class Outcome:
    """The result for a block; ``reason`` is empty if it is committed."""

    block: int
    reason: str
    is_transient: bool


def outcomes_of(
    tasks: Iterable[Task], block_of: Callable[[Task], int], work: Callable[[Task], object], at_once: int
) -> list[Outcome]:
    """Do each block's work, a few ``at_once``; return failures instead of raising them, so that the others continue."""

    def outcome(task: Task) -> Outcome:
        try:
            work(task)
        except TransientError as error:
            return Outcome(block_of(task), str(error), is_transient=True)
        except FinalError as error:
            return Outcome(block_of(task), str(error), is_transient=False)
        return Outcome(block_of(task), "", is_transient=False)

    with ThreadPoolExecutor(at_once) as pool:
        return list(pool.map(outcome, tasks))


def failures_among(outcomes: Sequence[Outcome], blocks: Iterable[int]) -> list[Outcome]:
    """Return the failures, and one for each block that Spark returned nothing for."""
    done = {outcome.block for outcome in outcomes}
    return [outcome for outcome in outcomes if outcome.reason] + [
        Outcome(block, "Spark returned no result for it", is_transient=True) for block in blocks if block not in done
    ]


def raise_failures(failures: Collection[Outcome], what: str) -> None:
    """Raise all failures as one error, if there are any; ``what`` says what failed, and for which blocks.

    Raises
    ------
    TransientError, FinalError
        Final if a retry cannot help any of the blocks.
    """
    if not failures:
        return
    message = f"{what}: " + "; ".join(sorted({failure.reason for failure in failures})[:3])
    if any(failure.is_transient for failure in failures):
        raise TransientError(message)
    raise FinalError(message)
