"""WebDataset's tars as a labelled set: the class of a sample, and its picture."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from tinytags_tasks.corpus.class_names import GIVE_TAGS, read_names, shortened
from tinytags_tasks.corpus.picture_kinds import ENDINGS
from tinytags_tasks.corpus.sources.tar_samples import COMPRESSED_ENDINGS, TarSample, iterate_samples
from tinytags_tasks.corpus.sources.unpacking import COMPRESSED_HEADS, unpack
from tinytags_tasks.errors import BadInputError, one_line
from tinytags_tasks.tags import normal_tag, tag_form

CLASS_NAMES_FILE = "classnames.txt"
"""A file with the name of one class a line, beside the tars or in the folder above, where classes are numbers."""

_FIELDS = ("class_name", "label_name", "class", "label", "cls")
"""Where a sample's JSON may have its class; names come before numbers."""

_UNLABELLED = "-1"
"""The class of a sample without one."""

_MOST_TEXT_BYTES = 1_000_000


@dataclass(frozen=True, slots=True)
class _Picture:
    """A sample's picture: where its bytes are, and the name of its class."""

    tar: Path
    key: str
    offset: int
    size_bytes: int
    tag: str


@dataclass(frozen=True, slots=True)
class _Listed:
    """What tars hold: their pictures, the names of classes that lie beside them, and whether classes are numbers."""

    pictures: tuple[_Picture, ...]
    names: tuple[str, ...]
    are_numbers: bool


def tars_of(path: Path) -> list[Path]:
    """Return the tars of a labelled set: a tar, or a folder of tars without folders; none if it is of another kind."""
    endings = (".tar", *COMPRESSED_ENDINGS)
    if not path.is_dir():
        return [path] if path.name.lower().endswith(endings) else []
    inside = sorted(path.iterdir())
    if any(each.is_dir() for each in inside):
        return []
    return [each for each in inside if each.name.lower().endswith(endings)]


