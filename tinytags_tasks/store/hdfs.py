"""A store in HDFS, over WebHDFS.

In HDFS, a rename to an existing name fails unless ``OVERWRITE`` is given. Either way it is one atomic step of the
NameNode: https://hadoop.apache.org/docs/stable/hadoop-project-dist/hadoop-hdfs/WebHDFS.html
"""

import time
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import requests
import urllib3
from hdfs import HdfsError

from tinytags_tasks.errors import CorruptError, FinalError, MissingError, TransientError
from tinytags_tasks.secrecy import without_password
from tinytags_tasks.store.hdfs_errors import is_missing, received_bytes, translate
from tinytags_tasks.store.protocol import (
    Leftover,
    StoreAddress,
    is_temporary,
    leftovers_among,
    lost_temporary,
    repeat_lost_write,
    temporary_name,
)
from tinytags_tasks.store.webhdfs import WebHdfs

_UNSUPPORTED = {
    "IllegalArgumentException",  # servers before Hadoop 3.4 do not know the operation
    "UnsupportedOperationException",
    "AccessControlException",
    "SecurityException",
}
"""The exceptions of servers that do not support an operation, or do not permit it."""

_CHUNK_BYTES = 512
"""How many bytes one HDFS checksum covers: the default of ``dfs.bytes-per-checksum``."""

_PACKET_BYTES = 65_536
"""How many bytes a DataNode sends at once."""

_PAUSES_SECONDS = (0.2, 1.0)
"""How long to wait before a read or write whose connection broke is done again."""


