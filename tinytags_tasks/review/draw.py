"""Which pictures a person is asked about next: part drawn at random to measure, part chosen to teach.

To measure, each stratum is a simple random sample of its own: the next pictures in its fixed order. How many looks a
stratum gets follows from its size alone (Bankier, "Power Allocations", 1988), never from what was found in it: an
allocation that follows the answers biases them. To teach, what measured best: of each tag the surest pictures, some of
the surest fifth, and undecided ones that differ from each other.
"""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tinytags_tasks.derived_fields import random_numbers
from tinytags_tasks.review.frame import Frame
from tinytags_tasks.review.looks import Flags, read_looks, read_spoken
from tinytags_tasks.review.sampler import Numbers
from tinytags_tasks.store.review_records import Why

POWER = 0.6
"""Looks grow with this power of a stratum's images: 1 measures the whole best, 0 each tag and band alike."""

DROPPED_SHARE = 0.2
"""The share of the looks that measure which goes to pictures that the run dropped, so that recall is measured."""

SUREST_SHARE, FIFTH_SHARE = 0.4, 0.4
"""Of the pictures that teach, the shares of the surest and of the surest fifth; the others are undecided."""

_SHUFFLE = 1


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
        The name of its stratum; empty if somebody chose it by hand.
    chance
        The share of its stratum that is drawn to measure, this round included; 0 if it was chosen to teach.
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
    taken: Collection[int] | Numbers = (),
    exclude: Collection[int] | Numbers = (),
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
    spoken, looks = read_spoken(frame, words, exclude), read_looks(frame, words, exclude)
    is_free = ~spoken.left_out
    for positions in (spoken.measured, np.fromiter(taken, dtype=np.int64)):
        rows = frame.rows_of(positions)
        is_free[rows[rows >= 0]] = False
    strata = frame.columns["stratum"]
    is_out = (frame.columns["order"] >= 0) & ~is_free & ~spoken.left_out  # looked at, or being looked at to measure
    drawn = np.bincount(strata[is_out], minlength=len(frame.strata))
    measuring = round(count * purpose_share)
    to_measure = _rows_to_measure(frame, is_free, drawn, looks.sizes, measuring)
    is_free[to_measure] = False
    drawn += np.bincount(strata[to_measure], minlength=len(frame.strata))
    to_teach = _rows_to_teach(frame, is_free, count - measuring)
    is_free[to_teach] = False
    missing = count - len(to_measure) - len(to_teach)
    if missing > 0:
        more = _rows_to_measure(frame, is_free, drawn, looks.sizes, missing)
        drawn += np.bincount(strata[more], minlength=len(frame.strata))
        to_measure = np.concatenate([to_measure, more])
    chances = drawn / np.maximum(looks.sizes, 1)
    rows = np.concatenate([to_measure, to_teach])
    order = np.argsort(random_numbers(_SHUFFLE, frame.columns["position"][rows]))
    return [_as_drawn(frame, int(rows[at]), at < len(to_measure), chances) for at in order.tolist()]


def _as_drawn(frame: Frame, row: int, measures: bool, chances: npt.NDArray[np.float64]) -> Drawn:
    columns, index = frame.columns, int(frame.columns["stratum"][row])
    return Drawn(
        position=int(columns["position"][row]),
        block=int(columns["block"][row]),
        tag=frame.strata[index].tag,
        confidence=int(columns["confidence"][row]),
        why=Why.MEASURE if measures else Why.TEACH,
        stratum=frame.strata[index].name,
        chance=min(1.0, float(chances[index])) if measures else 0.0,
    )


def _rows_to_measure(frame: Frame, is_free: Flags, drawn: Numbers, sizes: Numbers, count: int) -> Numbers:
    """Return the next rows of each stratum's random order, as many as the allocation gives it."""
    is_dropped = np.array([stratum.is_dropped for stratum in frame.strata], dtype=bool)
    done = int(drawn[is_dropped].sum()), int(drawn.sum())
    dropped = min(count, max(0, round(DROPPED_SHARE * (done[1] + count)) - done[0]))
    rows = np.flatnonzero(is_free & (frame.columns["order"] >= 0))  # in the order of strata, then of their numbers
    of_dropped = is_dropped[frame.columns["stratum"][rows]]
    first = _allocate(frame, rows[of_dropped], drawn, sizes, dropped)
    others = _allocate(frame, rows[~of_dropped], drawn, sizes, count - len(first))
    rest = np.setdiff1d(rows[of_dropped], first)[: count - len(first) - len(others)]
    return np.concatenate([first, others, rest])


def _allocate(frame: Frame, rows: Numbers, drawn: Numbers, sizes: Numbers, count: int) -> Numbers:
    """Return the rows with the highest averages: the power of their stratum's size, by the looks that it then has."""
    strata = frame.columns["stratum"][rows]
    places = _places_in_group(strata)
    averages = np.maximum(sizes[strata], 1) ** POWER / (drawn[strata] + places + 1)
    best = np.lexsort((rows, -averages))[:count]
    return rows[best]


def _places_in_group(groups: npt.NDArray[np.generic]) -> Numbers:
    """Return the place of each row in its group; equal groups must follow each other."""
    starts = np.flatnonzero(np.r_[True, groups[1:] != groups[:-1]]) if len(groups) else np.zeros(0, dtype=np.int64)
    lengths = np.diff(np.r_[starts, len(groups)])
    places: Numbers = np.arange(len(groups)) - np.repeat(starts, lengths)
    return places


def _rows_to_teach(frame: Frame, is_free: Flags, count: int) -> Numbers:
    """Return the surest of each tag, some of its surest fifth, and undecided ones."""
    tags = frame.row_tags
    order, confidence = frame.columns["order"], frame.columns["confidence"]
    free = is_free & (tags >= 0)
    last = -order  # the end of the random order: its beginning is left to measure
    chosen: list[Numbers] = []
    wanted = (
        (round(count * SUREST_SHARE), free, -confidence.astype(np.int64)),
        (round(count * FIFTH_SHARE), free & (order >= 0) & (confidence >= frame.surest_fifths[tags]), last),
        (count, free & (frame.columns["spread"] >= 0), frame.columns["spread"]),
        (count, free & (order >= 0) & frame.is_lowest, last),
        (count, free & (order >= 0), last),
    )
    for most, usable, key in wanted:
        rows = np.flatnonzero(usable & free)
        left = min(most, count - sum(len(some) for some in chosen))
        if left > 0:
            found = _by_turns(rows, tags[rows], key[rows], left)
            free[found] = False
            chosen.append(found)
    return np.concatenate(chosen) if chosen else np.zeros(0, dtype=np.int64)


def _by_turns(rows: Numbers, tags: Numbers, key: npt.NDArray[np.generic], count: int) -> Numbers:
    """Return the rows with the smallest keys, of each tag in turn."""
    order = np.lexsort((rows, key, tags))
    rows, tags = rows[order], tags[order]
    turns = np.lexsort((tags, _places_in_group(tags)))
    return rows[turns[:count]]
