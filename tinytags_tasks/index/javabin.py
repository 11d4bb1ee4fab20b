"""The part of Solr's binary update format that documents need. Bytes stay bytes; in JSON they would need base64.

Format: version 2 of Solr's ``JavaBinCodec`` (org.apache.solr.common.util), and the request that
``JavaBinUpdateRequestCodec`` reads: a named list with the parameters and an iterator over documents. A tag byte says
what follows; for some types its low five bits also hold the size. Numbers of variable length are split into groups of
seven bits, lowest first. A name is spelled out once, and referred to by its number after that.
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

MIME = "application/javabin"

_VERSION = b"\x02"
_SMALL, _INT, _FLOAT, _BYTES, _ITERATOR, _END, _DOCUMENT = 3, 6, 8, 13, 14, 15, 16
_TEXT, _SMALL_INT, _SMALL_LONG, _ARRAY, _NAMED_LIST, _NAME = (kind << 5 for kind in (1, 2, 3, 4, 6, 7))
_BYTE = [bytes([value]) for value in range(256)]
_NO_BOOST = bytes([_FLOAT]) + b"\x3f\x80\x00\x00"


@dataclass(frozen=True, eq=False)
class Numbers:
    """A list of ``count`` whole numbers from -128 to 127, encoded."""

    count: int
    encoded: memoryview


def encode_numbers(rows: npt.NDArray[np.int8]) -> list[Numbers]:
    """Return each row as a list of numbers: each takes two bytes, and all rows are encoded at once."""
    images, count = rows.shape
    encoded = np.full((images, count, 2), _SMALL, dtype=np.uint8)
    encoded[:, :, 1] = rows.view(np.uint8)
    return [Numbers(count, row.data) for row in encoded.reshape(images, 2 * count)]


Value = int | str | bytes | memoryview | tuple[str, ...] | Numbers


class Body:
    """The body of one update request."""

    def __init__(self) -> None:
        self._names: dict[str, bytes] = {}
        self._common: dict[int, bytes] = {}
        self._parts: list[bytes | memoryview] = [
            _VERSION,
            _head(_NAMED_LIST, 2),
            self._name("params"),
            _head(_NAMED_LIST, 0),
            self._name("docs"),
            bytes([_ITERATOR]),
        ]

    def add(self, own: Mapping[str, Value], common: Mapping[str, int | str]) -> None:
        """Add a document with values by field name: strings or several of them, bytes, small numbers, and integers.

        Integers have up to 56 bits; negative ones have up to 31.

        Parameters
        ----------
        own
            Fields of this document only. The bytes of a memoryview are read when the body is finished.
        common
            Fields that many documents share. The same object is encoded only once, and must live as long as the body.
        """
        self._parts.append(_head(_DOCUMENT, len(own) + len(common)) + _NO_BOOST)
        shared = self._common.get(id(common))
        if shared is None:
            names = len(self._names)
            shared = b"".join(self._name(name) + _scalar(value) for name, value in common.items())
            if names == len(self._names):  # otherwise it spells out names, which a body may do only once
                self._common[id(common)] = shared
        self._parts.append(shared)
        for name, value in own.items():
            if isinstance(value, int | str):
                self._parts.append(self._name(name) + _scalar(value))
            elif isinstance(value, tuple):
                self._parts.append(self._name(name) + _several(value))
            elif isinstance(value, Numbers):
                self._parts.append(self._name(name) + _head(_ARRAY, value.count))
                self._parts.append(value.encoded)
            else:
                self._parts.append(self._name(name) + _head(_BYTES, len(value)))
                self._parts.append(value)

    def finished(self) -> bytes:
        """Return the whole body."""
        return b"".join((*self._parts, bytes([_END])))

    def _name(self, name: str) -> bytes:
        reference = self._names.get(name)
        if reference is None:
            self._names[name] = _head(_NAME, len(self._names) + 1)
            return _head(_NAME, 0) + _scalar(name)
        return reference


def encode_sort_values(values: Sequence[tuple[int | str, bool]]) -> bytes:
    """Return what Solr's cursor marks are base64 of: values by which documents are sorted.

    Parameters
    ----------
    values
        Each with whether its field is a long; integers are 0 or more.
    """
    return (
        _VERSION
        + _head(_ARRAY, len(values))
        + b"".join(_long(value) if is_long and isinstance(value, int) else _scalar(value) for value, is_long in values)
    )


def _long(value: int) -> bytes:
    return (
        _BYTE[_SMALL_LONG | value] if value < 0x0F else _BYTE[_SMALL_LONG | 0x10 | value & 0x0F] + _groups(value >> 4)
    )


def _scalar(value: int | str) -> bytes:
    if isinstance(value, str):
        text = value.encode()
        return _head(_TEXT, len(text)) + text
    if value <= 0:
        return bytes([_INT]) + struct.pack(">i", value)  # the short form starts at 1
    kind = _SMALL_INT if value < 2**31 else _SMALL_LONG
    if value < 0x0F:
        return _BYTE[kind | value]
    return _BYTE[kind | 0x10 | value & 0x0F] + _groups(value >> 4)


@lru_cache(10_000)
def _several(values: tuple[str, ...]) -> bytes:
    return _head(_ARRAY, len(values)) + b"".join(map(_scalar, values))


@lru_cache(1_000)
def _head(kind: int, size: int) -> bytes:
    if kind < 1 << 5:
        return _BYTE[kind] + _groups(size)
    return _BYTE[kind | size] if size < 0x1F else _BYTE[kind | 0x1F] + _groups(size - 0x1F)


def _groups(number: int) -> bytes:
    if number < 0x80:
        return _BYTE[number]
    groups = bytearray()
    while number > 0x7F:
        groups.append(0x80 | number & 0x7F)
        number >>= 7
    groups.append(number)
    return bytes(groups)
