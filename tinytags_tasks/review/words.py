"""Saying something of pictures: words are checked, get the hash of their picture, and are committed to the log."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from tinytags_tasks.errors import BadInputError
from tinytags_tasks.store import layout
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.image_ranges import read_images
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.store.review_log import append_words, read_words
from tinytags_tasks.store.review_records import OPINIONS, SHOWING, Verdict, Word, picture_hash
from tinytags_tasks.store.run_records import Run

WORDS_AT_ONCE = 10_000
"""The most words of one request; more become several requests."""

_REPORT_SECONDS = 5.0


class OperatorNeededError(BadInputError):
    """A word that only an operator may take back."""


def say(
    corpus: Corpus,
    words: Sequence[Word],
    *,
    by: str,
    run: str = "",
    is_operator: bool = True,
    storage: Storage,
    report: Callable[[str], None] = print,
) -> int:
    """Commit words to a corpus' log as :func:`say_requests`; return the number of the last request."""
    return say_requests(corpus, words, by=by, run=run, is_operator=is_operator, storage=storage, report=report)[-1]


def say_requests(
    corpus: Corpus,
    words: Sequence[Word],
    *,
    by: str,
    run: str = "",
    is_operator: bool = True,
    storage: Storage,
    report: Callable[[str], None] = print,
) -> list[int]:
    """Commit words to a corpus' log, all checked before the first is written; return the requests' numbers.

    Up to :data:`WORDS_AT_ONCE` words are one request, and committed by one step. Take-downs are always public, and to
    take back a word is as public as that word was.

    Parameters
    ----------
    corpus
        The corpus, as it is now.
    words
        Without ``picture``; a word that has one is refused unless the picture at its position is that one.
    by
        Who says so.
    run
        The run that the pictures were shown of; empty if none was.
    is_operator
        Whether whoever says it may take back any word; others take back no take-down and no restoring, and of what
        others said only what is public.
    storage
        The store.
    report
        Called every few seconds if there are more words than one request holds.

    Raises
    ------
    BadInputError
        If there are no words, no one says them, two words on one picture contradict each other, a position is not in
        the corpus, or what was shown is another version of the corpus.
    OperatorNeededError
        If a word is taken back that only an operator may take back.
    MissingError, CorruptError
        If a picture cannot be read.
    TransientError
        If the store does not answer.
    """
    words = _checked(corpus, words, by, run, is_operator, storage)
    given = {word.position: word.picture for word in words if word.picture}
    for position, picture in picture_hashes(corpus, given, storage):
        if given[position] != picture:
            raise BadInputError(
                f"position {position} of corpus {corpus.name} does not show the picture that the word was said of; if "
                f"the corpus changed, carry its words over with `tinytags reviews carry {corpus.name}`"
            )
    words = sorted(words, key=lambda word: word.position)  # so that a request reads few parts of the shards
    progress = _Progress(len(words), report)
    numbers: list[int] = []
    for start in range(0, len(words), WORDS_AT_ONCE):
        chunk = words[start : start + WORDS_AT_ONCE]
        hashes = dict(picture_hashes(corpus, {word.position for word in chunk}, storage))
        shown = [replace(word, picture=hashes[word.position]) for word in chunk]
        numbers.append(append_words(corpus, shown, by=by, run=run, storage=storage))
        progress.add(len(chunk))
    return numbers


def picture_hashes(corpus: Corpus, positions: Iterable[int], storage: Storage) -> Iterator[tuple[int, bytes]]:
    """Yield pictures' positions, ascending, and how a word names them: the beginning of the sha256 of their bytes."""
    for position, stored in read_images(corpus, positions, storage):
        yield position, picture_hash(stored)


