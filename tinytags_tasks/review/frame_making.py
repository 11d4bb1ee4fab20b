"""Makes a run's frame: one pass over its scored files, in flat memory, whatever the number of images."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tinytags_tasks.derived_fields import random_numbers
from tinytags_tasks.errors import BadInputError, CorruptError
from tinytags_tasks.prefetch import prefetch
from tinytags_tasks.review.frame import SCHEMA, Frame
from tinytags_tasks.review.sampler import Numbers, Sampler, seed_of
from tinytags_tasks.review.spread import spread_out
from tinytags_tasks.review.strata import Strata
from tinytags_tasks.store import layout
from tinytags_tasks.store.block_files import CONFIDENCE_COLUMN, BlockSource, block_sources, none_bits, read_scored
from tinytags_tasks.store.model_records import PIXELS, ModelCard
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.store.run_identity import corpus_of_run
from tinytags_tasks.store.run_records import Run

PICTURES = 200_000
"""How many pictures a frame has at most, about: enough for any review, and read within a second."""

LEAST, MOST, MOST_DROPPED = 50, 2_000, 10_000
"""How many pictures of a stratum are kept: of a tag's band at least and at most, and of the dropped ones at most."""

SUREST = 200
"""How many of a tag's surest pictures are kept, besides, to teach."""

_READERS = 4
_REPORT_SECONDS = 5.0


@dataclass(frozen=True)
class _Block:
    """What the pass reads of a block: kept pictures by position, and the positions that were dropped."""

    number: int
    positions: Numbers
    tags: Numbers
    confidences: npt.NDArray[np.int16]
    none: Numbers
    below: Numbers


def make_frame(run: Run, exclude: Numbers, storage: Storage, report: Callable[[str], None]) -> Frame:
    """Return a run's frame from its scored files; nothing is written.

    Parameters
    ----------
    run
        The run, all of whose blocks are scored.
    exclude
        Positions that are in no stratum, in ascending order.
    storage, report
        As for :func:`tinytags_tasks.review.frame.load_frame`.

    Raises
    ------
    BadInputError
        If the corpus is no longer the one that the run scored.
    CorruptError
        If a scored file is damaged, or names a tag that the model lacks.
    """
    corpus = corpus_of_run(run, storage)
    if corpus.digest != run.corpus_digest:
        raise BadInputError(
            f"run {run.name} is of another version of corpus {run.corpus}: review a run of the present one, which "
            f"`tinytags score {run.corpus}` begins"
        )
    card = ModelCard.load(storage, layout.card_file(run.model))
    passing = _Pass(run, Strata(card.tags, run.threshold), seed_of(run.corpus_digest))
    sources = block_sources(storage, corpus, range(run.blocks))
    progress = _Progress(run, report)
    with ThreadPoolExecutor(_READERS) as pool:
        for first in range(0, len(sources), 8 * _READERS):  # so that few blocks wait in memory
            some = sources[first : first + 8 * _READERS]
            for block in prefetch(pool.map(lambda each: _read(run, card.tags, each, exclude, storage), some), 4):
                passing.add(block)
            progress.report(min(first + len(some), len(sources)))
    net = card.features if card.features != PIXELS else ""
    return passing.frame(lambda positions, blocks: spread_out(positions, blocks, corpus, net, storage))


def _read(run: Run, tags: tuple[str, ...], source: BlockSource, left_out: Numbers, storage: Storage) -> _Block:
    table, record = read_scored(storage, run.name, source.block)
    positions = table.column("position").to_numpy().astype(np.int64)
    indexes = pc.index_in(table.column("tag"), value_set=pa.array(tags, pa.string()))
    if indexes.null_count:
        path = layout.scored_file(run.name, source.block)
        raise CorruptError(f"{path}: names a tag that model {run.model} lacks; {type(record).remedy(path)}")
    state = np.zeros(source.images, dtype=np.int8)  # 0 below, 1 none, 2 kept, 3 left out
    none = none_bits(table, record, source.images)
    if none is not None:
        state[none] = 1
    state[positions - source.first] = 2
    state[np.array(source.unreadable, dtype=np.int64) - source.first] = 3
    here = left_out[np.searchsorted(left_out, source.first) : np.searchsorted(left_out, source.first + source.images)]
    state[here - source.first] = 3
    is_in = state[positions - source.first] == 2
    return _Block(
        source.block,
        positions[is_in],
        indexes.to_numpy().astype(np.int64)[is_in],
        table.column(CONFIDENCE_COLUMN).to_numpy().astype(np.int16)[is_in],
        np.flatnonzero(state == 1) + source.first,
        np.flatnonzero(state == 0) + source.first,
    )


