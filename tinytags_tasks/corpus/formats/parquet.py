"""Parquet with a column of encoded images: the layout of the Hugging Face hub, and plain binary columns."""

from bisect import bisect_right
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from itertools import accumulate

import pyarrow as pa
import pyarrow.parquet as pq

from tinytags_tasks.corpus.formats.base import Definition, Guess, Sample
from tinytags_tasks.corpus.formats.encoded import Encoded, picture_decoder
from tinytags_tasks.corpus.formats.parquet_columns import Columns, find_columns, possible_keywords
from tinytags_tasks.corpus.pictures.decoder import MOST_BATCH_BYTES
from tinytags_tasks.corpus.reader import Batch, ListedItem, Listing
from tinytags_tasks.corpus.sources.files import SourceFiles
from tinytags_tasks.corpus.sources.range_file import RangeFile
from tinytags_tasks.errors import BadInputError, joined_lines

_READ_BYTES = 4_000_000

# What pyarrow raises on damaged bytes: its own errors, and Python's on names that are not UTF-8.
_DAMAGE = (pa.ArrowException, OSError, ValueError)


@contextmanager
def _opened(files: SourceFiles, path: str, size_bytes: int, version: str) -> Generator[pq.ParquetFile]:
    # With pre_buffer, pyarrow keeps all that it has read from a file until the last batch.
    options = {"pre_buffer": False, "page_checksum_verification": True}
    with RangeFile(files, path, size_bytes, version) as stream:
        try:
            metadata = pq.ParquetFile(stream, pre_buffer=False).metadata
            file = pq.ParquetFile(stream, metadata=metadata, buffer_size=_buffer_bytes(metadata), **options)
            _ = file.schema_arrow
        except _DAMAGE as error:
            raise BadInputError(
                f"{files.name(path)}: not a readable Parquet file, of {size_bytes:,} bytes ({joined_lines(error)}); "
                "download it again"
            ) from error
        yield file


def _buffer_bytes(metadata: pq.FileMetaData) -> int:
    """Return 0, so that a row group's column is read at once, unless one is larger than a batch may be.

    Through a buffer, Arrow reserves and clears what the header of a page promises, 2 GB if it is damaged, before it
    finds that the column ends earlier.
    """
    groups = map(metadata.row_group, range(metadata.num_row_groups))
    sizes = (group.column(place).total_compressed_size for group in groups for place in range(group.num_columns))
    return _READ_BYTES if max(sizes, default=0) > MOST_BATCH_BYTES else 0


class Parquet(Encoded):
    """Parquet files with a column of encoded images; ``keywords`` is a column of text, or of numbers."""

    name = "parquet"
    recognised_by = "PAR1"
    endings = (".parquet",)
    fields = frozenset({"image_column"})

    def guess(self, sample: Sample) -> Guess | None:
        """See :meth:`Format.guess`."""
        return Guess() if sample.head.startswith(b"PAR1") else None

    def possible_keywords(self, files: SourceFiles) -> tuple[str, ...]:
        """See :meth:`Format.possible_keywords`: columns of text, or of numbers, of the first file."""
        for listed in files.files(*self.endings):
            with _opened(files, listed.path, listed.size_bytes, listed.version) as file:
                return possible_keywords(file.schema_arrow)
        return ()

    def list_items(self, files: SourceFiles, definition: Definition) -> Iterator[ListedItem]:
        """Yield the source's files with the number of their rows; only their footers are read.

        Parameters
        ----------
        files
            The source's: a file, a folder, or a pattern.
        definition
            The corpus.

        Raises
        ------
        BadInputError
            If there is no file or no row, or a file is damaged, or does not have the columns that the definition and
            the files before it have.
        """
        first: tuple[str, Columns] | None = None
        files_found = images = 0
        for listed in files.files(*self.endings):
            files_found += 1
            where = files.name(listed.path)
            with _opened(files, listed.path, listed.size_bytes, listed.version) as file:
                rows = _group_starts(file, where)[-1]
                columns = find_columns(file.schema_arrow, definition, where, listed.path) if rows else None
            if columns is not None:
                if first is not None and not columns.fits(first[1]):
                    raise BadInputError(
                        f"{where}: has {columns}, and {first[0]} has {first[1]}; files of one corpus have the same "
                        "columns and names: make several corpora of them"
                    )
                if first is None or first[1].has_less_than(columns):
                    first = where, columns
            images += rows
            yield ListedItem(listed.path, rows, 0, listed.size_bytes, listed.version)
        if not files_found:
            raise BadInputError(
                f"{files.source}: contains no .parquet file; correct the corpus' source or format{files.left_out}"
            )
        if first is None:
            raise BadInputError(f"{files.source}: its Parquet files have no rows; give a file with at least one image")
        if first[1].image.is_null:
            raise BadInputError(
                f"{files.source}: all its columns that may hold images are empty ({', '.join(first[1].nulls)}); give a "
                "file with at least one image"
            )

    def open_reader(self, definition: Definition, files: SourceFiles, listing: Listing) -> "ParquetReader":
        """See :meth:`Format.open_reader`."""
        return ParquetReader(definition, files, listing)


