"""What people's words change in a block: the documents to write again, those to delete, and the record that follows."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tinytags_tasks.document_fields import LOOK_FIELDS, VECTOR_FIELD
from tinytags_tasks.errors import CorruptError
from tinytags_tasks.index.documents import document_bodies
from tinytags_tasks.store import layout
from tinytags_tasks.store.block_documents import expected_checksum
from tinytags_tasks.store.block_files import BlockSource, KeywordsReader, block_sources, read_scored
from tinytags_tasks.store.corrections import CorrectedBlock
from tinytags_tasks.store.embedding_files import read_vectors
from tinytags_tasks.store.image_ranges import read_images
from tinytags_tasks.store.review_records import picture_hash
from tinytags_tasks.store.run_blocks import RunBlocks
from tinytags_tasks.store.run_records import BlockRecord

COUNTS = ("kept", "below", "none", "unreadable", "taken_down", "corrected", "corrections", "kept_by_tag")
WRITTEN = (*COUNTS, "documents", "checksum")
"""The fields of a block's record that applying words changes."""


@dataclass(frozen=True, eq=False)
class BlockChange:
    """What becomes of a block: the record to save, the rows to write again, and the positions without a document."""

    source: BlockSource
    record: BlockRecord
    rows: pa.Table
    removed: list[int]
    keywords: list[str | None] | None


class ChangeReader:
    """Works out what the words change in blocks of one run.

    Parameters
    ----------
    reader
        Reads the run's blocks, and has the words.
    fields
        The collection's fields.
    """

    def __init__(self, reader: RunBlocks, fields: frozenset[str]) -> None:
        self._reader = reader
        self._run = reader.run
        self._corpus = reader.corpus
        self._words = reader.corrections.words
        self._storage = reader.storage
        self._fields = fields
        self._keywords = KeywordsReader(reader.storage)

    def change(self, record: BlockRecord) -> BlockChange:
        """Return what becomes of a block, by its record in the ledger.

        Raises
        ------
        MissingError, CorruptError
            If its scored file, its manifest or its keywords are missing, damaged, or not those that were indexed.
        """
        run, block = self._run, record.block
        table, scored = read_scored(self._storage, run.name, block)
        if scored.model != run.model or record.scored_sha256 not in ("", scored.scored_sha256):
            raise CorruptError(
                f"{layout.scored_file(run.name, block)}: is not the file that was indexed; redo the block with "
                f"`tinytags backfill {run.name} --blocks {block}`, which applies the words as well"
            )
        (source,) = block_sources(self._storage, self._corpus, [block])
        corrected = self._reader.correct(table, scored, source=source)
        keywords = self._keywords.read(source)
        spoken_of = self._spoken_of(source.first, source.images, record.corrections)
        positions = corrected.table.column("position")
        rows = corrected.table.filter(pc.is_in(positions, value_set=pa.array(spoken_of, pa.int64())))
        removed = np.setdiff1d(spoken_of, rows.column("position").to_numpy()).tolist()
        return BlockChange(source, self._record(record, corrected, source, keywords), rows, removed, keywords)

    def _record(
        self, record: BlockRecord, corrected: CorrectedBlock, source: BlockSource, keywords: list[str | None] | None
    ) -> BlockRecord:
        return record.replaced(
            **{name: getattr(corrected.record, name) for name in COUNTS},
            documents=corrected.record.kept,
            checksum=expected_checksum(corrected.table, source, self._run.model, keywords, self._fields),
        )

    def taken_down(self, record: BlockRecord) -> list[int]:
        """Return the pictures of a block that are taken down and were spoken of since; only the log is read."""
        where = self._corpus.partition.block(record.block)
        spoken_of = self._spoken_of(where.first, where.images, record.corrections)
        down = self._reader.corrections.taken_down(where.first, where.images)
        return [position for position in spoken_of.tolist() if position in down]

    def _spoken_of(self, first: int, images: int, after: int) -> npt.NDArray[np.int64]:
        """Return the positions of a block with a word that is newer than a number, ascending."""
        positions, numbers = (self._words.column(name).to_numpy() for name in ("position", "number"))
        start, stop = np.searchsorted(positions, [first, first + images])
        return np.unique(positions[start:stop][numbers[start:stop] > after])

    def bodies(self, change: BlockChange) -> list[bytes]:
        """Return the bodies of the update requests that write a block's changed documents.

        Raises
        ------
        MissingError, CorruptError
            If a picture or its embedding cannot be read, or is not the one that something was said of.
        """
        if not len(change.rows):
            return []
        run, fields = self._run, self._fields
        needs_pixels = run.thumbnails == "solr" or not fields.isdisjoint(LOOK_FIELDS)
        seen = self._pixels(change) if needs_pixels else None
        pixels = seen if run.thumbnails == "solr" else None
        embeddings = read_vectors(self._storage, change.source, run.similar) if VECTOR_FIELD in fields else None
        return list(
            document_bodies(
                change.rows,
                change.source,
                pixels,
                run.model,
                change.keywords,
                fields,
                seen=seen,
                embeddings=embeddings,
            )
        )

    def _pixels(self, change: BlockChange) -> npt.NDArray[np.uint8]:
        """Return an array for all of a block's images, of which only those that are written are filled.

        Raises
        ------
        CorruptError
            If a picture is not the one that something was said of.
        """
        source = change.source
        # What is never written takes no memory.
        pixels = np.zeros((source.images, source.image_bytes), dtype=np.uint8)
        named = self._pictures(source)
        for position, stored in read_images(self._corpus, change.rows.column("position").to_pylist(), self._storage):
            if picture_hash(stored) not in named[position]:
                raise CorruptError(
                    f"{layout.shard_file(source.corpus, source.shard)}: position {position} is not the picture that "
                    f"was spoken of; write the shard again with `tinytags ingest {source.corpus} --redo "
                    f"{source.shard}`, then `tinytags audit {self._run.name} --repair`"
                )
            pixels[position - source.first] = np.frombuffer(stored, dtype=np.uint8)
        return pixels

    def _pictures(self, source: BlockSource) -> dict[int, set[bytes]]:
        """Return the hashes by which the words on a block's pictures name them."""
        positions = self._words.column("position").to_numpy()
        start, stop = np.searchsorted(positions, [source.first, source.first + source.images])
        pictures = self._words.column("picture").slice(start, stop - start).to_pylist()
        named: dict[int, set[bytes]] = {}
        for position, picture in zip(positions[start:stop].tolist(), pictures, strict=True):
            named.setdefault(position, set()).add(picture)
        return named
