"""A small file that is written, read and deleted: what no list of rights can show.

Spark's workers import this module, so it imports no client of Spark.
"""

from dataclasses import dataclass

from tinytags_tasks.errors import CorruptError, TinyTagsError
from tinytags_tasks.store.opening import open_store
from tinytags_tasks.store.protocol import Storage, StoreAddress, temporary_name

_CONTENT = b"tinytags doctor\n" * 64


@dataclass(frozen=True)
class Probed:
    """What a worker found: its host, and why it cannot use the store; empty if it can."""

    host: str
    problem: str


def probe_store(storage: Storage, path: str) -> float:
    """Write a file, read it, and delete it; return when the store says it was changed, in seconds since the epoch.

    Raises
    ------
    CorruptError
        If what was written is not what was read.
    TransientError, FinalError
        As the store raises them.
    """
    storage.write(path, _CONTENT)
    try:
        changed = storage.changed_seconds(path)
        if storage.read(path) != _CONTENT:
            raise CorruptError(f"{path}: what was written is not what was read")
        return changed
    finally:
        storage.delete(path)


def probe_from(host: str, address: StoreAddress) -> Probed:
    """Probe the store from a worker on a host, under a name that no other worker uses."""
    try:
        probe_store(open_store(address), temporary_name(f"doctor-{host}"))
    except TinyTagsError as error:
        return Probed(host, str(error))
    return Probed(host, "")