def tars_sha256(tars: Sequence[Path]) -> str:
    """Return the hash of tars: of their names and contents, and of the names of classes that lie beside them."""
    names = _class_names_file(tars)
    files = [*tars, *([names] if names else [])]
    return hashlib.sha256(json.dumps([(file.name, _sha256(file)) for file in files]).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tags_of_tars(tars: Sequence[Path]) -> tuple[str, ...]:
    """Return the tags of tars: the named classes, or else those that samples have, in the order of names.

    Raises
    ------
    BadInputError
        If they cannot be used, or are numbers without names.
    """
    listed = _listed(tars)
    if listed.names:
        return listed.names
    if listed.are_numbers:
        raise BadInputError(
            f"{tars[0]}: its classes are numbers without names; {GIVE_TAGS}, such as {CLASS_NAMES_FILE} beside the tars"
        )
    return tuple(sorted({picture.tag for picture in listed.pictures} - {_UNLABELLED}))


def iterate_tars(
    tars: Sequence[Path], tags: tuple[str, ...], unknown: int | None, batch: int, *, with_pictures: bool
) -> Iterator[tuple[list[bytes], npt.NDArray[np.int64]]]:
    """Yield encoded pictures and labels; see :func:`tinytags_tasks.corpus.labelled.iterate_pictures`."""
    listed = _listed(tars)
    pictures = listed.pictures
    label_of = {_UNLABELLED: -1} | {tag_form(tag): label for label, tag in enumerate(tags)}
    found = [label_of.get(tag_form(picture.tag)) for picture in pictures]
    if listed.are_numbers and not listed.names and tags and None in found:
        found = [_number(picture, tags, unknown) for picture in pictures]
    if unknown is None and None in found:
        picture = pictures[found.index(None)]
        raise BadInputError(
            f"{_place(picture.tar, picture.key)}: its class {picture.tag} is none of the tags {shortened(tags)}; "
            "correct or remove it"
        )
    for start in range(0, len(pictures), batch):
        encoded = _read(pictures[start : start + batch]) if with_pictures else []
        labels = [unknown if label is None else label for label in found[start : start + batch]]
        yield encoded, np.array(labels, dtype=np.int64)


def _number(picture: _Picture, tags: tuple[str, ...], unknown: int | None) -> int | None:
    """Return a class that is a number without a name in the tars, as the number of a tag."""
    number = int(picture.tag)
    if number >= len(tags) and unknown is None:
        raise BadInputError(
            f"{_place(picture.tar, picture.key)}: its class is {number}, but there are {len(tags)} tags "
            f"(classes 0 to {len(tags) - 1}); correct it, or give as many tags"
        )
    return number if number < len(tags) else unknown


def place_in_tars(tars: Sequence[Path], row: int) -> str:
    """Return the words for a picture: its tar and its sample."""
    picture = _listed(tars).pictures[row]
    return _place(picture.tar, picture.key)


def _place(tar: Path, key: str) -> str:
    return f"{tar}: sample {one_line(key.lstrip('/'))}"


def _read(pictures: Sequence[_Picture]) -> list[bytes]:
    encoded = []
    try:
        for tar, group in groupby(pictures, lambda picture: picture.tar):
            with _opened(tar) as opened:
                for picture in group:
                    encoded.append(os.pread(opened.fileno(), picture.size_bytes, picture.offset))
    except OSError as error:
        raise BadInputError(f"{error.filename}: cannot be read ({error.strerror})") from error
    return encoded


@contextmanager
def _opened(tar: Path) -> Iterator[IO[bytes]]:
    """Open a tar; what was unpacked of a compressed one is kept for the next call, and has no position of its own."""
    if not tar.name.lower().endswith(COMPRESSED_ENDINGS):
        with tar.open("rb") as opened:
            yield opened
        return
    status = tar.stat()
    yield _unpacked(tar, (status.st_size, status.st_mtime_ns))


@lru_cache(maxsize=1)  # pictures are read a batch at a time, in the order of the tars
def _unpacked(tar: Path, version: object) -> IO[bytes]:
    with tar.open("rb", buffering=0) as packed:
        if not (packed.read(6) or b"").startswith(COMPRESSED_HEADS):
            raise BadInputError(f"{tar}: is not compressed as its name says; rename it, or download it again")
        packed.seek(0)
        return unpack(packed, str(tar))


def _listed(tars: Sequence[Path]) -> _Listed:
    names = _class_names_file(tars)
    try:
        versions = tuple((file, file.stat().st_size, file.stat().st_mtime_ns) for file in (*tars, names) if file)
        return _list_tars(tuple(tars), names, versions)
    except OSError as error:
        raise BadInputError(f"{error.filename}: cannot be read ({error.strerror})") from error


@lru_cache(maxsize=4)  # a training asks for tags, labels, pictures and places one after the other
def _list_tars(tars: tuple[Path, ...], names_file: Path | None, versions: tuple[object, ...]) -> _Listed:
    samples = [(tar, sample) for tar in tars for sample in _samples(tar)]
    if not samples:
        raise BadInputError(f"{tars[0]}: holds no samples; members of a sample are 0001.jpg and 0001.cls, for example")
    classes, are_folders = _classes(samples)
    are_numbers = not are_folders and all(map(_is_number, classes))
    names = _class_names(names_file) if names_file and all(map(_is_number, classes)) else ()
    pictures = []
    for (tar, sample), tag in zip(samples, classes, strict=True):
        where = _place(tar, sample.key)
        image = sample.image(str(tar))
        if image is None:
            raise BadInputError(f"{where} has no image; images are members that end in {', '.join(ENDINGS)}")
        if tag == _UNLABELLED:
            pictures.append(_Picture(tar, sample.key.lstrip("/"), image.offset_data, image.size, tag))
            continue
        if names and int(tag) >= len(names):
            raise BadInputError(f"{where} is of class {tag}, but {names_file} has {len(names)} names (from 0)")
        named = names[int(tag)] if names else tag
        pictures.append(_Picture(tar, sample.key.lstrip("/"), image.offset_data, image.size, named))
    return _Listed(tuple(pictures), names, are_numbers)


def _samples(tar: Path) -> Iterator[TarSample]:
    with _opened(tar) as opened, open(opened.fileno(), "rb", closefd=False) as stream:
        size_bytes = stream.seek(0, os.SEEK_END)
        stream.seek(0)
        yield from iterate_samples(stream, str(tar), size_bytes, ("cls", "json"), _MOST_TEXT_BYTES)


def _classes(samples: Sequence[tuple[Path, TarSample]]) -> tuple[list[str], bool]:
    """Return the class of each sample: from its .cls, or else its .json, or else the folder of its key; and if that."""
    for read, what in ((_class_of_cls, "its .cls"), (_class_of_json, "its .json"), (_class_of_key, "a folder")):
        found = [read(sample) for _, sample in samples]
        if not any(found):
            continue
        for (tar, sample), tag in zip(samples, found, strict=True):
            if not tag:
                raise BadInputError(
                    f"{_place(tar, sample.key)} has no class in {what}, where others have theirs; add or remove it"
                )
        return [normal_tag(tag) for tag in found if tag], read is _class_of_key
    raise BadInputError(
        f"{samples[0][0]}: no sample has a class; give each a .cls file, a .json with one of {', '.join(_FIELDS)}, or "
        "a folder named after it"
    )


def _class_of_cls(sample: TarSample) -> str | None:
    return sample.texts.get("cls", "").strip() or None


def _class_of_json(sample: TarSample) -> str | None:
    try:
        fields = json.loads(sample.texts.get("json", ""))
    except ValueError:
        return None
    if not isinstance(fields, dict):
        return None
    values = (fields.get(name) for name in _FIELDS)
    return next((str(value).strip() for value in values if isinstance(value, str | int) and str(value).strip()), None)


def _class_of_key(sample: TarSample) -> str | None:
    return sample.key.rpartition("/")[0].rpartition("/")[2] or None


def _is_number(text: str) -> bool:
    return text == _UNLABELLED or (text.isascii() and text.isdecimal())


def _class_names(file: Path) -> tuple[str, ...]:
    names = read_names(file)
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise BadInputError(f"{file}: has the name {twice[0]} twice; give each class a name of its own")
    return names


def _class_names_file(tars: Sequence[Path]) -> Path | None:
    folder = tars[0].absolute().parent
    places = (folder / CLASS_NAMES_FILE, folder.parent / CLASS_NAMES_FILE)
    return next((place for place in places if place.is_file()), None)
