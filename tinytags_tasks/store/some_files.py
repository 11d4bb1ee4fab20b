"""Looks some files of a folder up: one by one, or by one listing if they are a good part of the folder.

A run's folders hold a file for each block. If each group of blocks listed them, a run's work would grow with the square
of its blocks (``docs/adr/0035-nothing-grows-with-the-square.md``).
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from tinytags_tasks.errors import MissingError
from tinytags_tasks.store import layout
from tinytags_tasks.store.protocol import Storage

_AT_ONCE = 8

_FEW = 100
"""So few files are always looked up one by one, whatever the folder holds."""

_NAMES_PER_LOOKUP = 50
"""A listing of so many names costs about as much as looking one file up."""


def is_listed(files: int, of: Callable[[], int]) -> bool:
    """Return whether it is cheaper to list a folder than to look some of its files up.

    Parameters
    ----------
    files
        How many files are looked up.
    of
        Returns how many files the folder may hold; called only if that decides.
    """
    return files > _FEW and files * _NAMES_PER_LOOKUP >= of()


def sizes_of(storage: Storage, paths: Sequence[str], of: Callable[[], int]) -> dict[str, int]:
    """Return the size of each of these files that exists, by its path.

    Parameters
    ----------
    storage
        The store.
    paths
        The files, all in one folder.
    of
        As for :func:`is_listed`.
    """
    if is_listed(len(paths), of):
        listed = storage.sizes(paths[0].rpartition("/")[0])
        return {path: listed[name] for path in paths if (name := layout.file_name(path)) in listed}

    def size(path: str) -> int | None:
        try:
            return storage.size_bytes(path)
        except MissingError:
            return None

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        found = zip(paths, pool.map(size, paths), strict=True)
        return {path: size_bytes for path, size_bytes in found if size_bytes is not None}


def versions_of(storage: Storage, paths: Sequence[str], of: Callable[[], int]) -> dict[str, str]:
    """Return the version of each of these files that exists, by its path; see :func:`sizes_of`."""
    if is_listed(len(paths), of):
        listed = storage.versions(paths[0].rpartition("/")[0])
        return {path: listed[name] for path in paths if (name := layout.file_name(path)) in listed}
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        found = zip(paths, pool.map(storage.version, paths), strict=True)
        return {path: version for path, version in found if version}
