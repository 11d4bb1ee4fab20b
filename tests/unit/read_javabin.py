"""Reads Solr's binary update requests; written only from the format, as an independent check of the writer."""

import io
from collections.abc import Iterator


def read_documents(body: bytes) -> list[dict[str, object]]:
    """Return the documents of an update request."""
    reader = _Reader(io.BytesIO(body))
    assert reader.byte() == 2  # the format's version
    request = reader.value()
    assert request["params"] == {}
    assert reader.stream.read() == b""
    return request["docs"]


class _Reader:
    def __init__(self, stream: io.BytesIO) -> None:
        self.stream = stream
        self.names: list[str] = []

    def byte(self) -> int:
        (value,) = self.stream.read(1)
        return value

    def groups(self) -> int:
        number, shift = 0, 0
        while True:
            group = self.byte()
            number |= (group & 0x7F) << shift
            shift += 7
            if group < 0x80:
                return number

    def size(self, tag: int) -> int:
        size = tag & 0x1F
        return size + self.groups() if size == 0x1F else size

    def name(self) -> str:
        return self.named(self.byte())

    def named(self, tag: int) -> str:
        assert tag >> 5 == 7, tag
        number = self.size(tag)
        if number:
            return self.names[number - 1]
        self.names.append(self.value())
        return self.names[-1]

    def value(self):
        tag = self.byte()
        kind = tag >> 5
        if kind == 1:
            return self.stream.read(self.size(tag)).decode()
        if kind in (2, 3):
            return (tag & 0x0F) | (self.groups() << 4 if tag & 0x10 else 0)
        if kind == 4:
            return [self.value() for _ in range(self.size(tag))]
        if kind == 6:
            return {self.name(): self.value() for _ in range(self.size(tag))}
        assert kind == 0, tag
        if tag == 3:
            return int.from_bytes(self.stream.read(1), signed=True)
        if tag == 6:
            return int.from_bytes(self.stream.read(4), signed=True)
        if tag == 8:
            return self.stream.read(4)
        if tag == 13:
            return self.stream.read(self.groups())
        if tag == 14:
            return list(self.iterated())
        if tag == 16:
            return self.document()
        raise AssertionError(tag)

    def iterated(self) -> Iterator[object]:
        while self.byte() != 15:
            self.stream.seek(-1, io.SEEK_CUR)
            yield self.value()

    def document(self) -> dict[str, object]:
        count = self.groups()
        assert self.value() == b"\x3f\x80\x00\x00"  # no boost
        return {self.name(): self.value() for _ in range(count)}
