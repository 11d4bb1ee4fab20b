"""The looks that measure a run: which pictures were drawn for it and looked at, and what they show."""

from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tinytags_tasks.review.frame import Frame
from tinytags_tasks.review.sampler import Numbers
from tinytags_tasks.store.review_log import counting_words, of_version, takedowns
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
    known
        The pictures that are known without a look that measures.
    lost
        The rows of the pictures that cannot be drawn to measure, the known ones among them.
    unclear
        How many could not be decided.
    labelled
        How many were in the model's labelled set: of these, nothing counts. Like the unclear ones, they say how large
        that part of their stratum is, which is in no figure.
    last
        Number of the last request that was read; 0 without any.
    """

    rows: Numbers = field(repr=False)
    shows: Numbers = field(repr=False)
    is_right: Flags = field(repr=False)
    sizes: Numbers = field(repr=False)
    drawn: Numbers = field(repr=False)
    known: "Known" = field(repr=False)
    lost: Numbers = field(repr=False)
    unclear: int
    labelled: int
    last: int


@dataclass(frozen=True, eq=False)
class Known:
    """Pictures that were spoken of to teach, to correct or by an import: they are no sample, but readers see them.

    Of those that a public word changed, readers no longer see the run's tag, so that they are in no figure: of these,
    only those are here that a look measured, to be taken off what the sample says. Those that the model learned from
    are not here.

    Attributes
    ----------
    rows, shows
        As in :class:`Looks`.
    images
        1 each; -1 for one that is to be taken off.
    """

    rows: Numbers = field(repr=False)
    shows: Numbers = field(repr=False)
    images: Numbers = field(repr=False)


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
    public
        The counting public opinion on each picture.
    known
        Positions that were spoken of for another reason, neither taken down nor learned from.
    """

    words: pa.Table = field(repr=False)
    public: pa.Table = field(repr=False)
    known: Numbers = field(repr=False)
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
    taken_down = takedowns(words).column("position").to_numpy().astype(np.int64)
    never = np.union1d(np.fromiter(exclude, dtype=np.int64), taken_down)
    known = np.setdiff1d(positions, measured_positions)
    others = np.union1d(known, never)
    left_out = np.zeros(len(frame.pictures), dtype=bool)
    rows = frame.rows_of(others)
    left_out[rows[rows >= 0]] = True
    public = counting_words(words.filter(pc.or_(words.column("is_public"), is_undoing)))
    return Spoken(
        words=opinions,
        public=public,
        known=np.setdiff1d(known, never),
        measured=np.setdiff1d(measured_positions, never),
        left_out=left_out,
    )


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
    measured = _read(frame, spoken.words, spoken.measured)
    clear = ~(measured.is_unclear | measured.is_labelled)
    rows, shows = measured.rows[clear], measured.shows[clear]
    return Looks(
        rows=rows,
        shows=shows,
        is_right=((measured.shows == measured.own_tags) & (measured.own_tags >= 0))[clear],
        sizes=frame.sizes - lost,
        drawn=np.bincount(strata[measured.rows], minlength=len(frame.strata)),
        known=_known(frame, spoken, rows, shows),
        lost=np.flatnonzero(spoken.left_out),
        unclear=int((measured.is_unclear & ~measured.is_labelled).sum()),
        labelled=int(measured.is_labelled.sum()),
        last=int(pc.max(words.column("number")).as_py() or 0),
    )


def _known(frame: Frame, spoken: Spoken, rows: Numbers, shows: Numbers) -> Known:
    """Return the known pictures; ``rows`` and ``shows`` are of the looks that measure."""
    public = _read(frame, spoken.public, np.union1d(spoken.known, spoken.measured))
    changed = public.rows[~public.is_unclear & (public.shows != public.own_tags)]
    said = _read(frame, spoken.words, spoken.known)
    chosen = ~(said.is_unclear | said.is_labelled) & ~np.isin(said.rows, changed)
    gone = np.isin(rows, changed)
    return Known(
        rows=np.concatenate([said.rows[chosen], rows[gone]]),
        shows=np.concatenate([said.shows[chosen], shows[gone]]),
        images=np.repeat([1, -1], [chosen.sum(), gone.sum()]),
    )


@dataclass(frozen=True, eq=False)
class _Read:
    """What opinions say of a frame's pictures.

    Their rows, the tags that they show and have, what is undecided, and what is in the model's labelled set.
    """

    rows: Numbers
    shows: Numbers
    own_tags: Numbers
    is_unclear: Flags
    is_labelled: Flags


def _read(frame: Frame, opinions: pa.Table, chosen: Numbers) -> _Read:
    """Return what opinions say of the pictures at some positions, as far as these are in the frame."""
    positions = opinions.column("position").to_numpy().astype(np.int64)
    rows = frame.rows_of(positions)
    is_chosen = np.isin(positions, chosen) & (rows >= 0)
    rows, opinions = rows[is_chosen], opinions.filter(pa.array(is_chosen))
    said, own_tags = _said_tags(frame, opinions), frame.row_tags[rows]
    verdicts = opinions.column("verdict").to_numpy(zero_copy_only=False)
    # That a picture does not show another tag than its own says nothing of its own.
    is_unclear = (verdicts == str(Verdict.UNCLEAR)) | (
        (verdicts == str(Verdict.WRONG)) & ((said != own_tags) | (said < 0))
    )
    is_labelled = _are_labelled(frame, opinions)
    return _Read(rows, np.where(verdicts == str(Verdict.TAG), said, -1), own_tags, is_unclear, is_labelled)


def _are_labelled(frame: Frame, opinions: pa.Table) -> Flags:
    """Return which opinions are on pictures of the labelled set that the frame's model learned from."""
    pictures = opinions.column("picture").to_pylist() if frame.labelled else [b""] * len(opinions)
    return np.array([picture in frame.labelled for picture in pictures], dtype=bool)


def _said_tags(frame: Frame, opinions: pa.Table) -> Numbers:
    """Return the index of the tag that each word names; -1 if it names none of the model's."""
    indexes = pc.index_in(opinions.column("tag"), value_set=pa.array(frame.tags, pa.string()))
    said: Numbers = pc.fill_null(indexes, -1).to_numpy().astype(np.int64)
    return said
