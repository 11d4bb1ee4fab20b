"""The pictures from which a run's reviews are drawn: per stratum its size, and the first pictures in a fixed order.

Each picture of a corpus has a permanent random number, which follows from the corpus' digest and its position (see
Ohlsson, "Coordination of samples using permanent random numbers", 1995). The sample of n pictures of a stratum is those
with the n smallest numbers. So a sample grows without being drawn again, and whoever computes it gets the same.
"""

import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from tinytags_tasks.errors import BadInputError, CorruptError, MissingError
from tinytags_tasks.review.sampler import Numbers
from tinytags_tasks.review.strata import Stratum
from tinytags_tasks.review.takedowns import taken_down_of
from tinytags_tasks.store import layout
from tinytags_tasks.store.block_files import unscored_blocks
from tinytags_tasks.store.labelled_pictures import labelled_pictures
from tinytags_tasks.store.lessons import learned_positions
from tinytags_tasks.store.model_records import ModelCard
from tinytags_tasks.store.parquet_bytes import read_parquet
from tinytags_tasks.store.protocol import LEFTOVER_SECONDS, Storage
from tinytags_tasks.store.record import Record
from tinytags_tasks.store.run_records import Run

SCHEMA = pa.schema(
    [
        ("stratum", pa.int32()),
        ("position", pa.int64()),
        ("block", pa.int32()),
        ("confidence", pa.int16()),
        ("order", pa.int32()),
        ("spread", pa.int32()),
    ]
)
"""Columns of a frame's pictures, see :class:`Frame`."""

_RECORD_KEY = b"tinytags.frame"


class FrameRecord(Record):
    """What a frame was made of; it is kept in the file's metadata.

    Attributes
    ----------
    scored
        Hash of the versions of the run's scored files.
    left_out
        Hash of the positions that were left out because the model learned from them.
    taken_down
        Hash of the positions that were left out because they are taken down.
    strata
        Name, tag, lowest and highest confidence, and images of each stratum.
    counts
        As in :class:`Frame`.
    sha256
        Hash of the pictures' columns.
    """

    run: str
    corpus: str
    corpus_digest: str
    model: str
    tags: tuple[str, ...]
    threshold: int
    scored: str
    left_out: str
    taken_down: str = ""
    strata: tuple[tuple[str, str, int, int, int], ...]
    counts: dict[str, tuple[int, ...]]
    sha256: str

    @classmethod
    def remedy(cls, path: str) -> str:
        """Return the command that makes it again."""
        return f"`tinytags precision {layout.file_name(path).partition('.')[0]}` makes it again"


@dataclass(frozen=True, eq=False)
class Frame:
    """A run's strata, and of each the first pictures in the order of their permanent random numbers.

    Pictures that cannot be read, that were taken down, or from which the model learned are in none of them.

    Attributes
    ----------
    run, corpus, corpus_digest, model
        Whose pictures they are.
    tags
        The model's tags.
    threshold
        The run's threshold, in percent.
    strata
        Those with pictures; dropped ones last.
    pictures
        Columns ``stratum`` (index into :attr:`strata`), ``position``, ``block``, ``confidence`` (-1 if dropped),
        ``order`` (place in the stratum's random order, from 0; -1 if it is here to teach only) and ``spread`` (place in
        an order in which each differs most from those before it; -1 if it has none).
    counts
        For each tag, how many images it has at each confidence from 0 to 100.
    labelled
        How words name the pictures of the labelled set that the model learned from.
    """

    run: str
    corpus: str
    corpus_digest: str
    model: str
    tags: tuple[str, ...]
    threshold: int
    strata: tuple[Stratum, ...]
    pictures: pa.Table = field(repr=False)
    counts: dict[str, tuple[int, ...]] = field(repr=False)
    labelled: frozenset[bytes] = field(repr=False, default=frozenset())

    @cached_property
    def columns(self) -> dict[str, npt.NDArray[Any]]:
        """The columns of its pictures, by name."""
        return {name: self.pictures.column(name).to_numpy() for name in SCHEMA.names}

    @cached_property
    def sizes(self) -> Numbers:
        """How many images each stratum has."""
        return np.array([stratum.images for stratum in self.strata], dtype=np.int64)

    @cached_property
    def row_tags(self) -> Numbers:
        """The index of each picture's tag; -1 if the run dropped it."""
        places = {tag: place for place, tag in enumerate(self.tags)}
        own = np.array([places.get(stratum.tag, -1) for stratum in self.strata], dtype=np.int64)
        tags: Numbers = own[self.columns["stratum"]]
        return tags

    @cached_property
    def surest_fifths(self) -> Numbers:
        """For each tag, the confidence from which on a picture is among its surest fifth."""
        counts = np.array([self.counts[tag] for tag in self.tags], dtype=np.int64).reshape(-1, 101)
        surer = counts[:, ::-1].cumsum(axis=1)
        least: Numbers = 100 - (surer * 5 >= surer[:, -1:]).argmax(axis=1)
        return least

    @cached_property
    def is_lowest(self) -> npt.NDArray[np.bool_]:
        """Whether each picture is in the lowest band of confidence."""
        lowest: npt.NDArray[np.bool_] = self.lows[self.columns["stratum"]] == self.threshold
        return lowest

    @cached_property
    def lows(self) -> Numbers:
        """Where the band of each stratum begins; -1 if it was dropped."""
        return np.array([stratum.low for stratum in self.strata], dtype=np.int64)

    @cached_property
    def _by_position(self) -> Numbers:
        return np.argsort(self.columns["position"], kind="stable")

    def rows_of(self, positions: Numbers) -> Numbers:
        """Return for each position the row of its picture; -1 if it is not among them."""
        own = self.columns["position"][self._by_position]
        if not len(own):
            return np.full(len(positions), -1)
        places = np.minimum(np.searchsorted(own, positions), len(own) - 1)
        return np.where(own[places] == positions, self._by_position[places], -1)