class _Pass:
    """Collects the frame, block by block."""

    def __init__(self, run: Run, strata: Strata, seed: int) -> None:
        self._run, self._strata, self._seed = run, strata, seed
        bands = max(1, strata.none)
        most = np.full(strata.number, max(LEAST, min(MOST, PICTURES // bands)), dtype=np.int64)
        most[strata.none :] = MOST_DROPPED
        self._random = Sampler(most)
        tags = max(1, len(strata.tags))
        self._surest = Sampler(np.full(tags, min(SUREST, max(20, PICTURES // 4 // tags)), dtype=np.int64))
        self._sizes = np.zeros(strata.number, dtype=np.int64)
        self._counts = np.zeros((len(strata.tags), 101), dtype=np.int64)

    def add(self, block: _Block) -> None:
        """Add a block's pictures."""
        kept = self._strata.index(block.tags, block.confidences)
        positions = np.concatenate([block.positions, block.none, block.below])
        dropped = np.repeat(np.array([self._strata.none, self._strata.none + 1]), [len(block.none), len(block.below)])
        strata = np.concatenate([kept, dropped])
        confidences = np.concatenate([block.confidences, np.full(len(dropped), -1, dtype=np.int16)])
        numbers = np.full(len(positions), block.number, dtype=np.int32)
        keys = random_numbers(self._seed, positions)
        self._random.add(strata, keys, positions, numbers, confidences)
        own = slice(0, len(kept))
        surest = (np.uint64(100) - block.confidences.astype(np.uint64)) << np.uint64(57) | keys[own] >> np.uint64(7)
        self._surest.add(block.tags, surest, positions[own], numbers[own], block.confidences, kept)
        self._sizes += np.bincount(strata, minlength=len(self._sizes))
        np.add.at(self._counts, (block.tags, block.confidences), 1)

    def frame(self, spread: Callable[[Numbers, Numbers], Numbers]) -> Frame:
        """Return the frame.

        Parameters
        ----------
        spread
            Returns the places of pictures, by position and block, in an order in which each differs most from those
            before it.
        """
        strata, order, _, positions, blocks, confidences = self._random.result()
        _, _, _, more, more_blocks, more_confidences, more_strata = self._surest.result()
        is_new = ~np.isin(more, positions)
        columns = {
            "stratum": np.concatenate([strata, more_strata[is_new]]),
            "position": np.concatenate([positions, more[is_new]]),
            "block": np.concatenate([blocks, more_blocks[is_new]]),
            "confidence": np.concatenate([confidences, more_confidences[is_new]]),
            "order": np.concatenate([order, np.full(int(is_new.sum()), -1)]),
        }
        is_undecided = (columns["order"] >= 0) & self._is_undecided(columns["stratum"].astype(np.int64))
        columns["spread"] = np.full(len(is_undecided), -1)
        columns["spread"][is_undecided] = spread(columns["position"][is_undecided], columns["block"][is_undecided])
        places = np.cumsum(self._sizes > 0) - 1
        columns["stratum"] = places[columns["stratum"]]
        run = self._run
        return Frame(
            run=run.name,
            corpus=run.corpus,
            corpus_digest=run.corpus_digest,
            model=run.model,
            tags=self._strata.tags,
            threshold=run.threshold,
            strata=tuple(each for each in self._strata.with_images(self._sizes) if each.images),
            pictures=pa.table([columns[name] for name in SCHEMA.names], names=SCHEMA.names).cast(SCHEMA),
            counts={
                tag: tuple(int(count) for count in counts)
                for tag, counts in zip(self._strata.tags, self._counts, strict=True)
            },
        )

    def _is_undecided(self, strata: Numbers) -> npt.NDArray[np.bool_]:
        """Return which strata are the lowest band of a tag."""
        bands = len(self._strata.lows)
        undecided: npt.NDArray[np.bool_] = (strata % bands == 0) & (strata < self._strata.none)
        return undecided


class _Progress:
    """Reports every few seconds how far the pass is."""

    def __init__(self, run: Run, report: Callable[[str], None]) -> None:
        self._run, self._report = run, report
        self._began = self._last = time.monotonic()

    def report(self, done: int) -> None:
        """Report, if it is time, that so many blocks are done."""
        now = time.monotonic()
        if done and now - self._last >= _REPORT_SECONDS:
            self._last = now
            left = (now - self._began) / done * (self._run.blocks - done)
            self._report(
                f"run {self._run.name}: drawing from {done:,} of {self._run.blocks:,} blocks, about {left:,.0f} s left"
            )
