"""The names of a labelled set's classes, which become tags: those in a file, and those that a person gives."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from tinytags_tasks.errors import BadInputError
from tinytags_tasks.tags import check_tags, normal_tag, tag_form

CIFAR10_TAGS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
"""CIFAR-10's classes in the order of their labels."""

TAGS_KEY = b"tinytags.tags"
"""The key of the tags in the Parquet schema's metadata; they are a JSON list."""

HUB_KEY = b"huggingface"
"""The key under which the Hugging Face Hub's library keeps a file's features, and so the names of its classes."""

GIVE_TAGS = "name them with --tags (Tags in the Dag's form): a list such as cat,dog, or a file with a name a line"
"""The remedy for numbers without names."""

_CIFAR10 = re.compile(r"cifar[-_ ]?10(?!\d)", re.IGNORECASE)


def is_cifar10(path: Path) -> bool:
    """Return whether the name of a file, or of its folder, says that it is CIFAR-10: then its numbers have names."""
    return any(_CIFAR10.search(name) for name in (path.name, path.absolute().parent.name))


def carried_tags(schema: pa.Schema, path: str, column: str = "label") -> tuple[str, ...] | None:
    """Return the names that a file has for the numbers in a column; None if it has none.

    For ``label``, our own key comes first; then the names that the Hugging Face Hub's library writes for a column of
    ``ClassLabel``, if they are names.

    Raises
    ------
    BadInputError
        If those under our own key are not a list of words; the message names ``path``.
    """
    metadata: Mapping[bytes, bytes] = schema.metadata or {}
    if column != "label" or not metadata.get(TAGS_KEY):
        return _hub_names(metadata, column)
    try:
        tags = json.loads(metadata[TAGS_KEY])
    except ValueError:
        tags = None
    if not _are_words(tags):
        raise BadInputError(
            f"{path}: its metadata {TAGS_KEY.decode()} is not a JSON list of tags; write the file again"
        )
    return tuple(map(normal_tag, tags))


def _hub_names(metadata: Mapping[bytes, bytes], column: str) -> tuple[str, ...] | None:
    try:
        names = json.loads(metadata.get(HUB_KEY, b""))["info"]["features"][column]["names"]
    except (ValueError, LookupError, TypeError):
        return None  # it describes other columns, or in another form
    return tuple(map(normal_tag, names)) if names and _are_words(names) else None


def _are_words(names: object) -> bool:
    return isinstance(names, list) and all(isinstance(name, str) for name in names)


def read_names(file: Path) -> tuple[str, ...]:
    """Return the names in a text file, one a line, in the order of the numbers that they name.

    Raises
    ------
    BadInputError
        If it cannot be read, or has an empty line between names, after which all names would be those of others.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").rstrip().splitlines()
    except UnicodeDecodeError as error:
        raise BadInputError(f"{file}: is not text in UTF-8 ({error}); write one name of a class a line") from error
    except OSError as error:
        raise BadInputError(f"{file}: cannot be read ({error.strerror}); give a file with a name a line") from error
    names = tuple(normal_tag(line.strip()) for line in lines)
    if "" in names:
        raise BadInputError(f"{file}: line {names.index('') + 1} is empty; write one name of a class a line")
    return names


def given_tags(text: str) -> tuple[tuple[str, ...], list[str]]:
    """Return the tags that a person gives, and what to say of those that were given twice.

    A name that comes again gets a number: ImageNet has two classes ``crane``.

    Parameters
    ----------
    text
        Names with commas between, or a name a line, or the path of a file with a name a line.

    Raises
    ------
    BadInputError
        If one of them cannot be a tag, or the file cannot be read.
    """
    text = text.strip()
    path = Path(text).expanduser()
    is_file = "\n" not in text and len(text) < 4_096 and _is_file(path)
    names = (
        read_names(path)
        if is_file
        else tuple(normal_tag(name.strip()) for name in text.split("\n" if "\n" in text else ","))
    )
    if len(names) < 2:
        raise BadInputError(
            f"tags are {text[:100]!r}: give two or more names with commas between, or a file with a name a line"
            f"{'' if is_file else ' (there is no file of that name)'}"
        )
    where = str(path) if is_file else "tags"
    names, remarks = _numbered(names, where)
    check_tags(names, where)
    return names, remarks


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a list can be too long for a name
        return False


def _numbered(names: Sequence[str], where: str) -> tuple[tuple[str, ...], list[str]]:
    taken = set(map(tag_form, names))
    seen: set[str] = set()
    found, remarks = [], []
    for place, name in enumerate(names):
        tag, number = name, 2
        if name and tag_form(name) in seen:
            while tag_form(tag := f"{name} {number}") in taken:
                number += 1
            taken.add(tag_form(tag))
            remarks.append(f"{where}: {name} comes again (label {place}), and becomes the tag {tag!r}")
        seen.add(tag_form(tag))
        found.append(tag)
    return tuple(found), remarks


def labels_by_name(
    names: Sequence[str], tags: Sequence[str], where: str, *, are_others: bool = False
) -> list[int | None] | None:
    """Return the tag of each of a file's numbers by the number's name; None if the numbers are those of the tags.

    Parameters
    ----------
    names
        The names that a file has for its numbers.
    tags
        The tags; if none is among the names, they are other names for the same numbers.
    where
        The file, for messages.
    are_others
        Whether the file is of other things, so that a name need not be a tag.

    Raises
    ------
    BadInputError
        If none of the names is a tag, and there are too few tags for them.
    """
    place = {tag_form(tag): number for number, tag in enumerate(tags)}
    found = [place.get(tag_form(name)) for name in names]
    if found == list(range(len(tags))):
        return None
    if are_others or any(number is not None for number in found):
        return found
    if len(names) <= len(tags):
        return None
    raise BadInputError(
        f"{where}: has {len(names)} classes, {shortened(names)}, and none is one of the {len(tags)} tags "
        f"{shortened(tags)}; give as many tags, in the order of its labels"
    )


def shortened(names: Sequence[str], most: int = 10) -> str:
    """Return the first names for a message, and how many more there are."""
    rest = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest
