"""Which columns of a Parquet file hold the images and the keywords of a corpus, and what they hold."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import unquote

import pyarrow as pa

from tinytags_tasks.corpus.class_names import carried_tags
from tinytags_tasks.errors import BadInputError

_MOST_KEYWORD_CHARACTERS = 1_000
_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"
"""How Spark and Hive name the folder of rows without a value."""

NO_IMAGE = "its row has no image"


class Wanted(Protocol):
    """Which columns are wanted, as a corpus' definition says."""

    @property
    def image_column(self) -> str:
        """The column of images; empty if it is to be found."""

    @property
    def keywords(self) -> str:
        """The column of keywords; empty if none are wanted."""


@dataclass(frozen=True)
class _Place:
    """Where values are: names from a column down through its structs; ``list_at`` of them lead to a list, if any."""

    names: tuple[str, ...]
    list_at: int | None = None
    is_null: bool = False

    @property
    def is_in_struct(self) -> bool:
        """Whether it is the field ``bytes`` of a struct, as on the Hugging Face Hub."""
        return len(self.names) > 1 and self.names[-1] == "bytes"

    @property
    def column(self) -> str:
        """Its name without the field ``bytes``."""
        return ".".join(self.names[:-1] if self.is_in_struct else self.names)

    @property
    def leaf(self) -> str:
        """What Parquet calls it, or the list that it is in."""
        return ".".join(self.names[: self.list_at])

    def values(self, batch: pa.RecordBatch) -> list[Any]:
        """Return the values of a batch: lists of values if there is a list."""
        column = batch.column(self.names[0])
        for name in self.names[1 : self.list_at]:
            column = column.field(name)
        values: list[Any] = column.to_pylist()
        if self.list_at is None:
            return values
        below = self.names[self.list_at :]
        return [[_below(value, below) for value in row or ()] for row in values]


def _below(value: Any, names: tuple[str, ...]) -> Any:  # noqa: ANN401 (whatever the file holds)
    for name in names:
        value = value and value[name]
    return value


@dataclass(frozen=True)
class Columns:
    """The columns that are read from a file.

    Attributes
    ----------
    image
        Where its images are.
    keyword
        Where its keywords are; None if the corpus has none, or if they are in the names of folders.
    keywords_are_numbers
        Whether they are numbers.
    names
        The names of these numbers, if the file has them.
    folder_keyword
        The keyword of all images, from a folder such as ``label=cat``.
    nulls
        The columns that are null in the whole file; one of them holds images in other files if none does in this one.
    """

    image: _Place
    keyword: _Place | None = None
    keywords_are_numbers: bool = False
    names: tuple[str, ...] = ()
    folder_keyword: str | None = None
    nulls: tuple[str, ...] = ()

    @property
    def leaves(self) -> list[str]:
        """What is read, by its names in Parquet."""
        return [self.image.leaf, *([self.keyword.leaf] if self.keyword else [])]

    def __str__(self) -> str:
        """Return what is read, for messages."""
        kind = f"{len(self.names)} named numbers" if self.names else "numbers" if self.keywords_are_numbers else "text"
        images = ".".join(self.image.names)
        return f"images in {images}" + (f" and keywords in {self.keyword.column} ({kind})" if self.keyword else "")

    def fits(self, other: "Columns") -> bool:
        """Tell whether two files can be of one corpus; a column that is null in one may be of any type."""
        if self.image.is_null or other.image.is_null:
            held = self if other.image.is_null else other
            images_fit = held.image.is_null or held.image.column in (self.nulls if held is other else other.nulls)
        else:
            images_fit = self.image == other.image
        if self.keyword is None or other.keyword is None:
            return images_fit and self.keyword is other.keyword
        ours, theirs = (
            (each.keyword and each.keyword.names, each.keywords_are_numbers, each.names) for each in (self, other)
        )
        return images_fit and (self.keyword.is_null or other.keyword.is_null or ours == theirs)

    def has_less_than(self, other: "Columns") -> bool:
        """Tell whether another file says more of what columns hold."""
        keyword, others = self.keyword, other.keyword
        more_keywords = bool(keyword and keyword.is_null and others and not others.is_null)
        return (self.image.is_null and not other.image.is_null) or (more_keywords and not other.image.is_null)

    def images_of(self, batch: pa.RecordBatch) -> tuple[list[bytes | None], dict[int, str]]:
        """Return the encoded images of a batch, and the reasons by row where there is none."""
        values = self.image.values(batch)
        if self.image.list_at is None:
            return values, {row: NO_IMAGE for row, value in enumerate(values) if value is None}
        reasons = {
            row: f"its row has {len(images)} images, where one is expected"
            for row, images in enumerate(values)
            if len(images) > 1
        }
        single = [images[0] if len(images) == 1 else None for images in values]
        missing = {row: NO_IMAGE for row, value in enumerate(single) if value is None}
        return single, {**missing, **reasons}

    def keywords_of(self, batch: pa.RecordBatch) -> list[str | None]:
        """Return the keywords of a batch; empty if the corpus has none."""
        if self.keyword is None:
            return []
        values = self.keyword.values(batch)
        if not self.keywords_are_numbers:
            return [(value or "").strip()[:_MOST_KEYWORD_CHARACTERS] or None for value in values]
        names = dict(enumerate(self.names))
        return [None if value is None else names.get(value, str(value)) for value in values]