class HdfsStorage:
    """Keeps the store in a folder in HDFS.

    Parameters
    ----------
    address
        The store's address.
    """

    def __init__(self, address: StoreAddress) -> None:
        self.address = address
        self._hdfs = WebHdfs(
            address.webhdfs_url,
            root=address.root,
            user=address.user,
            token=address.token,
            kerberos=address.kerberos,
            answer_seconds=address.answer_seconds,
        )
        self._client = self._hdfs.client
        self._shown_url = without_password(address.webhdfs_url)

    def delegation_token(self) -> str:
        """Return a token that opens the store for a day without a ticket."""
        with self._translated(""):
            return str(self._hdfs.call("GET", "GETDELEGATIONTOKEN", "/")["Token"]["urlString"])

    @contextmanager
    def _translated(self, path: str) -> Generator[None]:
        """Translate the client's exceptions into ours."""
        where = f"{self._shown_url}{self.address.root}/{path}"
        try:
            yield
        except (HdfsError, requests.RequestException, urllib3.exceptions.HTTPError) as error:
            raise translate(error, where, self._client.urls) from error

    def read(self, path: str, offset: int = 0, length: int | None = None) -> bytes:
        """See :meth:`Storage.read`."""
        with self._translated(path):
            content = self._read(path, offset, length)
        if length is not None and len(content) != length:
            raise CorruptError(
                f"{self.address.root}/{path}: ends at {offset + len(content):,}, not at {offset + length:,}"
            )
        return content

    def _read(self, path: str, offset: int, length: int | None) -> bytes:
        for pause_seconds in (*_PAUSES_SECONDS, None):
            try:
                return self._hdfs.read(path, offset, length)
            except urllib3.exceptions.HTTPError as error:  # the connection broke while the bytes came
                self._refuse_damaged(path, offset + received_bytes(error))
                if pause_seconds is None:
                    raise
            time.sleep(pause_seconds)
        raise AssertionError("the last try returns or raises")

    def _refuse_damaged(self, path: str, offset: int) -> None:
        """Raise an error if a read stopped at an offset because no copy of those bytes has the right checksum.

        In that case a DataNode aborts the response, just as if it had died, but it reports the damage to the NameNode
        first.

        Raises
        ------
        CorruptError
            If that is the reason.
        """
        try:
            blocks = self._damaged_blocks(path)
        except (HdfsError, requests.RequestException):  # then the connection failed
            return
        for block in blocks:
            if block.start <= offset < block.stop:
                chunk = self._find_damaged_chunk(path, offset, block.stop)
                raise CorruptError(
                    f"{self.address.root}/{path}: is damaged at offset {chunk:,}: {block}; write the file again, "
                    "or restore the DataNode's disk"
                )

    def _find_damaged_chunk(self, path: str, start: int, stop: int) -> int:
        """Return the offset of the chunk that cannot be read, given where a response stopped within an HDFS block.

        A DataNode sends data in packets, but never a packet that contains a damaged chunk. So the bytes before that
        chunk in the same packet cannot be read either, but the bytes after it can: the search goes backwards.
        """
        first = start - start % _CHUNK_BYTES
        for offset in reversed(range(first, min(stop, first + _PACKET_BYTES + _CHUNK_BYTES), _CHUNK_BYTES)):
            try:
                self._hdfs.read(path, offset, 1)
            except (HdfsError, requests.RequestException, urllib3.exceptions.HTTPError):
                return offset
        return first

    def known_damage(self, path: str) -> str:
        """See :meth:`Storage.known_damage`."""
        with self._translated(path):
            return "; ".join(map(str, self._damaged_blocks(path)))

    def _damaged_blocks(self, path: str) -> list["_DamagedBlock"]:
        """Return the HDFS blocks of a file that have no undamaged copy, as far as the NameNode knows."""
        try:
            located = self._hdfs.call("GET", "GET_BLOCK_LOCATIONS", path)["LocatedBlocks"]["locatedBlocks"]
        except HdfsError as error:
            if getattr(error, "exception", "") in _UNSUPPORTED:  # gateways such as HttpFS lack this operation
                return []
            raise
        return [
            _DamagedBlock(
                name=f"blk_{found['block']['blockId']}",
                start=int(found["startOffset"]),
                stop=int(found["startOffset"]) + int(found["block"]["numBytes"]),
                nodes=tuple(node["name"] for node in found["locations"]),
            )
            for found in located
            if found["isCorrupt"]
        ]

    def write(self, path: str, content: bytes | Iterable[bytes | memoryview], *, overwrite: bool = True) -> bool:
        """See :meth:`Storage.write`."""
        return repeat_lost_write(lambda: self._write_once(path, content, overwrite=overwrite), content)

    def _write_once(self, path: str, content: bytes | Iterable[bytes | memoryview], *, overwrite: bool) -> bool:
        temporary = temporary_name(path)
        is_renamed = False
        try:
            with self._translated(path), _expects_temporary(path):
                stored = self._send(temporary, content)
            with self._translated(path), _expects_temporary(path):
                is_renamed = self._rename_sent(temporary, path, stored["fileId"], overwrite=overwrite)
            return is_renamed
        finally:
            if not is_renamed:
                self._discard(temporary)

    def _send(self, temporary: str, content: bytes | Iterable[bytes | memoryview]) -> dict[str, Any]:
        """Write a temporary file, and return its status; bytes are sent again if the connection breaks."""
        pauses: tuple[float | None, ...] = (*_PAUSES_SECONDS, None) if isinstance(content, bytes) else (None,)
        for attempt, pause_seconds in enumerate(pauses):
            sent = _Counter(content)
            try:
                self._hdfs.write(temporary, iter(sent), overwrite=attempt > 0, copies=self.address.replication)
            except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError):
                if pause_seconds is None:
                    raise
                time.sleep(pause_seconds)
                continue
            stored: dict[str, Any] = self._client.status(temporary)
            if stored["length"] != sent.size_bytes:
                raise TransientError(
                    f"{temporary}: HDFS has {stored['length']:,} of the {sent.size_bytes:,} bytes that were written"
                )
            return stored
        raise AssertionError("the last try returns or raises")

    def _rename_sent(self, temporary: str, path: str, file_id: int, *, overwrite: bool) -> bool:
        """Rename a file that was written; if only the answer is lost, find out whether it was renamed.

        Of a pair of NameNodes, the second one is asked when the first one's answer is lost, and then misses the file.
        """
        try:
            return self._rename(temporary, path, overwrite=overwrite)
        except HdfsError as error:
            if is_missing(error) and self._is_file(path, file_id):
                return True
            raise
        except requests.ConnectionError:
            return self._is_file(path, file_id) or self._rename(temporary, path, overwrite=overwrite)

    def _is_file(self, path: str, file_id: int) -> bool:
        found = self._hdfs.find(path)
        return found is not None and found["fileId"] == file_id

    def _rename(self, source: str, target: str, *, overwrite: bool) -> bool:
        try:
            answer = self._hdfs.call(
                "PUT",
                "RENAME",
                source,
                destination=self._client.resolve(target),
                renameoptions="OVERWRITE" if overwrite else "NONE",
            )
        except HdfsError as error:
            if getattr(error, "exception", "") == "FileAlreadyExistsException" and not overwrite:
                return False
            raise
        if "boolean" in answer:
            # The answer to a rename without options: it leaves a file that exists, and moves a folder into one that
            # exists, and neither is an error.
            raise FinalError(
                f"{self._shown_url}: ignores the options of a rename, as HttpFS does, so it cannot replace a "
                "file in one step: sources can be read from there, but a store cannot be kept; set "
                "TINYTAGS_WEBHDFS_URL to the NameNode or to Knox, with the gateway's path"
            )
        return True

    def _discard(self, temporary: str) -> None:
        """Delete a temporary file if it exists. If that fails, the next writer of the file deletes it."""
        try:
            self._client.delete(temporary)
        except (HdfsError, requests.RequestException):
            return

    def exists(self, path: str) -> bool:
        """See :meth:`Storage.exists`."""
        return self._status(path) is not None

    def size_bytes(self, path: str) -> int:
        """See :meth:`Storage.size_bytes`."""
        with self._translated(path):
            status = self._client.status(path)
        if status["type"] == "DIRECTORY":
            raise MissingError(f"{path}: is a folder, not a file")
        return int(status["length"])

    def checksum(self, path: str) -> str:
        """See :meth:`Storage.checksum`."""
        with self._translated(path):
            found = self._client.checksum(path)
        return f"{found['algorithm']}:{found['bytes']}"

    def free_bytes(self) -> int | None:
        """See :meth:`Storage.free_bytes`: what the disks and the quota allow, divided by the number of copies."""
        with self._translated(""):
            try:
                defaults = self._hdfs.call("GET", "GETSERVERDEFAULTS", "/")["FsServerDefaults"]
                free = int(self._hdfs.call("GET", "GETSTATUS", "/")["FsStatus"]["remaining"])
            except HdfsError as error:
                if error.exception in _UNSUPPORTED:
                    return None
                raise
            copies = self.address.replication or int(defaults["replication"])
            if self._hdfs.find("") is not None:
                usage = self._hdfs.call("GET", "GETQUOTAUSAGE", self.address.root)["QuotaUsage"]
                if usage["spaceQuota"] >= 0:
                    # A block that is being written counts in full against the quota until it is closed.
                    reserved = int(defaults["blockSize"]) * copies
                    free = min(free, usage["spaceQuota"] - usage["spaceConsumed"] - reserved)
        return max(0, free) // copies

    def sizes(self, path: str) -> dict[str, int]:
        """See :meth:`Storage.sizes`."""
        return {name: int(status["length"]) for name, status in self._statuses(path).items()}

    def versions(self, path: str) -> dict[str, str]:
        """See :meth:`Storage.versions`: a file that replaces another by a rename has a different inode."""
        return {name: _version(status) for name, status in self._statuses(path).items()}

    def version(self, path: str) -> str:
        """See :meth:`Storage.version`."""
        status = self._status(path)
        return _version(status) if status else ""

    def changed_seconds(self, path: str) -> float:
        """See :meth:`Storage.changed_seconds`."""
        status = self._status(path)
        return float(status["modificationTime"]) / 1000 if status else 0.0

    def _status(self, path: str) -> dict[str, Any] | None:
        with self._translated(path):
            return self._hdfs.find(path)

    def _statuses(self, path: str) -> dict[str, dict[str, Any]]:
        try:
            with self._translated(path):
                found = self._client.list(path, status=True)
        except MissingError:
            return {}
        return {name: status for name, status in found if status["type"] == "FILE" and not is_temporary(name)}

    def names(self, path: str) -> list[str]:
        """See :meth:`Storage.names`."""
        return sorted(name for name in self._all_names(path) if not is_temporary(name))

    def _all_names(self, path: str) -> list[str]:
        try:
            with self._translated(path):
                return list(self._client.list(path))
        except MissingError:
            return []

    def rename(self, source: str, target: str) -> bool:
        """See :meth:`Storage.rename`."""
        is_temporary_source = is_temporary(source.rpartition("/")[2])
        with self._translated(source), _expects_temporary(target) if is_temporary_source else nullcontext():
            self._client.makedirs(target.rpartition("/")[0] or "/")
            return self._rename(source, target, overwrite=False)

    def delete(self, path: str) -> bool:
        """See :meth:`Storage.delete`."""
        with self._translated(path):
            return bool(self._client.delete(path, recursive=True))

    def make_folder(self, path: str) -> None:
        """See :meth:`Storage.make_folder`."""
        with self._translated(path):
            self._client.makedirs(path)

    def delete_leftovers(self, *paths: str, least_age_seconds: float = 0.0) -> int:
        """See :meth:`Storage.delete_leftovers`."""
        folder = paths[0].rpartition("/")[0]
        changed = {name: status["modificationTime"] / 1000 for name, status in self._temporary_statuses(folder)}
        leftovers = leftovers_among(changed, paths, least_age_seconds)
        for leftover in leftovers:
            self.delete(f"{folder}/{leftover}")
        return len(leftovers)

    def _temporary_statuses(self, folder: str) -> list[tuple[str, dict[str, Any]]]:
        """Return the temporary names in a folder, which come first in a listing: other names do not begin with a dot.

        HDFS lists a folder in the order of the names' bytes, a thousand at a time by default, so that a folder of any
        size usually costs one request.
        """
        found: list[tuple[str, dict[str, Any]]] = []
        after = ""
        while True:
            try:
                with self._translated(folder):
                    part = self._hdfs.list_part(folder, after)
            except MissingError:
                return found
            found += [(name, status) for name, status in part.entries if is_temporary(name)]
            if not part.is_more or not part.entries or (after := part.entries[-1][0]) >= "/":
                return found

    def leftovers(self, path: str) -> list[Leftover]:
        """See :meth:`Storage.leftovers`."""
        found = []
        folders = [path]
        for folder in folders:  # grows during the loop
            try:
                with self._translated(folder):
                    statuses = self._client.list(folder, status=True)
            except MissingError:  # deleted by another process in the meantime
                continue
            for name, status in statuses:
                inside = f"{folder}/{name}".lstrip("/")
                if is_temporary(name):
                    found.append(Leftover(inside, int(status["length"]), status["modificationTime"] / 1000))
                elif status["type"] == "DIRECTORY":
                    folders.append(inside)
        return found

    def url(self, path: str) -> str:
        """See :meth:`Storage.url`."""
        return f"{self.address.hdfs_url}{self.address.root}/{path}"


