"""Records that are only ever appended, each under the next number: an alias' history, a run's audits, claims."""

import re
from collections.abc import Callable
from contextlib import suppress

from tinytags_tasks.errors import MissingError
from tinytags_tasks.record_base import Record
from tinytags_tasks.storage import Storage


def record_numbers(path_of: Callable[[int], str], storage: Storage) -> list[int]:
    """Return the numbers under which there are records, ascending.

    Parameters
    ----------
    path_of
        Returns the path of a number's record, ``<folder>/<number>.json``.
    """
    names = storage.names(path_of(1).rpartition("/")[0])
    return sorted(int(match[1]) for name in names if (match := re.fullmatch(r"(\d+)\.json", name)))


def append_record(record: Record, path_of: Callable[[int], str], storage: Storage) -> str:
    """Write a record under the next free number, and return its path."""
    number = max(record_numbers(path_of, storage), default=0) + 1
    storage.delete_leftovers(path_of(number))
    while True:
        # Another may write meanwhile, and take our file for a leftover.
        with suppress(MissingError):
            if record.save(storage, path_of(number), overwrite=False):
                return path_of(number)
            number += 1
