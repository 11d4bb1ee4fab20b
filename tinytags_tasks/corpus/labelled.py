"""Labelled sets: parquet with a column of encoded images and one of labels, the layout of the Hugging Face hub."""

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

from tinytags_tasks.corpus.pictures.prepare import decode_rgb
from tinytags_tasks.errors import BadInputError

CIFAR10_TAGS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
"""CIFAR-10's classes in the order of their labels."""

TAGS_KEY = b"tinytags.tags"
"""The key of the tags in the Parquet schema's metadata; they are a JSON list."""

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
    """Return the hash of a labelled file; this takes a tenth of a second where decoding takes ten.

    Raises
    ------
    BadInputError
        If it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BadInputError(f"{path}: cannot be read ({error.strerror}); give the path of a labelled file") from error


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


def iterate_pictures(path: Path) -> Iterator[tuple[list[bytes], npt.NDArray[np.int64]]]:
    """Yield the encoded pictures and labels of a labelled Parquet file, a thousand at a time.

    Raises
    ------
    BadInputError
        If the file is missing, damaged or not a Parquet file, or lacks the columns ``img`` and ``label``, or a label.
    """
    file = _open(path)
    row = 0
    try:
        for batch in file.iter_batches(_BATCH, columns=["img", "label"]):
            labels = batch.column(1).to_pylist()
            if None in labels:
                raise BadInputError(f"{path}: row {row + labels.index(None)} has no label; give it one or drop the row")
            row += len(labels)
            yield batch.column(0).field("bytes").to_pylist(), np.asarray(labels, dtype=np.int64)
    except (pa.ArrowException, OSError) as error:
        raise BadInputError(f"{path}: damaged after row {row} ({error}); download it again") from error


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

    Raises
    ------
    BadInputError
        If they are not a list of words; the message names ``path``.
    """
    carried = (schema.metadata or {}).get(TAGS_KEY)
    if not carried:
        return None
    try:
        tags = json.loads(carried)
    except ValueError:
        tags = None
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise BadInputError(
            f"{path}: its metadata {TAGS_KEY.decode()} is not a JSON list of tags; write the file again"
        )
    return tuple(tags)


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
    names = tags or carried_tags(_open(path).schema_arrow, str(path)) or CIFAR10_TAGS
    images: list[npt.NDArray[np.uint8]] = []
    labels: list[npt.NDArray[np.int64]] = []
    row = 0
    with ThreadPoolExecutor() as pool:  # Pillow decodes outside the interpreter's lock
        for encoded, batch_labels in iterate_pictures(path):
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
