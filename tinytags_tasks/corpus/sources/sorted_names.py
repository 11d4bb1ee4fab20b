"""Sorts the names in a folder, in a temporary file if there are very many: memory does not grow with the folder."""

import heapq
import itertools
import os
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import IO

from tinytags_tasks.corpus.temporary_files import temporary_file_errors
from tinytags_tasks.errors import FinalError

_NAMES_IN_MEMORY = 500_000
_CHUNK_BYTES = 65_536
_END = b"\0"
"""No file system allows it in a name."""


@dataclass(frozen=True, slots=True)
class Name:
    """A name in a folder, and whether it is a folder's."""

    name: str
    is_folder: bool


def sorted_names(names: Iterable[Name]) -> Iterator[Name]:
    """Yield names in the order of their code points.

    Parameters
    ----------
    names
        Iterated once, to the end, before the first name is yielded.

    Raises
    ------
    FinalError
        If the temporary file cannot be written.
    """
    stored = map(_stored, names)
    part = _sorted_part(stored)
    if len(part) < _NAMES_IN_MEMORY:
        yield from map(_name, part)
        return
    with temporary_file_errors():
        file = tempfile.TemporaryFile()  # noqa: SIM115 (closed below)
    with file:
        ranges = []
        while part:
            ranges.append(_write(part, file))
            part = _sorted_part(stored)
        yield from map(_name, heapq.merge(*(_read(file, start, stop) for start, stop in ranges), key=_order))


def _sorted_part(stored: Iterator[bytes]) -> list[bytes]:
    return sorted(itertools.islice(stored, _NAMES_IN_MEMORY), key=_order)


def _stored(name: Name) -> bytes:
    """Return a name as bytes, which are in the same order as its code points, and its kind in the last byte."""
    return name.name.encode("utf-8", "surrogateescape") + (b"d" if name.is_folder else b"f")


def _order(stored: bytes) -> bytes:
    return stored[:-1]


def _name(stored: bytes) -> Name:
    return Name(stored[:-1].decode("utf-8", "surrogateescape"), stored[-1:] == b"d")


def _write(part: Iterable[bytes], file: IO[bytes]) -> tuple[int, int]:
    """Append names to the file; return where they begin and end."""
    start = file.tell()
    with temporary_file_errors():
        file.writelines(stored + _END for stored in part)
        file.flush()
    return start, file.tell()


def _read(file: IO[bytes], start: int, stop: int) -> Iterator[bytes]:
    """Yield the names in a range of the file."""
    rest = b""
    while start < stop:
        with temporary_file_errors():
            chunk = os.pread(file.fileno(), min(_CHUNK_BYTES, stop - start), start)
        if not chunk:
            raise FinalError(f"{tempfile.gettempdir()}: a temporary file there was truncated; try again")
        start += len(chunk)
        *whole, rest = (rest + chunk).split(_END)
        yield from whole
