"""Append-only records, each with the next number: an alias' history, a run's audits, claims."""

import re
from collections.abc import Callable

from tinytags_tasks.store.protocol import LEFTOVER_SECONDS, Storage
from tinytags_tasks.store.record import Record


def record_numbers(path_of: Callable[[int], str], storage: Storage) -> list[int]:
    """Return the numbers of the existing records in ascending order.

    Parameters
    ----------
    path_of
        Returns the path of the record with a number, ``<folder>/<number>.json``.
    """
    names = storage.names(path_of(1).rpartition("/")[0])
    return sorted(int(match[1]) for name in names if (match := re.fullmatch(r"(\d+)\.json", name)))


def append_record(
    record: Record, path_of: Callable[[int], str], storage: Storage, *, is_sole_writer: bool = False
) -> str:
    """Write a record with the next free number, and return its path.

    Parameters
    ----------
    record, path_of, storage
        What to write, and where.
    is_sole_writer
        Whether the caller holds a lease on these records. If so, all temporary files are leftovers, however recent.
    """
    number = max(record_numbers(path_of, storage), default=0) + 1
    storage.delete_leftovers(path_of(number), least_age_seconds=0.0 if is_sole_writer else LEFTOVER_SECONDS)
    while not record.save(storage, path_of(number), overwrite=False):
        number += 1
    return path_of(number)
