"""What people's public words make of a scored block: its documents, and its counts.

A picture whose tag a person said is kept with that tag, whatever the model says. A picture of which a person said that
it shows none of the tags is none. One of which a person said that it does not show the tag which it has then, the
model's or an earlier person's, is below; of any other tag, that says nothing new. A picture that was taken down is
counted as that alone. A picture that could not be read can only be taken down. Scored files
never change: they are the model's word.
"""

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tinytags_tasks.errors import CorruptError
from tinytags_tasks.store import layout
from tinytags_tasks.store.block_files import CONFIDENCE_COLUMN, SCHEMA, BlockSource, none_bits
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.store.review_log import (
    ReviewLog,
    last_request,
    of_version,
    positions_taken_down,
    shared_log,
    standing_words,
)
from tinytags_tasks.store.review_records import Verdict
from tinytags_tasks.store.run_records import BlockRecord

CORRECTED_COLUMN = "corrected"
"""A corrected table's column: the number of the request by which a person decided the tag; null if the model did.

A table in which the model decided every tag lacks it.
"""

_CORRECTED_SCHEMA = SCHEMA.append(pa.field(CORRECTED_COLUMN, pa.int64()))
_SURE = 100


class _Fate(IntEnum):
    """What becomes of an image. ``DROPPED`` is below or none: older scored files do not say which."""

    KEPT = 0
    BELOW = 1
    NONE = 2
    DROPPED = 3
    UNREADABLE = 4
    TAKEN_DOWN = 5


_Fates = npt.NDArray[np.int8]
"""The fate of each image of a block."""


@dataclass(frozen=True)
class CorrectedBlock:
    """A block as its documents must be.

    Attributes
    ----------
    table
        Like a scored file's; with the column ``corrected`` if a person decided the tag of any of its images.
    record
        The scored file's record, with the counts that match the table.
    """

    table: pa.Table
    record: BlockRecord


@dataclass(frozen=True)
class Corrections:
    """The public words on one version of a corpus.

    Attributes
    ----------
    last
        The number of the last request that was read, public or not; 0 without any.
    words
        Columns of the review log's ``SCHEMA``: public words and those that take them back, by position and number.
    """

    last: int
    words: pa.Table = field(repr=False)

    @classmethod
    def read(cls, corpus: Corpus, storage: Storage) -> "Corrections":
        """Read a corpus' log; a corpus without words costs one listing.

        Raises
        ------
        CorruptError
            If the log is damaged.
        TransientError
            If the store does not answer.
        """
        return cls.of_log(ReviewLog(corpus.name, storage).read(), corpus.digest)

    @classmethod
    def of_log(cls, log: pa.Table, digest: str) -> "Corrections":
        """Return what a log, with the columns of the review log's ``SCHEMA``, says of one version of its corpus."""
        last = pc.max(log.column("number")).as_py() or 0
        return cls(last, _public_words(of_version(log, digest)))

    def last_of(self, first: int, images: int) -> int:
        """Return the number of the last request with a word on one of these positions; 0 without one."""
        return pc.max(self._words_on(first, images).column("number")).as_py() or 0

    def taken_down(self, first: int, images: int) -> frozenset[int]:
        """Return which of these positions are taken down."""
        return frozenset(positions_taken_down(self._words_on(first, images)).tolist())

    def correct(
        self, table: pa.Table, scored: BlockRecord, source: BlockSource, total: int, upto: int | None = None
    ) -> CorrectedBlock:
        """Return a block as its documents must be; without words on it, its table as it is.

        Parameters
        ----------
        table, scored
            The scored file and its own record.
        source
            Where the block is.
        total
            The votes that an image's tags share: a person's word counts as all of them.
        upto
            Number of the last request that counts; None counts all, and the record then names :attr:`last`.

        Raises
        ------
        CorruptError
            If the scored file is not of this block.
        """
        number = self.last if upto is None else upto
        words = self._words_on(source.first, source.images)
        if upto is not None and len(words):
            words = words.filter(pc.less_equal(words.column("number"), upto))
        if not len(words):
            return CorrectedBlock(table, scored.replaced(corrections=number))
        by_model = _by_model(table, scored, source)
        fates, said = _by_people(by_model, table, words, source)
        corrected = _corrected_table(table, fates, said, source.first, total)
        return CorrectedBlock(corrected, _counted(scored, by_model, fates, corrected, len(said), number))

    @cached_property
    def _positions(self) -> npt.NDArray[np.int64]:
        return np.asarray(self.words.column("position"), dtype=np.int64)

    def _words_on(self, first: int, images: int) -> pa.Table:
        start, stop = np.searchsorted(self._positions, [first, first + images])
        return self.words.slice(start, stop - start)


