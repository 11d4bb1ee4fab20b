"""Applying people's words to an index: only the documents of the pictures that something was said of are written.

A block is pending while the log has a public word on one of its pictures that its record in the ledger does not name
yet. Of such a block, every picture with a word that is newer than the record gets its document written again, or
deleted, as all words together want it, whatever a killed writer left there. The records follow after one commit for all
blocks. So whoever applies next ends what a killed process began.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinytags_tasks.blocks import format_block_numbers
from tinytags_tasks.clients.solr import SolrClient
from tinytags_tasks.correct.changes import WRITTEN, ChangeReader
from tinytags_tasks.errors import FinalError, MissingError, TransientError, explained
from tinytags_tasks.index.javabin import MIME
from tinytags_tasks.index.posting import collection_missing
from tinytags_tasks.store import layout
from tinytags_tasks.store.block_lease import HeldBlocks, hold_blocks, refuse_lost
from tinytags_tasks.store.ledger import read_ledger
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.store.run_blocks import RunBlocks
from tinytags_tasks.store.run_identity import corpus_of_run, refuse_another_corpus
from tinytags_tasks.store.run_records import BlockRecord, Run

PATIENCE_SECONDS = 3.0
"""How long to wait for other writers of a block; then it stays pending, and readers' pages hide what was taken down."""

_AT_ONCE = 8
_REPORT_SECONDS = 10.0


@dataclass(frozen=True)
class ApplyResult:
    """What was applied to a run.

    Attributes
    ----------
    run
        The run.
    blocks
        The blocks that were pending and no longer are.
    changed, removed
        How many documents were written, and how many pictures must have none.
    last
        The number of the last request in the log that was considered.
    waiting
        Blocks that are still pending, because another writer holds them.
    unfinished
        Blocks that are not verified and have words that are not applied: indexing them applies the words.
    """

    run: str
    blocks: tuple[int, ...]
    changed: int
    removed: int
    last: int
    waiting: tuple[int, ...] = ()
    unfinished: tuple[int, ...] = ()

    @property
    def is_complete(self) -> bool:
        """Whether the run's documents follow all words."""
        return not self.waiting and not self.unfinished


def apply_corrections(
    run: Run,
    *,
    storage: Storage,
    solr: SolrClient,
    report: Callable[[str], None] = print,
    patience_seconds: float = PATIENCE_SECONDS,
) -> ApplyResult:
    """Make a run's verified blocks follow all public words on their pictures, in Solr and in the ledger.

    Blocks that are not verified are left alone, and named: indexing them applies the words. A block that another writer
    holds for longer than ``patience_seconds`` stays pending; the result and a message say so.

    Parameters
    ----------
    run
        The run.
    storage, solr
        The store, and the Solr that has the run's collection.
    report
        Called with messages for people.
    patience_seconds
        How long to wait for other writers.

    Raises
    ------
    CorruptError
        If the log, a scored file, a manifest or a picture is damaged, or the corpus is no longer the run's.
    MissingError
        If the corpus, the model's card, a scored file or the collection does not exist.
    TransientError
        If Solr or the store is unavailable, another writer has taken over a block, or a block did not have the
        documents that the ledger counts.
    """
    corpus = corpus_of_run(run, storage)
    refuse_another_corpus(run, corpus)
    reader = RunBlocks(run, corpus, storage)
    records = _spoken_of(reader)
    waiting, unfinished = reader.pending(records), reader.unfinished(records)
    if not waiting:
        return ApplyResult(run.name, (), 0, 0, reader.corrections.last, unfinished=tuple(unfinished))
    applying = _Applying(reader, solr, report)
    taken: list[int] = []
    for held in hold_blocks(run.name, waiting, storage=storage, report=report, patience_seconds=patience_seconds):
        applying.apply(held)
        taken += held.blocks
        waiting = [block for block in waiting if block not in held.blocks]
    if waiting:
        report(
            f"run {run.name}: blocks {format_block_numbers(waiting)} are held by another writer and stay pending; "
            f"`tinytags audit {run.name} --repair` applies the words"
        )
    # Another writer may have begun to write some of them before they were held, or has ended others meanwhile.
    unfinished = reader.unfinished(read_ledger(storage, run, sorted({*unfinished, *taken})))
    return applying.result(tuple(waiting), tuple(unfinished))


def pending_of(reader: RunBlocks) -> list[int]:
    """Return the verified blocks whose documents do not follow all words on their pictures yet."""
    return reader.pending(_spoken_of(reader))


def _spoken_of(reader: RunBlocks) -> list[BlockRecord]:
    """Return the records of the blocks with words; no others are read."""
    partition = reader.corpus.partition
    positions = reader.corrections.words.column("position").to_numpy()
    spoken_of, at = [], 0
    while at < len(positions) and positions[at] < partition.images:  # the corpus may have grown since the run
        block = partition.block(partition.block_at(int(positions[at])))
        spoken_of.append(block.number)
        at = int(np.searchsorted(positions, block.first + block.images))
    return read_ledger(reader.storage, reader.run, spoken_of)


def is_only_corrected(before: BlockRecord, after: BlockRecord) -> bool:
    """Tell whether a block's record differs from an earlier one by words alone that were applied meanwhile."""
    unchanged = {name: getattr(before, name) for name in WRITTEN}
    return after.corrections > before.corrections and after.replaced(**unchanged) == before


@dataclass(frozen=True, eq=False)
class _SentBlock:
    """A block whose changes were sent: the record to save, how many changes there are, and Solr's responses."""

    record: BlockRecord
    changed: int
    removed: int
    answers: list[Future[dict[str, Any]]]


