"""Comparing two runs of one corpus by what they keep: images that changed their tag, were gained or were lost."""

import heapq
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tinytags_tasks.blocks import format_block_numbers
from tinytags_tasks.corpus.pictures.sheet import make_labelled_sheet, save_sheet
from tinytags_tasks.errors import BadInputError, CorruptError, MissingError
from tinytags_tasks.store import layout
from tinytags_tasks.store.block_files import CONFIDENCE_COLUMN, read_scored, unscored_blocks
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.store.run_blocks import RunBlocks
from tinytags_tasks.store.run_identity import present_corpus
from tinytags_tasks.store.run_records import BlockRecord, Run

MOST_EXAMPLES = 16
"""Examples that a result has of each kind."""

MOST_CHANGES = 1_000
"""Pairs of tags that a result lists."""

_READERS = 4
"""Blocks that are compared at the same time."""


@dataclass(frozen=True)
class DiffRequest:
    """The old run, the new run that would replace it, and the blocks to compare; None compares all."""

    old: str
    new: str
    blocks: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Example:
    """An image that differs.

    Attributes
    ----------
    position
        Its position in the corpus.
    old_tag, old_confidence, new_tag, new_confidence
        Its tag and confidence, in percent, in each run; empty and 0 if the run did not keep it.
    """

    position: int
    old_tag: str = ""
    old_confidence: int = 0
    new_tag: str = ""
    new_confidence: int = 0


@dataclass(frozen=True)
class TagChange:
    """How many images changed from one tag to another."""

    old_tag: str
    new_tag: str
    images: int


@dataclass(frozen=True)
class DiffResult:
    """What differs between two runs of one corpus.

    Attributes
    ----------
    old, new, corpus
        The runs and their corpus.
    blocks, images
        The numbers of the blocks that were compared, such as ``3-5``, and how many images they have.
    old_by_tag, new_by_tag
        Documents by tag.
    old_confidence, new_confidence
        Mean confidence of the images that are kept, in percent; None if there are none.
    old_none, new_none
        How many images show none of the tags, by the word of each run's model or a person.
    same, changed, gained, lost
        How many images are kept in both runs with the same tag, in both with different tags, only in the new run, and
        only in the old one.
    changes
        The largest changes from one tag to another, at most :data:`MOST_CHANGES`.
    changed_examples, gained_examples, lost_examples
        At most :data:`MOST_EXAMPLES` of each, by position. They are drawn evenly from all blocks, and the draw always
        gives the same ones.
    """

    old: str
    new: str
    corpus: str
    blocks: str
    images: int
    old_by_tag: dict[str, int]
    new_by_tag: dict[str, int]
    old_confidence: float | None
    new_confidence: float | None
    old_none: int
    new_none: int
    same: int
    changed: int
    gained: int
    lost: int
    changes: tuple[TagChange, ...]
    changed_examples: tuple[Example, ...]
    gained_examples: tuple[Example, ...]
    lost_examples: tuple[Example, ...]


def images_of_one(one: Run, other: Run) -> str:
    """Return which of two runs has images that the other one lacks, and how many; empty if both have the same."""
    longer = max(one, other, key=lambda run: run.images)
    images = abs(one.images - other.images)
    return f"{images:,} images are in {longer.name} alone, because the corpus grew" if images else ""


def compare_runs(request: DiffRequest, *, storage: Storage, report: Callable[[str], None] = print) -> DiffResult:
    """Compare two runs, block by block, in memory that does not grow with the corpus.

    What a run keeps follows from its scored files and people's words: a picture that was taken down is in neither run.
    If the corpus was ingested again after these runs, no words count on it, and the models' own are compared.
    If it grew between them, the blocks that both have are compared.

    Raises
    ------
    BadInputError
        If the runs are not of the same corpus, or a block is out of range.
    MissingError
        If a block is not scored in one of them.
    CorruptError
        If a scored file is damaged, or was made by another model.
    """
    old, new = (Run.load(storage, layout.run_file(name)) for name in (request.old, request.new))
    if (old.corpus, old.corpus_digest) != (new.corpus, new.corpus_digest):
        again = ", which was ingested again between them" if old.corpus == new.corpus else f" and {new.corpus}"
        raise BadInputError(
            f"runs {old.name} and {new.name} cannot be compared: they are runs of {old.corpus}{again}; compare runs of "
            "the same images"
        )
    blocks = range(min(old.blocks, new.blocks)) if request.blocks is None else request.blocks
    for run in (old, new):
        run.check_blocks(blocks)
        _refuse_unscored(run, blocks, storage)
    if grown := images_of_one(old, new):
        report(grown)
    total = _Sum()
    read_old, read_new = (_block_reader(run, storage) for run in (old, new))
    with ThreadPoolExecutor(_READERS) as pool:
        for done, found in enumerate(pool.map(partial(_compare_block, read_old, read_new), blocks), 1):
            total.add(found)
            if done % 500 == 0:
                report(f"{done:,} of {len(blocks):,} blocks have been compared")
    return total.result(old, new, format_block_numbers(blocks))


