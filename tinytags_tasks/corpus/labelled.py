"""Labelled sets: Parquet files of encoded images and labels, as on the Hugging Face Hub, a folder per tag, or tars."""

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from tinytags_tasks.corpus.class_names import shortened
from tinytags_tasks.corpus.labelled_copy import UNFINISHED, OpenSource, is_address, refuse_absent
from tinytags_tasks.corpus.labelled_parquet import ParquetSet, parquet_files_of
from tinytags_tasks.corpus.labelled_tar import iterate_tars, place_in_tars, tags_of_tars, tars_of, tars_sha256
from tinytags_tasks.corpus.picture_kinds import ENDINGS
from tinytags_tasks.corpus.pictures.prepare import decode_rgb
from tinytags_tasks.corpus.sources.files import SourceFiles
from tinytags_tasks.corpus.sources.left_out import is_junk_path
from tinytags_tasks.errors import BadInputError
from tinytags_tasks.store import layout

_BATCH = 1_000

_PARTS = {"train", "training", "test", "testing", "val", "valid", "validation", "dev"}
"""Folders of these names alone are parts of a set, each of which has folders of tags."""

UNLABELLED = -1
"""The label of an image without one, as on the Hugging Face Hub: it is counted, and left out."""


@dataclass(frozen=True)
class LabelledSet:
    """Images with a known tag.

    Attributes
    ----------
    path
        The file or folder that they come from.
    images
        uint8, shape (images, row, column, channel).
    labels
        int64, shape (images,): indexes into ``tags``.
    tags
        The names of the tags.
    unlabelled
        How many images of the set were left out because they have no label.
    """

    path: Path
    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    tags: tuple[str, ...]
    unlabelled: int = 0


def file_sha256(path: Path) -> str:
    """Return the hash of a labelled set's bytes; this takes a tenth of a second where decoding takes ten.

    That of a folder is over the names, below the folder, and the hashes of its pictures or Parquet files; that of
    WebDataset's tars over their names and hashes.

    Raises
    ------
    BadInputError
        If it cannot be read.
    """
    try:
        if tars := tars_of(path):
            return tars_sha256(tars)
        if path.is_dir():
            files = parquet_files_of(path) or [picture for _, picture in _files(path)]
            names = [(file.relative_to(path).as_posix(), _sha256(file)) for file in files]
            return hashlib.sha256(json.dumps(names).encode()).hexdigest()
        return _sha256(path)
    except FileNotFoundError as error:
        raise BadInputError(f"{path}: no such file; give the path of a labelled file or folder") from error
    except OSError as error:
        raise BadInputError(f"{path}: cannot be read ({error.strerror}); give the path of a labelled file") from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def refuse_missing(*paths: str | None, open_source: OpenSource = SourceFiles) -> None:
    """Refuse labelled sets that do not exist, before the first of them is read.

    Parameters
    ----------
    paths
        Paths of this machine, or addresses; None and an empty one are left out.
    open_source
        Opens the files at an address.

    Raises
    ------
    BadInputError
        Naming the first.
    TransientError
        If an address' server does not answer.
    """
    for path in filter(None, paths):
        if is_address(path):
            refuse_absent(path, open_source)
        elif not Path(path).exists():
            raise BadInputError(f"{path}: no such file; give the path of a labelled file or folder")


def _files(folder: Path) -> list[tuple[str, Path]]:
    """Return a folder's pictures in the order of their paths, with the names of the folders that they are in."""
    _refuse_unfinished(folder)
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS and path.is_file())
    found = [path for path in found if not is_junk_path(path.relative_to(folder).as_posix())]
    if loose := [path for path in found if path.parent == folder]:
        raise BadInputError(
            f"{loose[0]}: is in no folder of a tag; a labelled folder has one folder for each tag, named after it"
        )
    named = [(layout.normal_tag(path.relative_to(folder).parts[0]), path) for path in found]
    names = {name for name, _ in named}
    if names and {name.lower() for name in names} <= _PARTS:
        raise BadInputError(
            f"{folder}: its folders are parts of a set ({', '.join(sorted(names))}), not tags; give one of them as the "
            f"labelled set, such as {folder / min(names)}, and another as the test set"
        )
    return named