def find_columns(schema: pa.Schema, definition: Wanted, where: str, path: str) -> Columns:
    """Find the columns for a definition.

    Parameters
    ----------
    schema
        The file's.
    definition
        The corpus, or another that wants columns.
    where, path
        The file's name for messages, and its path in the source.

    Raises
    ------
    BadInputError
        If there is none, or more than one fits; the message names all columns.
    """
    held = ", ".join(f"{column.name} ({column.type})" for column in schema)
    places = [place for column in schema for place in _places(column.type, (column.name,), None)]
    image = _find_image(places, definition, where, held)
    _check_once(schema, image, where)
    nulls = tuple(place.column for place in places if place.is_null)
    name = definition.keywords
    if not name:
        return Columns(image, nulls=nulls)
    found = _find_field(schema, name)
    if found is None:
        folders = dict(part.split("=", 1) for part in path.split("/")[:-1] if "=" in part)
        if name not in folders:
            raise BadInputError(f"{where}: has no column {name} of keywords; it has {held}; correct keywords")
        value = unquote(folders[name])
        return Columns(image, folder_keyword=None if value == _HIVE_NULL else value, nulls=nulls)
    names, kind = found
    keyword = _Place(names, is_null=pa.types.is_null(kind))
    _check_once(schema, keyword, where)
    if pa.types.is_integer(kind):
        return Columns(image, keyword, True, carried_tags(schema, where, name) or (), nulls=nulls)
    if not (keyword.is_null or _is_text(kind)):
        raise BadInputError(
            f"{where}: its column {name} is {kind}; keywords are text or whole numbers; it has {held}; correct keywords"
        )
    return Columns(image, keyword, nulls=nulls)


def _find_image(places: list[_Place], definition: Wanted, where: str, held: str) -> _Place:
    wanted = definition.image_column
    if wanted:
        places = [place for place in places if wanted in (place.column, ".".join(place.names))]
    not_null = [place for place in places if not place.is_null]
    candidates = [place for place in not_null if place.is_in_struct] or not_null
    if not candidates:
        if nulls := [place for place in places if place.is_null]:
            return nulls[0]
        remedy = "correct image_column" if wanted else "give another file"
        raise BadInputError(
            f"{where}: has no column {f'{wanted} ' if wanted else ''}of encoded images, binary or a struct with bytes; "
            f"it has {held}; {remedy}"
        )
    if len(set(candidates)) > 1:
        columns = ", ".join(place.column for place in candidates)
        raise BadInputError(f"{where}: images may be in any of the columns {columns}; name one as image_column")
    return candidates[0]


def _check_once(schema: pa.Schema, place: _Place, where: str) -> None:
    if (times := schema.names.count(place.names[0])) > 1:
        raise BadInputError(
            f"{where}: has {times} columns of the name {place.names[0]}; give each column a name of its own"
        )


def _places(kind: pa.DataType, names: tuple[str, ...], list_at: int | None) -> Iterator[_Place]:
    """Yield the binary columns and those of nulls, in structs and in a list, too."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    is_null = bool(pa.types.is_null(kind))
    if is_null or pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind):
        yield _Place(names, list_at, is_null)
    elif pa.types.is_struct(kind):
        for field in kind:
            yield from _places(field.type, (*names, field.name), list_at)
    elif list_at is None and (
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    ):
        yield from _places(kind.value_type, names, len(names))


def _find_field(schema: pa.Schema, name: str) -> tuple[tuple[str, ...], pa.DataType] | None:
    """Return the names that lead to a column, or to a field of its structs, and its type."""
    for column in schema:
        names: tuple[str, ...] = (column.name,)
        kind, rest = column.type, name.removeprefix(f"{column.name}.")
        if column.name != name and rest == name:
            continue
        while column.name != name and rest and pa.types.is_struct(kind):
            field, _, rest = rest.partition(".")
            if kind.get_field_index(field) < 0:
                return None
            names, kind = (*names, field), kind.field(field).type
        if column.name == name or not rest:
            return names, kind.value_type if pa.types.is_dictionary(kind) else kind
    return None


def possible_keywords(schema: pa.Schema) -> tuple[str, ...]:
    """Return the columns of text, or of whole numbers."""
    kinds = ((column.name, column.type) for column in schema)
    plain = ((name, kind.value_type if pa.types.is_dictionary(kind) else kind) for name, kind in kinds)
    return tuple(name for name, kind in plain if pa.types.is_integer(kind) or _is_text(kind))


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))