def load_frame(run: Run, storage: Storage, report: Callable[[str], None] = print) -> Frame:
    """Return a run's frame, after making it if it is missing, or no longer what it would be.

    It is made again if the run's scored files have changed, or pictures were taken down or restored: estimates are of
    the pictures that readers can see.

    Parameters
    ----------
    run, storage
        The run, all of whose blocks are scored.
    report
        Called with a line of progress now and then.

    Raises
    ------
    BadInputError
        If a block is not scored, or the corpus is no longer the one that the run scored.
    CorruptError
        If a scored file is damaged.
    """
    if unscored := unscored_blocks(storage, run.name, range(run.blocks)):
        raise BadInputError(
            f"run {run.name} cannot be reviewed yet: {len(unscored):,} of its {run.blocks:,} blocks are not scored; "
            f"score them with `tinytags score {run.name}`"
        )
    card = ModelCard.load(storage, layout.card_file(run.model))
    labelled = labelled_pictures(card, storage)
    learned, taken_down = _learned_from(run, card, storage), taken_down_of(run.corpus, run.corpus_digest, storage)
    path = layout.frame_file(run.corpus, run.name)
    identity = (*_identity(run, learned, storage), _positions_sha256(taken_down))
    if (found := _read_frame(run, path, identity, storage)) is not None:
        return replace(found, labelled=labelled)
    # Imported here because a frame is made once and read often, and making it needs the corpus' records, too.
    from tinytags_tasks.review.frame_making import make_frame

    frame = make_frame(run, np.union1d(learned, taken_down), storage, report)
    storage.delete_leftovers(path, least_age_seconds=LEFTOVER_SECONDS)
    storage.write(path, _as_parquet(frame, *identity))
    return replace(frame, labelled=labelled)


def stored_frame(run: Run, storage: Storage) -> Frame | None:
    """Return a run's frame if it was made before and still fits the run; nothing is made for whoever only looks.

    Pictures may have been taken down or restored since. Until the frame is made again, the sizes of its strata are
    those of before, less those of its pictures that are taken down.
    """
    path = layout.frame_file(run.corpus, run.name)
    if not storage.exists(path):
        return None
    card = ModelCard.load(storage, layout.card_file(run.model))
    found = _read_frame(run, path, _identity(run, _learned_from(run, card, storage), storage), storage)
    return found and replace(found, labelled=labelled_pictures(card, storage))


def _identity(run: Run, learned: Numbers, storage: Storage) -> tuple[str, str]:
    """Return what a frame must have been made of: hashes of the scored files' versions and of the learned positions."""
    return _versions_sha256(run, storage), _positions_sha256(learned)


def _positions_sha256(positions: Numbers) -> str:
    return hashlib.sha256(np.ascontiguousarray(positions, dtype=np.int64).tobytes()).hexdigest()


def _learned_from(run: Run, card: ModelCard, storage: Storage) -> Numbers:
    """Return the positions of whose reviews a run's model learned, in ascending order."""
    return np.array(sorted(learned_positions(card, storage, run.corpus)), dtype=np.int64)


def _versions_sha256(run: Run, storage: Storage) -> str:
    versions = storage.versions(layout.scored_folder(run.name))
    lines = "\n".join(f"{name} {version}" for name, version in sorted(versions.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def _rows_sha256(pictures: pa.Table) -> str:
    rows = hashlib.sha256()
    for name in SCHEMA.names:
        rows.update(np.ascontiguousarray(pictures.column(name).to_numpy()).data)
    return rows.hexdigest()


def _as_parquet(frame: Frame, scored: str, left_out: str, taken_down: str) -> bytes:
    record = FrameRecord(
        run=frame.run,
        corpus=frame.corpus,
        corpus_digest=frame.corpus_digest,
        model=frame.model,
        tags=frame.tags,
        threshold=frame.threshold,
        scored=scored,
        left_out=left_out,
        taken_down=taken_down,
        strata=tuple((each.name, each.tag, each.low, each.high, each.images) for each in frame.strata),
        counts=frame.counts,
        sha256=_rows_sha256(frame.pictures),
    )
    sink = io.BytesIO()
    pq.write_table(frame.pictures.replace_schema_metadata({_RECORD_KEY: record.stored()}), sink, compression="zstd")
    return sink.getvalue()


def _read_frame(run: Run, path: str, identity: tuple[str, ...], storage: Storage) -> Frame | None:
    """Return the stored frame; None if it is missing or damaged, or was made of something else."""
    try:
        table = read_parquet(storage.read(path))
        record = FrameRecord.parse(table.schema.metadata[_RECORD_KEY], path)
        pictures = table.select(SCHEMA.names).cast(SCHEMA).replace_schema_metadata(None).combine_chunks()
    except (MissingError, CorruptError, pa.ArrowException, OSError, KeyError, TypeError, ValueError):
        return None
    same = (record.run, record.corpus, record.corpus_digest) == (run.name, run.corpus, run.corpus_digest)
    same &= (record.scored, record.left_out, record.taken_down)[: len(identity)] == identity
    if not same or record.sha256 != _rows_sha256(pictures):
        return None
    return Frame(
        run=record.run,
        corpus=record.corpus,
        corpus_digest=record.corpus_digest,
        model=record.model,
        tags=record.tags,
        threshold=record.threshold,
        strata=tuple(Stratum(*each) for each in record.strata),
        pictures=pictures,
        counts=record.counts,
    )


__all__ = ["SCHEMA", "Frame", "FrameRecord", "Stratum", "load_frame", "stored_frame"]
