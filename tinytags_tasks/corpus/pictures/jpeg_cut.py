"""JPEGs whose data ends early although an end marker follows.

libjpeg fills the rest with grey and only warns, which Pillow does not pass on. To find them costs microseconds, unless
a picture looks as if it were cut; such a picture is decoded a second time, with bytes put in before its end marker.
They are passed over where all of a picture has been read, and change it where something is missing.
"""

import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from PIL import Image

_START_OF_SCAN, _END = 0xDA, b"\xff\xd9"
_FRAMES = frozenset({0xC0, 0xC1, 0xC2})
"""The markers of frames that are Huffman coded: baseline, extended and progressive (ITU T.81, B.1.1.3)."""

_HEADS = {"L": b"\xff\xda\0\x08\x01", "RGB": b"\xff\xda\0\x0c\x03", "CMYK": b"\xff\xda\0\x0e\x04"}
"""How the scan begins that holds all components of a picture."""

_NO_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})
_NEXT_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
"""What ends the data of a scan: no stuffed 0xFF, no restart, no fill byte."""

_RANDOM = random.Random(1).choices(range(255), k=2_048)  # noqa: S311 (any bytes but 0xFF will do)
_PUT_IN = b"".join([bytes(_RANDOM), *(b"\xff%c" % (0xD0 + number % 8) + bytes(_RANDOM[:128]) for number in range(16))])
"""Data of a scan, and then more behind all eight restart markers, for a picture whose data needs these."""

_FEW_COEFFICIENTS = 5
"""The coefficients of a block after which there are only details; libjpeg sends these first, too."""

_GREY = frozenset({127, 128})
"""What libjpeg puts where data is missing; Adobe's inverted CMYK makes the one of the other."""


@dataclass(frozen=True)
class _Scan:
    """A scan: its components, the coefficients that it holds, and down to which bit; and where its data begins."""

    components: tuple[int, ...]
    first: int
    last: int
    higher_bit: int
    bit: int
    start: int

    def is_fine(self, brightness: int) -> bool:
        """Tell whether a picture hardly changes if a part is missing: details, their last bits, or those of colours."""
        is_small = self.higher_bit > 0 or self.first > _FEW_COEFFICIENTS or self.components[0] != brightness
        return self.first > 0 and is_small


def is_cut(encoded: bytes, picture: Image.Image, decode: Callable[[bytes], Image.Image]) -> bool:
    """Tell whether the data of a JPEG ends before its picture does.

    What is missing in a corner of 16 pixels, or in the last scan of a progressive JPEG if it has but details, is not
    noticed.

    Parameters
    ----------
    encoded
        The JPEG.
    picture
        What it was decoded to.
    decode
        Decodes another JPEG in the same way, but a progressive one at its full size.
    """
    corner = picture.im.getpixel((picture.width - 1, picture.height - 1))
    is_grey = _GREY.issuperset(corner if isinstance(corner, tuple) else (corner,))
    if not is_grey and "progressive" not in picture.info and _HEADS[picture.mode] in encoded:
        return False  # as nearly all are: all components in one scan, whose head is found near the beginning
    try:
        first, components = _first_scan(encoded)
        scans = list(_all_scans(encoded, first))
        is_fine = len(scans) > 1 and scans[-1].is_fine(first.components[0]) and _is_complete(scans, components)
        looks_cut = not is_fine if len(scans) > 1 else is_grey
        end = _NEXT_MARKER.search(encoded, scans[-1].start) if looks_cut else None
    except LookupError:
        return False  # of a rare kind, such as arithmetic coding, and Pillow could read it
    if end is None:
        return False
    # Where a progressive picture is decoded at a fraction, details that are missing would not be missed.
    whole = picture if len(scans) == 1 else decode(encoded)
    return decode(encoded[: end.start()] + _PUT_IN + _END).tobytes() != whole.tobytes()


def _first_scan(encoded: bytes) -> tuple[_Scan, int]:
    """Return the first scan, and the number of components of the picture."""
    components = 0
    for marker, start in _segments(encoded, 2):
        if marker in _FRAMES:
            components = encoded[start + 7]
        elif marker == _START_OF_SCAN and components:
            return _scan(encoded, start), components
    raise LookupError("there is no scan")


def _all_scans(encoded: bytes, first: _Scan) -> Iterator[_Scan]:
    yield first
    at = first.start
    while (match := _NEXT_MARKER.search(encoded, at)) and match[0] != _END:
        at = match.start()
        for marker, start in _segments(encoded, at):
            if marker == _START_OF_SCAN:
                scan = _scan(encoded, start)
                at = scan.start
                yield scan
                break
        else:
            return


def _segments(encoded: bytes, at: int) -> Iterator[tuple[int, int]]:
    """Yield the marker of each segment, and where its length stands; up to the end marker."""
    while encoded[at] == 0xFF:
        marker = encoded[at + 1]
        if marker == _END[1]:
            return
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        yield marker, at + 2
        at += 2 if marker in _NO_LENGTH else 2 + (encoded[at + 2] << 8 | encoded[at + 3])


def _scan(encoded: bytes, start: int) -> _Scan:
    count = encoded[start + 2]
    stop = start + 3 + 2 * count
    bits = encoded[stop + 2]
    return _Scan(tuple(encoded[start + 3 : stop : 2]), encoded[stop], encoded[stop + 1], bits >> 4, bits & 15, stop + 3)


def _is_complete(scans: list[_Scan], components: int) -> bool:
    """Tell whether scans hold all bits of all coefficients of all components."""
    missing_bits: dict[int, bytearray] = {}
    for scan in scans:
        for component in scan.components:
            held = missing_bits.setdefault(component, bytearray(b"\xff" * 64))
            held[scan.first : scan.last + 1] = bytes([scan.bit]) * (scan.last + 1 - scan.first)
    return len(missing_bits) == components and not any(map(any, missing_bits.values()))
