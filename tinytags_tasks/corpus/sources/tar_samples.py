"""Tars as WebDataset writes them: their samples, the image of each, and where its bytes are.

Rule: https://github.com/webdataset/webdataset, "The WebDataset Format": consecutive members with the same path up to
the first dot of their base name are one sample. If that gives one sample several images, such as ``v1.0001.jpg`` and
``v1.0002.jpg``, each is a sample of its own, whose key ends at the last dot.
"""

import copy
import io
import posixpath
import re
import tarfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from tinytags_tasks.corpus.picture_kinds import COMMON_ENDINGS, ENDINGS
from tinytags_tasks.corpus.sources.left_out import JUNK, LeftOut, is_junk_path
from tinytags_tasks.corpus.sources.unpacking import COMPRESSED_HEADS
from tinytags_tasks.errors import BadInputError

COMPRESSED_ENDINGS = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")

_IMAGE = re.compile(rf"(?:.*\.)?(?:{'|'.join(ending[1:] for ending in ENDINGS)})")
_END_CHECK_BYTES = 65_536
_MOST_IN_GROUP = 1_000
"""How many samples with one key up to the first dot are kept until it is clear that they are samples."""

_MOST_LINKS = 40
"""How many links may lead from one to the other, as in Linux."""


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
    texts_of_last
        The same by what comes after the last dot.
    """

    key: str
    offset: int
    images: list[tarfile.TarInfo] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)
    texts_of_last: dict[str, str] = field(default_factory=dict)

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

    Members whose base name has no dot, or begins with one, belong to no sample, as in WebDataset. Links are followed.

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
        If the tar is compressed or damaged, or has devices, or links or names that lead out of it: which member, at
        which offset.
    """
    group: list[TarSample] = []
    group_key = ""
    targets: dict[str, tarfile.TarInfo] = {}
    for member in _members(stream, name, size_bytes):
        folder, _, base = member.name.rpartition("/")
        stem, _, ending = base.partition(".")
        if is_junk_path(member.name):
            if left_out is not None and member.isreg():
                left_out.add(JUNK, f"{name}, member {member.name}")
            continue
        if member.isdir() or not stem or not ending:
            continue
        if not member.isreg():
            targets = targets or _by_name(stream)
            member = _followed(member, targets, name)
        if group and group_key != f"{folder}/{stem}":
            yield from _samples_of(group, group_key)
            group = []
        group_key, key = f"{folder}/{stem}", f"{folder}/{base.rpartition('.')[0]}"
        if not group or group[-1].key != key:
            if len(group) == _MOST_IN_GROUP and _are_samples(group):
                yield from _samples_of(group, group_key)
                group = []
            group.append(TarSample(key, member.offset))
        _add(group[-1], member, ending.lower(), stream, texts, most_bytes)
    if group:
        yield from _samples_of(group, group_key)


def _add(
    sample: TarSample,
    member: tarfile.TarInfo,
    ending: str,
    stream: io.BufferedReader,
    texts: Collection[str],
    most_bytes: int,
) -> None:
    last = ending.rpartition(".")[2]
    if ending in texts or last in texts:
        stream.seek(member.offset_data)
        text = stream.read(min(member.size, most_bytes)).decode("utf-8", "replace")
        sample.texts[ending] = text
        sample.texts_of_last[last] = text
    elif _IMAGE.fullmatch(ending):
        sample.images.append(member)


def _samples_of(group: list[TarSample], key: str) -> Iterator[TarSample]:
    """Yield the samples of members with one key up to the first dot: one sample, or those up to the last dot."""
    if _are_samples(group):
        for sample in group:
            sample.texts = {**sample.texts_of_last, **sample.texts}
        yield from group
        return
    joined = TarSample(key, group[0].offset)
    for sample in group:
        joined.images += sample.images
        joined.texts.update(sample.texts)
    yield joined


def _are_samples(group: list[TarSample]) -> bool:
    dots = {sample.key.rpartition("/")[2].count(".") for sample in group}
    return len(dots) == 1 and dots != {0} and all(len(sample.images) == 1 for sample in group)


def _ending(member: tarfile.TarInfo) -> str:
    return member.name.rpartition("/")[2].partition(".")[2]


def _members(stream: io.BufferedReader, name: str, size_bytes: int) -> Iterator[tarfile.TarInfo]:
    """Yield all members of a tar; an archive that does not end with an end mark is damaged."""
    head = stream.read(6)
    if head.startswith(COMPRESSED_HEADS):
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
    if member.issym() or member.islnk():
        if _target(member) is None:
            raise BadInputError(
                f"{where} is a link to {member.linkname!r}, outside of the archive; write it with the files themselves"
            )
    elif not (member.isreg() or member.isdir()):
        raise BadInputError(f"{where} is neither a file nor a folder; write it with the files themselves")


def _target(link: tarfile.TarInfo) -> str | None:
    """Return the name of the member that a link leads to; None if it leads out of the archive."""
    folder = posixpath.dirname(link.name) if link.issym() else ""
    target = posixpath.normpath(posixpath.join(folder, link.linkname))
    return None if target.startswith(("/", "../")) or target == ".." else target


def _by_name(stream: io.BufferedReader) -> dict[str, tarfile.TarInfo]:
    """Return all members of a tar by name, the last one of each; only a tar with links needs them all."""
    stream.seek(0)
    try:
        with tarfile.open(fileobj=stream, mode="r:") as tar:
            return {posixpath.normpath(member.name): member for member in tar}
    except (tarfile.TarError, ValueError, LookupError, OverflowError, RecursionError):
        return {}  # the tar is damaged further on, which is said there


def _followed(link: tarfile.TarInfo, members: dict[str, tarfile.TarInfo], name: str) -> tarfile.TarInfo:
    """Return the member that a link leads to, under the link's name and in its place.

    Raises
    ------
    BadInputError
        If there is none.
    """
    found: tarfile.TarInfo | None = link
    hops = 0
    while found is not None and (found.issym() or found.islnk()) and hops < _MOST_LINKS:
        found = members.get(_target(found) or "")
        hops += 1
    if found is None or not found.isreg():
        raise BadInputError(
            f"{name}: member {link.name!r} at offset {link.offset:,} is a link to {link.linkname!r}, which is no file "
            "of the archive; write it with the files themselves"
        )
    followed = copy.copy(found)
    followed.name, followed.offset = link.name, link.offset
    return followed
