"""CIFAR-10 and CIFAR-100 as their authors publish them for Python.

Format: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009,
https://www.cs.toronto.edu/~kriz/cifar.html: a pickled dictionary a file, its ``data`` a uint8 array (images, 3,072) of
row-major planes R, G, B, its ``labels`` (CIFAR-100: ``fine_labels`` and ``coarse_labels``) a list of numbers.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tinytags_tasks.corpus.definition import CorpusDefinition
from tinytags_tasks.corpus.formats.inert_pickle import InertArray, array_numbers, load_inert
from tinytags_tasks.corpus.labelled import CIFAR10_TAGS
from tinytags_tasks.corpus.reader import Batch, ListedItem, Listing
from tinytags_tasks.corpus.sources.files import SourceFile, SourceFiles
from tinytags_tasks.errors import BadInputError

SIDE = 32
"""Height and width in pixels."""

_BATCH = 2_000
_MOST_FILE_BYTES = 1_000_000_000
"""A file is read whole; the largest of CIFAR-100 has 155 MB."""

_IMAGES = re.compile(r"data_batch_\d+|test_batch|train|test")
_CIFAR100_FILES = ("train", "test", "train.bin", "test.bin")

_NAME_FILES = {
    "labels": (("batches.meta", "label_names"), ("batches.meta.txt", "")),
    "fine_labels": (("meta", "fine_label_names"), ("fine_label_names.txt", "")),
    "coarse_labels": (("meta", "coarse_label_names"), ("coarse_label_names.txt", "")),
}
"""Which file beside the images names their labels: a pickle with its field, or a text with a name a line."""


def cifar_label_names(files: SourceFiles, column: str) -> tuple[str, ...]:
    """Return the names of CIFAR's labels, in the order of the labels.

    Parameters
    ----------
    files
        The source's: CIFAR-10's or CIFAR-100's, in the binary or the Python version.
    column
        ``label``, or CIFAR-100's ``coarse_label``.

    Returns
    -------
    tuple of str
        As a file beside the images names them; else CIFAR-10's own for CIFAR-10, and none for CIFAR-100.

    Raises
    ------
    BadInputError
        When the file with the names is damaged.
    """
    paths = [file.path for file in files.files()]
    of_images = [path for path in paths if _name(path) in _CIFAR100_FILES] or paths
    field = "labels" if of_images is paths else "fine_labels"
    return _names_beside(files, of_images[0], "coarse_labels" if column == "coarse_label" else field)


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _names_beside(files: SourceFiles, path: str, field: str) -> tuple[str, ...]:
    folder = path[: -len(_name(path))]
    for name, names_field in _NAME_FILES[field]:
        try:
            file = files.current(folder + name)
        except BadInputError:
            continue  # most copies have only one of them
        where = files.name(file.path)
        content = files.read(file.path, 0, file.size_bytes)
        if names_field:
            names = _field(load_inert(content, where), names_field)
            if not isinstance(names, list) or not all(isinstance(word, bytes | str) for word in names):
                raise BadInputError(f"{where}: has no list {names_field}; fetch it again")
            return tuple(word.decode("utf-8", "replace") if isinstance(word, bytes) else word for word in names)
        return tuple(filter(None, map(str.strip, content.decode("utf-8", "replace").splitlines())))
    return CIFAR10_TAGS if field == "labels" else ()


def _field(pickled: object, name: str) -> object:
    """Return a dictionary's value; its keys are bytes where Python 2 wrote them, or text."""
    return pickled.get(name.encode(), pickled.get(name)) if isinstance(pickled, dict) else None


@dataclass(frozen=True, eq=False)
class _Images:
    """One file: uint8 (images, 3, row, column), and the labels that are wanted with the name of their field."""

    planes: npt.NDArray[np.uint8]
    labels: list[int]
    labels_field: str


