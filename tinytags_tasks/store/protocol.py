"""The protocol that every storage implements, and what the implementations share."""

import math
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Protocol

from tinytags_tasks.errors import LostWriteError

_LOST_WRITES = 3
"""How often a write is retried."""


@dataclass(frozen=True)
class Leftover:
    """A file or folder under a temporary name: it is being written, or a killed writer left it.

    Attributes
    ----------
    path
        Its path.
    size_bytes
        The size of a file; 0 for a folder.
    changed
        When it was last written to, in seconds since the epoch by the store's clock.
    """

    path: str
    size_bytes: int
    changed: float


class Storage(Protocol):
    """A place for files in which a write is committed by one rename.

    A name that begins with ``.`` and ends in ``.tmp`` is temporary: it belongs to a write in progress, or was left by a
    killed one. Temporary names are not listed.
    """

    def read(self, path: str, offset: int = 0, length: int | None = None) -> bytes:
        """Return bytes of a file.

        Raises
        ------
        MissingError
            If the file does not exist.
        CorruptError
            If the file ends before ``offset + length``, or the store has no undamaged copy of these bytes.
        """
        ...

    def write(self, path: str, content: bytes | Iterable[bytes | memoryview], *, overwrite: bool = True) -> bool:
        """Write a whole file: under a temporary name, then one atomic rename.

        Returns
        -------
        bool
            False if ``overwrite`` is False and the file already existed; it is left unchanged.

        Raises
        ------
        LostWriteError
            If another writer deleted the temporary file. A write of ``bytes`` is retried first.
        TransientError
            If the store cannot write it at the moment.
        """
        ...

    def exists(self, path: str) -> bool:
        """Return whether a file or folder exists."""
        ...

    def size_bytes(self, path: str) -> int:
        """Return a file's size; MissingError if the file does not exist, or is a folder."""
        ...

    def checksum(self, path: str) -> str:
        """Return the store's own checksum of a file, without reading the file; empty if the store keeps none."""
        ...

    def known_damage(self, path: str) -> str:
        """Return the damage in a file that the store knows of, without reading the file; empty if it knows of none.

        HDFS knows of damage that was found by a read since the NameNode started, or by a DataNode's own scanner.
        """
        ...

    def free_bytes(self) -> int | None:
        """Return how many more bytes can be written; None if the store does not report it."""
        ...

    def sizes(self, path: str) -> dict[str, int]:
        """Return the size in bytes of each file in a folder, by name; empty if the folder does not exist."""
        ...

    def versions(self, path: str) -> dict[str, str]:
        """Return a text for each file in a folder, by name, that changes whenever the file is written again."""
        ...

    def version(self, path: str) -> str:
        """Return what :meth:`versions` has for one file, without listing its folder; empty if it does not exist."""
        ...

    def changed_seconds(self, path: str) -> float:
        """Return when a file was last written, or a name in a folder was last added, replaced or removed.

        In seconds since the epoch by the store's clock; 0 if it does not exist.
        """
        ...

    def names(self, path: str) -> list[str]:
        """Return the sorted names in a folder; empty if the folder does not exist."""
        ...

    def rename(self, source: str, target: str) -> bool:
        """Move a file or folder to a new name; return False, and move nothing, if the name is taken.

        Raises
        ------
        MissingError
            If it does not exist.
        LostWriteError
            If it had a temporary name and does not exist: another writer deleted it as a leftover.
        """
        ...

    def make_folder(self, path: str) -> None:
        """Create a folder and its parents; an existing folder is left unchanged."""
        ...

    def delete(self, path: str) -> bool:
        """Delete a file, or a folder with its contents; return False if it did not exist."""
        ...

    def delete_leftovers(self, *paths: str, least_age_seconds: float = 0.0) -> int:
        """Delete the temporary files that killed writers of these files left; return how many there were.

        A temporary file may belong to another writer that is still alive, and deleting it makes that write fail. So
        only these may call it:

        - for a run's ledger and scored files, and for embeddings: the holder of the lease on the block
          (:mod:`.block_lease`);
        - for a shard, its keywords and its manifest: the holder of the lease on the shard;
        - for an alias' history, and the record of a run that is dropped or revived: the holder of the alias' lease;
        - for a training and its labelled set, or a model: the holder of the lease on it;
        - for a corpus' totals, plan, listing and shard leases: the corpus' commit, once every shard is complete.
          Another writer of one of these files then retries (see :meth:`write`);
        - for a merged file of a corpus' review log: the holder of the log's lease;
        - for files without a lease (audits, claims, a request's words): anyone, with ``least_age_seconds`` of
          :data:`LEFTOVER_SECONDS`.

        Parameters
        ----------
        paths
            The files, all in one folder. Where the store can, only the temporary names in it are listed.
        least_age_seconds
            Keep temporary files that were written to more recently than this, by the store's clock.
        """
        ...

    def leftovers(self, path: str) -> list[Leftover]:
        """Return the temporary files and folders anywhere in a folder, but not what is inside a temporary folder."""
        ...

    def url(self, path: str) -> str:
        """Return the address of a path for Spark."""
        ...


