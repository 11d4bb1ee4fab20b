"""Labelled images, prepared like the images of a corpus.

A model also learns how its pictures were prepared, so labelled pictures go through the same decoder as a corpus:
upright, in RGB, cropped to the centre, averaged down to the model's size.
"""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tinytags_tasks.corpus.labelled import (
    UNLABELLED,
    LabelledSet,
    is_folder_of_pictures,
    iterate_pictures,
    place_of,
    tags_of_set,
)
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
        Parquet files with a column of pictures and a column ``label``; a folder with a folder for each tag; or
        WebDataset's tars.
    tags
        The names of the labels; None takes those of the set, see
        :func:`~tinytags_tasks.corpus.labelled.tags_of_set`.
    height, width
        The size that every image is resized to, in pixels.

    Returns
    -------
    LabelledSet
        The images, uint8, shape (images, height, width, 3), and the labels, int64, of those that have a label.

    Raises
    ------
    BadInputError
        If the file cannot be used: the row and the reason.
    """
    names = tags or tags_of_set(path)
    read = _Rows(path, names)
    images, labels = _read(read, height, width)
    check_labels(path, labels, names)
    return LabelledSet(path, images, labels, names, read.unlabelled)


def read_rows(path: Path, rows: _Labels, height: int, width: int) -> npt.NDArray[np.uint8]:
    """Return some images of a labelled set: uint8, shape (rows, height, width, 3).

    Parameters
    ----------
    path, height, width
        As for :func:`read_labelled`.
    rows
        Their numbers among those with a label, ascending.

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
    for encoded, labels in iterate_pictures(path, unknown=0):
        labelled = np.flatnonzero(labels != UNLABELLED)
        begin, end = np.searchsorted(rows, (first, first + len(labelled))).tolist()
        if begin < end:
            wanted = [encoded[labelled[row - first]] or b"" for row in rows[begin:end].tolist()]
            yield Batch(begin, len(wanted), None, encoded=wanted)
        first += len(labelled)


def read_labels(
    path: Path, tags: tuple[str, ...] | None, *, is_other: bool = False
) -> tuple[tuple[str, ...], _Labels, int]:
    """Return a labelled set's tags and labels, without decoding its pictures, and how many have no label.

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
    rows = _Rows(path, names, is_other=is_other)
    labels = [labels for _, labels in rows.iterate(with_pictures=False)]
    if not labels:
        raise BadInputError(f"{path}: holds no images")
    return names, np.concatenate(labels), rows.unlabelled


def check_labels(path: Path, labels: _Labels, tags: tuple[str, ...], *, is_other: bool = False) -> None:
    """Refuse labels that nothing can be learned from; or those that :func:`read_other` does not know.

    Raises
    ------
    BadInputError
        If no image has a label, or all have the same.
    """
    if not len(labels):
        raise BadInputError(f"{path}: no image has a label (all are {UNLABELLED}); give the labelled part of the set")
    if not is_other and len(np.unique(labels)) < 2:
        raise BadInputError(f"{path}: all images have the same label; a classifier needs at least two tags")


def read_other(path: Path, tags: tuple[str, ...], height: int, width: int) -> LabelledSet:
    """Read images of other things, like :func:`read_labelled`; labels may be -1 (none of the tags) or -2 (exclude).

    In a folder of folders or a tar, those of folders or classes that are named after no tag show none.
    """
    images, labels = _read(_Rows(path, tags, is_other=True), height, width)
    return LabelledSet(path, images, labels, tags)


class _Rows:
    """The rows of a labelled set, of which those without a label are counted and left out.

    Parameters
    ----------
    path, tags
        As for :func:`read_labelled`.
    is_other
        Whether its images are of other things: then -1 is a label.
    """

    def __init__(self, path: Path, tags: tuple[str, ...], *, is_other: bool = False) -> None:
        self.path = path
        self.unlabelled = 0
        self._tags = tags
        self._is_other = is_other
        self._kept: list[_Labels] = []

    def iterate(self, *, with_pictures: bool = True) -> Iterator[tuple[list[bytes], _Labels]]:
        """Yield the encoded pictures and labels of rows with a label."""
        first = 0
        unknown = NONE if self._is_other else None
        for encoded, labels in iterate_pictures(self.path, self._tags, unknown, with_pictures=with_pictures):
            self._refuse_wrong(first, labels)
            keep = np.flatnonzero(labels != UNLABELLED) if not self._is_other else np.arange(len(labels))
            self._kept.append(keep + first)
            self.unlabelled += len(labels) - len(keep)
            first += len(labels)
            yield [encoded[row] for row in keep.tolist()] if with_pictures else [], labels[keep]

    def place(self, number: int) -> str:
        """Return the words for a row: its number is that among those that were yielded."""
        return place_of(self.path, int(np.concatenate(self._kept)[number]))

    def _refuse_wrong(self, first: int, labels: _Labels) -> None:
        wrong = np.flatnonzero((labels < (LEFT_OUT if self._is_other else UNLABELLED)) | (labels >= len(self._tags)))
        if wrong.size:
            raise BadInputError(
                f"{place_of(self.path, first + int(wrong[0]))} has label {int(labels[wrong[0]])}, but there are "
                f"{len(self._tags)} tags (labels {LEFT_OUT if self._is_other else 0} to {len(self._tags) - 1}); "
                "correct it, or give as many tags"
            )


def _read(rows: _Rows, height: int, width: int) -> tuple[npt.NDArray[np.uint8], _Labels]:
    labels: list[_Labels] = []
    images: list[npt.NDArray[np.uint8]] = []
    with closing(PictureDecoder(Target(height, width))) as decoder:
        for batch in decoder.decode_batches(_batches(rows, labels.append)):
            if batch.unreadable:
                row = min(batch.unreadable)
                what = "it" if is_folder_of_pictures(rows.path) or tars_of(rows.path) else "the row"
                raise BadInputError(f"{rows.place(row)}: {batch.unreadable[row]}; repair the picture or remove {what}")
            images.append(_pixels(batch))
    if not labels:
        raise BadInputError(f"{rows.path}: holds no images")
    return np.concatenate([np.zeros((0, height, width, 3), dtype=np.uint8), *images]), np.concatenate(labels)


def _batches(rows: _Rows, take: Callable[[_Labels], None]) -> Iterator[Batch]:
    """Yield a set's encoded pictures, and pass their labels to ``take``."""
    first = 0
    for encoded, labels in rows.iterate():
        take(labels)
        if len(labels):
            yield Batch(first, len(encoded), None, encoded=[picture or b"" for picture in encoded])
        first += len(encoded)


def _pixels(batch: Batch) -> npt.NDArray[np.uint8]:
    assert batch.pixels is not None  # noqa: S101 - the decoder guarantees it; for the type checker
    return batch.pixels
