"""A labelled set's pictures as nets learn from them, and a sample of them for calibrating a net."""

import io
from contextlib import closing
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from tinytags_tasks.corpus.labelled import UNLABELLED, iterate_pictures, tags_of_set
from tinytags_tasks.corpus.pictures.decoder import PictureDecoder
from tinytags_tasks.corpus.pictures.prepare import Target
from tinytags_tasks.corpus.reader import Batch
from tinytags_tasks.errors import BadInputError


def sample_pictures(path: Path, most: int, height: int, width: int) -> npt.NDArray[np.uint8]:
    """Return some pictures from all over a labelled set, always the same.

    Parameters
    ----------
    path
        A Parquet file or a folder, as for training.
    most
        How many at most.
    height, width
        Their size in pixels; smaller if one of them is smaller, so that none is enlarged.

    Returns
    -------
    numpy.ndarray
        uint8, shape (pictures, height, width, 3).

    Raises
    ------
    BadInputError
        If the file cannot be used: which row, and why.
    """
    encoded = _sample(path, most)
    sizes = [_size(picture, f"{path}: picture {number} of the sample") for number, picture in enumerate(encoded)]
    target = Target(min(height, *(size[1] for size in sizes)), min(width, *(size[0] for size in sizes)))
    found = []
    with closing(PictureDecoder(target)) as decoder:
        for batch in decoder.decode_batches(iter([Batch(0, len(encoded), None, encoded=encoded)])):
            if batch.unreadable:
                number = min(batch.unreadable)
                raise BadInputError(f"{path}: picture {number} of the sample: {batch.unreadable[number]}; remove it")
            assert batch.pixels is not None  # noqa: S101 - the decoder guarantees it; for the type checker
            found.append(batch.pixels)
    return np.concatenate(found)


def _sample(path: Path, most: int) -> list[bytes]:
    held = sum(len(labels) for _, labels in iterate_pictures(path, unknown=0, with_pictures=False))
    if not held:
        raise BadInputError(f"{path}: holds no images")
    wanted = {round(place) for place in np.linspace(0, held - 1, min(held, most))}
    encoded: list[bytes] = []
    row = 0
    for pictures, _ in iterate_pictures(path, unknown=0):
        encoded += [picture or b"" for number, picture in enumerate(pictures, row) if number in wanted]
        row += len(pictures)
    return encoded


def _size(encoded: bytes, where: str) -> tuple[int, int]:
    try:
        with Image.open(io.BytesIO(encoded)) as picture:
            return picture.size
    except (OSError, ValueError, SyntaxError) as error:
        raise BadInputError(f"{where}: cannot be read ({error}); remove it") from error


def read_encoded(
    path: Path, tags: tuple[str, ...] | None = None
) -> tuple[list[bytes], npt.NDArray[np.int64], tuple[str, ...]]:
    """Return all pictures with a label of a labelled set as they are, their labels, and the labels' names.

    Parameters
    ----------
    path
        The set.
    tags
        The names of the labels; None takes those of the set.

    Raises
    ------
    BadInputError
        If the file cannot be used, or a label has no name.
    """
    encoded: list[bytes] = []
    labels: list[npt.NDArray[np.int64]] = []
    names = tags or tags_of_set(path)
    for pictures, numbers in iterate_pictures(path, names):
        keep = np.flatnonzero(numbers != UNLABELLED)
        encoded += [pictures[row] or b"" for row in keep.tolist()]
        labels.append(numbers[keep])
    if not encoded:
        raise BadInputError(f"{path}: holds no images")
    found = np.concatenate(labels)
    if wrong := sorted(set(found.tolist()) - set(range(len(names)))):
        raise BadInputError(f"{path}: has the label {wrong[0]}, but there are {len(names)} tags (labels from 0)")
    return encoded, found, names
