"""Logs of the embedded engines, and the lock of a home."""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tinytags_tasks.private_files import make_folder


def last_lines(path: Path, count: int = 12) -> str:
    """Return the last non-empty lines of a log, or a note that there are none."""
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 65_536))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return "(no log)"
    lines = [line for line in text.splitlines() if line.strip()]
    return "\n".join(lines[-count:]) or "(the log is empty)"


@contextmanager
def locked(home: Path, report: Callable[[str], None]) -> Iterator[None]:
    """Lock the home for one ``up`` or ``down``; if another process holds the lock, say so and wait."""
    with _lock_file(home).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            report(f"waiting for another tinytags ({file.read().strip() or 'unknown process'}) to finish with {home}")
            fcntl.flock(file, fcntl.LOCK_EX)
        _sign(file.fileno())
        yield


@contextmanager
def locked_if_free(home: Path) -> Iterator[bool]:
    """Lock the home if no other process holds the lock; yields whether it is locked now."""
    with _lock_file(home).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        _sign(file.fileno())
        yield True


def _lock_file(home: Path) -> Path:
    return make_folder(home) / ".lock"


def _sign(descriptor: int) -> None:
    """Write who holds the lock, for people; the lock holds without it, even if the disk is full."""
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()}".encode())
