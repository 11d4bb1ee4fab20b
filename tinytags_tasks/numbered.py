"""Records that are only ever appended, each under the next number: an alias' history, a run's audits, claims."""

import re
from collections.abc import Callable

from tinytags_tasks.record_base import Record
from tinytags_tasks.storage import LEFTOVER_SECONDS, Storage


def record_numbers(path_of: Callable[[int], str], storage: Storage) -> list[int]:
    """Return the numbers under which there are records, ascending.

    Parameters
    ----------
    path_of
        Returns the path of a number's record, ``<folder>/<number>.json``.
    """
    names = storage.names(path_of(1).rpartition("/")[0])
    return sorted(int(match[1]) for name in names if (match := re.fullmatch(r"(\d+)\.json", name)))


def append_record(
    record: Record, path_of: Callable[[int], str], storage: Storage, *, is_sole_writer: bool = False
) -> str:
    """Write a record under the next free number, and return its path.

    Parameters
    ----------
    record, path_of, storage
        What is written, and where.
    is_sole_writer
        Whether the caller holds a lease on these records: then temporary files are of the dead, however young.
    """
    number = max(record_numbers(path_of, storage), default=0) + 1
    storage.delete_leftovers(path_of(number), least_age_seconds=0.0 if is_sole_writer else LEFTOVER_SECONDS)
    while not record.save(storage, path_of(number), overwrite=False):
        number += 1
    return path_of(number)
