"""Files and folders of a home, which only the user may read: passwords, accounts, the engines' state."""

import os
import tempfile
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
