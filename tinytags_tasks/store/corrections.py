"""What people's public words make of a scored block: its documents, and its counts.

A picture whose tag a person said is kept with that tag, whatever the model says. A picture of which a person said that
it shows none of the tags is none; one of which a person said that it does not show the model's tag is below. A picture
that was taken down is counted as that alone. Scored files never change: they are the model's word.
"""

from dataclasses import dataclass, field

import pyarrow as pa

from tinytags_tasks.store.block_files import BlockSource
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.store.run_records import BlockRecord

CORRECTED_COLUMN = "corrected"
"""A corrected table's column: the number of the request by which a person decided the tag; null if the model did."""


@dataclass(frozen=True)
class CorrectedBlock:
    """A block as its documents must be: a table like a scored file's, with ``corrected``, and the record to match."""

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
        Columns of the review log's ``SCHEMA``: public words only, by position and number.
    """

    last: int
    words: pa.Table = field(repr=False)

    @classmethod
    def read(cls, corpus: Corpus, storage: Storage) -> "Corrections":
        """Read a corpus' log."""
        raise NotImplementedError

    def last_of(self, first: int, images: int) -> int:
        """Return the number of the last request with a word on one of these positions; 0 without one."""
        raise NotImplementedError

    def correct(
        self, table: pa.Table, scored: BlockRecord, source: BlockSource, total: int, upto: int | None = None
    ) -> CorrectedBlock:
        """Return a block as its documents must be.

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
        """
        raise NotImplementedError
