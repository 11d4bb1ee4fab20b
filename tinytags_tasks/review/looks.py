"""The looks that measure a run: which pictures were drawn for it and looked at, and what they show."""

from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tinytags_tasks.review.frame import Frame
from tinytags_tasks.review.sampler import Numbers
from tinytags_tasks.store.review_log import counting_words, of_version
from tinytags_tasks.store.review_records import Verdict, Why

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Looks:
    """The looks that measure a run.

    Attributes
    ----------
    rows
        Of each picture that was looked at, its row in the frame.
    shows
        Which of the model's tags it shows, by index; -1 if it shows none of them.
    is_right
        Whether it shows the tag that the run gave it; False if the run dropped it.
    sizes
        How many images of each stratum can be drawn to measure, looked at or not.
    drawn
        How many of each stratum were looked at, those among them that were unclear.
    unclear
        How many could not be decided.
    last
        Number of the last request that was read; 0 without any.
    """

    rows: Numbers = field(repr=False)
    shows: Numbers = field(repr=False)
    is_right: Flags = field(repr=False)
    sizes: Numbers = field(repr=False)
    drawn: Numbers = field(repr=False)
    unclear: int
    last: int


@dataclass(frozen=True, eq=False)
class Spoken:
    """What was said of a run's corpus so far.

    Attributes
    ----------
    words
        The counting opinion on each picture, by position.
    measured
        Positions that were drawn to measure this run and looked at.
    left_out
        Rows of the frame that cannot be drawn to measure: spoken of for another reason first, taken down, or learned
        from.
    """

    words: pa.Table = field(repr=False)
    measured: Numbers = field(repr=False)
    left_out: Flags = field(repr=False)


def read_spoken(frame: Frame, words: pa.Table, exclude: Collection[int] | Numbers) -> Spoken:
    """Return what was said of a run's corpus so far, from the words of its review log."""
    words = of_version(words, frame.corpus_digest)
    opinions = counting_words(words)
    is_measuring = pc.and_(pc.equal(words.column("why"), str(Why.MEASURE)), pc.equal(words.column("run"), frame.run))
    is_undoing = pc.equal(words.column("verdict"), str(Verdict.UNDO))
    measured = counting_words(words.filter(pc.or_(is_measuring, is_undoing)))
    measured_positions = measured.column("position").to_numpy().astype(np.int64)
    positions = opinions.column("position").to_numpy().astype(np.int64)
    shown = counting_words(words, (Verdict.TAKEDOWN, Verdict.RESTORE))
    is_down = pc.equal(shown.column("verdict"), str(Verdict.TAKEDOWN))
    taken_down = shown.filter(is_down).column("position").to_numpy().astype(np.int64)
    never = np.union1d(np.fromiter(exclude, dtype=np.int64), taken_down)
    others = np.union1d(np.setdiff1d(positions, measured_positions), never)
    left_out = np.zeros(len(frame.pictures), dtype=bool)
    rows = frame.rows_of(others)
    left_out[rows[rows >= 0]] = True
    return Spoken(opinions, np.setdiff1d(measured_positions, never), left_out)


def read_looks(frame: Frame, words: pa.Table, exclude: Collection[int] | Numbers = ()) -> Looks:
    """Return the looks that measure a run.

    Parameters
    ----------
    frame
        The run's pictures.
    words
        The words of the corpus' review log.
    exclude
        Positions that the run's model learned from; they are in no estimate.
    """
    spoken = read_spoken(frame, words, exclude)
    strata = frame.columns["stratum"]
    lost = np.bincount(strata[spoken.left_out], minlength=len(frame.strata))
    opinions = spoken.words
    positions = opinions.column("position").to_numpy().astype(np.int64)
    rows = frame.rows_of(positions)
    is_measured = np.isin(positions, spoken.measured) & (rows >= 0)
    rows, opinions = rows[is_measured], opinions.filter(pa.array(is_measured))
    said = _said_tags(frame, opinions)
    own = np.array([frame.tags.index(each.tag) if each.tag else -1 for each in frame.strata], dtype=np.int64)
    own_tags = own[strata[rows]]
    verdicts = opinions.column("verdict").to_numpy(zero_copy_only=False)
    # That a picture does not show another tag than its own says nothing of its own.
    is_unclear = (verdicts == str(Verdict.UNCLEAR)) | (
        (verdicts == str(Verdict.WRONG)) & ((said != own_tags) | (said < 0))
    )
    shows = np.where(verdicts == str(Verdict.TAG), said, -1)
    clear = ~is_unclear
    return Looks(
        rows=rows[clear],
        shows=shows[clear],
        is_right=((shows == own_tags) & (own_tags >= 0))[clear],
        sizes=frame.sizes - lost,
        drawn=np.bincount(strata[rows], minlength=len(frame.strata)),
        unclear=int(is_unclear.sum()),
        last=int(pc.max(words.column("number")).as_py() or 0),
    )


def _said_tags(frame: Frame, opinions: pa.Table) -> Numbers:
    """Return the index of the tag that each word names; -1 if it names none of the model's."""
    indexes = pc.index_in(opinions.column("tag"), value_set=pa.array(frame.tags, pa.string()))
    said: Numbers = pc.fill_null(indexes, -1).to_numpy().astype(np.int64)
    return said