class CorrectionsReader:
    """Reads corpora's public words again and again; each time, only what is new is read.

    Parameters
    ----------
    open_storage
        Returns the store; called when words are needed.
    """

    def __init__(self, open_storage: Callable[[], Storage]) -> None:
        self._open_storage = open_storage
        self._logs: dict[str, ReviewLog] = {}
        self._known: dict[str, tuple[str, Corrections]] = {}
        self._lock = threading.Lock()

    def read(self, corpus: Corpus) -> Corrections:
        """Return what a corpus' log says now; see :meth:`Corrections.read`."""
        with self._lock:
            log = self._logs.setdefault(corpus.name, shared_log(corpus.name, self._open_storage()))
            words = log.read()
            digest, known = self._known.get(corpus.name, ("", None))
            if known is None or (digest, known.last) != (corpus.digest, last_request(words)):
                known = Corrections.of_log(words, corpus.digest)
                self._known[corpus.name] = corpus.digest, known
            return known


def _public_words(words: pa.Table) -> pa.Table:
    """Return public words, and those that take one back, by position and number."""
    if not len(words):
        return words
    is_public = words.column("is_public").to_numpy()
    if not is_public.any():
        return words.slice(0, 0)
    # Whether a word that takes back a public one says that it is public itself does not matter.
    undoes = pc.equal(words.column("verdict"), str(Verdict.UNDO)).to_numpy()
    if undoes.any():
        chosen = np.flatnonzero(is_public & ~undoes)
        keys = words.select(["position", "number"])
        public = set(zip(*(column.to_pylist() for column in keys.take(chosen).columns), strict=True))
        for at in np.flatnonzero(undoes):
            target = words.column("position")[at].as_py(), words.column("undoes")[at].as_py()
            is_public[at] = target in public
    words = words.filter(pa.array(is_public))
    order = pc.sort_indices(words, sort_keys=[("position", "ascending"), ("number", "ascending")])
    return words.take(order).combine_chunks()


def _by_model(table: pa.Table, scored: BlockRecord, source: BlockSource) -> _Fates:
    """Return what becomes of each image by the model's word."""
    at = table.column("position").to_numpy() - source.first
    if len(at) and not (at.min() >= 0 and at.max() < source.images):
        path = layout.scored_file(scored.run, scored.block)
        raise CorruptError(f"{path}: holds another block's images; {BlockRecord.remedy(path)}")
    none = none_bits(table, scored, source.images)
    if none is not None:
        fates = np.where(none, _Fate.NONE, _Fate.BELOW).astype(np.int8)
    else:
        dropped = _Fate.BELOW if not scored.none else _Fate.NONE if not scored.below else _Fate.DROPPED
        fates = np.full(source.images, dropped, dtype=np.int8)
    fates[at] = _Fate.KEPT
    fates[np.array(source.unreadable, dtype=np.int64) - source.first] = _Fate.UNREADABLE
    return fates


