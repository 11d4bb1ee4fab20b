"""A file of a source, for libraries that read from a file object and seek in it."""

import io
from typing import TYPE_CHECKING

from tinytags_tasks.corpus.sources.files import SourceFiles

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


class RangeFile(io.RawIOBase):
    """Reads byte ranges of a file; failures are raised as our errors, not the library's.

    Parameters
    ----------
    files
        The source's files.
    path
        The file.
    size_bytes, version
        As it was listed.
    """

    def __init__(self, files: SourceFiles, path: str, size_bytes: int, version: str) -> None:
        self._files = files
        self._path = path
        self._size = size_bytes
        self._version = version
        self._at = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the offset of the next byte."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to another offset and return it."""
        self._at = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence] + offset
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        """Return the next bytes, fewer at the end of the file.

        Raises
        ------
        BadInputError, TransientError
            As :meth:`tinytags_tasks.corpus.sources.files.SourceFiles.read`.
        """
        rest = max(0, self._size - self._at)
        length = rest if size is None or size < 0 else min(size, rest)
        content = self._files.read(self._path, self._at, length, self._version) if length else b""
        self._at += length
        return content

    def readinto(self, buffer: "WriteableBuffer") -> int:
        """Read the next bytes into a buffer and return how many."""
        target = memoryview(buffer).cast("B")
        content = self.read(len(target))
        target[: len(content)] = content
        return len(content)
