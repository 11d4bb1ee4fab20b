"""Files of fixed-size images one after another: Tiny Images, CIFAR's binary version, any raw H x W x 3.

Formats: A. Torralba, R. Fergus, W. T. Freeman, "80 million tiny images", PAMI 2008 (``tiny_images.bin``, and
``tiny_metadata.bin`` with 768 bytes an image, the first 80 of them its noun); A. Krizhevsky, "Learning Multiple Layers
of Features from Tiny Images", 2009, https://www.cs.toronto.edu/~kriz/cifar.html (a label's byte, for CIFAR-100 two, and
three row-major planes).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tinytags_tasks.corpus.definition import CorpusDefinition, PixelOrder
from tinytags_tasks.corpus.formats.cifar_pickle import cifar_label_names
from tinytags_tasks.corpus.reader import Batch, ListedItem, Listing
from tinytags_tasks.corpus.sources.files import SourceFile, SourceFiles
from tinytags_tasks.errors import BadInputError

METADATA_BYTES = 768
"""Bytes of an image's record in ``tiny_metadata.bin``."""

KEYWORD_BYTES = 80
"""Bytes of the noun in it, filled up with spaces or zeros."""

_BATCH_BYTES = 6_000_000
_CACHED_BYTES = 250_000
"""Read and turned at a time: so much stays in a core's cache in between, twice as fast as 500 KB or more."""

_CIFAR_NAMES = re.compile(r"data_batch_\d+\.bin|test_batch\.bin|train\.bin|test\.bin")
_CIFAR100_NAMES = ("train.bin", "test.bin")
_METADATA_NAME = "tiny_metadata.bin"

_ORDER_NAMES = {
    "hwc": "row-major, interleaved",
    "planes": "row-major planes R, G, B, interleaved here",
    "columns": "column-major planes R, G, B, turned to row-major here",
}


@dataclass(frozen=True)
class RecordLayout:
    """How an image lies in its file.

    Attributes
    ----------
    height, width
        In pixels.
    pixel_order
        Of its bytes.
    label_bytes
        Bytes before it.
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
    """Return images in TinyTags' own order.

    Parameters
    ----------
    stored
        uint8, shape (images, record bytes): records as the file holds them.
    layout
        What they are.
    out
        Where they go, of the shape that is returned; None makes a place.

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


def record_layout(definition: CorpusDefinition, file: str = "") -> RecordLayout:
    """Return how a corpus' source holds its images.

    Parameters
    ----------
    definition
        The corpus.
    file
        The file's name, which tells CIFAR-100 (``train.bin``, ``test.bin``) from CIFAR-10.
    """
    if definition.format == "tiny-images":
        return RecordLayout(32, 32, "columns")
    if definition.format == "cifar-binary":
        is_cifar100 = definition.keywords == "coarse_label" or Path(file).name in _CIFAR100_NAMES
        return RecordLayout(32, 32, "planes", 2 if is_cifar100 else 1)
    return RecordLayout(definition.height, definition.width, definition.pixel_order)


def list_fixed_records(files: SourceFiles, definition: CorpusDefinition) -> Iterator[ListedItem]:
    """Yield the source's files with how many images each holds.

    Raises
    ------
    BadInputError
        When a file's size is no multiple of an image's, or the metadata has another count than the images.
    """
    total = 0
    for file in _taken(files, definition):
        layout = record_layout(definition, file.path)
        images, rest = divmod(file.size_bytes, layout.record_bytes)
        if rest:
            raise BadInputError(
                f"{files.name(file.path)}: {file.size_bytes:,} bytes are {images:,} images of {layout.record_bytes:,} "
                f"bytes and {rest:,} bytes too many at offset {images * layout.record_bytes:,}; "
                f"{_remedy(file, definition, layout)}"
            )
        total += images
        yield ListedItem(file.path, images, 0, file.size_bytes, file.version)
    if definition.format == "tiny-images" and definition.keywords:
        _check_metadata(files.beside(definition.keywords), total)


def _taken(files: SourceFiles, definition: CorpusDefinition) -> list[SourceFile]:
    """Return the files that hold images, of those that lie there."""
    found = list(files.files(".bin"))
    if definition.format == "tiny-images":
        return [file for file in found if Path(file.path).name != _METADATA_NAME]
    if definition.format == "cifar-binary" and len(found) > 1:
        return [file for file in found if _CIFAR_NAMES.fullmatch(Path(file.path).name)]
    return found


