"""Whether the store has room for what is about to be written."""

from collections.abc import Callable

from tinytags_tasks.errors import FinalError
from tinytags_tasks.store.protocol import Storage

_FREE_SHARE = 0.02
"""This share must be free besides, for manifests, records and leases."""


def refuse_without_room(needed_bytes: int, subject: str, storage: Storage, report: Callable[[str], None]) -> None:
    """Report how much will be written, and refuse it if the store does not have enough space.

    Parameters
    ----------
    needed_bytes
        How much will be written, before replication.
    subject
        What will be written, for people, such as ``corpus photos``.
    storage
        The store.
    report
        Called with one line.

    Raises
    ------
    FinalError
        If there is not enough space.
    """
    free = storage.free_bytes()
    if free is None:
        report(f"{needed_bytes / 1e9:,.2f} GB will be written; the store does not report its free space")
        return
    report(f"{needed_bytes / 1e9:,.2f} GB will be written, and {free / 1e9:,.2f} GB are free")
    if needed_bytes * (1 + _FREE_SHARE) > free:
        raise FinalError(
            f"{subject} needs {needed_bytes:,} more bytes, but the store has only {free:,} free (after "
            "replication): free some space, raise the quota, or add a disk"
        )
