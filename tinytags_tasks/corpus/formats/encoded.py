"""Encoded pictures, one at each position: what the formats that hold them share."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field

from tinytags_tasks.corpus.formats.base import Definition, Format
from tinytags_tasks.corpus.pictures.decoder import MOST_BATCH_BYTES, PictureDecoder
from tinytags_tasks.corpus.pictures.prepare import Target
from tinytags_tasks.corpus.reader import Batch, ListedItem, Listing
from tinytags_tasks.corpus.sources.files import SourceFiles

MOST_PICTURE_BYTES = 200_000_000
"""A larger picture is not read; 50 million uncompressed pixels have 150 MB."""

_LARGEST_GAP_BYTES = 65_536
_LARGEST_READ_BYTES = 8_000_000
"""Neighbours in a file are read at once, with the bytes between them."""

_REMOTE_READS = 16
"""Concurrent reads: over a network each one mostly waits for its answer."""


def picture_decoder(definition: Definition) -> PictureDecoder:
    """Return a decoder of a corpus' pictures."""
    return PictureDecoder(Target(definition.height, definition.width, definition.resize, definition.filter))


class Encoded(Format):
    """What the formats of encoded pictures share."""

    def preparation(self, definition: Definition) -> str:
        """See :meth:`Format.preparation`."""
        return picture_decoder(definition).preparation


@dataclass
class Range:
    """Bytes that are read at once: where, and the indexes of the images in them."""

    item: ListedItem
    stop: int
    places: list[int] = field(default_factory=list)


class EncodedReader:
    """Reads encoded images; see :class:`tinytags_tasks.corpus.reader.Reader`.

    Parameters
    ----------
    definition
        The corpus.
    files
        The source's files.
    listing
        What they hold.

    Attributes
    ----------
    no_bytes_reason
        Why a picture of 0 bytes is unreadable, without reading it; empty lets the decoder say it.
    """

    no_bytes_reason = ""

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
        with nullcontext() if self._files.is_local else ThreadPoolExecutor(_REMOTE_READS) as threads:
            yield from self._read_listed(self._listing.items(first, images), threads)

    def _read_listed(
        self, listed: Iterator[tuple[int, ListedItem]], threads: ThreadPoolExecutor | None
    ) -> Iterator[Batch]:
        """Read items as they are listed, each with its position; a subclass may look at their files in between."""
        yield from self._read_items(listed, threads)

    def _read_items(
        self, listed: Iterable[tuple[int, ListedItem]], threads: ThreadPoolExecutor | None
    ) -> Iterator[Batch]:
        first, items, size_bytes = 0, list[ListedItem](), 0
        for position, item in listed:
            if items and (
                len(items) == self._decoder.most_batch_images or size_bytes + item.size_bytes > MOST_BATCH_BYTES
            ):
                yield self._read_batch(first, items, threads)
                items, size_bytes = [], 0
            if not items:
                first = position
            items.append(item)
            size_bytes += min(item.size_bytes, MOST_PICTURE_BYTES)
        if items:
            yield self._read_batch(first, items, threads)

    def _read_batch(self, first: int, items: list[ListedItem], threads: ThreadPoolExecutor | None) -> Batch:
        encoded = [b""] * len(items)
        unreadable = {}
        wanted = []
        for place, item in enumerate(items):
            if item.size_bytes > MOST_PICTURE_BYTES:
                unreadable[first + place] = f"{item.size_bytes:,} bytes are more than {MOST_PICTURE_BYTES:,}: not read"
            elif not item.size_bytes and self.no_bytes_reason:
                unreadable[first + place] = self.no_bytes_reason
            else:
                wanted.append(place)
        ranges = _ranges(items, wanted)
        contents = threads.map(self._read_range, ranges) if threads else map(self._read_range, ranges)
        for content, span in zip(contents, ranges, strict=True):
            for place in span.places:
                start = items[place].offset - span.item.offset
                encoded[place] = content[start : start + items[place].size_bytes]
        keywords = [item.keyword for item in items] if self._definition.keywords else []
        return Batch(first, len(items), None, unreadable, keywords, encoded)

    def _read_range(self, span: Range) -> bytes:
        return self._files.read(span.item.path, span.item.offset, span.stop - span.item.offset, span.item.version)


def _ranges(items: list[ListedItem], wanted: list[int]) -> list[Range]:
    """Join the byte ranges of neighbours in a file."""
    ranges: list[Range] = []
    for place in wanted:
        item = items[place]
        stop = item.offset + item.size_bytes
        last = ranges[-1] if ranges else None
        if (
            last is None
            or item.path != last.item.path
            or not 0 <= item.offset - last.stop <= _LARGEST_GAP_BYTES
            or stop - last.item.offset > _LARGEST_READ_BYTES
        ):
            last = Range(item, stop)
            ranges.append(last)
        last.places.append(place)
        last.stop = stop
    return ranges
