"""WebDataset's tar files: which member is the image of which sample, and where its bytes are.

Rule: https://github.com/webdataset/webdataset, "The WebDataset Format": consecutive members with the same path up to
the first dot of their base name are one sample.
"""

import io
import re
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain, groupby

from tinytags_tasks.corpus.formats.base import Definition, Guess, Sample
from tinytags_tasks.corpus.formats.encoded import Encoded, EncodedReader
from tinytags_tasks.corpus.reader import Batch, ListedItem, Listing
from tinytags_tasks.corpus.sources.files import SourceFile, SourceFiles
from tinytags_tasks.corpus.sources.range_file import RangeFile
from tinytags_tasks.errors import BadInputError

MOST_KEYWORD_CHARACTERS = 1_000

_IMAGE = re.compile(r"(?:.*\.)?(?:jpg|jpeg|png|webp)")
_COMPRESSED_ENDINGS = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
_COMPRESSED_HEADS = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")

# Contents are skipped; over a network a request costs more than the bytes between two headers.
_LOCAL_BUFFER_BYTES = 16_384
_REMOTE_BUFFER_BYTES = 4_000_000
_END_CHECK_BYTES = 65_536


class WebDataset(Encoded):
    """WebDataset's tars; ``keywords`` is the ending of a sample's text file, such as ``cls``."""

    name = "webdataset"
    recognised_by = "ustar at offset 257"
    endings = (".tar",)

    def guess(self, sample: Sample) -> Guess | None:
        """See :meth:`Format.guess`."""
        return Guess() if sample.head[257:262] == b"ustar" else None

    def list_items(self, files: SourceFiles, definition: Definition) -> Iterator[ListedItem]:
        """Yield the image of each sample with its byte range in the tar, so that reading needs no tar code.

        A sample's image is its member with the ending jpg, jpeg, png or webp; only if there is none, one whose
        ending ends with one of these, such as ``seg.png``. A sample without an image keeps its position and has no
        bytes. Members whose base name has no dot, or begins with one, belong to no sample, as in WebDataset.

        Parameters
        ----------
        files
            The source's: a tar, a folder of them, or a pattern.
        definition
            The corpus; ``keywords`` is the ending of a sample's text file: UTF-8, of which 1,000 characters are taken.

        Raises
        ------
        BadInputError
            If there is no tar, or no image in any; if a tar is compressed or damaged, has links, devices or names that
            lead out of it, or a sample has two images: which member, at which offset.
        """
        images = keywords = tars = 0
        for file in files.files(".tar", *_COMPRESSED_ENDINGS):
            tars += 1
            for item in _list_tar(files, file, definition.keywords.lower().lstrip(".")):
                images += item.size_bytes > 0
                keywords += item.keyword is not None
                yield item
        if not tars:
            raise BadInputError(f"{files.source}: contains no .tar file; correct the corpus' source or format")
        if not images:
            raise BadInputError(
                f"{files.source}: no sample in {tars:,} tars has an image; images are members that end in .jpg, .jpeg, "
                ".png or .webp"
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

    def _read_listed(
        self, listed: Iterator[tuple[int, ListedItem]], threads: ThreadPoolExecutor | None
    ) -> Iterator[Batch]:
        for path, members in groupby(listed, lambda positioned: positioned[1].path):
            position, member = next(members)
            size_bytes = self._files.current(path).size_bytes
            self._files.check_unchanged(path, size_bytes, member.version)
            whole = chain([(position, member)], members)  # noqa: B031 (next took the first one only)
            yield from self._read_items(whole, threads)
            # If it changed while it was read, nothing of it may be committed.
            self._files.check_unchanged(path, size_bytes, member.version)


@dataclass
class _Sample:
    """The members of one sample."""

    key: str
    offset: int
    images: list[tarfile.TarInfo] = field(default_factory=list)
    keyword: str | None = None


def _list_tar(files: SourceFiles, file: SourceFile, keyword_ending: str) -> Iterator[ListedItem]:
    sample: _Sample | None = None
    with _open_buffered(files, file) as stream:
        for member in _members(stream, files.name(file.path), file.size_bytes):
            folder, _, base = member.name.rpartition("/")
            stem, _, ending = base.partition(".")
            if not member.isreg() or not stem or not ending:
                continue
            key = f"{folder}/{stem}"
            if sample is None or key != sample.key:
                if sample is not None:
                    yield _item(files, file, sample)
                sample = _Sample(key, member.offset)
            if ending.lower() == keyword_ending:
                stream.seek(member.offset_data)
                content = stream.read(min(member.size, 4 * MOST_KEYWORD_CHARACTERS))
                sample.keyword = content.decode("utf-8", "replace").strip()[:MOST_KEYWORD_CHARACTERS] or None
            elif _IMAGE.fullmatch(ending.lower()):
                sample.images.append(member)
        if sample is not None:
            yield _item(files, file, sample)


def _open_buffered(files: SourceFiles, file: SourceFile) -> io.BufferedReader:
    size = _LOCAL_BUFFER_BYTES if files.is_local else _REMOTE_BUFFER_BYTES
    return io.BufferedReader(RangeFile(files, file.path, file.size_bytes, file.version), size)


def _item(files: SourceFiles, file: SourceFile, sample: _Sample) -> ListedItem:
    plain = [member for member in sample.images if "." not in _ending(member)]
    candidates = plain or sample.images
    if len(candidates) > 1:
        first, second = candidates[:2]
        raise BadInputError(
            f"{files.name(file.path)}: member {second.name!r} at offset {second.offset:,} is a second image of its "
            f"sample, after {first.name!r}; a sample has one image: give the other another ending, or another key"
        )
    if not candidates:
        return ListedItem(file.path, 1, sample.offset, 0, file.version, sample.keyword)
    image = candidates[0]
    return ListedItem(file.path, 1, image.offset_data, image.size, file.version, sample.keyword)


def _ending(member: tarfile.TarInfo) -> str:
    return member.name.rpartition("/")[2].partition(".")[2]


def _members(stream: io.BufferedReader, name: str, size_bytes: int) -> Iterator[tarfile.TarInfo]:
    """Yield all members of a tar; an archive that does not end with an end mark is damaged."""
    head = stream.read(6)
    if head.startswith(_COMPRESSED_HEADS):
        raise BadInputError(
            f"{name}: is compressed, so that single images cannot be read from it; decompress it to a .tar (its "
            "pictures are already compressed)"
        )
    stream.seek(0)
    at, after = 0, "its beginning"
    try:
        with tarfile.open(fileobj=stream, mode="r:") as tar:
            while (member := tar.next()) is not None:
                if tar.offset <= at:
                    raise tarfile.ReadError("a negative size")
                _check_member(member, name)
                at, after = tar.offset, f"member {member.name!r}"
                tar.members.clear()  # type: ignore[attr-defined] # it keeps all of them, and there may be millions
                yield member
            at = tar.offset
    except (tarfile.TarError, ValueError, LookupError, OverflowError, RecursionError) as error:
        raise BadInputError(
            f"{name}: damaged at offset {at:,}, after {after} ({error}); download or write it again"
        ) from error
    stream.seek(at)
    block = stream.read(tarfile.BLOCKSIZE)
    if len(block) < tarfile.BLOCKSIZE:
        raise BadInputError(
            f"{name}: ends at offset {size_bytes:,}, after {after}, without an end mark; is it complete? Download or "
            "write it again"
        )
    if any(block):
        raise BadInputError(
            f"{name}: damaged at offset {at:,}, after {after}: a header is missing; download or write it again"
        )
    if any(stream.read(_END_CHECK_BYTES)):
        raise BadInputError(
            f"{name}: continues after its end mark at offset {at:,}; split tars that were concatenated, because a "
            "reader sees only the first one"
        )


def _check_member(member: tarfile.TarInfo, name: str) -> None:
    where = f"{name}: member {member.name!r} at offset {member.offset:,}"
    if member.name.startswith("/") or ".." in member.name.split("/"):
        raise BadInputError(f"{where} has a name outside of the archive; write it with relative names")
    if member.issparse():
        raise BadInputError(f"{where} is a sparse file; write it without --sparse")
    if not (member.isreg() or member.isdir()):
        kind = "a link" if member.issym() or member.islnk() else "neither a file nor a folder"
        raise BadInputError(f"{where} is {kind}; write it with the files themselves")
