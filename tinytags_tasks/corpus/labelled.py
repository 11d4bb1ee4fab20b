"""Labelled sets: a Parquet file of encoded images and labels, as on the Hugging Face Hub, a folder per tag, or tars."""

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from tinytags_tasks.corpus.labelled_tar import iterate_tars, place_in_tars, tags_of_tars, tars_of, tars_sha256
from tinytags_tasks.corpus.picture_kinds import ENDINGS
from tinytags_tasks.corpus.pictures.prepare import decode_rgb
from tinytags_tasks.corpus.sources.left_out import is_junk_path
from tinytags_tasks.errors import BadInputError
from tinytags_tasks.store import layout

CIFAR10_TAGS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
"""CIFAR-10's classes in the order of their labels."""

TAGS_KEY = b"tinytags.tags"
"""The key of the tags in the Parquet schema's metadata; they are a JSON list."""

HUB_KEY = b"huggingface"
"""The key under which the Hugging Face Hub's library keeps a file's features, and so the names of its classes."""

_BATCH = 1_000


@dataclass(frozen=True)
class LabelledSet:
    """Images with a known tag.

    Attributes
    ----------
    path
        The Parquet file that they come from.
    images
        uint8, shape (images, row, column, channel).
    labels
        int64, shape (images,): indexes into ``tags``.
    tags
        The names of the tags.
    """

    path: Path
    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    tags: tuple[str, ...]


def file_sha256(path: Path) -> str:
    """Return the hash of a labelled set's bytes; this takes a tenth of a second where decoding takes ten.

    That of a folder is over the names, below the folder, and the hashes of its pictures; that of WebDataset's tars over
    their names and hashes.

    Raises
    ------
    BadInputError
        If it cannot be read.
    """
    try:
        if tars := tars_of(path):
            return tars_sha256(tars)
        if path.is_dir():
            names = [(picture.relative_to(path).as_posix(), _sha256(picture)) for _, picture in _files(path)]
            return hashlib.sha256(json.dumps(names).encode()).hexdigest()
        return _sha256(path)
    except FileNotFoundError as error:
        raise BadInputError(f"{path}: no such file; give the path of a labelled file or folder") from error
    except OSError as error:
        raise BadInputError(f"{path}: cannot be read ({error.strerror}); give the path of a labelled file") from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _files(folder: Path) -> list[tuple[str, Path]]:
    """Return a folder's pictures in the order of their paths, with the names of the folders that they are in."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS and path.is_file())
    found = [path for path in found if not is_junk_path(path.relative_to(folder).as_posix())]
    if loose := [path for path in found if path.parent == folder]:
        raise BadInputError(
            f"{loose[0]}: is in no folder of a tag; a labelled folder has one folder for each tag, named after it"
        )
    return [(path.relative_to(folder).parts[0], path) for path in found]


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
        A Parquet file, a folder of folders, or WebDataset's tars.
    tags
        The tags that the names of folders and classes are looked up in; a Parquet file has labels.
    unknown
        The label of pictures of a folder or class that is named after none of the tags; None refuses them.
    with_pictures
        Whether to read the pictures; else there are only labels.

    Raises
    ------
    BadInputError
        If the set is missing or damaged, lacks the columns ``img`` and ``label`` or a label, or has a folder or class
        that is no tag.
    """
    if tars := tars_of(path):
        yield from iterate_tars(tars, tags, unknown, _BATCH, with_pictures=with_pictures)
        return
    if path.is_dir():
        yield from _iterate_folder(path, tags, unknown, with_pictures=with_pictures)
        return
    file = _open(path)
    row = 0
    try:
        for batch in file.iter_batches(_BATCH, columns=["label", "img"] if with_pictures else ["label"]):
            labels = batch.column("label").to_pylist()
            if None in labels:
                raise BadInputError(f"{path}: row {row + labels.index(None)} has no label; give it one or drop the row")
            row += len(labels)
            encoded = batch.column("img").field("bytes").to_pylist() if with_pictures else []
            yield encoded, np.asarray(labels, dtype=np.int64)
    except (pa.ArrowException, OSError) as error:
        raise BadInputError(f"{path}: damaged after row {row} ({error}); download it again") from error


def _iterate_folder(
    folder: Path, tags: tuple[str, ...], unknown: int | None, *, with_pictures: bool
) -> Iterator[tuple[list[bytes], npt.NDArray[np.int64]]]:
    files = _files(folder)
    label_of = {tag: label for label, tag in enumerate(tags)}
    for name, path in files:
        if name not in label_of and unknown is None:
            raise BadInputError(f"{path}: its folder {name} is none of the tags {', '.join(tags)}; move or rename it")
    for start in range(0, len(files), _BATCH):
        part = files[start : start + _BATCH]
        try:
            encoded = [path.read_bytes() for _, path in part] if with_pictures else []
        except OSError as error:
            raise BadInputError(f"{error.filename}: cannot be read ({error.strerror})") from error
        yield encoded, np.array([label_of.get(name, unknown) for name, _ in part], dtype=np.int64)


