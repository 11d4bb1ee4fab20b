"""CIFAR-10 and CIFAR-100 in their authors' binary version.

Format: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009,
https://www.cs.toronto.edu/~kriz/cifar.html: an image has one byte with its label, for CIFAR-100 two (the coarse and the
fine one), then three row-major planes.
"""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tinytags_tasks.corpus.formats.base import Definition, Guess, Sample
from tinytags_tasks.corpus.formats.cifar_labels import cifar_label_names
from tinytags_tasks.corpus.formats.fixed_records import FixedRecords, RecordLayout, RecordPlace
from tinytags_tasks.corpus.sources.files import SourceFile, SourceFiles
from tinytags_tasks.errors import BadInputError

_SIDE = 32
_NAMES = re.compile(r"data_batch_\d+\.bin|test_batch\.bin|train\.bin|test\.bin")
_CIFAR100_NAMES = ("train.bin", "test.bin")
_CLASSES = ((10,), (20, 100))
"""How many labels CIFAR-10 has, and how many coarse and fine ones CIFAR-100 has."""

_MOSTLY = 0.8
"""Which share of records has right labels in a file of CIFAR's that has some wrong ones; by chance it is 4 %."""

_BATCH = 1_000


class CifarBinary(FixedRecords):
    """CIFAR's binary version; the file's name tells CIFAR-100 (``train.bin``, ``test.bin``) from CIFAR-10."""

    name = "cifar-binary"
    recognised_by = "a size that is a multiple of 3,073 or 3,074 bytes, with labels"
    size = (_SIDE, _SIDE)
    keywords = ("label", "coarse_label")

    def record_layout(self, definition: Definition, path: str = "") -> RecordLayout:
        """See :meth:`FixedRecords.record_layout`."""
        is_cifar100 = definition.keywords == "coarse_label" or Path(path).name in _CIFAR100_NAMES
        return RecordLayout(_SIDE, _SIDE, "planes", 2 if is_cifar100 else 1)

    def guess(self, sample: Sample) -> Guess | None:
        """See :meth:`Format.guess`."""
        if (sample.height, sample.width) != self.size or not sample.file.size_bytes:
            return None
        for classes in _CLASSES:
            record_bytes = len(classes) + sample.image_bytes
            if sample.file.size_bytes % record_bytes == 0:
                labels = sample.records(record_bytes)[:, : len(classes)]
                is_right = (labels < np.array(classes)).all(axis=1)
                if is_right.all():
                    return Guess()
                if is_right.mean() >= _MOSTLY or _NAMES.fullmatch(Path(sample.file.path).name):
                    self._refuse_wrong_of(sample, classes, record_bytes)
        return None

    def _refuse_wrong_of(self, sample: Sample, classes: tuple[int, ...], record_bytes: int) -> None:
        """Refuse a file of CIFAR's that has a wrong label, naming the first one."""
        layout = RecordLayout(_SIDE, _SIDE, "planes", len(classes))
        count = sample.file.size_bytes // record_bytes
        for first in range(0, count, _BATCH):
            held = min(_BATCH, count - first)
            content = sample.files.read(sample.file.path, first * record_bytes, held * record_bytes)
            records = np.frombuffer(content, dtype=np.uint8).reshape(held, record_bytes)
            for column, number in enumerate(classes):
                place = RecordPlace(sample.files.name(sample.file.path), first)
                _refuse_wrong(records[:, column], number, layout, place)

    def image_files(self, files: SourceFiles) -> list[SourceFile]:
        """See :meth:`FixedRecords.image_files`: of several files, those with a name of CIFAR's."""
        found = super().image_files(files)
        return found if len(found) == 1 else [file for file in found if _NAMES.fullmatch(Path(file.path).name)]

    def size_remedy(self, file: SourceFile, layout: RecordLayout) -> str:
        """See :meth:`FixedRecords.size_remedy`."""
        other = replace(layout, label_bytes=3 - layout.label_bytes)
        if file.size_bytes % other.record_bytes:
            return super().size_remedy(file, layout)
        is_cifar100 = other.label_bytes == 2
        return (
            f"it looks like CIFAR-{100 if is_cifar100 else 10}, whose files are named "
            f"{' and '.join(_CIFAR100_NAMES) if is_cifar100 else 'data_batch_1.bin and so on'}: "
            "rename it, or correct keywords"
        )

    def open_keywords(self, definition: Definition, files: SourceFiles) -> "LabelKeywords":
        """See :meth:`FixedRecords.open_keywords`."""
        return LabelKeywords(cifar_label_names(files, definition.keywords), definition.keywords == "coarse_label")


def _refuse_wrong(labels: npt.NDArray[np.uint8], classes: int, layout: RecordLayout, place: RecordPlace) -> None:
    if len(wrong := np.flatnonzero(labels >= classes)):
        number = place.first + int(wrong[0])
        raise BadInputError(
            f"{place.file}: record {number:,} (at offset {number * layout.record_bytes:,}) has the label "
            f"{labels[wrong[0]]}, but labels are 0 to {classes - 1}; correct the file, or download it again"
        )


class LabelKeywords:
    """Takes keywords from the bytes before the pixels; see :class:`KeywordSource`.

    Parameters
    ----------
    names
        The labels' names, in their order; a label without a name is its number.
    are_coarse
        Whether the coarse labels of CIFAR-100 are meant.
    """

    def __init__(self, names: tuple[str, ...], are_coarse: bool) -> None:
        self._names = names
        self._are_coarse = are_coarse

    def check_unchanged(self) -> None:
        """See :meth:`KeywordSource.check_unchanged`: the labels are in the images' own file."""

    def keywords(
        self, first: int, records: npt.NDArray[np.uint8], layout: RecordLayout, place: RecordPlace
    ) -> list[str | None]:
        """See :meth:`KeywordSource.keywords`."""
        column = 0 if self._are_coarse else layout.label_bytes - 1
        names = self._names
        labels = records[:, column]
        _refuse_wrong(labels, max(len(names), _CLASSES[layout.label_bytes - 1][column]), layout, place)
        return [names[label] if label < len(names) else str(label) for label in labels.tolist()]

    def close(self) -> None:
        """See :meth:`KeywordSource.close`."""
