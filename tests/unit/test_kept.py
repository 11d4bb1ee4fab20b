"""A state that is asked for now and then: the last known one counts, and nobody waits long for an engine that hangs."""

import threading
import time

import pytest

from tinytags_tasks.errors import EngineDownError
from tinytags_tasks.search.kept import PATIENCE_SECONDS, Kept


class Engine:
    """Answers with numbers that rise; can be away, or hang."""

    def __init__(self) -> None:
        self.asked = 0
        self.is_away = False
        self.answers = threading.Event()
        self.answers.set()

    def ask(self) -> int:
        self.asked += 1
        number = self.asked
        self.answers.wait(10)
        if self.is_away:
            raise EngineDownError("away")
        return number


@pytest.fixture
def engine() -> Engine:
    return Engine()


def test_it_is_asked_once_while_the_state_counts_as_current(engine: Engine) -> None:
    kept = Kept("numbers", engine.ask, 60)
    assert [kept.get() for _ in range(5)] == [1] * 5
    kept.forget()
    assert [kept.get() for _ in range(5)] == [2] * 5


def test_the_last_known_state_outlives_the_engine(engine: Engine) -> None:
    kept = Kept("numbers", engine.ask, 0.001)
    first = kept.get()
    engine.is_away = True
    time.sleep(0.01)
    assert kept.get() == first
    engine.is_away = False
    time.sleep(0.01)
    assert kept.get() > first


def test_without_any_state_the_reason_is_told_and_the_next_one_asks_again(engine: Engine) -> None:
    kept = Kept("numbers", engine.ask, 0.001)
    engine.is_away = True
    with pytest.raises(EngineDownError, match="away"):
        kept.get()
    engine.is_away = False
    time.sleep(0.01)
    assert kept.get() == 2


def test_nobody_waits_long_for_an_engine_that_hangs(engine: Engine) -> None:
    kept = Kept("numbers", engine.ask, 0.001)
    first = kept.get()
    engine.answers.clear()
    time.sleep(0.01)
    started = time.monotonic()
    assert [kept.get() for _ in range(20)] == [first] * 20
    assert time.monotonic() - started < PATIENCE_SECONDS + 2
    assert engine.asked == 2  # one at a time
    engine.answers.set()
    with pytest.raises(EngineDownError, match=r"no answer within 0\.01 s"):
        hanging = Engine()
        hanging.answers.clear()
        Kept("others", hanging.ask, 60, 0.01).get()


def test_an_answer_that_was_on_its_way_when_something_changed_does_not_count(engine: Engine) -> None:
    kept = Kept("numbers", engine.ask, 60)
    assert kept.get() == 1
    kept.forget()
    engine.answers.clear()
    asking = threading.Thread(target=kept.get)
    asking.start()
    while engine.asked < 2:
        time.sleep(0.001)
    kept.forget()
    engine.answers.set()
    asking.join()
    assert kept.get() == 3


def test_a_state_is_given_without_waiting_only_while_it_counts_as_current(engine: Engine) -> None:
    kept = Kept("numbers", engine.ask, 60)
    assert (kept.current, engine.asked) == (None, 0)
    assert (kept.get(), kept.current) == (1, 1)
    kept.forget()
    assert kept.current is None
    assert (kept.get(), kept.current) == (2, 2)


def test_a_state_that_is_asked_for_all_the_time_is_renewed_before_it_is_too_old(engine: Engine) -> None:
    kept = Kept("numbers", engine.ask, 1.5)
    assert kept.get() == 1
    engine.answers.clear()  # whoever waited would wait for long
    while engine.asked < 2:
        assert 1 in (kept.current, kept.get())
        time.sleep(0.01)
    engine.answers.set()
    while kept.get() < 2:
        time.sleep(0.01)
