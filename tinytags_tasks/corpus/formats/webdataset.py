"""WebDataset's tar files as a corpus; see :mod:`tinytags_tasks.corpus.sources.tar_samples`."""

import io
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, groupby
from typing import IO, cast

from tinytags_tasks.corpus.formats.base import Definition, Guess, Sample
from tinytags_tasks.corpus.formats.encoded import Encoded, EncodedReader, Range
from tinytags_tasks.corpus.picture_kinds import ENDINGS
from tinytags_tasks.corpus.reader import Batch, ListedItem, Listing
from tinytags_tasks.corpus.sources.files import SourceFile, SourceFiles
from tinytags_tasks.corpus.sources.range_file import RangeFile
from tinytags_tasks.corpus.sources.tar_samples import COMPRESSED_ENDINGS, iterate_samples
from tinytags_tasks.corpus.sources.unpacking import COMPRESSED_HEADS, unpack, unpacked_head
from tinytags_tasks.errors import BadInputError

MOST_KEYWORD_CHARACTERS = 1_000

# Contents are skipped; over a network a request costs more than the bytes between two headers.
_LOCAL_BUFFER_BYTES = 16_384
_REMOTE_BUFFER_BYTES = 4_000_000


class WebDataset(Encoded):
    """WebDataset's tars; ``keywords`` is the ending of a sample's text file, such as ``cls``."""

    name = "webdataset"
    recognised_by = "ustar at offset 257"
    endings = (".tar",)

    def guess(self, sample: Sample) -> Guess | None:
        """See :meth:`Format.guess`."""
        head = sample.head
        if head.startswith(COMPRESSED_HEADS):
            with RangeFile(sample.files, sample.file.path, sample.file.size_bytes, sample.file.version) as packed:
                head = unpacked_head(packed, len(head))
        return Guess() if head[257:262] == b"ustar" else None

    def list_items(self, files: SourceFiles, definition: Definition) -> Iterator[ListedItem]:
        """Yield the image of each sample with its byte range in the tar, so that reading needs no tar code.

        A sample's image is its member with the ending jpg, jpeg, jpe, jfif, png or webp; only if there is none, one of
        another kind that is read, such as gif, and then one whose ending ends with one of these, such as ``seg.png``. A
        sample without an image keeps its position and has no bytes. Members whose base name has no dot, or begins with
        one, belong to no sample, as in WebDataset.

        Parameters
        ----------
        files
            The source's: a tar, a folder of them, or a pattern.
        definition
            The corpus; ``keywords`` is the ending of a sample's text file: UTF-8, of which 1,000 characters are taken.

        Raises
        ------
        BadInputError
            If there is no tar, or no image in any; if a tar is damaged, has devices, or links or names that lead out
            of it, or a sample has two images: which member, at which offset.
        """
        images = keywords = tars = 0
        for file in files.files(".tar", *COMPRESSED_ENDINGS):
            tars += 1
            for item in _list_tar(files, file, definition.keywords.lower().lstrip(".")):
                images += item.size_bytes > 0
                keywords += item.keyword is not None
                yield item
        if not tars:
            raise BadInputError(
                f"{files.source}: contains no .tar file; correct the corpus' source or format{files.left_out}"
            )
        if not images:
            raise BadInputError(
                f"{files.source}: no sample in {tars:,} tars has an image; images are members that end in "
                f"{', '.join(ENDINGS)}"
            )
        if definition.keywords and not keywords:
            raise BadInputError(
                f"{files.source}: no sample has a member with the ending {definition.keywords}; correct keywords, or "
                "leave it out"
            )

    def open_reader(self, definition: Definition, files: SourceFiles, listing: Listing) -> "TarReader":
        """See :meth:`Format.open_reader`."""
        return TarReader(definition, files, listing)


class TarReader(EncodedReader):
    """Reads the images of tars; see :class:`tinytags_tasks.corpus.reader.Reader`."""

    no_bytes_reason = "its sample has no image, or an empty one"

    _unpacked: IO[bytes] | None = None
    """The content of a compressed tar while its members are read."""

    def _read_listed(
        self, listed: Iterator[tuple[int, ListedItem]], threads: ThreadPoolExecutor | None
    ) -> Iterator[Batch]:
        for path, members in groupby(listed, lambda positioned: positioned[1].path):
            position, member = next(members)
            size_bytes = self._files.current(path).size_bytes
            self._files.check_unchanged(path, size_bytes, member.version)
            whole = chain([(position, member)], members)  # noqa: B031 (next took the first one only)
            file = SourceFile(path, size_bytes, member.version)
            try:
                self._unpacked = _unpack(self._files, file) if _is_compressed(self._files, file) else None
                yield from self._read_items(whole, threads)
            finally:
                if self._unpacked is not None:
                    self._unpacked.close()
                    self._unpacked = None
            # If it changed while it was read, nothing of it may be committed.
            self._files.check_unchanged(path, size_bytes, member.version)

    def _read_range(self, span: Range) -> bytes:
        if self._unpacked is None:
            return super()._read_range(span)
        content = os.pread(self._unpacked.fileno(), span.stop - span.item.offset, span.item.offset)
        if len(content) < span.stop - span.item.offset:
            raise BadInputError(
                f"{self._files.name(span.item.path)}: ends at offset {span.item.offset + len(content):,} when it is "
                f"unpacked, where {span.stop:,} was expected; it has changed since it was listed"
            )
        return content


def _list_tar(files: SourceFiles, file: SourceFile, keyword_ending: str) -> Iterator[ListedItem]:
    name = files.name(file.path)
    with _open_buffered(files, file) as stream:
        size_bytes = stream.seek(0, io.SEEK_END)
        stream.seek(0)
        most_bytes = 4 * MOST_KEYWORD_CHARACTERS
        for sample in iterate_samples(stream, name, size_bytes, {keyword_ending}, most_bytes, left_out=files.left_out):
            keyword = sample.texts.get(keyword_ending, "").strip()[:MOST_KEYWORD_CHARACTERS] or None
            image = sample.image(name)
            offset, size_bytes = (image.offset_data, image.size) if image else (sample.offset, 0)
            member = image.name if image else sample.key.lstrip("/")
            yield ListedItem(file.path, 1, offset, size_bytes, file.version, keyword, _storable(member))


def _storable(name: str) -> str:
    """Return a member's name as text, also if it is not UTF-8."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _open_buffered(files: SourceFiles, file: SourceFile) -> io.BufferedReader:
    if _is_compressed(files, file):
        return cast("io.BufferedReader", _unpack(files, file))
    size = _LOCAL_BUFFER_BYTES if files.is_local else _REMOTE_BUFFER_BYTES
    return io.BufferedReader(RangeFile(files, file.path, file.size_bytes, file.version), size)


def _is_compressed(files: SourceFiles, file: SourceFile) -> bool:
    return files.read(file.path, 0, min(6, file.size_bytes), file.version).startswith(COMPRESSED_HEADS)


def _unpack(files: SourceFiles, file: SourceFile) -> IO[bytes]:
    with RangeFile(files, file.path, file.size_bytes, file.version) as packed:
        return unpack(packed, files.name(file.path))
