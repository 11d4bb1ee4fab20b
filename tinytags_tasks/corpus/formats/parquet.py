"""Parquet with a column of encoded images: the layout of the Hugging Face hub, and plain binary columns."""

import json
from bisect import bisect_right
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate

import pyarrow as pa
import pyarrow.parquet as pq

from tinytags_tasks.corpus.formats.base import Definition, Guess, Sample
from tinytags_tasks.corpus.formats.encoded import Encoded, picture_decoder
from tinytags_tasks.corpus.labelled import carried_tags
from tinytags_tasks.corpus.pictures.decoder import MOST_BATCH_BYTES
from tinytags_tasks.corpus.reader import Batch, ListedItem, Listing
from tinytags_tasks.corpus.sources.files import SourceFiles
from tinytags_tasks.corpus.sources.range_file import RangeFile
from tinytags_tasks.errors import BadInputError

_READ_BYTES = 4_000_000
_MOST_KEYWORD_CHARACTERS = 1_000

# What pyarrow raises on damaged bytes: its own errors, and Python's on names that are not UTF-8.
_DAMAGE = (pa.ArrowException, OSError, ValueError)


@dataclass(frozen=True)
class _Columns:
    """The columns that are read from a file.

    Attributes
    ----------
    image
        The column of images.
    is_struct
        Whether it is a struct with a field ``bytes``.
    keyword
        The column of keywords; empty if the corpus has none.
    keywords_are_numbers
        Whether they are numbers.
    names
        The names of these numbers, if the file has them.
    """

    image: str
    is_struct: bool
    keyword: str = ""
    keywords_are_numbers: bool = False
    names: tuple[str, ...] = ()

    @property
    def image_leaf(self) -> str:
        """The column of images by its name in Parquet."""
        return f"{self.image}.bytes" if self.is_struct else self.image

    def __str__(self) -> str:
        kind = f"{len(self.names)} named numbers" if self.names else "numbers" if self.keywords_are_numbers else "text"
        return f"images in {self.image_leaf}" + (f" and keywords in {self.keyword} ({kind})" if self.keyword else "")

    def images_of(self, batch: pa.RecordBatch) -> list[bytes | None]:
        """Return the encoded images of a batch."""
        column = batch.column(self.image)
        found: list[bytes | None] = (column.field("bytes") if self.is_struct else column).to_pylist()
        return found

    def keywords_of(self, batch: pa.RecordBatch) -> list[str | None]:
        """Return the keywords of a batch; empty if the corpus has none."""
        if not self.keyword:
            return []
        values = batch.column(self.keyword).to_pylist()
        if not self.keywords_are_numbers:
            return [(value or "").strip()[:_MOST_KEYWORD_CHARACTERS] or None for value in values]
        names = dict(enumerate(self.names))
        return [None if value is None else names.get(value, str(value)) for value in values]


def _find_columns(schema: pa.Schema, definition: Definition, where: str) -> _Columns:
    """Find the columns for a definition.

    Raises
    ------
    BadInputError
        If there is none, or more than one fits; the message names all columns.
    """
    held = ", ".join(f"{column.name} ({column.type})" for column in schema)
    structs = [column.name for column in schema if _has_bytes(column.type)]
    binaries = [column.name for column in schema if _is_binary(column.type)]
    if definition.image_column:
        candidates = [name for name in structs + binaries if name == definition.image_column]
        if not candidates:
            raise BadInputError(
                f"{where}: has no column {definition.image_column} of encoded images, binary or a struct with bytes; "
                f"it has {held}; correct image_column"
            )
    else:
        candidates = structs or binaries
        if not candidates:
            raise BadInputError(
                f"{where}: has no column of encoded images, binary or a struct with bytes; it has {held}; give another "
                "file"
            )
        if len(candidates) > 1:
            raise BadInputError(
                f"{where}: images may be in any of the columns {', '.join(candidates)}; name one as image_column"
            )
    image, keyword = candidates[0], definition.keywords
    if not keyword:
        return _Columns(image, image in structs)
    if schema.names.count(keyword) != 1:
        raise BadInputError(f"{where}: has no column {keyword} of keywords; it has {held}; correct keywords")
    kind = schema.field(keyword).type
    if pa.types.is_integer(kind):
        return _Columns(image, image in structs, keyword, True, _label_names(schema, keyword, where))
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
        raise BadInputError(
            f"{where}: its column {keyword} is {kind}; keywords are text or whole numbers; it has {held}; "
            "correct keywords"
        )
    return _Columns(image, image in structs, keyword)


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _has_bytes(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0 and _is_binary(kind.field("bytes").type)
    )


