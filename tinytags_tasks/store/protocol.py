"""What every storage does, and how one is opened from its address."""

import math
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Protocol

from tinytags_tasks.errors import LostWriteError

_LOST_WRITES = 3
"""How often one write is begun again."""


@dataclass(frozen=True)
class Leftover:
    """What stands under a temporary name: a killed writer's, or one that is being written.

    Attributes
    ----------
    path
        Its path.
    size_bytes
        Of a file; 0 of a folder.
    changed
        When it was written last, in seconds since the epoch by the store's clock.
    """

    path: str
    size_bytes: int
    changed: float


class Storage(Protocol):
    """A place for files in which a write is committed by one rename.

    A name beginning with ``.`` and ending in ``.tmp`` is a write in progress, or what a killed one left; it is never
    listed.
    """

    def read(self, path: str, offset: int = 0, length: int | None = None) -> bytes:
        """Return bytes of a file.

        Raises
        ------
        MissingError
            If there is no such file.
        CorruptError
            If it ends before ``offset + length``, or the store has no good copy of these bytes.
        """
        ...

    def write(self, path: str, content: bytes | Iterable[bytes | memoryview], *, overwrite: bool = True) -> bool:
        """Write a whole file: under a temporary name, then one atomic rename.

        Returns
        -------
        bool
            False when ``overwrite`` is False and the file stood already: it is left as it was.

        Raises
        ------
        LostWriteError
            If another writer deleted its temporary file; a write of ``bytes`` was repeated before.
        TransientError
            If it cannot be written now.
        """
        ...

    def exists(self, path: str) -> bool:
        """Tell whether a file or folder is there."""
        ...

    def size_bytes(self, path: str) -> int:
        """Return a file's size; MissingError when there is none."""
        ...

    def checksum(self, path: str) -> str:
        """Return the store's own checksum of a file, known without reading it; empty where the store has none."""
        ...

    def known_damage(self, path: str) -> str:
        """Return what the store knows to be damaged in a file, without reading it; empty when it knows of nothing.

        HDFS knows of what was read since the NameNode started, and of what a DataNode's own scanner has found.
        """
        ...

    def free_bytes(self) -> int | None:
        """Return how many bytes may still be written; None when the store does not tell."""
        ...

    def sizes(self, path: str) -> dict[str, int]:
        """Return the size in bytes of each file in a folder, by name; none when there is no such folder."""
        ...

    def versions(self, path: str) -> dict[str, str]:
        """Return what tells that a file has been written anew, for each file in a folder, by name."""
        ...

    def names(self, path: str) -> list[str]:
        """Return the sorted names in a folder; none when there is no such folder."""
        ...

    def rename(self, source: str, target: str) -> bool:
        """Move a file or folder to a name that is free; False when it is not, and nothing moved."""
        ...

    def make_folder(self, path: str) -> None:
        """Create a folder and those above it; one that exists is left as it is."""
        ...

    def delete(self, path: str) -> bool:
        """Delete a file, or a folder with all it holds; False when it was not there."""
        ...

    def delete_leftovers(self, *paths: str, least_age_seconds: float = 0.0) -> int:
        """Delete what killed writers of these files left under temporary names; return how many there were.

        A temporary file may be another writer's that is alive: deleting it makes that write fail. So this may be called

        - for a run's ledger and scored files by the holder of the lease on the block (:mod:`.block_lease`);
        - for a shard, its keywords and its manifest by the holder of the lease on the shard;
        - for an alias' history, and the record of a run that it drops or revives, by the holder of the alias' lease;
        - for a training and its labelled set by the holder of the lease on the training, for a model likewise;
        - for a corpus' totals, plan, listing and shard leases by its commit, when every shard is complete: who writes
          one of them then repeats the write (see :meth:`write`);
        - for files that no lease guards (audits, claims) by anybody, with ``least_age_seconds`` of
          :data:`LEFTOVER_SECONDS`.

        Parameters
        ----------
        paths
            In one folder, which is listed once.
        least_age_seconds
            Leave what was written to more recently, by the store's clock.
        """
        ...

    def leftovers(self, path: str) -> list[Leftover]:
        """Return what stands under temporary names in a folder and in all below it; the names below such a one not."""
        ...

    def url(self, path: str) -> str:
        """Return the address under which Spark finds a path."""
        ...


LEFTOVER_SECONDS = 24 * 3_600.0
"""Nobody writes one file as long as this: what is older was left by a killed writer."""


def temporary_name(path: str) -> str:
    """Return a fresh temporary name beside a path."""
    target = PurePosixPath(path)
    return str(target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp"))


def is_temporary(name: str) -> bool:
    """Tell whether a name is a temporary one."""
    return name.startswith(".") and name.endswith(".tmp")


def leftovers_among(changed: Mapping[str, float], paths: Iterable[str], least_age_seconds: float) -> list[str]:
    """Return the temporary names that writers of some files left in a folder.

    Parameters
    ----------
    changed
        When each name in the folder was last written to, in seconds since the epoch.
    paths
        The files.
    least_age_seconds
        How long ago that must be.
    """
    wanted = {PurePosixPath(path).name for path in paths}
    latest = time.time() - least_age_seconds if least_age_seconds else math.inf
    return [
        name
        for name, seconds in changed.items()
        if is_temporary(name) and name[1:].rsplit(".", 2)[0] in wanted and seconds <= latest
    ]


def lost_temporary(path: str) -> LostWriteError:
    """Return the error of a write whose temporary file was deleted before it was renamed."""
    return LostWriteError(f"{path}: another writer deleted the temporary file of this write; try again")


def repeat_lost_write(write_once: Callable[[], bool], content: bytes | Iterable[bytes | memoryview]) -> bool:
    """Write, and write again when another writer deleted the temporary file; chunks can be sent only once."""
    for _ in range(_LOST_WRITES if isinstance(content, bytes) else 0):
        with suppress(LostWriteError):
            return write_once()
    return write_once()


@dataclass(frozen=True)
class StoreAddress:
    """Where a store is; small and serialisable, so that a Spark worker can open it for itself.

    Attributes
    ----------
    root
        A folder in HDFS, or of this machine when ``webhdfs_url`` is empty.
    webhdfs_url
        The NameNode's HTTP address.
    hdfs_url
        The NameNode's RPC address, for Spark's own reading.
    user
        The HDFS user.
    """

    root: str
    webhdfs_url: str = ""
    hdfs_url: str = ""
    user: str = ""
