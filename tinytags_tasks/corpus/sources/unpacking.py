"""Compressed files, unpacked to a temporary file so that any part of them can be read."""

import bz2
import gzip
import io
import lzma
import tempfile
import zlib
from typing import IO, cast

import pyarrow as pa

from tinytags_tasks.errors import BadInputError, FinalError

_GZIP, _BZIP2, _XZ, _ZSTANDARD = b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd"
COMPRESSED_HEADS = (_GZIP, _BZIP2, _XZ, _ZSTANDARD)
"""How files begin that can be unpacked."""

_CHUNK_BYTES = 4_000_000

# What the libraries raise on damaged bytes.
_DAMAGE = (OSError, EOFError, zlib.error, lzma.LZMAError, pa.ArrowException)


def unpack(packed: io.RawIOBase, name: str) -> IO[bytes]:
    """Return an unnamed temporary file with the content of a compressed one.

    Parameters
    ----------
    packed, name
        The file, and its name for messages.

    Raises
    ------
    BadInputError
        If it is damaged.
    FinalError
        If there is no room for it on this machine.
    """
    unpacked = tempfile.TemporaryFile()  # noqa: SIM115 (it is returned)
    try:
        stream = _open(packed)
        while chunk := _next_chunk(stream, name, unpacked.tell()):
            try:
                unpacked.write(chunk)
                unpacked.flush()
            except OSError as error:
                raise FinalError(
                    f"{tempfile.gettempdir()}: {name} cannot be unpacked there ({error.strerror or error}); free some "
                    "space, set TMPDIR to a folder with more, or unpack it yourself"
                ) from error
    except BaseException:
        unpacked.close()
        raise
    unpacked.seek(0)
    return unpacked


def unpacked_head(packed: io.RawIOBase, length: int) -> bytes:
    """Return the first bytes of a compressed file's content; none if it is damaged."""
    try:
        return _open(packed).read(length)
    except _DAMAGE:
        return b""


def _open(packed: io.RawIOBase) -> IO[bytes]:
    head = packed.read(6) or b""
    packed.seek(0)
    source = cast("IO[bytes]", packed)
    if head.startswith(_GZIP):
        return cast("IO[bytes]", gzip.GzipFile(fileobj=source))
    if head.startswith(_BZIP2):
        return cast("IO[bytes]", bz2.BZ2File(source))
    if head.startswith(_XZ):
        return cast("IO[bytes]", lzma.LZMAFile(source))
    # pyarrow's own read never frees its bytes if it fails; that of a buffer does.
    return io.BufferedReader(cast("io.RawIOBase", pa.CompressedInputStream(pa.PythonFile(source, mode="r"), "zstd")))


def _next_chunk(stream: IO[bytes], name: str, at: int) -> bytes:
    try:
        return stream.read(_CHUNK_BYTES)
    except _DAMAGE as error:
        raise BadInputError(
            f"{name}: damaged: cannot be unpacked after {at:,} bytes ({error}); download it again"
        ) from error