def _checked(
    corpus: Corpus, words: Sequence[Word], by: str, run: str, is_operator: bool, storage: Storage
) -> list[Word]:
    """Return words once each, as public as they must be."""
    if not words:
        raise BadInputError("there is nothing to record: no words on pictures")
    if not by.strip():
        raise BadInputError("a word on a picture needs the name of who says it")
    wrong = [word.position for word in words if not 0 <= word.position < corpus.images]
    if wrong:
        more = f", nor are {len(wrong) - 1:,} others" if len(wrong) > 1 else ""
        raise BadInputError(
            f"position {wrong[0]} is not in corpus {corpus.name}, which has {corpus.images:,} images, from 0{more}; "
            "nothing was recorded"
        )
    if run:
        refuse_another_version(corpus, Run.load(storage, layout.run_file(run)))
    unique = list(dict.fromkeys(words))
    _refuse_contradictions(unique)
    publicity = _publicity(
        corpus, [word for word in unique if word.verdict is Verdict.UNDO], None if is_operator else by, storage
    )
    return [_as_public_as_due(word, publicity) for word in unique]


def _as_public_as_due(word: Word, publicity: Mapping[tuple[int, int], bool]) -> Word:
    if word.verdict is Verdict.UNDO:
        is_public = publicity[word.position, word.undoes]
    else:
        is_public = word.is_public or word.verdict in SHOWING
    return word if word.is_public == is_public else replace(word, is_public=is_public)


def refuse_another_version(corpus: Corpus, run: Run, remedy: str = "") -> None:
    """Refuse words on what a run shows if that is another version of its corpus than the one in the store.

    Raises
    ------
    BadInputError
        If it is, with a further remedy if one is given.
    """
    if (run.corpus, run.corpus_digest) != (corpus.name, corpus.digest):
        raise BadInputError(
            f"run {run.name} shows another version of corpus {corpus.name} than the one in the store: publish a run of "
            f"this one with `tinytags run {corpus.name}`, and look at that{remedy}"
        )


def _refuse_contradictions(words: Iterable[Word]) -> None:
    """Refuse two different opinions on one picture, or to take it down and to restore it."""
    said: dict[tuple[int, bool], Word] = {}
    for word in words:
        if word.verdict is Verdict.UNDO:
            continue
        other = said.setdefault((word.position, word.verdict in OPINIONS), word)
        if other is not word:
            one, two = (" ".join(filter(None, (each.verdict, each.tag))) for each in (other, word))
            raise BadInputError(
                f"position {word.position} gets two words at once, {one!r} and {two!r}: say one; nothing was recorded"
            )


def _publicity(
    corpus: Corpus, undoing: Sequence[Word], reviewer: str | None, storage: Storage
) -> Mapping[tuple[int, int], bool]:
    """Return for each word that is taken back, by position and number, whether it is public.

    If a reviewer takes them back, each must be one that they may: who may is decided by what was read for this.
    """
    if not undoing:
        return {}
    wanted = {(word.position, word.undoes) for word in undoing}
    columns = read_words(corpus, storage).select(["position", "number", "verdict", "is_public", "by"]).to_pydict()
    found = {}
    for position, number, verdict, is_public, by in zip(*columns.values(), strict=True):
        if verdict == Verdict.UNDO or (position, number) not in wanted:
            continue
        if reviewer is not None and (verdict in SHOWING or not (is_public or by == reviewer)):
            raise OperatorNeededError(
                f"request {number} on position {position} of corpus {corpus.name} can be taken back only by an "
                "operator, or, if it is a look, by who said it; nothing was recorded"
            )
        found[position, number] = is_public
    for position, number in wanted:
        if (position, number) not in found:
            raise BadInputError(
                f"request {number} has no word on position {position} of this version of corpus {corpus.name} that "
                f"could be taken back; `tinytags reviews list {corpus.name}` shows what was said"
            )
    return found


class _Progress:
    """Reports every few seconds how many words are recorded, and the time left."""

    def __init__(self, words: int, report: Callable[[str], None]) -> None:
        self._words = words
        self._report = report
        self._started = self._reported = time.monotonic()
        self._done = 0

    def add(self, words: int) -> None:
        """Count words that were recorded."""
        self._done += words
        time_now = time.monotonic()
        if self._words <= WORDS_AT_ONCE or time_now - self._reported < _REPORT_SECONDS:
            return
        self._reported = time_now
        left = (time_now - self._started) * (self._words - self._done) / self._done
        self._report(f"{self._done:,} of {self._words:,} words are recorded; about {left:,.0f} s left")