def draw_sheet(found: DiffResult, path: Path, *, storage: Storage) -> None:
    """Write the examples of a comparison as a picture sheet, each with its old and new tag.

    Raises
    ------
    BadInputError
        If the sheet cannot be written there, or the images are no longer those that were compared.
    MissingError, CorruptError
        If a shard is missing or too short.
    """
    corpus = Corpus.load(storage, layout.corpus_file(found.corpus))
    compared = Run.load(storage, layout.run_file(found.new))
    if corpus.digest != compared.corpus_digest:
        raise BadInputError(
            f"corpus {corpus.name} was ingested again after these runs and has other images now; compare them without "
            "a sheet"
        )

    def pictures(examples: Iterable[Example]) -> list[tuple[npt.NDArray[np.uint8], str]]:
        return [(_read_image(corpus, example.position, storage), _label(example)) for example in examples]

    sections = [
        (f"{found.changed:,} changed their tag", pictures(found.changed_examples)),
        (f"{found.gained:,} gained", pictures(found.gained_examples)),
        (f"{found.lost:,} lost", pictures(found.lost_examples)),
    ]
    save_sheet(make_labelled_sheet(sections, f"{found.corpus}: {found.old} -> {found.new}"), path)


@dataclass(frozen=True)
class _BlockDiff:
    """What differs in one block.

    Attributes
    ----------
    images
        How many images it has.
    old_none, new_none
        How many of them show none of the tags.
    pairs
        How many images have which old and new tag; None for those that were not kept.
    old_confidence, new_confidence
        Sums over the images that are kept.
    examples
        Changed, gained and lost images, each with its rank; those with the lowest ranks of all blocks are shown.
    """

    images: int
    old_none: int
    new_none: int
    pairs: Counter[tuple[str | None, str | None]]
    old_confidence: int
    new_confidence: int
    examples: tuple[list[tuple[int, Example]], ...]


class _Sum:
    """Sums the differences of blocks."""

    def __init__(self) -> None:
        self._images = self._old_none = self._new_none = 0
        self._pairs: Counter[tuple[str | None, str | None]] = Counter()
        self._old_confidence = self._new_confidence = 0
        self._examples: tuple[list[tuple[int, Example]], ...] = ([], [], [])

    def add(self, found: _BlockDiff) -> None:
        self._images += found.images
        self._old_none += found.old_none
        self._new_none += found.new_none
        self._pairs.update(found.pairs)
        self._old_confidence += found.old_confidence
        self._new_confidence += found.new_confidence
        self._examples = tuple(
            heapq.nsmallest(MOST_EXAMPLES, [*ours, *theirs], key=_rank)
            for ours, theirs in zip(self._examples, found.examples, strict=True)
        )

    def result(self, old: Run, new: Run, blocks: str) -> DiffResult:
        old_by_tag: Counter[str] = Counter()
        new_by_tag: Counter[str] = Counter()
        changes: list[TagChange] = []
        same = gained = lost = 0
        for (old_tag, new_tag), images in self._pairs.items():
            if old_tag is not None:
                old_by_tag[old_tag] += images
            if new_tag is not None:
                new_by_tag[new_tag] += images
            if old_tag is None:
                gained += images
            elif new_tag is None:
                lost += images
            elif old_tag == new_tag:
                same += images
            else:
                changes.append(TagChange(old_tag, new_tag, images))
        changed, gained_examples, lost_examples = (
            tuple(sorted((example for _, example in ranked), key=lambda example: example.position))
            for ranked in self._examples
        )
        return DiffResult(
            old=old.name,
            new=new.name,
            corpus=old.corpus,
            blocks=blocks,
            images=self._images,
            old_by_tag=dict(sorted(old_by_tag.items())),
            new_by_tag=dict(sorted(new_by_tag.items())),
            old_confidence=self._old_confidence / old_by_tag.total() if old_by_tag else None,
            new_confidence=self._new_confidence / new_by_tag.total() if new_by_tag else None,
            old_none=self._old_none,
            new_none=self._new_none,
            same=same,
            changed=sum(change.images for change in changes),
            gained=gained,
            lost=lost,
            changes=tuple(
                sorted(changes, key=lambda change: (-change.images, change.old_tag, change.new_tag))[:MOST_CHANGES]
            ),
            changed_examples=changed,
            gained_examples=gained_examples,
            lost_examples=lost_examples,
        )