def _label_names(schema: pa.Schema, column: str, where: str) -> tuple[str, ...]:
    """Return the names of the numbers in a column: from Hugging Face's ``ClassLabel``, or our own tags."""
    if column == "label" and (tags := carried_tags(schema, where)):
        return tags
    try:
        described = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        names = described["info"]["features"][column]["names"]
    except (ValueError, LookupError, TypeError):
        return ()  # it describes other columns, or in another form: numbers remain numbers
    return tuple(names) if isinstance(names, list) and all(isinstance(name, str) for name in names) else ()


@contextmanager
def _opened(files: SourceFiles, path: str, size_bytes: int, version: str) -> Generator[pq.ParquetFile]:
    # With pre_buffer, pyarrow keeps all that it has read from a file until the last batch.
    options = {"pre_buffer": False, "buffer_size": _READ_BYTES, "page_checksum_verification": True}
    with RangeFile(files, path, size_bytes, version) as stream:
        try:
            file = pq.ParquetFile(stream, **options)
            _ = file.schema_arrow
        except _DAMAGE as error:
            raise BadInputError(
                f"{files.name(path)}: not a readable Parquet file, of {size_bytes:,} bytes ({error}); download it again"
            ) from error
        yield file


class Parquet(Encoded):
    """Parquet files with a column of encoded images; ``keywords`` is a column of text, or of numbers."""

    name = "parquet"
    recognised_by = "PAR1"
    endings = (".parquet",)
    fields = frozenset({"image_column"})

    def guess(self, sample: Sample) -> Guess | None:
        """See :meth:`Format.guess`."""
        return Guess() if sample.head.startswith(b"PAR1") else None

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
        first: tuple[str, _Columns] | None = None
        images = 0
        for listed in files.files(*self.endings):
            where = files.name(listed.path)
            with _opened(files, listed.path, listed.size_bytes, listed.version) as file:
                columns = _find_columns(file.schema_arrow, definition, where)
                rows = _group_starts(file, where)[-1]
            first = first or (where, columns)
            if columns != first[1]:
                raise BadInputError(
                    f"{where}: has {columns}, and {first[0]} has {first[1]}; files of one corpus have the same columns "
                    "and names: make several corpora of them"
                )
            images += rows
            yield ListedItem(listed.path, rows, 0, listed.size_bytes, listed.version)
        if first is None:
            raise BadInputError(
                f"{files.source}: contains no .parquet file; correct the corpus' source or format{files.left_out}"
            )
        if not images:
            raise BadInputError(f"{files.source}: its Parquet files have no rows; give a file with at least one image")

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
                for row, columns, rows in self._read_rows(file, self._files.name(item.path), start, stop):
                    yield _batch(item_first + row, columns, rows)
            # If it changed while it was read, nothing of it may be committed.
            self._files.check_unchanged(item.path, item.size_bytes, item.version)

    def _read_rows(
        self, file: pq.ParquetFile, where: str, start: int, stop: int
    ) -> Iterator[tuple[int, _Columns, pa.RecordBatch]]:
        """Yield the rows from ``start`` to ``stop``, each batch with the number of its first row."""
        columns = _find_columns(file.schema_arrow, self._definition, where)
        starts = _group_starts(file, where)
        groups = [group for group, first in enumerate(starts[:-1]) if first < stop and starts[group + 1] > start]
        batches = file.iter_batches(
            self._rows_at_once(file, groups),
            row_groups=groups,
            columns=[columns.image_leaf, *filter(None, [columns.keyword])],
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
                    f"({error}); download it again"
                ) from error
            if batch is None:
                raise BadInputError(f"{where}: ends at row {at:,}, where {stop:,} rows were listed; download it again")
            skipped = max(start - at, 0)
            rows = min(stop - at, batch.num_rows) - skipped
            if rows > 0:
                yield at + skipped, columns, batch.slice(skipped, rows)
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


def _batch(first: int, columns: _Columns, rows: pa.RecordBatch) -> Batch:
    images = columns.images_of(rows)
    missing = {first + place: "its row has no image" for place, image in enumerate(images) if image is None}
    return Batch(first, len(images), None, missing, columns.keywords_of(rows), [image or b"" for image in images])
