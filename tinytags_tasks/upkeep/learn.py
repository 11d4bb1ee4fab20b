"""Finds corpora of whose pictures people have said enough for their model to learn again."""

from collections.abc import Callable

from tinytags_tasks.errors import BadInputError, CorruptError, MissingError
from tinytags_tasks.store import layout
from tinytags_tasks.store.corpus_records import load_corpus
from tinytags_tasks.store.lessons import Teaching, read_teaching
from tinytags_tasks.store.model_records import LastTraining
from tinytags_tasks.store.models import list_models
from tinytags_tasks.store.protocol import Storage


def corpora_to_learn(least: int, *, storage: Storage, report: Callable[[str], None] = print) -> list[str]:
    """Return the corpora of whose pictures people have said enough that no model has learned yet; nothing is changed.

    A word on a picture counts once, if it teaches: see :mod:`tinytags_tasks.store.lessons`. A corpus for which no model
    was trained by TinyTags is left out, since nobody knows from which labelled images.

    Parameters
    ----------
    least
        How many words are enough.
    storage
        The store.
    report
        Called with a line for each corpus that has words.

    Raises
    ------
    BadInputError
        If fewer than one word is to be enough.
    """
    if least < 1:
        raise BadInputError(f"{least} reviews: give 1 or more")
    due = []
    for corpus in sorted(storage.names(layout.REVIEWS)):
        if not storage.exists(layout.last_training_file(corpus)):
            continue
        try:
            new = _not_learned(corpus, storage, report)
        except (MissingError, CorruptError) as error:  # the other corpora do not depend on it
            report(f"corpus {corpus} is skipped: {error}")
            continue
        report(f"corpus {corpus}: people said something of {new:,} pictures that no model has learned yet")
        if new >= least:
            due.append(corpus)
    return due


def last_request(corpus: str, storage: Storage) -> LastTraining:
    """Return how the last model for a corpus was trained.

    Raises
    ------
    MissingError
        If none was.
    CorruptError
        If its record is damaged.
    """
    return LastTraining.load(storage, layout.last_training_file(corpus))


def _not_learned(corpus: str, storage: Storage, report: Callable[[str], None]) -> int:
    """Return how many pictures teach something that the newest model that learned from this corpus did not know."""
    digest = load_corpus(corpus, storage).digest
    learned: set[tuple[int, str]] = set()
    cards = list_models(storage, on_damage=lambda problem: report(f"a model is not considered: {problem}"))
    uses = [card.reviews for card in cards if card.reviews and card.reviews.corpus == corpus]
    if uses and uses[-1].corpus_digest == digest:
        learned = _answers(read_teaching(corpus, digest, storage, uses[-1].upto))
    return len(_answers(read_teaching(corpus, digest, storage)) - learned)


def _answers(teaching: Teaching) -> set[tuple[int, str]]:
    return set(zip(teaching.positions.tolist(), teaching.tags, strict=True))
