"""Temporary files on this machine that hold the list of a source: what their errors mean."""

import tempfile
from collections.abc import Generator
from contextlib import contextmanager

from tinytags_tasks.errors import FinalError


@contextmanager
def temporary_file_errors() -> Generator[None]:
    """Translate the errors of writing the list of a source to this machine's temporary folder."""
    try:
        yield
    except OSError as error:
        raise FinalError(
            f"{tempfile.gettempdir()}: the list of the source cannot be written there ({error.strerror or error}); "
            "free some space, or set TMPDIR to a folder with more"
        ) from error
