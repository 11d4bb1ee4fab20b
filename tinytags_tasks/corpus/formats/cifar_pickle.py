"""CIFAR-10 and CIFAR-100 in their authors' Python version.

Format: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009,
https://www.cs.toronto.edu/~kriz/cifar.html: each file is a pickled dictionary with ``data``, a uint8 array (images,
3,072) of row-major planes R, G, B, and ``labels`` (CIFAR-100: ``fine_labels`` and ``coarse_labels``), a list of
numbers.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tinytags_tasks.corpus.formats.base import Definition, Format, Guess, Sample
from tinytags_tasks.corpus.formats.cifar_labels import base_name, label_names_of, pickled_field
from tinytags_tasks.corpus.formats.inert_pickle import InertArray, array_numbers, load_inert
from tinytags_tasks.corpus.reader import Batch, ListedItem, Listing
from tinytags_tasks.corpus.sources.files import SourceFile, SourceFiles
from tinytags_tasks.errors import BadInputError

SIDE = 32
"""Height and width in pixels."""

_BATCH = 2_000
_MOST_FILE_BYTES = 1_000_000_000
"""A file is read whole; the largest of CIFAR-100 has 155 MB."""

_CLASSES = {"labels": 10, "fine_labels": 100, "coarse_labels": 20}
"""How many classes a field of labels has; more if more are named."""

_IMAGES = re.compile(r"data_batch_\d+|test_batch|train|test")


@dataclass(frozen=True, eq=False)
class _Images:
    """One file: uint8 (images, 3, row, column), and the requested labels with the name of their field."""

    planes: npt.NDArray[np.uint8]
    labels: list[int]
    labels_field: str


def _read_file(files: SourceFiles, file: SourceFile, column: str) -> _Images:
    where = files.name(file.path)
    if file.size_bytes > _MOST_FILE_BYTES:
        raise BadInputError(
            f"{where}: {file.size_bytes:,} bytes are more than any of CIFAR's pickles has; name the right files"
        )
    files.check_unchanged(file.path, file.size_bytes, file.version)
    pickled = load_inert(files.read(file.path, 0, file.size_bytes, file.version), where)
    files.check_unchanged(file.path, file.size_bytes, file.version)
    pixels = array_numbers(pickled_field(pickled, "data"), f"{where}: data")
    if pixels.dtype != np.uint8 or pixels.ndim != 2 or pixels.shape[1] != 3 * SIDE * SIDE:
        raise BadInputError(
            f"{where}: data is {pixels.dtype} of the shape {pixels.shape}; CIFAR's is uint8 (images, 3072); give "
            "one of its files"
        )
    planes = pixels.reshape(-1, 3, SIDE, SIDE)
    if not column:
        return _Images(planes, [], "")
    wanted = ("coarse_labels",) if column == "coarse_label" else ("labels", "fine_labels")
    field = next((field for field in wanted if pickled_field(pickled, field) is not None), "")
    if not field:
        raise BadInputError(f"{where}: has no {' or '.join(wanted)}; correct keywords, or leave it out")
    labels = pickled_field(pickled, field)
    if isinstance(labels, InertArray):
        labels = array_numbers(labels, f"{where}: {field}").ravel().tolist()
    if not isinstance(labels, list) or not all(type(label) is int for label in labels):
        raise BadInputError(f"{where}: {field} is not a list of integers; give one of CIFAR's files")
    if len(labels) != len(planes):
        raise BadInputError(f"{where}: has {len(planes):,} images and {len(labels):,} {field}; download it again")
    return _Images(planes, labels, field)


class CifarPickle(Format):
    """CIFAR's Python version; its pickles are read without running them."""

    name = "cifar-pickle"
    recognised_by = "a pickled dictionary"
    holds_pixels = True
    size = (SIDE, SIDE)
    keywords = ("label", "coarse_label")

    def has_name(self, path: str) -> bool:
        """See :meth:`Format.has_name`."""
        return _IMAGES.fullmatch(base_name(path)) is not None

    def guess(self, sample: Sample) -> Guess | None:
        """See :meth:`Format.guess`."""
        # A pickled dictionary: of protocol 2 to 5, where 4 and 5 begin with a frame, or of the textual protocol 0.
        is_dictionary = re.match(rb"\x80[\x02-\x05][}\x95]|\(d[p\n]", sample.head) is not None
        return Guess() if is_dictionary and sample.tail(1) == b"." else None

    def preparation(self, definition: Definition) -> str:
        """See :meth:`Format.preparation`."""
        return "as the source holds them (row-major planes R, G, B, interleaved here)"

    def list_items(self, files: SourceFiles, definition: Definition) -> Iterator[ListedItem]:
        """Yield the source's files with how many images each holds.

        In a folder the files ``data_batch_1`` and so on, ``test_batch``, ``train`` and ``test`` are taken.

        Parameters
        ----------
        files
            The source's: a folder, a pattern, or one file of any name.
        definition
            The corpus.

        Raises
        ------
        BadInputError
            If there is no such file or no image, or a file is damaged, would run code, or is not like CIFAR's.
        """
        found = list(files.files())
        taken = [file for file in found if self.has_name(file.path)]
        if not taken and len(found) == 1:
            taken = found
        if not taken:
            raise BadInputError(
                f"{files.source}: holds no data_batch_1, test_batch, train or test of CIFAR's Python version; correct "
                "the corpus' source or format"
            )
        images = 0
        for file in taken:
            held = len(_read_file(files, file, definition.keywords).planes)
            images += held
            yield ListedItem(file.path, held, 0, file.size_bytes, file.version)
        if not images:
            raise BadInputError(f"{files.source}: its files contain no images; give a file with at least one")

    def open_reader(self, definition: Definition, files: SourceFiles, listing: Listing) -> "CifarPickleReader":
        """See :meth:`Format.open_reader`."""
        return CifarPickleReader(definition, files, listing)


class CifarPickleReader:
    """Reads CIFAR's pickles, one file at a time; see :class:`tinytags_tasks.corpus.reader.Reader`.

    Parameters
    ----------
    definition
        The corpus.
    files
        The source's files.
    listing
        What they hold.
    """

    def __init__(self, definition: Definition, files: SourceFiles, listing: Listing) -> None:
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
        names = dict(enumerate(label_names_of(self._files, path, held.labels_field)))
        classes = max(len(names), _CLASSES[held.labels_field])
        for number, label in enumerate(held.labels):
            if not 0 <= label < classes:
                raise BadInputError(
                    f"{self._files.name(path)}: image {number:,} has the label {label} in {held.labels_field}, but "
                    f"labels are 0 to {classes - 1}; correct the file, or download it again"
                )
        return [names.get(label, str(label)) for label in held.labels]

    def close(self) -> None:
        """See :meth:`tinytags_tasks.corpus.reader.Reader.close`."""
        self._files.close()


def _interleaved(planes: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    images = np.empty((len(planes), SIDE, SIDE, 3), dtype=np.uint8)
    for channel in range(3):  # a channel at a time is five times as fast as one transposed copy
        images[..., channel] = planes[:, channel]
    return images
