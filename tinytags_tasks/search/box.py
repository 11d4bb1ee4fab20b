"""The box that takes a whole search as text, as the landing page and the results show it."""

from dataclasses import dataclass, field

from tinytags_tasks.search.grammar import MOST_CHARACTERS, GrammarError, write
from tinytags_tasks.search.request import SearchRequest


@dataclass(frozen=True)
class Box:
    """What is in the box.

    Attributes
    ----------
    text
        The search as text.
    problem
        What is wrong with it; empty if nothing is.
    before, word, after
        The text, cut at the word that is wrong; empty if no single word is.
    kept
        Names and values that the text does not say, and that a search from this box keeps.
    """

    text: str = ""
    problem: str = ""
    before: str = ""
    word: str = ""
    after: str = ""
    kept: tuple[tuple[str, str], ...] = ()
    longest: int = field(default=MOST_CHARACTERS, init=False)

    @classmethod
    def of(cls, search: SearchRequest) -> "Box":
        """Return the box of a page that shows a search."""
        kept = (("rows", str(search.rows)),) if search.rows != SearchRequest.rows else ()
        return cls(write(search), kept=kept)

    @classmethod
    def wrong(cls, text: str, error: Exception) -> "Box":
        """Return the box with a text that cannot be searched for, and why."""
        if not isinstance(error, GrammarError) or error.start >= error.end:
            return cls(text, str(error))
        return cls(text, str(error), text[: error.start], text[error.start : error.end], text[error.end :])
