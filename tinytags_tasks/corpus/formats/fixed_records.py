"""Files of consecutive fixed-size images without a header: what the formats of such files share."""

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from tinytags_tasks.corpus.formats.base import Definition, Format, PixelOrder
from tinytags_tasks.corpus.reader import Batch, ListedItem, Listing
from tinytags_tasks.corpus.sources.files import SourceFile, SourceFiles
from tinytags_tasks.errors import BadInputError

_BATCH_BYTES = 6_000_000
_CACHED_BYTES = 250_000
"""Read and reordered at a time: this much stays in a core's cache, which is twice as fast as 500 KB or more."""

_ORDER_NAMES = {
    "hwc": "row-major, interleaved",
    "planes": "row-major planes R, G, B, interleaved here",
    "columns": "column-major planes R, G, B, turned to row-major here",
}


@dataclass(frozen=True)
class RecordLayout:
    """How an image is stored in its file.

    Attributes
    ----------
    height, width
        In pixels.
    pixel_order
        The order of its bytes.
    label_bytes
        Bytes before the pixels.
    """

    height: int
    width: int
    pixel_order: PixelOrder
    label_bytes: int = 0

    @property
    def record_bytes(self) -> int:
        """Bytes from one image to the next."""
        return self.label_bytes + self.height * self.width * 3


def to_row_major(
    stored: npt.NDArray[np.uint8], layout: RecordLayout, out: npt.NDArray[np.uint8] | None = None
) -> npt.NDArray[np.uint8]:
    """Return images in TinyTags' own pixel order.

    Parameters
    ----------
    stored
        uint8, shape (images, record bytes): records as stored in the file.
    layout
        How they are stored.
    out
        The array to write to, of the returned shape; None makes a new one.

    Returns
    -------
    numpy.ndarray
        uint8, shape (images, row, column, channel), C-contiguous.
    """
    images, height, width = len(stored), layout.height, layout.width
    pixels = stored[:, layout.label_bytes :]
    turned = np.empty((images, height, width, 3), dtype=np.uint8) if out is None else out
    if layout.pixel_order == "hwc":
        turned[:] = pixels.reshape(images, height, width, 3)
        return turned
    if layout.pixel_order == "planes":
        planes = pixels.reshape(images, 3, height, width)
    else:
        planes = pixels.reshape(images, 3, width, height).transpose(0, 1, 3, 2)
    for channel in range(3):  # a channel at a time is five times as fast as one transposed copy
        turned[..., channel] = planes[:, channel]
    return turned


def describe_size(size_bytes: int, record_bytes: int, record: str) -> str:
    """Return how a file's size differs from a whole number of records: what is missing, or what is too much.

    Parameters
    ----------
    size_bytes, record_bytes
        Size of the file, and of one record.
    record
        What a record is, for people.
    """
    images, rest = divmod(size_bytes, record_bytes)
    short = record_bytes - rest
    if short < rest:
        return f"{_counted(short, 'byte')} short of {_counted(images + 1, 'image')} of {record}"
    where = f"at offset {images * record_bytes:,}"
    return f"{_counted(images, 'image')} of {record} and {_counted(rest, 'byte')} too many {where}"


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


@dataclass(frozen=True)
class RecordPlace:
    """Where some records are: the name of their file, and the number there of the first one."""

    file: str
    first: int


class KeywordSource(Protocol):
    """Where the keywords of fixed-size images come from."""

    def check_unchanged(self) -> None:
        """Refuse a file of keywords that is not as it was when it was opened.

        Raises
        ------
        BadInputError
            If it has changed.
        """
        ...

    def keywords(
        self, first: int, records: npt.NDArray[np.uint8], layout: RecordLayout, place: RecordPlace
    ) -> list[str | None]:
        """Return the keywords of some images.

        Parameters
        ----------
        first
            Position of the first one.
        records
            uint8, shape (images, record bytes): the images' records.
        layout
            How they are stored in their file.
        place
            Where they are, for messages.

        Raises
        ------
        BadInputError
            If one of them cannot be right.
        """
        ...

    def close(self) -> None:
        """Close what is open."""
        ...