def place_of(path: Path, row: int) -> str:
    """Return the words for a picture of a labelled set: its row in the file, its path, or its sample in a tar."""
    if tars := tars_of(path):
        return place_in_tars(tars, row)
    return str(_files(path)[row][1]) if path.is_dir() else f"{path}: row {row}"


def _open(path: Path) -> pq.ParquetFile:
    if not path.is_file():
        raise BadInputError(f"{path}: no such file; give the path of a labelled Parquet file")
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise BadInputError(f"{path}: not a readable Parquet file ({error})") from error
    schema = file.schema_arrow
    image_type = schema.field("img").type if "img" in schema.names else None
    if image_type is None or not pa.types.is_struct(image_type) or image_type.get_field_index("bytes") < 0:
        raise BadInputError(f"{path}: needs a column img, a struct with the bytes of a picture; has {schema.names}")
    if "label" not in schema.names or not pa.types.is_integer(schema.field("label").type):
        raise BadInputError(f"{path}: needs a column label of integers; has {schema.names}")
    return file


def carried_tags(schema: pa.Schema, path: str) -> tuple[str, ...] | None:
    """Return the tags that a labelled file has in its schema; None if it has none.

    Our own key comes first, then the names that the Hugging Face Hub's library writes for a column of ``ClassLabel``,
    if they are names.

    Raises
    ------
    BadInputError
        If those under our own key are not a list of words; the message names ``path``.
    """
    metadata = schema.metadata or {}
    if not metadata.get(TAGS_KEY):
        return _hub_tags(metadata.get(HUB_KEY, b""))
    try:
        tags = json.loads(metadata[TAGS_KEY])
    except ValueError:
        tags = None
    if not _are_words(tags):
        raise BadInputError(
            f"{path}: its metadata {TAGS_KEY.decode()} is not a JSON list of tags; write the file again"
        )
    return tuple(tags)


def _hub_tags(described: bytes) -> tuple[str, ...] | None:
    try:
        tags = json.loads(described)["info"]["features"]["label"]["names"]
    except (ValueError, KeyError, TypeError):
        return None
    return tuple(tags) if _are_words(tags) else None


def _are_words(tags: object) -> bool:
    return isinstance(tags, list) and all(isinstance(tag, str) for tag in tags)


def tags_of_set(path: Path) -> tuple[str, ...]:
    """Return the tags of a labelled set: folders' names, tars' classes, a file's names, or else CIFAR-10's.

    Raises
    ------
    BadInputError
        If the file cannot be read, or its names are not words, or cannot be those of tags.
    """
    names = _names_of_set(path)
    layout.check_tags(names, str(path))
    return names


def _names_of_set(path: Path) -> tuple[str, ...]:
    if tars := tars_of(path):
        return tags_of_tars(tars)
    if path.is_dir():
        return tuple(sorted({name for name, _ in _files(path)}))
    return carried_tags(_open(path).schema_arrow, str(path)) or CIFAR10_TAGS


def read_labelled_set(path: Path, tags: tuple[str, ...] | None = None, *, side: int = 32) -> LabelledSet:
    """Read a labelled parquet file into memory.

    Parameters
    ----------
    path
        The file, with a column ``img`` (struct with ``bytes``) and a column ``label``.
    tags
        Names of the labels; None takes those in the file, or else CIFAR-10's.
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
    row = 0
    with ThreadPoolExecutor() as pool:  # Pillow decodes outside the interpreter's lock
        for encoded, batch_labels in iterate_pictures(path, names):
            wrong = np.flatnonzero((batch_labels < 0) | (batch_labels >= len(names)))
            if wrong.size:
                raise BadInputError(
                    f"{path}: row {row + int(wrong[0])} has label {int(batch_labels[wrong[0]])}, "
                    f"but there are {len(names)} tags (labels 0 to {len(names) - 1})"
                )
            try:
                images.extend(pool.map(decode_image, encoded, [side] * len(encoded)))
            except BadInputError as error:
                raise BadInputError(f"{path}: row {len(images)}: {error}") from error
            labels.append(batch_labels)
            row += len(encoded)
    if not images:
        raise BadInputError(f"{path}: contains no images")
    if len(set(np.concatenate(labels).tolist())) < 2:
        raise BadInputError(f"{path}: all images have the same label; a classifier needs at least two tags")
    return LabelledSet(path, np.stack(images), np.concatenate(labels), names)
