"""Labelled images, prepared like the images of a corpus.

A model also learns how its pictures were prepared, so labelled pictures go through the same decoder as a corpus:
upright, in RGB, cropped to the centre, averaged down to the model's size.
"""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tinytags_tasks.corpus.labelled import LabelledSet, iterate_pictures, place_of, tags_of_set
from tinytags_tasks.corpus.labelled_tar import tars_of
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
    """Read a labelled set into memory.

    Parameters
    ----------
    path
        A Parquet file with a column ``img`` (struct with ``bytes``) and a column ``label``; a folder with a folder for
        each tag; or WebDataset's tars.
    tags
        The names of the labels; None takes those of the file or the folders, or CIFAR-10's if there are none.
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
    names = tags or tags_of_set(path)
    images, labels = _read(path, 0, names, height, width)
    check_labels(path, labels, names)
    return LabelledSet(path, images, labels, names)


def read_rows(path: Path, rows: _Labels, height: int, width: int) -> npt.NDArray[np.uint8]:
    """Return some images of a labelled set: uint8, shape (rows, height, width, 3).

    Parameters
    ----------
    path, height, width
        As for :func:`read_labelled`.
    rows
        Their numbers in the set, ascending.

    Raises
    ------
    BadInputError
        If the set cannot be used.
    """
    with closing(PictureDecoder(Target(height, width))) as decoder:
        images = [np.zeros((0, height, width, 3), dtype=np.uint8)]
        for batch in decoder.decode_batches(_batches_of_rows(path, rows)):
            for number, reason in batch.unreadable.items():
                raise BadInputError(f"{place_of(path, int(rows[number]))}: {reason}; repair the picture or remove it")
            images.append(_pixels(batch))
    return np.concatenate(images)


def _batches_of_rows(path: Path, rows: _Labels) -> Iterator[Batch]:
    """Yield some of a set's encoded pictures; a batch's positions are places in ``rows``."""
    first = 0
    for encoded, _ in iterate_pictures(path, unknown=NONE):
        begin, end = np.searchsorted(rows, (first, first + len(encoded))).tolist()
        if begin < end:
            wanted = [encoded[row - first] or b"" for row in rows[begin:end].tolist()]
            yield Batch(begin, len(wanted), None, encoded=wanted)
        first += len(encoded)


def read_labels(path: Path, tags: tuple[str, ...] | None, *, is_other: bool = False) -> tuple[tuple[str, ...], _Labels]:
    """Return a labelled set's tags and labels, without decoding its pictures.

    Parameters
    ----------
    path, tags
        As for :func:`read_labelled`.
    is_other
        Whether its images are of other things, as for :func:`read_other`.

    Raises
    ------
    BadInputError
        If the set cannot be used.
    """
    names = tags or tags_of_set(path)
    parts = iterate_pictures(path, names, NONE if is_other else None, with_pictures=False)
    labels = [labels for _, labels in parts]
    if not labels:
        raise BadInputError(f"{path}: holds no images")
    return names, np.concatenate(labels)


def check_labels(path: Path, labels: _Labels, tags: tuple[str, ...], *, is_other: bool = False) -> None:
    """Refuse labels that nothing can be learned from; or those that :func:`read_other` does not know.

    Raises
    ------
    BadInputError
        If a label has no tag, or all are the same.
    """
    _refuse_wrong(path, 0, labels, LEFT_OUT if is_other else 0, tags)
    if not is_other and len(np.unique(labels)) < 2:
        raise BadInputError(f"{path}: all images have the same label; a classifier needs at least two tags")


def read_other(path: Path, tags: tuple[str, ...], height: int, width: int) -> LabelledSet:
    """Read images of other things, like :func:`read_labelled`; labels may be -1 (none of the tags) or -2 (exclude).

    In a folder of folders or a tar, those of folders or classes that are named after no tag show none.
    """
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
                what = "it" if path.is_dir() or tars_of(path) else "the row"
                raise BadInputError(
                    f"{place_of(path, row)}: {batch.unreadable[row]}; repair the picture or remove {what}"
                )
            images.append(_pixels(batch))
    if not images:
        raise BadInputError(f"{path}: holds no images")
    return np.concatenate(images), np.concatenate(labels)


def _batches(path: Path, take: Callable[[_Labels], None], lowest: int, tags: tuple[str, ...]) -> Iterator[Batch]:
    """Yield a set's encoded pictures; check their labels and pass these to ``take``."""
    row = 0
    for encoded, labels in iterate_pictures(path, tags, NONE if lowest < 0 else None):
        _refuse_wrong(path, row, labels, lowest, tags)
        take(labels)
        yield Batch(row, len(encoded), None, encoded=[picture or b"" for picture in encoded])
        row += len(encoded)


def _refuse_wrong(path: Path, first: int, labels: _Labels, lowest: int, tags: tuple[str, ...]) -> None:
    wrong = np.flatnonzero((labels < lowest) | (labels >= len(tags)))
    if wrong.size:
        raise BadInputError(
            f"{path}: row {first + int(wrong[0])} has label {int(labels[wrong[0]])}, but there are {len(tags)} tags "
            f"(labels {lowest} to {len(tags) - 1})"
        )


def _pixels(batch: Batch) -> npt.NDArray[np.uint8]:
    assert batch.pixels is not None  # noqa: S101 - the decoder guarantees it; for the type checker
    return batch.pixels