def _version(status: Mapping[str, Any]) -> str:
    return f"{status['fileId']} {status['modificationTime']} {status['length']}"


@dataclass(frozen=True)
class _DamagedBlock:
    """An HDFS block without an undamaged copy: its name, its byte range in the file, and its DataNodes."""

    name: str
    start: int
    stop: int
    nodes: tuple[str, ...]

    def __str__(self) -> str:
        return (
            f"HDFS has no undamaged copy of {self.name}, which is bytes {self.start:,} to {self.stop:,} of it, on "
            f"{', '.join(self.nodes) or 'no DataNode'}"
        )


class _Counter:
    """Yields chunks and counts their bytes."""

    def __init__(self, content: bytes | Iterable[bytes | memoryview]) -> None:
        self._content = (content,) if isinstance(content, bytes) else content
        self.size_bytes = 0

    def __iter__(self) -> Iterator[bytes | memoryview]:
        for chunk in self._content:
            if chunk:  # an empty chunk would end the chunked request
                self.size_bytes += len(chunk)
                yield chunk


@contextmanager
def _expects_temporary(path: str) -> Generator[None]:
    """Raise :class:`LostWriteError` if the temporary file does not exist: another writer deleted it."""
    try:
        yield
    except HdfsError as error:
        if not is_missing(error):
            raise
        raise lost_temporary(path) from error