def _refuse_unfinished(folder: Path) -> None:
    """Refuse a folder that is still being written."""
    if (folder / UNFINISHED).exists():
        raise BadInputError(
            f"{folder / UNFINISHED}: the set is still being written; wait until it is complete, or remove this folder"
        )


def _refuse_empty(folder: Path, names: set[str]) -> None:
    """Refuse a tag's folder without pictures: the tag would be missing without a word."""
    for below in sorted(folder.iterdir()):
        if below.is_dir() and not is_junk_path(below.name) and layout.normal_tag(below.name) not in names:
            raise BadInputError(f"{below}: holds no pictures that can be read; put some in, or remove the folder")


def decode_image(encoded: bytes, side: int | None = None) -> npt.NDArray[np.uint8]:
    """Decode a picture file to RGB, as :func:`tinytags_tasks.corpus.pictures.prepare.decode_rgb` does.

    Parameters
    ----------
    encoded
        JPEG, PNG or another format that Pillow reads.
    side
        Resize to this height and width (BOX filter, which averages the covered pixels); None keeps the size.

    Returns
    -------
    numpy.ndarray
        uint8, shape (row, column, 3).

    Raises
    ------
    BadInputError
        If it is not a picture.
    """
    try:
        rgb = decode_rgb(encoded, formats=None)
    except BadInputError as error:
        raise BadInputError(f"not a readable picture ({error})") from error
    if side is not None and rgb.size != (side, side):
        rgb = rgb.resize((side, side), Image.Resampling.BOX)
    return np.asarray(rgb, dtype=np.uint8)


def iterate_pictures(
    path: Path, tags: tuple[str, ...] = (), unknown: int | None = None, *, with_pictures: bool = True
) -> Iterator[tuple[list[bytes], npt.NDArray[np.int64]]]:
    """Yield the encoded pictures and labels of a labelled set, a thousand at a time.

    Parameters
    ----------
    path
        Parquet files, a folder of folders, or WebDataset's tars.
    tags
        The tags that the names of folders and classes are looked up in. Numbers without names are labels as they are,
        and so are negative ones, and all numbers if there are no tags.
    unknown
        The label of pictures of a folder or class that is named after none of the tags; None refuses them.
    with_pictures
        Whether to read the pictures; else there are only labels.

    Raises
    ------
    BadInputError
        If the set is missing or damaged, lacks a column of pictures or of labels, or a label, or has a folder or
        class that is no tag.
    """
    if tars := tars_of(path):
        yield from iterate_tars(tars, tags, unknown, _BATCH, with_pictures=with_pictures)
        return
    if is_folder_of_pictures(path):
        yield from _iterate_folder(path, tags, unknown, with_pictures=with_pictures)
        return
    yield from _parquet_set(path).iterate(tags, unknown, with_pictures=with_pictures)


def _iterate_folder(
    folder: Path, tags: tuple[str, ...], unknown: int | None, *, with_pictures: bool
) -> Iterator[tuple[list[bytes], npt.NDArray[np.int64]]]:
    files = _files(folder)
    label_of = {layout.tag_form(tag): label for label, tag in enumerate(tags)}
    for name, path in files:
        if unknown is None and layout.tag_form(name) not in label_of:
            raise BadInputError(f"{path}: its folder {name} is none of the tags {shortened(tags)}; move or rename it")
    for start in range(0, len(files), _BATCH):
        part = files[start : start + _BATCH]
        try:
            encoded = [path.read_bytes() for _, path in part] if with_pictures else []
        except OSError as error:
            raise BadInputError(f"{error.filename}: cannot be read ({error.strerror})") from error
        yield encoded, np.array([label_of.get(layout.tag_form(name), unknown) for name, _ in part], dtype=np.int64)


def place_of(path: Path, row: int) -> str:
    """Return the words for a picture of a labelled set: its row in the file, its path, or its sample in a tar."""
    if tars := tars_of(path):
        return place_in_tars(tars, row)
    return str(_files(path)[row][1]) if is_folder_of_pictures(path) else _parquet_set(path).place(row)


def is_folder_of_pictures(path: Path) -> bool:
    """Return whether a labelled set is a folder with a folder of pictures for each tag."""
    return path.is_dir() and not tars_of(path) and not parquet_files_of(path)


