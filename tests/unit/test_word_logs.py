"""What the search page knows of the logs: what is taken down, and each log in memory once."""

import gc
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
from small_run import CORPUS, make_corpus, quiet

from tinytags_tasks.review.takedowns import taken_down
from tinytags_tasks.review.words import say
from tinytags_tasks.search import word_logs
from tinytags_tasks.search.word_logs import WordLogs
from tinytags_tasks.store import review_log
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.local import LocalStorage
from tinytags_tasks.store.review_log import shared_log
from tinytags_tasks.store.review_records import Verdict, Word


@pytest.fixture
def corpus(storage: LocalStorage) -> Corpus:
    return make_corpus(storage)


@pytest.fixture
def logs(storage: LocalStorage, monkeypatch: pytest.MonkeyPatch) -> WordLogs:
    monkeypatch.setattr(word_logs, "KEPT_SECONDS", 600.0)
    return WordLogs(SimpleNamespace(storage=storage), SimpleNamespace(runs=lambda: (), known=()))  # type: ignore[arg-type]


@pytest.fixture
def speak(storage: LocalStorage, corpus: Corpus, logs: WordLogs) -> Callable[..., int]:
    """Say something as the page does: it reads the logs again then."""

    def speak(*words: Word) -> int:
        number = say(corpus, words, by="olga", storage=storage, report=quiet)
        logs.forget()
        return number

    return speak


def test_a_picture_is_taken_down_until_it_is_restored(
    corpus: Corpus, logs: WordLogs, speak: Callable[..., int]
) -> None:
    assert not logs.is_taken_down(corpus, 3)
    speak(Word(3, Verdict.TAKEDOWN, reason="asked"), Word(10, Verdict.TAKEDOWN, reason="asked"))
    assert [position for position in range(corpus.images) if logs.is_taken_down(corpus, position)] == [3, 10]
    assert logs.hidden().positions[CORPUS].tolist() == [3, 10]
    assert logs.hidden() is logs.hidden()
    speak(Word(3, Verdict.RESTORE))
    assert not logs.is_taken_down(corpus, 3)
    assert logs.hidden().positions[CORPUS].tolist() == [10]
    assert logs.is_taken_down(corpus, 10)


def test_what_was_taken_down_of_another_version_is_another_picture(
    corpus: Corpus, logs: WordLogs, speak: Callable[..., int]
) -> None:
    speak(Word(3, Verdict.TAKEDOWN, reason="asked"))
    assert logs.is_taken_down(corpus, 3)
    assert not logs.is_taken_down(corpus.replaced(digest="another"), 3)


def test_who_asks_often_lists_the_log_once(
    corpus: Corpus, logs: WordLogs, speak: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    speak(Word(3, Verdict.TAKEDOWN, reason="asked"))
    listed = []
    real = review_log._listed
    monkeypatch.setattr(review_log, "_listed", lambda *asked: listed.append(asked) or real(*asked))
    assert all(logs.is_taken_down(corpus, 3) for _ in range(20))
    assert len(listed) == 1


def test_all_in_a_process_share_one_copy_of_a_log(
    storage: LocalStorage, corpus: Corpus, logs: WordLogs, speak: Callable[..., int]
) -> None:
    speak(Word(3, Verdict.TAKEDOWN, reason="asked"))
    words = logs.of(CORPUS).words
    assert shared_log(CORPUS, storage).read() is words
    assert taken_down(corpus, storage).tolist() == [3]
    assert shared_log(CORPUS, LocalStorage(storage.root)).read() is not words


def test_a_log_that_nobody_holds_is_not_kept(storage: LocalStorage, corpus: Corpus) -> None:
    say(corpus, [Word(3, Verdict.TAKEDOWN, reason="asked")], by="olga", storage=storage, report=quiet)
    assert np.array_equal(taken_down(corpus, storage), [3])
    gc.collect()
    assert CORPUS not in review_log._shared[storage]
