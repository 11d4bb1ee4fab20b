"""The folder of a training in progress: what is finished, checkpoints, and one process at a time.

Every file appears under its name by one rename, so a training that is killed at any moment goes on from its last
checkpoint when the same command is given again.
"""

import fcntl
import json
import os
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from tinytags_tasks.errors import BadInputError, TransientError

Report = Callable[[str], None]


class Work:
    """A training's folder.

    Parameters
    ----------
    folder
        Created if it does not exist.
    report
        Takes each message; figures are also added to ``log.jsonl``.
    """

    def __init__(self, folder: Path, report: Report) -> None:
        self.folder, self._report = folder, report
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadInputError(f"{folder}: cannot be created ({error.strerror}); choose another --work") from error

    @contextmanager
    def hold(self, identity: str) -> Generator[None]:
        """Keep other processes out, and refuse a folder that belongs to another training.

        Raises
        ------
        TransientError
            If another process is learning in this folder.
        BadInputError
            If the folder belongs to a training with other pictures or parameters.
        """
        with (self.folder / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the system releases it when the process ends
            except OSError as error:
                raise TransientError(f"{self.folder}: another process is learning here; wait until it ends") from error
            owner = self.folder / "training.txt"
            if owner.exists() and (found := owner.read_text().strip()) != identity:
                raise BadInputError(
                    f"{self.folder}: belongs to another training ({found}, not {identity}): its pictures or parameters "
                    "differ; give the same ones to go on with it, or choose another --work"
                )
            for leftover in self.folder.glob(".*.tmp"):
                leftover.unlink()
            self.write_text("training.txt", identity)
            yield

    def path(self, name: str) -> Path:
        """Return the path of a file in the folder."""
        return self.folder / name

    def has(self, name: str) -> bool:
        """Return whether a file is finished."""
        return self.path(name).exists()

    def write(self, name: str, save: Callable[[Path], object]) -> Path:
        """Write a file: ``save`` under a temporary name, then one rename; return its path."""
        part = self.folder / f".{name}.tmp"
        save(part)
        with part.open("rb") as written:
            os.fsync(written.fileno())  # or a power cut could leave the name without the content
        part.replace(self.path(name))
        return self.path(name)

    def write_text(self, name: str, text: str) -> Path:
        """Write a file with this text, as :meth:`write` does."""
        return self.write(name, lambda path: path.write_text(text))

    def remove(self, *patterns: str) -> None:
        """Delete the files whose names match."""
        for pattern in patterns:
            for path in self.folder.glob(pattern):
                path.unlink()

    def say(self, text: str, **figures: object) -> None:
        """Report a message, and add it with its figures to the log."""
        self._report(text)
        with self.path("log.jsonl").open("a") as log:
            log.write(json.dumps({"at": time.strftime("%Y-%m-%dT%H:%M:%S"), "said": text, **figures}) + "\n")


class Progress:
    """Says now and then how far something is, and how long the rest will take.

    Parameters
    ----------
    what
        What is going on.
    total
        How many there are to do.
    done
        How many were done before; they do not count for the speed.
    say
        Takes each message.
    every_seconds
        How often.
    clock
        Seconds that pass.
    """

    def __init__(
        self,
        what: str,
        total: int,
        say: Report,
        *,
        done: int = 0,
        every_seconds: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._what, self._total, self._say = what, total, say
        self._every, self._clock = every_seconds, clock
        self._begun = self._said = clock()
        self._before = done

    def at(self, done: int, remark: str = "") -> None:
        """Report if it is time to."""
        now = self._clock()
        if now - self._said < self._every or done <= self._before:
            return
        self._said = now
        left = (now - self._begun) / (done - self._before) * (self._total - done)
        self._say(f"{self._what}: {100 * done / self._total:.0f} %, {in_words(left)} left{remark}")


def in_words(seconds: float) -> str:
    """Return a duration for people."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


class Timer:
    """Says when it is time for the next checkpoint."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds, self._clock = seconds, clock
        self._last = clock()

    def is_due(self) -> bool:
        """Return whether the time has passed since it last was."""
        now = self._clock()
        if now - self._last < self._seconds:
            return False
        self._last = now
        return True
