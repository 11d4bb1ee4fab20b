"""The Tiny Images file: consecutive images of one size, as column-major planes.

Format: A. Torralba, R. Fergus, W. T. Freeman, "80 million tiny images", PAMI 2008. The MATLAB tools write each image of
``tiny_images.bin`` as ``uint8(32, 32, 3)`` in MATLAB's order, so a byte's index is
``channel * 1024 + column * 32 + row``. ``tiny_metadata.bin`` has 768 bytes an image, the first 80 of them its noun.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tinytags_tasks.corpus.formats.base import Definition, Guess, Sample
from tinytags_tasks.corpus.formats.fixed_records import FixedRecords, RecordLayout, RecordPlace
from tinytags_tasks.corpus.formats.raw import guess_pixel_order
from tinytags_tasks.corpus.reader import ListedItem
from tinytags_tasks.corpus.sources.files import SourceFile, SourceFiles
from tinytags_tasks.errors import BadInputError

SIDE = 32
"""Height and width in pixels."""

IMAGE_BYTES = SIDE * SIDE * 3
"""Bytes of one image."""

METADATA_BYTES = 768
"""Bytes of an image's record in ``tiny_metadata.bin``."""

KEYWORD_BYTES = 80
"""Bytes of the noun in it, padded with spaces or zeros."""

_METADATA_NAME = "tiny_metadata.bin"


def to_column_major(images: npt.NDArray[np.uint8]) -> bytes:
    """Return the bytes that a Tiny Images file holds for images of shape (images, row, column, channel)."""
    return images.transpose(0, 3, 2, 1).tobytes()


class TinyImages(FixedRecords):
    """The Tiny Images file; ``keywords`` is the path of ``tiny_metadata.bin``."""

    name = "tiny-images"
    recognised_by = f"a size that is a multiple of {IMAGE_BYTES:,} bytes"
    size = (SIDE, SIDE)
    keywords_are_a_file = True

    def record_layout(self, definition: Definition, path: str = "") -> RecordLayout:
        """See :meth:`FixedRecords.record_layout`."""
        return RecordLayout(SIDE, SIDE, "columns")

    def guess(self, sample: Sample) -> Guess | None:
        """See :meth:`Format.guess`: images of this size whose pixels seem to lie in columns."""
        if (sample.height, sample.width) != self.size or (found := guess_pixel_order(sample)) is None:
            return None
        order, notes = found
        if order != "columns":
            return None
        files, file = sample.files, sample.file
        if files.is_local and Path(files.name(file.path)).with_name(_METADATA_NAME).is_file():
            remark = f"{_METADATA_NAME} is in the same folder: give its path to --keywords to make the nouns searchable"
            notes = (*notes, remark)
        return Guess({}, notes)

    def image_files(self, files: SourceFiles) -> list[SourceFile]:
        """See :meth:`FixedRecords.image_files`: all but the metadata."""
        return [file for file in super().image_files(files) if Path(file.path).name != _METADATA_NAME]

    def list_items(self, files: SourceFiles, definition: Definition) -> Iterator[ListedItem]:
        """See :meth:`Format.list_items`: the metadata must have as many records as there are images."""
        images = 0
        for item in super().list_items(files, definition):
            images += item.images
            yield item
        if definition.keywords:
            _check_metadata(files.with_source(definition.keywords), images)

    def open_keywords(self, definition: Definition, files: SourceFiles) -> "MetadataKeywords":
        """See :meth:`FixedRecords.open_keywords`."""
        return MetadataKeywords(files.with_source(definition.keywords))


class MetadataKeywords:
    """Reads the nouns of ``tiny_metadata.bin``; see :class:`KeywordSource`."""

    def __init__(self, files: SourceFiles) -> None:
        self._files = files
        self._file = files.only_file()

    def check_unchanged(self) -> None:
        """See :meth:`KeywordSource.check_unchanged`."""
        self._files.check_unchanged(self._file.path, self._file.size_bytes, self._file.version)

    def keywords(
        self, first: int, records: npt.NDArray[np.uint8], layout: RecordLayout, place: RecordPlace
    ) -> list[str | None]:
        """See :meth:`KeywordSource.keywords`."""
        content = self._files.read(self._file.path, first * METADATA_BYTES, len(records) * METADATA_BYTES)
        return [read_keyword(content[at : at + KEYWORD_BYTES]) for at in range(0, len(content), METADATA_BYTES)]

    def close(self) -> None:
        """See :meth:`KeywordSource.close`."""
        self._files.close()


def read_keyword(record: bytes) -> str | None:
    """Return the noun of one record of ``tiny_metadata.bin``; None if it is empty."""
    return record[:KEYWORD_BYTES].split(b"\0")[0].decode("utf-8", "replace").strip() or None


def _check_metadata(metadata: SourceFiles, images: int) -> None:
    file = metadata.only_file()
    if file.size_bytes != images * METADATA_BYTES:
        raise BadInputError(
            f"{metadata.name(file.path)}: {file.size_bytes:,} bytes are {file.size_bytes / METADATA_BYTES:,.2f} records"
            f" of {METADATA_BYTES} bytes, and the corpus has {images:,} images; give the metadata of the same images,"
            " or leave keywords out"
        )
