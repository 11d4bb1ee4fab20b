"""What can be a tag, and which two ways to write one are the same."""

import unicodedata
from collections.abc import Iterable

from tinytags_tasks.errors import BadInputError

LONGEST_TAG = 100
"""The most characters of a tag; what a search can ask for."""


def is_tag(name: str) -> bool:
    """Return whether a name can be that of a tag: one that people can search for, and name in a review."""
    return 1 <= len(name) <= LONGEST_TAG and name.isprintable() and name == name.strip()


def normal_tag(name: str) -> str:
    """Return the form in which a tag is stored, however a file system or a keyboard writes it: Unicode's NFC."""
    return unicodedata.normalize("NFC", name)


def tag_form(name: str) -> str:
    """Return what is the same for two ways to write a tag: case and Unicode's forms make no difference."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def check_tags(names: Iterable[str], where: str) -> None:
    """Refuse names that cannot be those of tags, and those that search could not tell apart.

    Raises
    ------
    BadInputError
        Naming the first, and ``where`` it is.
    """
    known: dict[str, str] = {}
    for name in names:
        if not is_tag(name):
            raise BadInputError(
                f"{where}: {name[:LONGEST_TAG]!r} is not a tag: a tag has 1 to {LONGEST_TAG} printable characters, and "
                "neither begins nor ends with a space; give it another name"
            )
        form = tag_form(name)
        if form in known:
            raise BadInputError(
                f"{where}: {known[form]!r} and {name!r} are the same tag (upper and lower case make no difference); "
                "give each class a name of its own, or make them one class"
            )
        known[form] = name
