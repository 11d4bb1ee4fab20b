"""A run's blocks as their documents must be: the scored files, and people's public words on their pictures."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

import pyarrow as pa

from tinytags_tasks.store import layout
from tinytags_tasks.store.block_files import BlockSource, block_sources, read_scored, read_scored_record
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.corrections import CorrectedBlock, Corrections
from tinytags_tasks.store.model_records import ModelCard
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.store.run_records import BlockRecord, BlockState, Run


@dataclass
class RunBlocks:
    """Reads blocks of one run; the corpus' words are read once, and a block without words costs nothing more.

    Attributes
    ----------
    run, corpus
        The run and its corpus, which must be the version that the run is of.
    storage
        The store.
    corrections
        The public words on the corpus, as they were when this was made.

    Raises
    ------
    CorruptError
        If the log of people's words is damaged.
    """

    run: Run
    corpus: Corpus
    storage: Storage
    corrections: Corrections = field(init=False)

    def __post_init__(self) -> None:
        """Read the words."""
        self.corrections = Corrections.read(self.corpus, self.storage)

    def correct(
        self, table: pa.Table, scored: BlockRecord, *, upto: int | None = None, source: BlockSource | None = None
    ) -> CorrectedBlock:
        """Return a block as its documents must be.

        Parameters
        ----------
        table, scored
            The scored file and its own record.
        upto
            Number of the last request that counts; None counts all that were read.
        source
            Where the block is; None looks it up if that is needed.

        Raises
        ------
        MissingError, CorruptError
            If there are words on the block, and its manifest or the model's card is missing or damaged.
        """
        if not self._has_words(scored.block, upto):
            return CorrectedBlock(table, self._uncorrected(scored, upto))
        if source is None:
            (source,) = block_sources(self.storage, self.corpus, [scored.block])
        return self.corrections.correct(table, scored, source, self._total, upto)

    def read(self, block: int, *, upto: int | None = None) -> CorrectedBlock:
        """Read a block's scored file and return it as its documents must be.

        Raises
        ------
        MissingError, CorruptError
            As :func:`~tinytags_tasks.store.block_files.read_scored` and :meth:`correct`.
        """
        return self.correct(*read_scored(self.storage, self.run.name, block), upto=upto)

    def read_record(self, block: int, *, upto: int | None = None) -> tuple[BlockRecord, BlockRecord]:
        """Return the record that a block's documents must have, and the scored file's own.

        The rows are read only if there are words on the block.

        Raises
        ------
        MissingError, CorruptError
            As :meth:`read`.
        """
        if not self._has_words(block, upto):
            scored = read_scored_record(self.storage, self.run.name, block)
            return self._uncorrected(scored, upto), scored
        table, scored = read_scored(self.storage, self.run.name, block)
        return self.correct(table, scored, upto=upto).record, scored

    def pending(self, records: Iterable[BlockRecord]) -> list[int]:
        """Return the verified blocks whose documents do not follow the latest words on them yet."""
        return [
            record.block
            for record in records
            if record.state is BlockState.VERIFIED and self._last_of(record.block) > record.corrections
        ]

    def unfinished(self, records: Iterable[BlockRecord]) -> list[int]:
        """Return the blocks that are not verified, and whose documents, if any, need not follow the words on them."""
        return [
            record.block
            for record in records
            if record.state is not BlockState.VERIFIED and self._last_of(record.block) > (applied_to(record) or 0)
        ]

    @cached_property
    def _total(self) -> int:
        return ModelCard.load(self.storage, layout.card_file(self.run.model)).trees

    def _last_of(self, block: int) -> int:
        if not len(self.corrections.words) or block >= self.corpus.partition.blocks:
            return 0
        where = self.corpus.partition.block(block)
        return self.corrections.last_of(where.first, where.images)

    def _has_words(self, block: int, upto: int | None) -> bool:
        return upto != 0 and self._last_of(block) > 0

    def _uncorrected(self, scored: BlockRecord, upto: int | None) -> BlockRecord:
        return scored.replaced(corrections=self.corrections.last if upto is None else upto)


def applied_to(record: BlockRecord) -> int | None:
    """Return the number of the last request that a block's documents follow, by its record; None if it does not say.

    Parameters
    ----------
    record
        Of the ledger; one that was never indexed, or cannot be read, does not say.
    """
    return record.corrections if record.state in (BlockState.INDEXED, BlockState.VERIFIED) else None
