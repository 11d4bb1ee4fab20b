"""PNGs as their chunks: notes that Pillow refuses to read, and the colour that stands for transparent."""

import struct
import zlib
from collections.abc import Iterator

SIGNATURE = b"\x89PNG\r\n\x1a\n"

_MOST_NOTE_BYTES = 1_000_000
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_KEPT = (b"XML:com.adobe.xmp\0", b"Raw profile type ")
"""How texts begin that may say which way up the picture is."""

_GREY, _RGB = 0, 2


def without_large_notes(encoded: bytes) -> bytes:
    """Return a PNG without its colour profile, and without texts that are large or say nothing of its orientation.

    Pillow refuses a picture with more than a megabyte of them.

    Parameters
    ----------
    encoded
        The PNG.
    """
    kept = [SIGNATURE]
    for kind, start, stop in _chunks(encoded):
        content = encoded[start + 8 : stop - 4]
        if kind != b"iCCP" and (kind not in _TEXTS or (content.startswith(_KEPT) and _is_small(kind, content))):
            kept.append(encoded[start:stop])
    return b"".join(kept)


def _chunks(encoded: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield the kind of each chunk, and where it begins and ends; a chunk that is cut ends with the file."""
    at = len(SIGNATURE)
    while at < len(encoded):
        length, kind = struct.unpack(">I4s", encoded[at : at + 8].ljust(8, b"\0"))
        yield kind, at, min(len(encoded), at + 12 + length)
        at += 12 + length


def _is_small(kind: bytes, content: bytes) -> bool:
    if len(content) > _MOST_NOTE_BYTES:
        return False
    text = content.partition(b"\0")[2]
    if kind == b"zTXt":
        packed = text[1:]
    elif kind == b"iTXt" and text[:1] == b"\1":
        packed = text[2:].split(b"\0", 2)[-1]
    else:
        return True
    try:
        return len(zlib.decompressobj().decompress(packed, _MOST_NOTE_BYTES)) < _MOST_NOTE_BYTES
    except zlib.error:
        return False


def transparent_colour(encoded: bytes, colour: int | tuple[int, ...]) -> int | tuple[int, ...]:
    """Return the colour that stands for transparent in eight bits a channel, as Pillow decodes pixels.

    Pillow gives it in the bits of the file.

    Parameters
    ----------
    encoded
        The PNG.
    colour
        The colour as Pillow gives it: a grey, or red, green and blue.
    """
    depth, kind = encoded[24], encoded[25]  # of IHDR, which is always the first chunk
    if kind == _GREY and depth in (2, 4) and isinstance(colour, int):
        most = (1 << depth) - 1
        return (colour & most) * 255 // most
    if kind == _RGB and depth == 16 and isinstance(colour, tuple):
        return tuple(value >> 8 for value in colour)
    return colour
