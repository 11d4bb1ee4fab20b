"""Encoded images, one a place: the files of a folder, or the members of WebDataset's tars."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import chain, groupby

from tinytags_tasks.corpus.definition import CorpusDefinition
from tinytags_tasks.corpus.formats.webdataset import list_webdataset
from tinytags_tasks.corpus.pictures.decoder import MOST_BATCH_BYTES, PictureDecoder
from tinytags_tasks.corpus.reader import Batch, ListedItem, Listing
from tinytags_tasks.corpus.sources.files import SourceFiles
from tinytags_tasks.errors import BadInputError

__all__ = ["ENDINGS", "EncodedReader", "list_folder", "list_webdataset"]

ENDINGS = (".jpg", ".jpeg", ".png", ".webp")
"""How the files end that are taken from a folder, in lower case."""

MOST_PICTURE_BYTES = 200_000_000
"""A larger one is not read; 50 million pixels as they are have 150 MB."""

_LARGEST_GAP_BYTES = 65_536
_LARGEST_READ_BYTES = 8_000_000
"""Neighbours in a tar are read at once, with what lies between them."""

_REMOTE_READS = 16
"""Reads under way at once: over a network each waits for its answer, mostly."""


def list_folder(files: SourceFiles, definition: CorpusDefinition) -> Iterator[ListedItem]:
    """Yield the picture files of a folder and of those below it, one image each.

    Parameters
    ----------
    files
        The source's.
    definition
        The corpus; with ``keywords = "folder"`` an image's keyword is the name of the first folder on its path.

    Raises
    ------
    BadInputError
        When there is no picture file.
    """
    images = 0
    for file in files.files(*ENDINGS):
        images += 1
        folder, inside, _ = file.path.partition("/")
        keyword = folder if definition.keywords and inside else None
        yield ListedItem(file.path, 1, 0, file.size_bytes, file.version, keyword)
    if not images:
        raise BadInputError(
            f"{files.source}: holds no picture, no file that ends in {', '.join(ENDINGS)}; correct the corpus' source "
            "or format"
        )


@dataclass
class _Range:
    """Bytes that are read at once: where, and which images lie in them."""

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
        What they hold, as :func:`list_folder` or :func:`list_webdataset` found it.
    """

    holds_pixels = False

    def __init__(self, definition: CorpusDefinition, files: SourceFiles, listing: Listing) -> None:
        self._definition = definition
        self._files = files
        self._listing = listing
        self._decoder = PictureDecoder(definition)
        self.preparation = self._decoder.preparation

    def batches(self, first: int, images: int, *, decode: bool = True) -> Iterator[Batch]:
        """See :meth:`tinytags_tasks.corpus.reader.Reader.batches`."""
        read = self._read_batches(first, images)
        return self._decoder.decode_batches(read) if decode else read

    def close(self) -> None:
        """See :meth:`tinytags_tasks.corpus.reader.Reader.close`."""
        self._decoder.close()
        self._files.close()

    def _read_batches(self, first: int, images: int) -> Iterator[Batch]:
        listed = self._listing.items(first, images)
        with nullcontext() if self._files.is_local else ThreadPoolExecutor(_REMOTE_READS) as threads:
            if self._definition.format == "folder":
                yield from self._read_items(listed, threads)
                return
            for path, members in groupby(listed, lambda numbered: numbered[1].path):
                position, member = next(members)
                size_bytes = self._files.current(path).size_bytes
                self._files.check_unchanged(path, size_bytes, member.version)
                whole = chain([(position, member)], members)  # noqa: B031 (next took the first one only)
                yield from self._read_items(whole, threads)
                # It may have changed while it was read: nothing of it may be committed then.
                self._files.check_unchanged(path, size_bytes, member.version)

    def _read_items(
        self, numbered: Iterable[tuple[int, ListedItem]], threads: ThreadPoolExecutor | None
    ) -> Iterator[Batch]:
        first, items, size_bytes = 0, list[ListedItem](), 0
        for position, item in numbered:
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
            elif not item.size_bytes and self._definition.format == "webdataset":
                unreadable[first + place] = "its sample has no image, or an empty one"
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

    def _read_range(self, span: _Range) -> bytes:
        return self._files.read(span.item.path, span.item.offset, span.stop - span.item.offset, span.item.version)


def _ranges(items: list[ListedItem], wanted: list[int]) -> list[_Range]:
    """Join the places of neighbours in a file."""
    ranges: list[_Range] = []
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
            last = _Range(item, stop)
            ranges.append(last)
        last.places.append(place)
        last.stop = stop
    return ranges