def _read_file(files: SourceFiles, file: SourceFile, column: str) -> _Images:
    where = files.name(file.path)
    if file.size_bytes > _MOST_FILE_BYTES:
        raise BadInputError(
            f"{where}: {file.size_bytes:,} bytes are more than any of CIFAR's pickles has; name its files"
        )
    files.check_unchanged(file.path, file.size_bytes, file.version)
    pickled = load_inert(files.read(file.path, 0, file.size_bytes, file.version), where)
    files.check_unchanged(file.path, file.size_bytes, file.version)
    pixels = array_numbers(_field(pickled, "data"), f"{where}: data")
    if pixels.dtype != np.uint8 or pixels.ndim != 2 or pixels.shape[1] != 3 * SIDE * SIDE:
        raise BadInputError(
            f"{where}: data is {pixels.dtype} of the shape {pixels.shape}; CIFAR's is uint8 (images, 3072): give "
            "one of its files"
        )
    planes = pixels.reshape(-1, 3, SIDE, SIDE)
    if not column:
        return _Images(planes, [], "")
    wanted = ("coarse_labels",) if column == "coarse_label" else ("labels", "fine_labels")
    field = next((field for field in wanted if _field(pickled, field) is not None), "")
    if not field:
        raise BadInputError(f"{where}: has no {' or '.join(wanted)}; correct keywords, or leave it out")
    labels = _field(pickled, field)
    if isinstance(labels, InertArray):
        labels = array_numbers(labels, f"{where}: {field}").ravel().tolist()
    if not isinstance(labels, list) or not all(type(label) is int for label in labels):
        raise BadInputError(f"{where}: {field} is no list of whole numbers; give one of CIFAR's files")
    if len(labels) != len(planes):
        raise BadInputError(f"{where}: has {len(planes):,} images and {len(labels):,} {field}; fetch it again")
    return _Images(planes, labels, field)


def list_cifar_pickle(files: SourceFiles, definition: CorpusDefinition) -> Iterator[ListedItem]:
    """Yield the source's files with how many images each holds.

    Of a folder the files ``data_batch_1`` and so on, ``test_batch``, ``train`` and ``test`` are taken.

    Parameters
    ----------
    files
        The source's: a folder, a pattern, or one file of any name.
    definition
        The corpus.

    Raises
    ------
    BadInputError
        When there is no such file or no image, or a file is damaged, would run code, or has not what CIFAR's have.
    """
    found = list(files.files())
    taken = [file for file in found if _IMAGES.fullmatch(_name(file.path))]
    if not taken and len(found) == 1:
        taken = found
    if not taken:
        raise BadInputError(
            f"{files.source}: holds no data_batch_1, test_batch, train or test of CIFAR's Python version; correct the "
            "corpus' source or format"
        )
    images = 0
    for file in taken:
        held = len(_read_file(files, file, definition.keywords).planes)
        images += held
        yield ListedItem(file.path, held, 0, file.size_bytes, file.version)
    if not images:
        raise BadInputError(f"{files.source}: its files have no images; give a file with at least one")


class CifarPickleReader:
    """Reads CIFAR's pickles, a file at a time; see :class:`tinytags_tasks.corpus.reader.Reader`.

    Parameters
    ----------
    definition
        The corpus.
    files
        The source's files.
    listing
        What they hold.
    """

    holds_pixels = True
    preparation = "as the source holds them (row-major planes R, G, B, interleaved here)"

    def __init__(self, definition: CorpusDefinition, files: SourceFiles, listing: Listing) -> None:
        self._definition = definition
        self._files = files
        self._listing = listing

    def batches(self, first: int, images: int, *, decode: bool = True) -> Iterator[Batch]:
        """See :meth:`tinytags_tasks.corpus.reader.Reader.batches`."""
        for item_first, item in self._listing.items(first, images):
            file = SourceFile(item.path, item.size_bytes, item.version)
            held = _read_file(self._files, file, self._definition.keywords)
            keywords = self._keywords(item.path, held)
            stop = min(first + images - item_first, item.images)
            for start in range(max(first - item_first, 0), stop, _BATCH):
                part = slice(start, min(start + _BATCH, stop))
                pixels = _interleaved(held.planes[part]) if decode else None
                yield Batch(item_first + start, part.stop - start, pixels, keywords=keywords[part])

    def _keywords(self, path: str, held: _Images) -> list[str | None]:
        if not held.labels_field:
            return []
        names = dict(enumerate(_names_beside(self._files, path, held.labels_field)))
        return [names.get(label, str(label)) for label in held.labels]

    def close(self) -> None:
        """See :meth:`tinytags_tasks.corpus.reader.Reader.close`."""
        self._files.close()


def _interleaved(planes: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    images = np.empty((len(planes), SIDE, SIDE, 3), dtype=np.uint8)
    for channel in range(3):  # a channel at a time is five times as fast as one transposed copy
        images[..., channel] = planes[:, channel]
    return images
