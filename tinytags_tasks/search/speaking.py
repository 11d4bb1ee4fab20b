"""What a person says of pictures on a page or through the API: checked, recorded, and brought to the live index."""

from collections.abc import Sequence
from dataclasses import dataclass

from starlette.requests import Request

from tinytags_tasks.errors import BadInputError
from tinytags_tasks.review.words import OperatorNeededError, say
from tinytags_tasks.search.accounts import Role, require
from tinytags_tasks.search.applying import Applied
from tinytags_tasks.search.context import PageContext
from tinytags_tasks.store import layout
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.review_records import SHOWING, Word


@dataclass(frozen=True)
class Spoken:
    """A request that was recorded.

    Attributes
    ----------
    corpus
        The corpus.
    number
        The number of the request in its log.
    words
        How many pictures it speaks of.
    applied
        Whether readers see it yet.
    """

    corpus: str
    number: int
    words: int
    applied: Applied

    @property
    def message(self) -> str:
        """What to tell the person."""
        pictures = "1 picture" if self.words == 1 else f"{self.words:,} pictures"
        if self.applied.is_shown:
            return f"Recorded for {pictures}. Readers see it now."
        why = f" ({self.applied.problem})" if self.applied.problem else ""
        return f"Recorded for {pictures}. Readers will see it soon{why}."


def speak(
    request: Request, context: PageContext, corpus: str, words: Sequence[Word], *, run: str, patience_seconds: float
) -> Spoken:
    """Record words, and bring them to readers.

    Raises
    ------
    HTTPException
        403 if the account's role does not suffice: taking down, restoring, and taking back either, or what others said
        and readers do not see, needs an operator.
    BadInputError, MissingError, CorruptError, TransientError
        If the words cannot be recorded; nothing was then.
    """
    account = require(request, Role.REVIEWER)
    if any(word.verdict in SHOWING for word in words):
        require(request, Role.OPERATOR)
    if not words:
        raise BadInputError("no picture was named: choose at least one")
    storage = context.runtime.storage
    record = Corpus.load(storage, layout.corpus_file(corpus))
    try:
        number = say(record, words, by=account.name, run=run, is_operator=account.may_operate, storage=storage)
    except OperatorNeededError:
        require(request, Role.OPERATOR)
        raise
    context.logs.forget()  # from here on, no page shows what was taken down
    with context.waiting.seconds(patience_seconds) as patience:
        applied = context.applier.apply(corpus, patience_seconds=patience)
    return Spoken(corpus, number, len(words), applied)