def _parquet_set(path: Path) -> ParquetSet:
    if path.is_dir():
        _refuse_unfinished(path)
    return ParquetSet(path, tuple(parquet_files_of(path)))


def tags_of_set(path: Path) -> tuple[str, ...]:
    """Return the tags of a labelled set: folders' names, classes of tars, words that are labels, or numbers' names.

    Numbers have the names in the file, or in a file beside tars, or CIFAR-10's if the set's name says so.

    Raises
    ------
    BadInputError
        If the set cannot be read, its labels are numbers without names, or names cannot be those of tags.
    """
    names = _names_of_set(path)
    layout.check_tags(names, str(path))
    return names


def _names_of_set(path: Path) -> tuple[str, ...]:
    if tars := tars_of(path):
        return tags_of_tars(tars)
    if is_folder_of_pictures(path):
        names = {name for name, _ in _files(path)}
        _refuse_empty(path, names)
        return tuple(sorted(names))
    return _parquet_set(path).tags()


def refuse_unnamed(path: Path) -> None:
    """Refuse Parquet files whose labels are numbers without names, without reading their labels.

    Raises
    ------
    BadInputError
        If they are, or the columns cannot be used.
    """
    if not tars_of(path) and not is_folder_of_pictures(path) and (found := _parquet_set(path)).are_numbers:
        layout.check_tags(found.tags(), str(path))


def refuse_other_classes(path: Path, tags: tuple[str, ...]) -> None:
    """Refuse a Parquet file all of whose classes have names, and none of them is a tag.

    Raises
    ------
    BadInputError
        If it is one: by its numbers, each class would be taken for another.
    """
    if tars_of(path) or is_folder_of_pictures(path):
        return  # each of their classes is looked up by its name
    known = set(map(layout.tag_form, tags))
    found = _parquet_set(path)
    if found.are_numbers and found.names and known.isdisjoint(map(layout.tag_form, found.names)):
        raise BadInputError(
            f"{path}: none of its classes {shortened(found.names)} is one of the tags {shortened(tags)}; give a set "
            "of the same classes"
        )


def read_labelled_set(path: Path, tags: tuple[str, ...] | None = None, *, side: int = 32) -> LabelledSet:
    """Read a labelled set into memory.

    Parameters
    ----------
    path
        The set: a Parquet file with a column of pictures and a column ``label``, for example.
    tags
        Names of the labels; None takes those of the set, see :func:`tags_of_set`.
    side
        The height and width that every image is resized to.

    Raises
    ------
    BadInputError
        If the file cannot be used: which row, and why.
    """
    names = tags or tags_of_set(path)
    images: list[npt.NDArray[np.uint8]] = []
    labels: list[npt.NDArray[np.int64]] = []
    row = unlabelled = 0
    with ThreadPoolExecutor() as pool:  # Pillow decodes outside the interpreter's lock
        for encoded, batch_labels in iterate_pictures(path, names):
            wrong = np.flatnonzero((batch_labels < UNLABELLED) | (batch_labels >= len(names)))
            if wrong.size:
                raise BadInputError(
                    f"{place_of(path, row + int(wrong[0]))} has label {int(batch_labels[wrong[0]])}, "
                    f"but there are {len(names)} tags (labels 0 to {len(names) - 1}); correct it, or give as many tags"
                )
            keep = np.flatnonzero(batch_labels != UNLABELLED)
            try:
                images.extend(pool.map(decode_image, [encoded[at] for at in keep], [side] * len(keep)))
            except BadInputError as error:
                at = row + int(keep[len(images) - sum(map(len, labels))])
                raise BadInputError(f"{place_of(path, at)}: {error}") from error
            labels.append(batch_labels[keep])
            unlabelled += len(encoded) - len(keep)
            row += len(encoded)
    if not images:
        raise BadInputError(
            f"{path}: contains no images; give a folder with a folder of pictures for each tag, Parquet or tars"
        )
    if len(set(np.concatenate(labels).tolist())) < 2:
        raise BadInputError(f"{path}: all images have the same label; a classifier needs at least two tags")
    return LabelledSet(path, np.stack(images), np.concatenate(labels), names, unlabelled)