class FixedRecords(Format):
    """What the formats of fixed-size images share; each one describes its records."""

    endings = (".bin",)
    is_named_reliably = False
    holds_pixels = True

    @abstractmethod
    def record_layout(self, definition: Definition, path: str = "") -> RecordLayout:
        """Return how a file of a corpus' source stores its images."""

    def image_files(self, files: SourceFiles) -> list[SourceFile]:
        """Return the files of a source that hold images."""
        return list(files.files(*self.endings))

    def open_keywords(self, definition: Definition, files: SourceFiles) -> KeywordSource | None:
        """Return where the corpus' keywords come from; None if it has none."""
        return None

    def size_remedy(self, file: SourceFile, layout: RecordLayout) -> str:
        """Return what may help if a file's size is not a multiple of a record's."""
        return f"is it complete, and of the format {self.name}? `tinytags corpus inspect` tells what it looks like"

    def preparation(self, definition: Definition) -> str:
        """See :meth:`Format.preparation`."""
        return f"as the source holds them ({_ORDER_NAMES[self.record_layout(definition).pixel_order]})"

    def list_items(self, files: SourceFiles, definition: Definition) -> Iterator[ListedItem]:
        """See :meth:`Format.list_items`: a file is an item; its size must be a multiple of an image's."""
        for file in self.image_files(files):
            layout = self.record_layout(definition, file.path)
            images, rest = divmod(file.size_bytes, layout.record_bytes)
            if rest:
                size = describe_size(file.size_bytes, layout.record_bytes, f"{layout.record_bytes:,} bytes")
                raise BadInputError(
                    f"{files.name(file.path)}: {file.size_bytes:,} bytes are {size}; {self.size_remedy(file, layout)}"
                )
            yield ListedItem(file.path, images, 0, file.size_bytes, file.version)

    def open_reader(self, definition: Definition, files: SourceFiles, listing: Listing) -> "FixedRecordsReader":
        """See :meth:`Format.open_reader`."""
        return FixedRecordsReader(self, definition, files, listing)


class FixedRecordsReader:
    """Reads files of fixed-size images; see :class:`tinytags_tasks.corpus.reader.Reader`.

    Parameters
    ----------
    source_format
        Their format.
    definition
        The corpus.
    files
        The source's files.
    listing
        What they hold.
    """

    def __init__(
        self, source_format: FixedRecords, definition: Definition, files: SourceFiles, listing: Listing
    ) -> None:
        self._format = source_format
        self._definition = definition
        self._files = files
        self._listing = listing
        self._keyword_source = source_format.open_keywords(definition, files) if definition.keywords else None

    def batches(self, first: int, images: int, *, decode: bool = True) -> Iterator[Batch]:
        """See :meth:`tinytags_tasks.corpus.reader.Reader.batches`."""
        for item_first, item in self._listing.items(first, images):
            self._check_unchanged(item)
            layout = self._format.record_layout(self._definition, item.path)
            stop = min(first + images, item_first + item.images)
            step = max(1, _BATCH_BYTES // layout.record_bytes)
            for start in range(max(first, item_first), stop, step):
                yield self._batch(item, item_first, layout, start, min(step, stop - start), decode)
            # If it changed while it was read, nothing of it may be committed.
            self._check_unchanged(item)

    def _check_unchanged(self, item: ListedItem) -> None:
        self._files.check_unchanged(item.path, item.size_bytes, item.version)
        if self._keyword_source is not None:
            self._keyword_source.check_unchanged()

    def _batch(
        self, item: ListedItem, item_first: int, layout: RecordLayout, start: int, count: int, decode: bool
    ) -> Batch:
        piece = max(1, (_CACHED_BYTES if self._files.is_local else _BATCH_BYTES) // layout.record_bytes)
        pixels = np.empty((count, layout.height, layout.width, 3), dtype=np.uint8) if decode else None
        keywords: list[str | None] = []
        for at in range(0, count, piece):
            stored = self._read(item, layout, start + at - item_first, min(piece, count - at))
            if pixels is not None:
                to_row_major(stored, layout, pixels[at : at + piece])
            if self._keyword_source is not None:
                place = RecordPlace(self._files.name(item.path), start + at - item_first)
                keywords += self._keyword_source.keywords(start + at, stored, layout, place)
        return Batch(start, count, pixels, keywords=keywords)

    def _read(self, item: ListedItem, layout: RecordLayout, start: int, count: int) -> npt.NDArray[np.uint8]:
        size = layout.record_bytes
        content = self._files.read(item.path, item.offset + start * size, count * size)
        return np.frombuffer(content, dtype=np.uint8).reshape(count, size)

    def close(self) -> None:
        """See :meth:`tinytags_tasks.corpus.reader.Reader.close`."""
        self._files.close()
        if self._keyword_source is not None:
            self._keyword_source.close()
