"""Temporary files on this machine, such as the list of a source: what their errors mean."""

import tempfile
from collections.abc import Generator
from contextlib import contextmanager

from tinytags_tasks.errors import FinalError


@contextmanager
def temporary_file_errors(what: str = "the list of the source") -> Generator[None]:
    """Translate the errors of writing the list of a source, or something else, to this machine's temporary folder."""
    try:
        yield
    except OSError as error:
        raise FinalError(
            f"{tempfile.gettempdir()}: {what} cannot be written there ({error.strerror or error}); "
            "free some space, or set TMPDIR to a folder with more"
        ) from error