def _remedy(file: SourceFile, definition: CorpusDefinition, layout: RecordLayout) -> str:
    """Return what may mend a file whose size is no multiple of an image's."""
    if definition.format == "cifar-binary":
        other = replace(layout, label_bytes=3 - layout.label_bytes)
        if file.size_bytes % other.record_bytes == 0:
            is_cifar100 = other.label_bytes == 2
            return (
                f"it looks like CIFAR-{100 if is_cifar100 else 10}, whose files are named "
                f"{' and '.join(_CIFAR100_NAMES) if is_cifar100 else 'data_batch_1.bin and so on'}: "
                "rename it, or correct keywords"
            )
    return f"is it complete, and of the format {definition.format}? `tinytags corpus inspect` tells what it looks like"


def _check_metadata(metadata: SourceFiles, images: int) -> None:
    file = metadata.only_file()
    if file.size_bytes != images * METADATA_BYTES:
        raise BadInputError(
            f"{metadata.name(file.path)}: {file.size_bytes:,} bytes are {file.size_bytes / METADATA_BYTES:,.2f} records"
            f" of {METADATA_BYTES} bytes, and the corpus has {images:,} images; give the metadata of the same images,"
            " or leave keywords out"
        )


def read_keyword(record: bytes) -> str | None:
    """Return the noun of one record of ``tiny_metadata.bin``; None when it is empty."""
    return record[:KEYWORD_BYTES].split(b"\0")[0].decode("utf-8", "replace").strip() or None


class FixedRecordsReader:
    """Reads files of fixed-size images; see :class:`tinytags_tasks.corpus.reader.Reader`.

    Parameters
    ----------
    definition
        The corpus.
    files
        The source's files.
    listing
        What they hold.
    """

    holds_pixels = True

    def __init__(self, definition: CorpusDefinition, files: SourceFiles, listing: Listing) -> None:
        self._definition = definition
        self._files = files
        self._listing = listing
        self.preparation = f"as the source holds them ({_ORDER_NAMES[record_layout(definition).pixel_order]})"
        self._label_names: tuple[str, ...] | None = None
        self._metadata: SourceFiles | None = None
        if definition.format == "tiny-images" and definition.keywords:
            self._metadata = files.beside(definition.keywords)
            self._metadata_file = self._metadata.only_file()
        elif definition.keywords:
            self._label_names = cifar_label_names(files, definition.keywords)

    def batches(self, first: int, images: int, *, decode: bool = True) -> Iterator[Batch]:
        """See :meth:`tinytags_tasks.corpus.reader.Reader.batches`."""
        for item_first, item in self._listing.items(first, images):
            self._check_unchanged(item)
            layout = record_layout(self._definition, item.path)
            stop = min(first + images, item_first + item.images)
            step = max(1, _BATCH_BYTES // layout.record_bytes)
            for start in range(max(first, item_first), stop, step):
                yield self._batch(item, item_first, layout, start, min(step, stop - start), decode)
            # It may have changed while it was read: nothing of it may be committed then.
            self._check_unchanged(item)

    def _check_unchanged(self, item: ListedItem) -> None:
        self._files.check_unchanged(item.path, item.size_bytes, item.version)
        if self._metadata is not None:
            file = self._metadata_file
            self._metadata.check_unchanged(file.path, file.size_bytes, file.version)

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
            keywords += self._keywords(start + at, stored, layout)
        return Batch(start, count, pixels, keywords=keywords)

    def _read(self, item: ListedItem, layout: RecordLayout, start: int, count: int) -> npt.NDArray[np.uint8]:
        size = layout.record_bytes
        content = self._files.read(item.path, item.offset + start * size, count * size)
        return np.frombuffer(content, dtype=np.uint8).reshape(count, size)

    def _keywords(self, first: int, stored: npt.NDArray[np.uint8], layout: RecordLayout) -> list[str | None]:
        if self._metadata is not None:
            size = len(stored) * METADATA_BYTES
            content = self._metadata.read(self._metadata_file.path, first * METADATA_BYTES, size)
            return [read_keyword(content[at : at + KEYWORD_BYTES]) for at in range(0, len(content), METADATA_BYTES)]
        if self._label_names is None:
            return []
        column = 0 if self._definition.keywords == "coarse_label" else layout.label_bytes - 1
        names = self._label_names
        return [names[label] if label < len(names) else str(label) for label in stored[:, column].tolist()]

    def close(self) -> None:
        """See :meth:`tinytags_tasks.corpus.reader.Reader.close`."""
        self._files.close()
        if self._metadata is not None:
            self._metadata.close()
