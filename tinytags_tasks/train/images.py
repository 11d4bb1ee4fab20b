"""Labelled images, prepared like the images of a corpus.

A model also learns how its pictures were prepared, so labelled pictures go through the same decoder as a corpus:
upright, in RGB, cropped to the centre, averaged down to the model's size.
"""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from tinytags_tasks.corpus.labelled import CIFAR10_TAGS, LabelledSet, carried_tags, iterate_pictures
from tinytags_tasks.corpus.pictures.decoder import PictureDecoder
from tinytags_tasks.corpus.pictures.prepare import Target
from tinytags_tasks.corpus.reader import Batch
from tinytags_tasks.errors import BadInputError

NONE, LEFT_OUT = -1, -2
"""The labels of an image that shows none of the tags, and of one whose correct tag is debatable."""

_Labels = npt.NDArray[np.int64]


def preparation(height: int, width: int) -> str:
    """Return how labelled images of this size are prepared, in the same form as a corpus' manifest."""
    return PictureDecoder(Target(height, width)).preparation


def read_labelled(path: Path, tags: tuple[str, ...] | None, height: int, width: int) -> LabelledSet:
    """Read a labelled Parquet file into memory.

    Parameters
    ----------
    path
        The file: a column ``img`` (struct with ``bytes``) and a column ``label``.
    tags
        The names of the labels; None takes the names in the file, or CIFAR-10's if there are none.
    height, width
        The size that every image is resized to, in pixels.

    Returns
    -------
    LabelledSet
        The images, uint8, shape (images, height, width, 3), and the labels, int64.

    Raises
    ------
    BadInputError
        If the file cannot be used: the row and the reason.
    """
    names = tags or _tags_of(path) or CIFAR10_TAGS
    images, labels = _read(path, 0, names, height, width)
    if len(np.unique(labels)) < 2:
        raise BadInputError(f"{path}: all images have the same label; a classifier needs at least two tags")
    return LabelledSet(path, images, labels, names)


def read_other(path: Path, tags: tuple[str, ...], height: int, width: int) -> LabelledSet:
    """Read images of other things, like :func:`read_labelled`; labels may be -1 (none of the tags) or -2 (exclude)."""
    images, labels = _read(path, LEFT_OUT, tags, height, width)
    return LabelledSet(path, images, labels, tags)


def _read(
    path: Path, lowest: int, tags: tuple[str, ...], height: int, width: int
) -> tuple[npt.NDArray[np.uint8], _Labels]:
    labels: list[_Labels] = []
    images: list[npt.NDArray[np.uint8]] = []
    with closing(PictureDecoder(Target(height, width))) as decoder:
        for batch in decoder.decode_batches(_batches(path, labels.append, lowest, tags)):
            if batch.unreadable:
                row = min(batch.unreadable)
                raise BadInputError(f"{path}: row {row}: {batch.unreadable[row]}; repair the picture or remove the row")
            images.append(_pixels(batch))
    if not images:
        raise BadInputError(f"{path}: holds no images")
    return np.concatenate(images), np.concatenate(labels)


def _batches(path: Path, take: Callable[[_Labels], None], lowest: int, tags: tuple[str, ...]) -> Iterator[Batch]:
    """Yield a file's encoded pictures; check their labels and pass these to ``take``."""
    row = 0
    for encoded, labels in iterate_pictures(path):
        wrong = np.flatnonzero((labels < lowest) | (labels >= len(tags)))
        if wrong.size:
            raise BadInputError(
                f"{path}: row {row + int(wrong[0])} has label {int(labels[wrong[0]])}, but there are {len(tags)} tags "
                f"(labels {lowest} to {len(tags) - 1})"
            )
        take(labels)
        yield Batch(row, len(encoded), None, encoded=[picture or b"" for picture in encoded])
        row += len(encoded)


def _pixels(batch: Batch) -> npt.NDArray[np.uint8]:
    assert batch.pixels is not None  # noqa: S101 - the decoder guarantees it; for the type checker
    return batch.pixels


def _tags_of(path: Path) -> tuple[str, ...] | None:
    try:
        schema = pq.read_schema(path)
    except (pa.ArrowException, OSError, ValueError):
        return None  # reading its pictures will report what is wrong
    return carried_tags(schema, str(path))
