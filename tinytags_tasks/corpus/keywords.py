"""Keywords as they are stored: made searchable, and filtered by a stop list."""

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from tinytags_tasks.errors import BadInputError

LONGEST = 200
"""The most characters of a keyword that are stored."""


class StopList:
    """Leaves out keywords that contain a word of a list.

    Case, the characters between words, and different Unicode forms of a letter make no difference: ``guinea_pig``
    contains the entry ``guinea pig``, and the entry ``pig``.

    Parameters
    ----------
    entries
        Words, or phrases of several words.
    """

    def __init__(self, entries: Iterable[str] = ()) -> None:
        self._entries = {normal for entry in entries if (normal := _words(entry))}
        self._longest = max((entry.count(" ") + 1 for entry in self._entries), default=0)
        self._kept = lru_cache(100_000)(self._keep)

    def allows(self, keyword: str) -> bool:
        """Tell whether a keyword contains no word of the list."""
        words = _words(keyword).split(" ")
        return not any(
            " ".join(words[start : start + length]) in self._entries
            for length in range(1, self._longest + 1)
            for start in range(len(words) - length + 1)
        )

    def filtered(self, keywords: list[str | None]) -> list[str | None]:
        """Return keywords as they are stored; None for an empty one, and for one that is left out.

        They have their :func:`normal form <normal_keyword>`, and at most :data:`LONGEST` characters.
        """
        return [self._kept(word) if word else None for word in keywords]

    def _keep(self, keyword: str) -> str | None:
        if not self.allows(keyword):
            return None
        return normal_keyword(keyword)[:LONGEST].rstrip() or None


def normal_keyword(text: str) -> str:
    """Return the form in which a keyword is stored and looked up, however a source or a keyboard writes it.

    It is Unicode's NFC, with one space for any characters between that cannot be printed: spaces of other widths, and
    what joins letters or emoji or keeps them apart.
    """
    printable = "".join(letter if letter.isprintable() else " " for letter in unicodedata.normalize("NFC", text))
    return " ".join(printable.split())


def _words(text: str) -> str:
    return " ".join(re.findall(r"[^\W_]+", unicodedata.normalize("NFKC", text).casefold()))


def read_stop_list(path: str) -> StopList:
    """Read a stop list: a UTF-8 file with one entry per line; an empty path is an empty list.

    Raises
    ------
    BadInputError
        If it cannot be read.
    """
    if not path:
        return StopList()
    try:
        return StopList(Path(path).expanduser().read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise BadInputError(f"{path}: the list of words cannot be read ({error}); correct keyword_stop_list") from error