class ParquetReader:
    """Reads encoded images from Parquet; see :class:`tinytags_tasks.corpus.reader.Reader`.

    Parameters
    ----------
    definition
        The corpus.
    files
        The source's files.
    listing
        What they hold.
    """

    def __init__(self, definition: Definition, files: SourceFiles, listing: Listing) -> None:
        self._definition = definition
        self._files = files
        self._listing = listing
        self._decoder = picture_decoder(definition)

    def batches(self, first: int, images: int, *, decode: bool = True) -> Iterator[Batch]:
        """See :meth:`tinytags_tasks.corpus.reader.Reader.batches`."""
        read = self._read_batches(first, images)
        return self._decoder.decode_batches(read) if decode else read

    def close(self) -> None:
        """See :meth:`tinytags_tasks.corpus.reader.Reader.close`."""
        self._decoder.close()
        self._files.close()

    def _read_batches(self, first: int, images: int) -> Iterator[Batch]:
        for item_first, item in self._listing.items(first, images):
            self._files.check_unchanged(item.path, item.size_bytes, item.version)
            start, stop = max(first - item_first, 0), min(first + images - item_first, item.images)
            with _opened(self._files, item.path, item.size_bytes, item.version) as file:
                where = self._files.name(item.path)
                columns = find_columns(file.schema_arrow, self._definition, where, item.path)
                for row, rows in self._read_rows(file, columns, where, start, stop):
                    yield _batch(item_first + row, columns, rows, bool(self._definition.keywords))
            # If it changed while it was read, nothing of it may be committed.
            self._files.check_unchanged(item.path, item.size_bytes, item.version)

    def _read_rows(
        self, file: pq.ParquetFile, columns: Columns, where: str, start: int, stop: int
    ) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Yield the rows from ``start`` to ``stop``, each batch with the number of its first row."""
        starts = _group_starts(file, where)
        groups = [group for group, first in enumerate(starts[:-1]) if first < stop and starts[group + 1] > start]
        batches = file.iter_batches(
            self._rows_at_once(file, groups),
            row_groups=groups,
            columns=columns.leaves,
            use_threads=False,
        )
        at = starts[groups[0]] if groups else start
        while at < stop:
            try:
                batch = next(batches, None)
            except _DAMAGE as error:
                group = min(bisect_right(starts, at), len(starts) - 1) - 1
                raise BadInputError(
                    f"{where}: damaged in row group {group:,}, rows {starts[group]:,} to {starts[group + 1] - 1:,} "
                    f"({joined_lines(error)}); download it again"
                ) from error
            if batch is None:
                raise BadInputError(f"{where}: ends at row {at:,}, where {stop:,} rows were listed; download it again")
            skipped = max(start - at, 0)
            rows = min(stop - at, batch.num_rows) - skipped
            if rows > 0:
                yield at + skipped, batch.slice(skipped, rows)
            at += batch.num_rows

    def _rows_at_once(self, file: pq.ParquetFile, groups: list[int]) -> int:
        """Return how many rows a batch may have, from the row group with the largest mean row size."""
        sizes: list[int] = [
            group.total_byte_size // max(1, group.num_rows) for group in map(file.metadata.row_group, groups)
        ]
        return max(1, min(self._decoder.most_batch_images, MOST_BATCH_BYTES // max([1, *sizes])))


def _group_starts(file: pq.ParquetFile, where: str) -> list[int]:
    """Return the first row of each row group, then the number of rows."""
    metadata = file.metadata
    rows = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    if sum(rows) != metadata.num_rows or min(rows, default=0) < 0:
        raise BadInputError(
            f"{where}: damaged: {sum(rows):,} rows in its row groups, {metadata.num_rows:,} in all; download it again"
        )
    return list(accumulate(rows, initial=0))


def _batch(first: int, columns: Columns, rows: pa.RecordBatch, has_keywords: bool) -> Batch:
    images, reasons = columns.images_of(rows)
    missing = {first + row: reason for row, reason in reasons.items()}
    keywords = columns.keywords_of(rows) if columns.keyword else [columns.folder_keyword] * len(images)
    return Batch(first, len(images), None, missing, keywords * has_keywords, [image or b"" for image in images])
