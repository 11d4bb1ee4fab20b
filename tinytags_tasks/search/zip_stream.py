"""Writes a zip archive as a stream: each member at once, and in memory only what the directory at the end needs.

Members are stored as they are (PNGs do not shrink), and sizes are known beforehand, so every program can read the
archive. It follows the .ZIP File Format Specification 6.3.10 (APPNOTE.TXT), with ZIP64 where numbers need it.
"""

import struct
import tempfile
import zlib
from collections.abc import Iterator
from types import TracebackType
from typing import Self

_UTF8 = 1 << 11
_VERSION, _VERSION_ZIP64 = 20, 45
_LARGEST = 0xFFFFFFFF
_FURTHER = 0xFFFFFFFF
"""Stands for a number that follows as one of 64 bits."""

_MOST_MEMBERS = 0xFFFF
_LOCAL = struct.Struct("<4sHHHHHIIIHH")
_CENTRAL = struct.Struct("<4sHHHHHHIIIHHHHHII")
_END64 = struct.Struct("<4sQHHIIQQQQ")
_LOCATOR64 = struct.Struct("<4sIQI")
_END = struct.Struct("<4sHHHHIIH")

_BYTES_IN_MEMORY = 4 * 2**20
_PIECE_BYTES = 256 * 1024

# 1 January 1980, the first day that a zip knows: an export of the same pictures has the same bytes at any time.
_TIME, _DATE = 0, (1 << 5) | 1


class Spool:
    """Bytes that are read once, after all of them were added; many of them are in a temporary file."""

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(_BYTES_IN_MEMORY)  # noqa: SIM115 (closed by __exit__)
        self.size_bytes = 0
        self.checksum = 0

    def __enter__(self) -> Self:
        """Return it; leaving removes the temporary file."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Remove the temporary file."""
        self._file.close()

    def add(self, content: bytes) -> None:
        """Add bytes."""
        self._file.write(content)
        self.size_bytes += len(content)
        self.checksum = zlib.crc32(content, self.checksum)

    def pieces(self) -> Iterator[bytes]:
        """Yield all bytes."""
        self._file.seek(0)
        while piece := self._file.read(_PIECE_BYTES):
            yield piece


class ZipStream:
    """Returns the bytes of an archive, member by member; without :meth:`end`, programs see that it broke off."""

    def __init__(self) -> None:
        self._directory = Spool()
        self._offset = 0
        self._members = 0

    def __enter__(self) -> Self:
        """Return it; leaving removes its temporary file."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Remove its temporary file."""
        self._directory.__exit__(kind, error, traceback)

    def member(self, name: str, content: bytes) -> bytes:
        """Return the bytes of a member of at most 4 GB."""
        return self._begin(name, zlib.crc32(content), len(content)) + content

    def member_of(self, name: str, content: "Spool") -> Iterator[bytes]:
        """Yield the bytes of a member of at most 4 GB."""
        yield self._begin(name, content.checksum, content.size_bytes)
        yield from content.pieces()

    def _begin(self, name: str, checksum: int, size_bytes: int) -> bytes:
        """Return a member's header, and note it for the directory."""
        encoded = name.encode()
        sizes = checksum, size_bytes, size_bytes, len(encoded)
        header = _LOCAL.pack(b"PK\3\4", _VERSION, _UTF8, 0, _TIME, _DATE, *sizes, 0) + encoded
        is_far = self._offset >= _LARGEST
        needed = _VERSION_ZIP64 if is_far else _VERSION
        extra = struct.pack("<HHQ", 1, 8, self._offset) if is_far else b""
        more = len(extra), 0, 0, 0, 0o100644 << 16, _FURTHER if is_far else self._offset
        self._directory.add(
            _CENTRAL.pack(b"PK\1\2", (3 << 8) | needed, needed, _UTF8, 0, _TIME, _DATE, *sizes, *more) + encoded + extra
        )
        self._offset += len(header) + size_bytes
        self._members += 1
        return header

    def end(self) -> Iterator[bytes]:
        """Yield the directory, which makes the archive whole."""
        size_bytes = self._directory.size_bytes
        yield from self._directory.pieces()
        members = self._members
        if members >= _MOST_MEMBERS or self._offset >= _LARGEST or size_bytes >= _LARGEST:
            yield _END64.pack(
                b"PK\6\6", 44, _VERSION_ZIP64, _VERSION_ZIP64, 0, 0, members, members, size_bytes, self._offset
            )
            yield _LOCATOR64.pack(b"PK\6\7", 0, self._offset + size_bytes, 1)
        counts = min(members, _MOST_MEMBERS), min(members, _MOST_MEMBERS)
        yield _END.pack(b"PK\5\6", 0, 0, *counts, min(size_bytes, _FURTHER), min(self._offset, _FURTHER), 0)
