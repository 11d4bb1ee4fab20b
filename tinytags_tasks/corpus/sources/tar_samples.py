"""Tars as WebDataset writes them: their samples, the image of each, and where its bytes are.

Rule: https://github.com/webdataset/webdataset, "The WebDataset Format": consecutive members with the same path up to
the first dot of their base name are one sample.
"""

import io
import re
import tarfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from tinytags_tasks.corpus.picture_kinds import COMMON_ENDINGS, ENDINGS
from tinytags_tasks.corpus.sources.left_out import JUNK, LeftOut, is_junk_path
from tinytags_tasks.errors import BadInputError

COMPRESSED_ENDINGS = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")

_IMAGE = re.compile(rf"(?:.*\.)?(?:{'|'.join(ending[1:] for ending in ENDINGS)})")
_COMPRESSED_HEADS = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")
_END_CHECK_BYTES = 65_536


@dataclass
class TarSample:
    """The members of one sample that were asked for.

    Attributes
    ----------
    key
        Its folder and the beginning of its base name, with a slash between.
    offset
        Where its first member begins in the tar.
    images
        Its images.
    texts
        The beginnings of its text files, by ending.
    """

    key: str
    offset: int
    images: list[tarfile.TarInfo] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)

    def image(self, name: str) -> tarfile.TarInfo | None:
        """Return the sample's image: that with a plain ending; if there is none, one such as ``seg.png``.

        A JPEG, PNG or WebP comes before other kinds, which may be masks.

        Parameters
        ----------
        name
            The tar's, for the message.

        Raises
        ------
        BadInputError
            If it has two.
        """
        plain = [member for member in self.images if "." not in _ending(member)]
        common = [member for member in plain if member.name.lower().endswith(COMMON_ENDINGS)]
        candidates = common or plain or self.images
        if len(candidates) > 1:
            first, second = candidates[:2]
            raise BadInputError(
                f"{name}: member {second.name!r} at offset {second.offset:,} is a second image of its sample, after "
                f"{first.name!r}; a sample has one image: give the other another ending, or another key"
            )
        return candidates[0] if candidates else None


def iterate_samples(
    stream: io.BufferedReader,
    name: str,
    size_bytes: int,
    texts: Collection[str],
    most_bytes: int,
    left_out: LeftOut | None = None,
) -> Iterator[TarSample]:
    """Yield the samples of a tar in its order.

    Members whose base name has no dot, or begins with one, belong to no sample, as in WebDataset.

    Parameters
    ----------
    stream, name, size_bytes
        The tar, its name for messages, and its size.
    texts
        The endings of the text files that are read, in lower case.
    most_bytes
        How much of each of them is read.
    left_out
        Counts members that file systems keep for themselves.

    Raises
    ------
    BadInputError
        If the tar is compressed or damaged, or has links, devices or names that lead out of it: which member, at which
        offset.
    """
    sample: TarSample | None = None
    for member in _members(stream, name, size_bytes):
        folder, _, base = member.name.rpartition("/")
        stem, _, ending = base.partition(".")
        if is_junk_path(member.name):
            if left_out is not None and member.isreg():
                left_out.add(JUNK, f"{name}, member {member.name}")
            continue
        if not member.isreg() or not stem or not ending:
            continue
        key = f"{folder}/{stem}"
        if sample is None or key != sample.key:
            if sample is not None:
                yield sample
            sample = TarSample(key, member.offset)
        if ending.lower() in texts:
            stream.seek(member.offset_data)
            sample.texts[ending.lower()] = stream.read(min(member.size, most_bytes)).decode("utf-8", "replace")
        elif _IMAGE.fullmatch(ending.lower()):
            sample.images.append(member)
    if sample is not None:
        yield sample


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
