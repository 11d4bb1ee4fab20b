"""How far each account's export is, and how its last one ended: exports have few places, one an account."""

import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import count

from tinytags_tasks.search.waiting import BusyError

KEPT_ACCOUNTS = 500
_SURE_SECONDS = 3.0
"""After how long the pace says how long the rest takes."""

_numbers = count(1)


class State(StrEnum):
    """How an export is."""

    SENDING = "sending"
    WHOLE = "whole"
    BROKEN = "broken"


@dataclass
class Progress:
    """How far an export is.

    Attributes
    ----------
    name
        The file's name.
    images, sent
        How many pictures it has, and how many of them are sent.
    looked_up
        For how many it was looked up where they are in their sources, if that comes first.
    state
        How it is.
    problem
        Why it broke off.
    number
        Tells it from others of this process.
    """

    name: str
    images: int
    sent: int = 0
    looked_up: int = 0
    state: State = State.SENDING
    problem: str = ""
    number: int = field(default_factory=lambda: next(_numbers))
    _began: float = field(default_factory=time.monotonic)
    _ended: float | None = None

    def send(self, sent: int) -> None:
        """Say how many pictures are sent; the time that is left is counted from the first ones on."""
        if not self.sent:
            self._began = time.monotonic()
        self.sent = sent

    def end(self) -> None:
        """Say that nothing more is sent; without :attr:`state` having become whole, it broke off."""
        self._ended = time.monotonic()
        if self.state is State.SENDING:
            self.state = State.BROKEN
            self.problem = self.problem or "whoever asked for it stopped taking it"

    def __str__(self) -> str:
        """Return it for people."""
        of_all = f"{self.sent:,} of {self.images:,} images"
        seconds = (self._ended or time.monotonic()) - self._began
        if self.state is State.WHOLE:
            return f"{self.name} was sent whole: {self.sent:,} images in {_readable(seconds)}."
        if self.state is State.BROKEN:
            return f"{self.name} broke off after {of_all}: {self.problem}. Export again."
        if not self.sent and self.looked_up:
            return f"Looking up the files that the images are from: {self.looked_up:,} of {self.images:,}."
        left = ""
        if self.sent and seconds > _SURE_SECONDS:
            left = f", about {_readable(seconds / self.sent * (self.images - self.sent))} left"
        return f"{of_all} are sent{left}."


class Exports:
    """The places for files that are sent at the same time, one an account; and each account's last export.

    Parameters
    ----------
    most
        How many places there are.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken: set[str] = set()
        self._last: OrderedDict[str, Progress] = OrderedDict()
        self._lock = threading.Lock()

    def last(self, account: str) -> Progress | None:
        """Return an account's export that is under way, or else its last one; None if this process knows none."""
        with self._lock:
            return self._last.get(account)

    @contextmanager
    def place(self, account: str, progress: Progress) -> Iterator[None]:
        """Hold a place.

        Raises
        ------
        BusyError
            If the account has one already, or all are taken.
        """
        with self._lock:
            if account in self._taken:
                raise BusyError("your last export is still under way: try again when it has ended")
            if len(self._taken) >= self._most:
                raise BusyError("others are exporting right now: try again in a few minutes")
            self._taken.add(account)
            self._last[account] = progress
            self._last.move_to_end(account)
            while len(self._last) > KEPT_ACCOUNTS:
                self._last.popitem(last=False)
        try:
            yield
        finally:
            progress.end()
            with self._lock:
                self._taken.discard(account)


def _readable(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
