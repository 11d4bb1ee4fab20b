"""Which pictures a person is asked about next: part drawn at random to measure, part chosen to teach."""

from collections.abc import Collection
from dataclasses import dataclass

import pyarrow as pa

from tinytags_tasks.review.frame import Frame
from tinytags_tasks.store.review_records import Why


@dataclass(frozen=True)
class Drawn:
    """A picture to look at.

    Attributes
    ----------
    position, block
        Where it is.
    tag, confidence
        What the run says of it; empty and -1 if the run dropped it.
    why
        Whether it measures or teaches.
    stratum
        The name of its stratum.
    chance
        The share of its stratum that was drawn to measure, with this picture; 0 if it was chosen to teach.
    """

    position: int
    block: int
    tag: str
    confidence: int
    why: Why
    stratum: str
    chance: float


def next_pictures(
    frame: Frame,
    words: pa.Table,
    *,
    count: int,
    purpose_share: float = 0.6,
    taken: Collection[int] = (),
    exclude: Collection[int] = (),
) -> list[Drawn]:
    """Return the pictures that a person should look at next, in the order in which to show them.

    Parameters
    ----------
    frame
        The run's pictures.
    words
        The words of the corpus' review log.
    count
        How many pictures; fewer are returned if there are not as many.
    purpose_share
        The share that measures; the others teach.
    taken
        Positions that are being looked at by somebody now.
    exclude
        Positions that the run's model learned from.
    """
    raise NotImplementedError
