"""The listing of a source, in the order of the positions: written once per corpus, read in parts.

It has one row per file, or one per image where images are files or members of a tar. A shard's task reads only its own
rows, so that neither memory nor time grows with the corpus.
"""

import hashlib
import io
import tempfile
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import chain, islice, pairwise
from operator import add
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from cachetools import LRUCache

from tinytags_tasks.corpus.reader import ListedItem
from tinytags_tasks.corpus.temporary_files import temporary_file_errors
from tinytags_tasks.errors import CorruptError
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.store.record import check_format

_SCHEMA = pa.schema(
    [
        ("first", pa.int64()),
        ("path", pa.string()),
        ("images", pa.int64()),
        ("offset", pa.int64()),
        ("size_bytes", pa.int64()),
        ("version", pa.string()),
        ("keyword", pa.string()),
    ]
)
_MEMBERS_SCHEMA = _SCHEMA.append(pa.field("member", pa.string()))
"""Of a listing of tars; format 1 had no names of members."""

_IMAGES = b"images"
_FORMAT_KEY = b"format"
_FORMAT, _FORMAT_WITHOUT_MEMBERS = 2, 1
"""Numbers of the columns' format; raised by a change that an older TinyTags must not ignore."""

_REMEDY = "remove the corpus with `tinytags corpus remove NAME --data`, then define and ingest it again"

_ROWS_PER_GROUP = 50_000
_UPLOAD_BYTES = 4_000_000
_ITEMS_AT_ONCE = 1_000
GROUPS_IN_MEMORY = 16
"""Groups of rows that :meth:`StoredListing.find` keeps."""


@dataclass
class ListingSummary:
    """The totals of a listing.

    Attributes
    ----------
    images, size_bytes
        Totals.
    files
        Files of the source, including those without images.
    first_path, last_path
        The first and the last file that holds images.
    sha256
        Hash of all items.
    """

    images: int = 0
    size_bytes: int = 0
    files: int = 0
    first_path: str = ""
    last_path: str = ""
    sha256: str = ""


class ListingFile:
    """A listing in a temporary file of this machine, on its way into the store; closing it removes the file.

    An item without images is counted and hashed, because it belongs to the source; it has no row, because it holds no
    position.

    Parameters
    ----------
    items
        Iterated once, to the end.

    Raises
    ------
    FinalError
        If the temporary file cannot be written.
    """

    def __init__(self, items: Iterable[ListedItem]) -> None:
        self.summary = ListingSummary()
        with temporary_file_errors():
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 (closed by close)
        try:
            iterated, schema = _schema_of(items)
            with temporary_file_errors():
                writer = pq.ParquetWriter(self._file, schema, compression="zstd", write_page_checksum=True)
            try:
                self._write(iterated, writer, schema)
            except BaseException:
                with suppress(OSError):
                    writer.close()
                raise
        except BaseException:
            self._file.close()
            raise

    def _write(self, items: Iterable[ListedItem], writer: pq.ParquetWriter, schema: pa.Schema) -> None:
        summary = self.summary
        digest = hashlib.sha256()
        rows: list[tuple[object, ...]] = []
        path = ""
        for item in items:
            digest.update(item.identity.encode())
            summary.files += item.path != path
            path = item.path
            summary.size_bytes += item.size_bytes
            if not item.images:
                continue
            summary.first_path = summary.first_path or path
            summary.last_path = path
            row = (summary.images, item.path, item.images, item.offset, item.size_bytes, item.version, item.keyword)
            rows.append((*row, item.member)[: len(schema)])
            summary.images += item.images
            if len(rows) == _ROWS_PER_GROUP:
                _write_rows(writer, rows, schema)
        _write_rows(writer, rows, schema)
        with temporary_file_errors():
            number = _FORMAT if schema is _MEMBERS_SCHEMA else _FORMAT_WITHOUT_MEMBERS
            writer.add_key_value_metadata({_IMAGES: str(summary.images), _FORMAT_KEY: str(number)})
            writer.close()
        summary.sha256 = digest.hexdigest()

    def content(self) -> Iterator[bytes]:
        """Yield the file's bytes."""
        self._file.seek(0)
        while chunk := self._file.read(_UPLOAD_BYTES):
            yield chunk

    def items(self) -> Iterator[ListedItem]:
        """Yield the items that hold images, in the order of the positions."""
        self._file.seek(0)
        for batch in pq.ParquetFile(self._file, pre_buffer=False).iter_batches(use_threads=False):  # as below
            for row in batch.to_pylist():
                del row["first"]
                yield ListedItem(**row)

    def close(self) -> None:
        """Remove the temporary file."""
        self._file.close()