def _rank(ranked: tuple[int, Example]) -> int:
    return ranked[0]


def _refuse_unscored(run: Run, blocks: Iterable[int], storage: Storage) -> None:
    if missing := unscored_blocks(storage, run.name, blocks):
        raise MissingError(
            f"run {run.name}: blocks {format_block_numbers(missing)} are not scored, or their files were pruned; "
            f"score them with `tinytags score {run.name}`"
        )


_ReadBlock = Callable[[int], tuple[pa.Table, BlockRecord]]


def _compare_block(read_old: _ReadBlock, read_new: _ReadBlock, block: int) -> _BlockDiff:
    (old, old_record), (new, new_record) = read_old(block), read_new(block)
    joined = old.join(
        new, "position", join_type="full outer", left_suffix="_old", right_suffix="_new", use_threads=False
    )
    counted = joined.group_by(["tag_old", "tag_new"], use_threads=False).aggregate([([], "count_all")])
    return _BlockDiff(
        images=old_record.read,
        old_none=old_record.none,
        new_none=new_record.none,
        pairs=Counter({(row["tag_old"], row["tag_new"]): row["count_all"] for row in counted.to_pylist()}),
        old_confidence=pc.sum(old.column(CONFIDENCE_COLUMN), min_count=0).as_py(),
        new_confidence=pc.sum(new.column(CONFIDENCE_COLUMN), min_count=0).as_py(),
        examples=tuple(
            _examples(joined.filter(mask))
            for mask in (
                pc.not_equal(joined.column("tag_old"), joined.column("tag_new")),
                pc.is_null(joined.column("tag_old")),
                pc.is_null(joined.column("tag_new")),
            )
        ),
    )


def _block_reader(run: Run, storage: Storage) -> _ReadBlock:
    """Return what reads a block of a run: the images that are kept, and its record."""
    corpus = present_corpus(run, storage)
    blocks = RunBlocks(run, corpus, storage) if corpus else None

    def read(block: int) -> tuple[pa.Table, BlockRecord]:
        table, record = _read_block(run, block, storage)
        if blocks:
            corrected = blocks.correct(table, record)
            table, record = corrected.table, corrected.record
        return table.select(["position", "tag", CONFIDENCE_COLUMN]), record

    return read


def _read_block(run: Run, block: int, storage: Storage) -> tuple[pa.Table, BlockRecord]:
    table, record = read_scored(storage, run.name, block)
    if record.model != run.model:
        raise CorruptError(
            f"{layout.scored_file(run.name, block)}: was scored by {record.model}, but the run is of {run.model}; "
            f"{BlockRecord.remedy(layout.scored_file(run.name, block))}"
        )
    return table, record


def _examples(differing: pa.Table) -> list[tuple[int, Example]]:
    """Return the images with the lowest ranks; ranks are as good as random, but depend on nothing but the position."""
    ranks = _scatter(differing.column("position").to_numpy())
    lowest = np.argsort(ranks)[:MOST_EXAMPLES]
    return [
        (
            rank,
            Example(
                row["position"],
                row["tag_old"] or "",
                row[f"{CONFIDENCE_COLUMN}_old"] or 0,
                row["tag_new"] or "",
                row[f"{CONFIDENCE_COLUMN}_new"] or 0,
            ),
        )
        for rank, row in zip(ranks[lowest].tolist(), differing.take(lowest).to_pylist(), strict=True)
    ]


def _scatter(positions: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
    """Return a hash of each position (SplitMix64's finalizer; Steele et al. 2014)."""
    mixed = positions.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def _read_image(corpus: Corpus, position: int, storage: Storage) -> npt.NDArray[np.uint8]:
    shard, offset = corpus.partition.place(position)
    stored = storage.read(layout.shard_file(corpus.name, shard), offset * corpus.image_bytes, corpus.image_bytes)
    return np.frombuffer(stored, dtype=np.uint8).reshape(corpus.height, corpus.width, corpus.channels)


def _label(example: Example) -> str:
    old = f"{example.old_tag} {example.old_confidence} %" if example.old_tag else "not kept"
    new = f"{example.new_tag} {example.new_confidence} %" if example.new_tag else "not kept"
    return f"{old}\n-> {new}"