class _Applying:
    """Applies words to the blocks that one writer holds, as often as it gets more of them."""

    def __init__(self, reader: RunBlocks, solr: SolrClient, report: Callable[[str], None]) -> None:
        self._reader = reader
        self._run = reader.run
        self._corpus = reader.corpus
        self._last = reader.corrections.last
        self._storage = reader.storage
        self._solr = solr
        self._report = report
        self._reads = ChangeReader(reader, self._field_names())
        self._blocks: list[int] = []
        self._changed = self._removed = 0

    def result(self, waiting: tuple[int, ...], unfinished: tuple[int, ...]) -> ApplyResult:
        """Return what was applied until now."""
        blocks = tuple(sorted(self._blocks))
        return ApplyResult(self._run.name, blocks, self._changed, self._removed, self._last, waiting, unfinished)

    def apply(self, held: HeldBlocks) -> None:
        """Write what changed, commit once, then save the records; the blocks that fail are named together at the end.

        Raises
        ------
        FinalError, TransientError
            As :func:`apply_corrections`, after all other blocks are done.
        """
        records = read_ledger(self._storage, self._run, held.blocks)
        pending = self._reader.pending(records)  # another writer may have applied the words
        records = [record for record in records if record.block in pending]
        if not records:
            return
        sent, failures = self._send(records)
        self._solr.commit(self._run.collection)
        counts = self._solr.count_by_block(self._run.collection, [one.record.block for one in sent]) if sent else {}
        good = [one for one in sent if counts.get(one.record.block, 0) == one.record.kept]
        self._storage.delete_leftovers(*(self._ledger_file(record.block) for record in records))

        def save(one: _SentBlock) -> None:
            refuse_lost(self._storage, self._run.name, one.record.block, held.writer)
            one.record.save(self._storage, self._ledger_file(one.record.block))

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(save, good))
        self._add(good)
        self._refuse(failures, [one.record for one in sent if one not in good], counts)

    def _field_names(self) -> frozenset[str]:
        try:
            self._solr.wait_until_settled(self._run.collection)
        except MissingError as error:
            raise collection_missing(self._run) from error
        return self._solr.field_names(self._run.collection)

    def _ledger_file(self, block: int) -> str:
        return layout.ledger_file(self._run.name, block)

    def _add(self, done: Sequence[_SentBlock]) -> None:
        if not done:
            return
        changed, removed = sum(one.changed for one in done), sum(one.removed for one in done)
        self._blocks += [one.record.block for one in done]
        self._changed += changed
        self._removed += removed
        self._report(
            f"run {self._run.name}: blocks {format_block_numbers(one.record.block for one in done)} follow people's "
            f"words up to number {self._last}: {changed:,} documents written, {removed:,} pictures without one"
        )

    def _send(self, records: Sequence[BlockRecord]) -> tuple[list[_SentBlock], dict[int, FinalError]]:
        """Send all documents and deletions; return the blocks that Solr accepted, and the errors of the others."""
        sent: list[_SentBlock] = []
        failures: dict[int, FinalError] = {}
        # Whatever else is wrong with a block, what was taken down goes.
        self._delete(position for record in records for position in self._reads.taken_down(record))
        removed: list[int] = []
        reported = time.monotonic()
        with self._solr.posting(self._run.collection, MIME) as post:
            for done, record in enumerate(records):
                try:
                    change = self._reads.change(record)
                    down = set(self._reads.taken_down(record))
                    removed += [position for position in change.removed if position not in down]
                    answers = [post(body) for body in self._reads.bodies(change)]
                    sent.append(_SentBlock(change.record, len(change.rows), len(change.removed), answers))
                except FinalError as error:
                    failures[record.block] = error
                if time.monotonic() - reported > _REPORT_SECONDS:
                    reported = time.monotonic()
                    self._report(f"people's words are sent for {done + 1:,} of {len(records):,} blocks")
        self._delete(removed)  # even if another picture of the block cannot be written
        return self._accepted(sent, failures), failures

    def _delete(self, positions: Iterable[int]) -> None:
        if ids := [layout.document_id(self._corpus.name, position) for position in positions]:
            self._solr.delete_ids(self._run.collection, ids)

    def _accepted(self, sent: Sequence[_SentBlock], failures: dict[int, FinalError]) -> list[_SentBlock]:
        """Return the blocks of which Solr accepted everything, and add the errors of the others."""
        accepted = []
        for one in sent:
            try:
                for answer in one.answers:
                    answer.result()
                accepted.append(one)
            except MissingError as error:
                raise collection_missing(self._run) from error
            except FinalError as error:
                block = one.record.block
                failures[block] = explained(error, f"Solr refused a document of block {block}: {error}")
        return accepted

    def _refuse(self, failures: dict[int, FinalError], wrong: Sequence[BlockRecord], counts: dict[int, int]) -> None:
        """Raise what is wrong with blocks, all in one error."""
        if failures:
            first = next(iter(failures.values()))
            problems = "; ".join(str(error) for error in list(failures.values())[:3])
            raise explained(
                first,
                f"run {self._run.name}: people's words on blocks {format_block_numbers(failures)} cannot be applied: "
                f"{problems}",
            )
        if wrong:
            numbers = format_block_numbers(record.block for record in wrong)
            found = ", ".join(f"{counts.get(one.block, 0):,} of {one.kept:,}" for one in wrong[:5])
            raise TransientError(
                f"run {self._run.name}: after people's words were applied, blocks {numbers} have {found} documents; "
                f"redo them with `tinytags backfill {self._run.name} --blocks {numbers}`"
            )