def _schema_of(items: Iterable[ListedItem]) -> tuple[Iterator[ListedItem], pa.Schema]:
    """Return the items, and the columns that they need; either all items have members' names or none."""
    iterated = iter(items)
    head = list(islice(iterated, 1))
    return chain(iter(head), iterated), _MEMBERS_SCHEMA if head and head[0].member is not None else _SCHEMA


def _write_rows(writer: pq.ParquetWriter, rows: list[tuple[object, ...]], schema: pa.Schema) -> None:
    if rows:
        columns = [pa.array(column, field.type) for column, field in zip(zip(*rows, strict=True), schema, strict=True)]
        with temporary_file_errors():
            writer.write_table(pa.table(columns, schema=schema))
        rows.clear()


class StoredListing:
    """A listing in the store; see :class:`tinytags_tasks.corpus.reader.Listing`.

    Parameters
    ----------
    storage, path
        Where it is.
    """

    def __init__(self, storage: Storage, path: str) -> None:
        self._path = path
        with self._damage_errors():
            self._stored = _StoreFile(storage, path)
            # Arrow's threads would abort the process if they still held a Python file at its end: none of them reads.
            file = pa.PythonFile(self._stored, mode="r")
            self._file = pq.ParquetFile(file, pre_buffer=False, page_checksum_verification=True)
            metadata = self._file.metadata
            check_format(int((metadata.metadata or {}).get(_FORMAT_KEY, 1)), _FORMAT, path, _REMEDY)
            if self._file.schema_arrow.remove_metadata() not in (_SCHEMA, _MEMBERS_SCHEMA):
                raise ValueError(f"it has the columns {', '.join(self._file.schema_arrow.names)}")
            self._images = int((metadata.metadata or {})[_IMAGES])
            groups = range(metadata.num_row_groups)
            self._starts = [metadata.row_group(group).column(0).statistics.min for group in groups]
        self._groups: LRUCache[int, pa.Table] = LRUCache(GROUPS_IN_MEMORY)

    @contextmanager
    def _damage_errors(self) -> Generator[None]:
        try:
            yield
        except (pa.ArrowException, OSError, ValueError, LookupError, AttributeError) as error:
            raise self._damaged(str(error)) from error

    def _damaged(self, reason: str) -> CorruptError:
        return CorruptError(f"{self._path}: damaged ({reason}); {_REMEDY}")

    @property
    def images(self) -> int:
        """How many images it lists."""
        return self._images

    @property
    def groups(self) -> int:
        """How many groups of rows it has, which are read one by one."""
        return len(self._starts)

    def items(self, first: int, images: int) -> Iterator[tuple[int, ListedItem]]:
        """See :meth:`tinytags_tasks.corpus.reader.Listing.items`.

        Raises
        ------
        CorruptError
            If the listing is damaged, such as a position in no item, or in two.
        """
        at, stop = first, min(first + images, self._images)
        if stop <= first:
            return
        for group, start in enumerate(self._starts):
            if start >= stop or (group + 1 < len(self._starts) and self._starts[group + 1] <= first):
                continue
            for row in self._rows(group, first, stop):
                row_first = row.pop("first")
                if not (row_first <= at if at == first else row_first == at):
                    break
                at = row_first + row["images"]
                yield row_first, ListedItem(**row)
        if at < stop:
            raise self._damaged(f"position {at:,} is in no item, or in two")

    def find(self, positions: Iterable[int]) -> dict[int, tuple[int, ListedItem]]:
        """Return the item of each of these positions, and the position of its first image; without unknown positions.

        Groups of rows that were read stay in memory for the next call, a few at a time.

        Raises
        ------
        CorruptError
            If the listing is damaged.
        """
        found: dict[int, tuple[int, ListedItem]] = {}
        wanted = np.unique(np.fromiter(positions, np.int64))
        for group, of_group in self._by_group(wanted):
            if group not in self._groups:
                self._groups[group] = self._table(group)
            found |= {position: (first, item) for position, first, item in self._items(self._groups[group], of_group)}
        return found

    def walk(self, positions: npt.NDArray[np.int64]) -> Iterator[tuple[int, int, ListedItem]]:
        """Yield what :meth:`find` returns, for however many positions: each group of rows is read once and not kept.

        Parameters
        ----------
        positions
            In ascending order, each once.

        Raises
        ------
        CorruptError
            If the listing is damaged.
        """
        for group, of_group in self._by_group(positions):
            yield from self._items(self._table(group), of_group)

    def _by_group(self, positions: npt.NDArray[np.int64]) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
        """Yield the groups of rows that have some of the positions, each with its own."""
        known = positions[(positions >= 0) & (positions < self._images)]
        groups = np.searchsorted(self._starts, known, side="right") - 1
        bounds = [0, *(np.flatnonzero(np.diff(groups)) + 1).tolist(), len(known)]
        for start, stop in pairwise(bounds):
            if start < stop:
                yield int(groups[start]), known[start:stop]

    def _items(self, rows: pa.Table, positions: npt.NDArray[np.int64]) -> Iterator[tuple[int, int, ListedItem]]:
        """Yield the positions of a group, each with the first position of its item, and the item."""
        firsts = rows["first"].to_numpy()
        for start in range(0, len(positions), _ITEMS_AT_ONCE):
            some = positions[start : start + _ITEMS_AT_ONCE]
            places = np.searchsorted(firsts, some, side="right") - 1
            for position, values in zip(some.tolist(), rows.take(places.clip(0)).to_pylist(), strict=True):
                first = values.pop("first")
                if not 0 <= position - first < values["images"]:
                    raise self._damaged(f"position {position:,} is in no item, or in two")
                yield position, first, ListedItem(**values)

    def _table(self, group: int) -> pa.Table:
        with self._damage_errors():
            return self._read_group(group).combine_chunks()

    def _read_group(self, group: int) -> pa.Table:
        """Read a group of rows with one request, in this thread."""
        metadata = self._file.metadata.row_group(group)
        columns = [metadata.column(place) for place in range(metadata.num_columns)]
        begins = [min(filter(None, (each.dictionary_page_offset, each.data_page_offset))) for each in columns]
        stop_byte = max(map(add, begins, (each.total_compressed_size for each in columns)))
        self._stored.fetch(min(begins), stop_byte)
        return self._file.read_row_group(group, use_threads=False)

    def _rows(self, group: int, first: int, stop: int) -> list[dict[str, Any]]:
        with self._damage_errors():
            rows = self._read_group(group)
            ends = pc.add(rows["first"], rows["images"])
            wanted = pc.and_(pc.less(rows["first"], stop), pc.greater(ends, first))
            return cast("list[dict[str, Any]]", rows.filter(wanted).to_pylist())