def _by_people(by_model: _Fates, table: pa.Table, words: pa.Table, source: BlockSource) -> tuple[_Fates, pa.Table]:
    """Return what becomes of each image, and the words that say the tag of an image that is kept."""
    fates = by_model.copy()
    fates[positions_taken_down(words) - source.first] = _Fate.TAKEN_DOWN
    opinions = standing_words(words)
    at = opinions.column("position").to_numpy() - source.first
    opinions = opinions.filter(pa.array(~np.isin(fates[at], [_Fate.TAKEN_DOWN, _Fate.UNREADABLE])))

    at = opinions.column("position").to_numpy() - source.first
    verdicts, tags = opinions.column("verdict").to_pylist(), opinions.column("tag").to_pylist()
    rows = np.searchsorted(table.column("position").to_numpy(), at + source.first)
    own_tags = table.column("tag")
    said: dict[int, int] = {}  # by image, the place of the word that says its tag
    for place, (image, verdict, tag) in enumerate(zip(at.tolist(), verdicts, tags, strict=True)):
        if verdict == Verdict.WRONG:
            if fates[image] != _Fate.KEPT:
                continue
            shown = tags[said[image]] if image in said else own_tags[int(rows[place])].as_py()
            if shown != tag:
                continue
            fates[image] = _Fate.BELOW if by_model[image] == _Fate.KEPT else by_model[image]
        else:
            fates[image] = {Verdict.TAG: _Fate.KEPT, Verdict.NONE: _Fate.NONE}.get(verdict, by_model[image])
        said.pop(image, None)
        if verdict == Verdict.TAG:
            said[image] = place
    return fates, opinions.take(pa.array(sorted(said.values()), pa.int64()))


def _corrected_table(table: pa.Table, fates: _Fates, said: pa.Table, first: int, total: int) -> pa.Table:
    """Return the images that are kept: with the tag that a person said, or the model's."""
    positions = table.column("position").to_numpy()
    by_model = (fates[positions - first] == _Fate.KEPT) & ~np.isin(positions, said.column("position").to_numpy())
    kept = table.filter(pa.array(by_model)).replace_schema_metadata(None)
    if not len(said):
        return kept.combine_chunks()
    people = pa.table(
        {
            "position": said.column("position"),
            "tag": said.column("tag"),
            "votes": np.full(len(said), total, dtype=np.int16),
            CONFIDENCE_COLUMN: np.full(len(said), _SURE, dtype=np.int16),
            CORRECTED_COLUMN: said.column("number"),
        },
        schema=_CORRECTED_SCHEMA,
    )
    kept = kept.append_column(CORRECTED_COLUMN, pa.nulls(len(kept), pa.int64())).cast(_CORRECTED_SCHEMA)
    return pa.concat_tables([kept, people]).sort_by("position").combine_chunks()


def _counted(
    scored: BlockRecord, by_model: _Fates, fates: _Fates, corrected: pa.Table, corrected_tags: int, number: int
) -> BlockRecord:
    """Return a block's record with the counts of its corrected documents."""
    before, after = (np.bincount(of, minlength=len(_Fate)) for of in (by_model, fates))
    # Which of the dropped images were none is unknown in older files: words are taken to be on those below, first.
    moved = int(before[_Fate.DROPPED] - after[_Fate.DROPPED])
    moved_below = min(moved, scored.below)
    change = {fate: int(after[fate] - before[fate]) for fate in _Fate}
    kept_by_tag = dict.fromkeys(scored.kept_by_tag, 0) | Counter(corrected.column("tag").to_pylist())
    return scored.replaced(
        kept=len(corrected),
        below=scored.below + change[_Fate.BELOW] - moved_below,
        none=scored.none + change[_Fate.NONE] - (moved - moved_below),
        unreadable=scored.unreadable + change[_Fate.UNREADABLE],
        taken_down=int(after[_Fate.TAKEN_DOWN]),
        corrected=corrected_tags,
        corrections=number,
        kept_by_tag=kept_by_tag,
    )