LEFTOVER_SECONDS = 24 * 3_600.0
"""No write of one file takes this long: a temporary file that is older was left by a killed writer."""


def temporary_name(path: str) -> str:
    """Return a new temporary name in the same folder as a path."""
    target = PurePosixPath(path)
    return str(target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp"))


def is_temporary(name: str) -> bool:
    """Return whether a name is temporary."""
    return name.startswith(".") and name.endswith(".tmp")


def leftovers_among(changed: Mapping[str, float], paths: Iterable[str], least_age_seconds: float) -> list[str]:
    """Return the temporary names in a folder that writers of certain files left.

    Parameters
    ----------
    changed
        When each name in the folder was last written to, in seconds since the epoch.
    paths
        The files.
    least_age_seconds
        How long ago that must be at least.
    """
    wanted = {PurePosixPath(path).name for path in paths}
    latest = time.time() - least_age_seconds if least_age_seconds else math.inf
    return [
        name
        for name, seconds in changed.items()
        if is_temporary(name) and name[1:].rsplit(".", 2)[0] in wanted and seconds <= latest
    ]


def lost_temporary(path: str) -> LostWriteError:
    """Return the error for a write whose temporary file was deleted before it was renamed."""
    return LostWriteError(f"{path}: another writer deleted the temporary file of this write; try again")


def repeat_lost_write(write_once: Callable[[], bool], content: bytes | Iterable[bytes | memoryview]) -> bool:
    """Write, and retry if another writer deleted the temporary file; chunks can be sent only once, so not those."""
    for _ in range(_LOST_WRITES if isinstance(content, bytes) else 0):
        with suppress(LostWriteError):
            return write_once()
    return write_once()


ANSWER_SECONDS = 120.0
"""How long the pipeline waits for an answer of HDFS."""


@dataclass(frozen=True)
class StoreAddress:
    """Where a store is; small and serialisable, so that a Spark worker can open the store itself.

    Attributes
    ----------
    root
        A folder in HDFS, or on this machine if ``webhdfs_url`` is empty.
    webhdfs_url
        The NameNode's HTTP address.
    hdfs_url
        The NameNode's RPC address, from which Spark reads.
    user
        The HDFS user.
    kerberos
        Whether HDFS asks for a Kerberos ticket, instead of a user.
    token
        A delegation token of HDFS, instead of a user or a ticket. Addresses with different tokens are equal.
    answer_seconds
        How long HDFS may take for an answer, and between two packets of it.
    replication
        How many copies HDFS keeps of what is written; None leaves it to HDFS.
    """

    root: str
    webhdfs_url: str = field(default="", repr=False)  # it may have a password
    hdfs_url: str = ""
    user: str = ""
    kerberos: bool = False
    token: str = field(default="", repr=False, compare=False)
    answer_seconds: float = ANSWER_SECONDS
    replication: int | None = None