class JoinedListing:
    """Listings of which each begins at the position where the one before it ends.

    Parameters
    ----------
    listings
        In the order of the positions.
    """

    def __init__(self, listings: Sequence[StoredListing]) -> None:
        self._listings = listings

    def items(self, first: int, images: int) -> Iterator[tuple[int, ListedItem]]:
        """See :meth:`tinytags_tasks.corpus.reader.Listing.items`.

        Raises
        ------
        CorruptError
            If one of the listings is damaged.
        """
        begin = 0
        for listing in self._listings:
            start, stop = max(first, begin), min(first + images, begin + listing.images)
            if start < stop:
                for row_first, item in listing.items(start - begin, stop - start):
                    yield begin + row_first, item
            begin += listing.images


class MemoryListing:
    """A listing of a few items; see :class:`tinytags_tasks.corpus.reader.Listing`."""

    def __init__(self, items: Iterable[ListedItem]) -> None:
        self._items: list[tuple[int, ListedItem]] = []
        self.images = 0
        for item in items:
            if item.images:
                self._items.append((self.images, item))
            self.images += item.images

    def items(self, first: int, images: int) -> Iterator[tuple[int, ListedItem]]:
        """See :meth:`tinytags_tasks.corpus.reader.Listing.items`."""
        if images < 1:
            return
        for start, item in self._items:
            if start < first + images and first < start + item.images:
                yield start, item


class _StoreFile(io.RawIOBase):
    """A file of the store that pyarrow can read and seek in."""

    def __init__(self, storage: Storage, path: str) -> None:
        self._storage = storage
        self._path = path
        self._size = storage.size_bytes(path)
        self._at = 0
        self._fetched_from = 0
        self._fetched = b""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence] + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int = -1) -> bytes:
        length = self._size - self._at if size is None or size < 0 else min(size, self._size - self._at)
        if length <= 0:
            return b""
        start = self._at - self._fetched_from
        if start >= 0 and start + length <= len(self._fetched):
            content = self._fetched[start : start + length]
        else:
            content = self._storage.read(self._path, self._at, length)
        self._at += length
        return content

    def fetch(self, start: int, stop: int) -> None:
        """Read neighbouring columns at once; they are kept until the next ones are."""
        if not 0 <= start < stop <= self._size:
            raise ValueError(f"its columns are at the bytes {start:,} to {stop:,} of {self._size:,}")
        self._fetched = self._storage.read(self._path, start, stop - start)
        self._fetched_from = start


def open_listing(storage: Storage, path: str) -> StoredListing:
    """Open a listing in the store.

    Raises
    ------
    MissingError, NewerFormatError, CorruptError
        If it is missing, written by a newer TinyTags, or damaged.
    """
    return StoredListing(storage, path)
