"""Labelled images, prepared as the images of a corpus are.

How a picture was prepared is part of what a model learns, so labelled pictures go through the same decoder as a corpus:
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
"""Labels of an image that shows none of the tags, and of one whose right tag is arguable."""

_Labels = npt.NDArray[np.int64]


def preparation(height: int, width: int) -> str:
    """Return how labelled images of this size are prepared, in the words of a corpus' manifest."""
    return PictureDecoder(Target(height, width)).preparation


def read_labelled(path: Path, tags: tuple[str, ...] | None, height: int, width: int) -> LabelledSet:
    """Read a labelled Parquet file into memory.

    Parameters
    ----------
    path
        The file: a column ``img`` (struct with ``bytes``) and a column ``label``.
    tags
        Names of the labels; None takes those in the file, or CIFAR-10's if it has none.
    height, width
        Size that every image gets, in pixels.

    Returns
    -------
    LabelledSet
        Its images uint8 of shape (images, height, width, 3), its labels int64.

    Raises
    ------
    BadInputError
        When the file cannot be used, with the row and the reason.
    """
    names = tags or _tags_of(path) or CIFAR10_TAGS
    images, labels = _read(path, 0, names, height, width)
    if len(np.unique(labels)) < 2:
        raise BadInputError(f"{path}: all images have the same label; a classifier needs at least two tags")
    return LabelledSet(path, images, labels, names)


def read_other(path: Path, tags: tuple[str, ...], height: int, width: int) -> LabelledSet:
    """Read images of other things: as :func:`read_labelled`, with labels -1 (none of the tags) and -2 (leave out)."""
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
    """Yield a file's encoded pictures, and pass their labels on, each of them checked."""
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
    assert batch.pixels is not None  # noqa: S101 - the decoder's promise, for the type checker
    return batch.pixels


def _tags_of(path: Path) -> tuple[str, ...] | None:
    try:
        schema = pq.read_schema(path)
    except (pa.ArrowException, OSError, ValueError):
        return None  # what reads its pictures reports what is wrong with it
    return carried_tags(schema, str(path))
