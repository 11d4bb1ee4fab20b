"""Reads the part of Solr's binary format that responses with images need. In JSON, bytes would need base64.

Format: version 2 of Solr's ``JavaBinCodec`` (org.apache.solr.common.util). A tag byte says what follows; for some types
its low five bits also hold the size. Numbers of variable length are split into groups of seven bits, lowest first. A
name is spelled out once, and referred to by its number after that.
"""

import struct
from collections.abc import Callable
from typing import Any

VERSION = b"\x02"
"""How a response begins; no JSON does."""

_NULL, _TRUE, _FALSE, _DOUBLE, _INT, _LONG, _FLOAT, _MAP, _DOCUMENT, _DOCUMENTS, _BYTES = (
    0,
    1,
    2,
    5,
    6,
    7,
    8,
    10,
    11,
    12,
    13,
)
_TEXT, _SMALL_INT, _SMALL_LONG, _ARRAY, _ORDERED_MAP, _NAMED_LIST, _NAME = range(1, 8)
_FULL = 0x1F


def read_answer(content: bytes) -> Any:  # noqa: ANN401 - as in JSON
    """Return the value of a response: what its JSON would say, but bytes where that has base64.

    Raises
    ------
    ValueError
        If it is not in this format, is cut short, or holds a type that such responses do not have.
    """
    if not content.startswith(VERSION):
        raise ValueError(f"not version {VERSION[0]} of Solr's binary format")
    reader = _Reader(content)
    try:
        return reader.value()
    except (IndexError, struct.error) as error:
        raise ValueError(f"Solr's binary response is cut short after {len(content):,} bytes") from error


class _Reader:
    def __init__(self, content: bytes) -> None:
        self._content = content
        self._at = len(VERSION)
        self._names: list[str] = []
        self._by_tag: dict[int, Callable[[], Any]] = {
            _NULL: lambda: None,
            _TRUE: lambda: True,
            _FALSE: lambda: False,
            _DOUBLE: lambda: self._number(">d"),
            _INT: lambda: self._number(">i"),
            _LONG: lambda: self._number(">q"),
            _FLOAT: lambda: self._number(">f"),
            _MAP: lambda: self._pairs(self._groups()),
            _DOCUMENT: self.value,  # a document is a map
            _DOCUMENTS: self._documents,
            _BYTES: lambda: self._bytes(self._groups()),
        }

    def value(self) -> Any:  # noqa: ANN401 - as in JSON
        tag = self._content[self._at]
        self._at += 1
        kind = tag >> 5
        if kind == 0:
            if tag not in self._by_tag:
                raise ValueError(f"Solr's binary response has a value of type {tag}, which is not expected")
            return self._by_tag[tag]()
        if kind in (_SMALL_INT, _SMALL_LONG):
            return tag & 0x0F | (self._groups() << 4 if tag & 0x10 else 0)
        size = tag & _FULL
        if size == _FULL:
            size += self._groups()
        if kind == _NAME:
            return self._names[size - 1] if size else self._new_name()
        if kind == _TEXT:
            return self._bytes(size).decode()
        if kind == _ARRAY:
            return [self.value() for _ in range(size)]
        return self._pairs(size)  # _ORDERED_MAP or _NAMED_LIST

    def _groups(self) -> int:
        number = shift = 0
        while (group := self._content[self._at]) & 0x80:
            number |= (group & 0x7F) << shift
            shift += 7
            self._at += 1
        self._at += 1
        return number | group << shift

    def _bytes(self, size: int) -> bytes:
        start = self._at
        self._at += size
        if self._at > len(self._content):
            raise IndexError
        return self._content[start : self._at]

    def _number(self, layout: str) -> Any:  # noqa: ANN401 - int or float
        (number,) = struct.unpack(layout, self._bytes(struct.calcsize(layout)))
        return number

    def _new_name(self) -> str:
        self._names.append(self.value())
        return self._names[-1]

    def _pairs(self, size: int) -> dict[str, Any]:
        return {self.value(): self.value() for _ in range(size)}

    def _documents(self) -> dict[str, Any]:
        counts = self.value()
        return {"numFound": counts[0], "start": counts[1], "docs": self.value()}
