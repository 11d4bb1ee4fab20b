"""Private files and folders of the embedded engines, and the lock of a home."""

import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tinytags_tasks.errors import BadInputError


def make_folder(path: Path) -> Path:
    """Create a folder and its parents, which only the user may enter; return it."""
    try:
        for folder in [*reversed(path.parents), path]:
            if not folder.exists():
                folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise BadInputError(f"cannot create the folder {path}: {error.strerror}") from error
    return path


def write_atomically(path: Path, text: str) -> None:
    """Replace the content of a file with one rename; only the user may read it."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


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
    """Lock the home for one ``up`` or ``down``; if another one holds the lock, say so and wait."""
    path = make_folder(home) / ".lock"
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            report(f"waiting for another tinytags ({file.read().strip() or 'unknown process'}) to finish with {home}")
            fcntl.flock(file, fcntl.LOCK_EX)
        file.truncate(0)
        file.write(f"process {os.getpid()}")
        file.flush()
        yield
