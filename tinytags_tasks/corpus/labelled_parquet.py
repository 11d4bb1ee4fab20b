"""Parquet files as a labelled set: which columns hold pictures and labels, and what the labels mean."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from tinytags_tasks.corpus.class_names import (
    CIFAR10_TAGS,
    GIVE_TAGS,
    carried_tags,
    is_cifar10,
    labels_by_name,
    shortened,
)
from tinytags_tasks.corpus.formats.parquet_columns import Columns, find_columns
from tinytags_tasks.corpus.picture_kinds import ENDINGS
from tinytags_tasks.corpus.sources.left_out import is_junk_path
from tinytags_tasks.errors import BadInputError, joined_lines
from tinytags_tasks.tags import normal_tag, tag_form

_IMAGE_COLUMNS = ("img", "image")
_LABEL_COLUMNS = ("label", "class", "class_name", "tag", "category")
_PARTS = ("train", "test", "val")
"""How the names of files begin that are parts of a set."""

_Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class _Wanted:
    image_column: str
    keywords: str


def parquet_files_of(path: Path) -> list[Path]:
    """Return the Parquet files of a labelled set: those of a folder, or the file; none if it is of another kind.

    Raises
    ------
    BadInputError
        If a folder has a training set beside a test set.
    """
    if not path.is_dir():
        return [path]
    found = [file for file in sorted(path.rglob("*.parquet")) if file.is_file()]
    found = [file for file in found if not is_junk_path(file.relative_to(path).as_posix())]
    if not found or any(each.suffix.lower() in ENDINGS for each in path.rglob("*")):
        return []  # a table beside pictures describes them
    parts = sorted({part for part in _PARTS for file in found if file.name.lower().startswith(part)})
    if len(parts) > 1:
        raise BadInputError(
            f"{path}: holds files of several sets ({', '.join(parts)}); put each set in a folder of its own, and give "
            "one as the labelled set and another as the test set"
        )
    return found


@dataclass(frozen=True)
class ParquetSet:
    """A labelled set in Parquet files.

    Attributes
    ----------
    path
        The file or folder that was given.
    files
        The files, in the order of their names.
    """

    path: Path
    files: tuple[Path, ...]

    @cached_property
    def _columns(self) -> list[Columns]:
        return [self._columns_of(file) for file in self.files]

    def _columns_of(self, path: Path) -> Columns:
        with _opened(path) as file:
            schema = file.schema_arrow
        where = str(path)
        below = path.relative_to(self.path).as_posix() if self.path != path else path.name
        image = next((name for name in _IMAGE_COLUMNS if name in schema.names), "")
        label = _label_column(schema, where, below)
        if label in schema.names and not _is_label(schema.field(label).type):
            raise BadInputError(
                f"{where}: needs a column label of integers or words; its column {label} is {schema.field(label).type}"
            )
        columns = find_columns(schema, _Wanted(image, label), where, below)
        if columns.image.is_null and len(self.files) == 1:
            raise BadInputError(f"{where}: its column {columns.image.column} holds no picture; give another file")
        return columns

    @property
    def _with_labels(self) -> list[Columns]:
        return [each for each in self._columns if each.keyword is None or not each.keyword.is_null]

    @property
    def are_numbers(self) -> bool:
        """Whether labels are numbers, which need names."""
        kinds = {each.keywords_are_numbers for each in self._with_labels}
        if len(kinds) > 1:
            raise BadInputError(f"{self.path}: labels are numbers in some files and words in others; write them alike")
        return kinds == {True}

    @property
    def names(self) -> tuple[str, ...]:
        """The names that the files have for their numbers; none if they have none.

        Raises
        ------
        BadInputError
            If two files have different names.
        """
        found = list(dict.fromkeys(each.names for each in self._with_labels))
        if len(found) > 1:
            raise BadInputError(
                f"{self.path}: its files name the classes differently ({shortened(found[0])}, and "
                f"{shortened(found[1]) or 'not at all'}); write them alike"
            )
        return found[0] if found else ()

    def tags(self) -> tuple[str, ...]:
        """Return the names of the labels: those of the numbers (CIFAR-10's if the set is), or the words in their order.

        Raises
        ------
        BadInputError
            If labels are numbers without names.
        """
        if not self.are_numbers:
            return tuple(sorted({word for _, labels in self._batches(with_pictures=False) for word in labels}))
        if not self.names and is_cifar10(self.path):
            return CIFAR10_TAGS
        if not self.names:
            raise BadInputError(f"{self.path}: its labels are numbers without names; {GIVE_TAGS}")
        return self.names

    def iterate(
        self, tags: tuple[str, ...], unknown: int | None, *, with_pictures: bool
    ) -> Iterator[tuple[list[bytes], _Labels]]:
        """Yield encoded pictures and labels; see :func:`tinytags_tasks.corpus.labelled.iterate_pictures`."""
        names: Sequence[str] = self.names if self.are_numbers and tags else ()
        by_name = labels_by_name(names, tags, str(self.path), are_others=unknown is not None) if names else None
        row = 0
        for encoded, values in self._batches(with_pictures=with_pictures):
            if not self.are_numbers:
                labels = self._numbers(values, tags, unknown, row)
            elif by_name is None:
                labels = values
            else:
                labels = self._renumbered(values, by_name, names, tags, unknown, row)
            row += len(values)
            yield encoded, np.asarray(labels, dtype=np.int64)

    def _numbers(self, words: list[str], tags: tuple[str, ...], unknown: int | None, first: int) -> list[int]:
        place = _place(tags)
        labels = [place.get(tag_form(word), unknown) for word in words]
        if None in labels:
            at = labels.index(None)
            raise self._no_tag(first + at, words[at], tags)
        return [label for label in labels if label is not None]

    def _renumbered(
        self,
        labels: list[int],
        by_name: list[int | None],
        names: Sequence[str],
        tags: tuple[str, ...],
        unknown: int | None,
        first: int,
    ) -> list[int]:
        found = []
        for row, label in enumerate(labels, first):
            if label >= len(names):
                raise BadInputError(
                    f"{self.place(row)} has label {label}, but the file names {len(names)} classes (labels 0 to "
                    f"{len(names) - 1}); correct it or drop the row"
                )
            number = label if label < 0 else by_name[label]
            if number is None and unknown is None:
                raise self._no_tag(row, names[label], tags)
            found.append(unknown if number is None and unknown is not None else number or 0)
        return found

    def _no_tag(self, row: int, name: str, tags: tuple[str, ...]) -> BadInputError:
        return BadInputError(
            f"{self.place(row)}: its class {name} is none of the tags {shortened(tags)}; correct it or drop the row"
        )

    def place(self, row: int) -> str:
        """Return the words for a row: its file, and its number there."""
        first = 0
        for file in self.files:
            rows = _rows(file)
            if row < first + rows:
                break
            first += rows
        return f"{file}: row {row - first}"

    def _batches(self, *, with_pictures: bool, batch: int = 1_000) -> Iterator[tuple[list[bytes], list[Any]]]:
        """Yield encoded pictures and what the file has as their labels."""
        for path, columns in zip(self.files, self._columns, strict=True):
            row = 0
            leaves = columns.leaves if with_pictures else columns.leaves[1:]
            with _opened(path) as file:
                try:
                    for part in file.iter_batches(batch, columns=leaves or columns.leaves):
                        labels = _labels(columns, part)
                        if None in labels:
                            at = labels.index(None)
                            raise BadInputError(f"{path}: row {row + at} has no label; give it one or drop the row")
                        encoded = columns.images_of(part)[0] if with_pictures else []
                        row += len(labels)
                        yield [picture or b"" for picture in encoded], labels
                except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
                    raise BadInputError(
                        f"{path}: damaged after row {row} ({joined_lines(error)}); download it again"
                    ) from error


def _labels(columns: Columns, part: pa.RecordBatch) -> list[Any]:
    if columns.keyword is None:
        return [normal_tag(columns.folder_keyword) if columns.folder_keyword else None] * part.num_rows
    values = columns.keyword.values(part)
    if columns.keywords_are_numbers:
        return values
    return [normal_tag(value.strip()) or None if value else None for value in values]


def _place(tags: Sequence[str]) -> dict[str, int]:
    return {tag_form(tag): number for number, tag in enumerate(tags)}


def _label_column(schema: pa.Schema, where: str, below: str) -> str:
    folders = [part.partition("=")[0] for part in below.split("/")[:-1] if "=" in part]
    named = [name for name in schema.names if carried_tags(schema, where, name) is not None]
    wanted: tuple[str, ...] = ("label", *(named if len(named) == 1 else ()), *_LABEL_COLUMNS)
    for name in wanted:
        if name in schema.names or name in folders:
            return name
    choice = f", and names for {', '.join(named)}: rename the one that is meant" if named else ""
    raise BadInputError(f"{where}: needs a column label of integers or words; has {schema.names}{choice}")


def _is_label(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    is_word = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    return bool(pa.types.is_integer(kind) or is_word or pa.types.is_null(kind))


def _opened(path: Path) -> pq.ParquetFile:
    if not path.is_file():
        raise BadInputError(f"{path}: no such file; give the path of a labelled Parquet file")
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise BadInputError(
            f"{path}: not a readable Parquet file ({joined_lines(error)}); download it again, or give a folder with a "
            "folder of pictures for each tag, or tars"
        ) from error


def _rows(path: Path) -> int:
    with _opened(path) as file:
        return int(file.metadata.num_rows)
