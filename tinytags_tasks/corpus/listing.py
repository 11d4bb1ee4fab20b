"""What a source holds, in the order of the positions: written once a corpus, read by the part.

One row a file, or one an image where images are files or members of a tar. A shard's task reads its own rows only, so
that neither memory nor time grows with the corpus.
"""

import hashlib
import io
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from tinytags_tasks.corpus.reader import ListedItem
from tinytags_tasks.errors import CorruptError
from tinytags_tasks.storage import Storage

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
_ROWS_PER_GROUP = 50_000
_UPLOAD_BYTES = 4_000_000


@dataclass
class ListingSummary:
    """What a listing adds up to.

    Attributes
    ----------
    images, size_bytes
        Totals.
    files
        Files of the source.
    first_path, last_path
        The first and the last of them.
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
    """A listing on its way into the store, in a temporary file of this machine; closing it removes it.

    Parameters
    ----------
    items
        Read once, to the end.
    """

    def __init__(self, items: Iterable[ListedItem]) -> None:
        self.summary = ListingSummary()
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 (closed by close)
        digest = hashlib.sha256()
        rows: list[tuple[object, ...]] = []
        with pq.ParquetWriter(self._file, _SCHEMA, compression="zstd") as writer:
            for item in items:
                summary = self.summary
                rows.append(
                    (summary.images, item.path, item.images, item.offset, item.size_bytes, item.version, item.keyword)
                )
                digest.update(repr(item).encode())
                if item.path != summary.last_path:
                    summary.files += 1
                summary.first_path = summary.first_path or item.path
                summary.last_path = item.path
                summary.images += item.images
                summary.size_bytes += item.size_bytes
                if len(rows) == _ROWS_PER_GROUP:
                    _write_rows(writer, rows)
            _write_rows(writer, rows)
        self.summary.sha256 = digest.hexdigest()

    def content(self) -> Iterator[bytes]:
        """Yield the file's bytes."""
        self._file.seek(0)
        while chunk := self._file.read(_UPLOAD_BYTES):
            yield chunk

    def close(self) -> None:
        """Remove the temporary file."""
        self._file.close()


def _write_rows(writer: pq.ParquetWriter, rows: list[tuple[object, ...]]) -> None:
    if rows:
        columns = [pa.array(column, field.type) for column, field in zip(zip(*rows, strict=True), _SCHEMA, strict=True)]
        writer.write_table(pa.table(columns, schema=_SCHEMA))
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
        self._file = pq.ParquetFile(pa.PythonFile(_StoreFile(storage, path), mode="r"))

    def items(self, first: int, images: int) -> Iterator[tuple[int, ListedItem]]:
        """See :meth:`tinytags_tasks.corpus.reader.Listing.items`."""
        stop = first + images
        metadata = self._file.metadata
        starts = [metadata.row_group(group).column(0).statistics.min for group in range(metadata.num_row_groups)]
        for group, start in enumerate(starts):
            if start >= stop or (group + 1 < len(starts) and starts[group + 1] <= first):
                continue
            for row in self._file.read_row_group(group).to_pylist():
                row_first = row.pop("first")
                if row_first < stop and first < row_first + row["images"]:
                    yield row_first, ListedItem(**row)


class MemoryListing:
    """A listing of a few items; see :class:`tinytags_tasks.corpus.reader.Listing`."""

    def __init__(self, items: Iterable[ListedItem]) -> None:
        self._items: list[tuple[int, ListedItem]] = []
        self.images = 0
        for item in items:
            self._items.append((self.images, item))
            self.images += item.images

    def items(self, first: int, images: int) -> Iterator[tuple[int, ListedItem]]:
        """See :meth:`tinytags_tasks.corpus.reader.Listing.items`."""
        for start, item in self._items:
            if start < first + images and first < start + item.images:
                yield start, item


class _StoreFile(io.RawIOBase):
    """A file of the store that pyarrow can seek in."""

    def __init__(self, storage: Storage, path: str) -> None:
        self._storage = storage
        self._path = path
        self._size = storage.size_bytes(path)
        self._at = 0

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
        content = self._storage.read(self._path, self._at, length)
        self._at += length
        return content


def open_listing(storage: Storage, path: str) -> StoredListing:
    """Open a listing in the store.

    Raises
    ------
    MissingError, CorruptError
        When it is not there, or damaged.
    """
    try:
        return StoredListing(storage, path)
    except pa.ArrowException as error:
        raise CorruptError(
            f"{path}: damaged ({error}); remove the corpus with `tinytags corpus remove` and ingest it anew"
        ) from error
