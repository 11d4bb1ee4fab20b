"""Something that is asked for at most every few seconds, and of which the last known state counts if nobody answers."""

import logging
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from tinytags_tasks.errors import EngineDownError, TinyTagsError

PATIENCE_SECONDS = 1.0
"""How long a page waits for a newer state than the one it has; without any it waits for :data:`FIRST_SECONDS`."""

FIRST_SECONDS = 20.0

RENEWED_SHARE = 0.6
"""After which share of its time a state is asked for again in the background, so that under load no page waits."""

_log = logging.getLogger(__name__)

V = TypeVar("V")


class Kept(Generic[V]):
    """Keeps a state, which one thread asks for at a time, so that a page never waits long for an engine that hangs.

    Parameters
    ----------
    what
        What it is, for messages.
    ask
        Returns the state; called in a thread of its own.
    kept_seconds
        How long a state counts as current.
    first_seconds
        How long to wait for the first state.
    """

    def __init__(
        self, what: str, ask: Callable[[], V], kept_seconds: float, first_seconds: float = FIRST_SECONDS
    ) -> None:
        self._what = what
        self._ask = ask
        self._kept_seconds = kept_seconds
        self._first_seconds = first_seconds
        self._changed = threading.Condition()
        self._state: tuple[V] | None = None
        self._error: TinyTagsError | None = None
        self._until = 0.0
        self._renewed_at = 0.0
        self._started: float | None = None
        self._is_outdated = False
        self._answers = 0

    @property
    def known(self) -> V | None:
        """The state that was last seen; None if there was none."""
        return None if self._state is None else self._state[0]

    @property
    def current(self) -> V | None:
        """The state if it counts as current, without waiting; None if :meth:`get` would have to ask."""
        with self._changed:
            now = time.monotonic()
            if self._state is None or now >= self._until:
                return None
            self._renew(now)
            return self._state[0]

    def forget(self) -> None:
        """Ask again at the next question; an answer that is on its way then comes too early to count."""
        with self._changed:
            self._until = 0.0
            self._is_outdated = self._started is not None

    def get(self, first_seconds: float | None = None) -> V:
        """Return the state, or the last known one if there is no answer.

        Parameters
        ----------
        first_seconds
            How long to wait for the first state; None waits as usual.

        Raises
        ------
        TinyTagsError
            If it was never known, and cannot be.
        """
        first_seconds = self._first_seconds if first_seconds is None else first_seconds
        deadline = time.monotonic() + first_seconds
        with self._changed:
            answers = self._answers
            while (now := time.monotonic()) >= self._until and self._answers == answers:
                started = self._start_looking(now)
                if self._state is not None:
                    deadline = min(deadline, started + PATIENCE_SECONDS)
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            if self._state is not None:
                self._renew(now)
                return self._state[0]
            raise self._error or EngineDownError(f"{self._what}: no answer within {first_seconds:g} s")

    def _renew(self, now: float) -> None:
        """Ask in the background if the state will soon be too old; nobody waits for that."""
        if self._renewed_at <= now < self._until:
            self._start_looking(now)

    def _start_looking(self, now: float) -> float:
        """Ask unless somebody asks already; return when that began."""
        if self._started is None:
            self._started = now
            threading.Thread(target=self._look, name=f"look at {self._what}", daemon=True).start()
        return self._started

    def _look(self) -> None:
        state: tuple[V] | None = None
        problem: TinyTagsError | None = None
        try:
            state = (self._ask(),)
        except TinyTagsError as error:
            _log.warning("%s: the last known state counts, as there is no newer one: %s", self._what, error)
            problem = error
        except Exception as error:  # whoever waits must hear of it
            _log.exception("%s", self._what)
            problem = EngineDownError(f"{self._what}: failed ({type(error).__name__})")
        with self._changed:
            self._started = None
            self._error = problem
            if problem is None:
                self._state = state
            now = time.monotonic()
            self._until, self._renewed_at = now + self._kept_seconds, now + RENEWED_SHARE * self._kept_seconds
            if self._is_outdated:
                self._until, self._is_outdated = 0.0, False
            else:
                self._answers += 1  # whoever waited takes it, however late they wake up
            self._changed.notify_all()
