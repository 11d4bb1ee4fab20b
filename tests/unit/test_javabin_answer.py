"""Responses in Solr's binary format: real ones of Solr 9.10 are read as its JSON would say."""

import pytest

from tinytags_tasks.clients.javabin_answer import read_answer

DOCUMENTS = (
    b"\x02\xa2\xe0.responseHeader\xa3\xe0+zkConnected\x01\xe0&status\x06\x00\x00\x00\x00\xe0%QTimeI\xe0(response\x0c\x84b`"
    b'\x08?\x80\x00\x00\x01\x82\x0b\xa6\xe0%widthP\x02\xe0%blockD\xe0"id/of-100000:99998\xe0(position~\xe90\xe0#tag$ship'
    b"\xe0%score\x08?\x80\x00\x00\x0b\xa6\xe6P\x02\xe7D\xe8/of-100000:99999\xe9\x7f\xe90\xea$bird\xeb\x08?\x80\x00\x00"
)
"""Two documents with all fields but their images."""

FACETS = (
    b"\x02\xa3\xe0.responseHeader\xa3\xe0+zkConnected\x01\xe0&status\x06\x00\x00\x00\x00\xe0%QTimeL\xe0(response\x0c\x84b`"
    b"\x00\x01\x80\xe0&facets\xa3\xe0%countb\xe0!x\x05@\x10\x00\x00\x00\x00\x00\x00\xe0!b\xa1\xe0'buckets\x81\xa2\xe0#valD"
    b"\xe7b"
)


def test_documents_are_read():
    common = {"width": 32, "block": 4, "score": 1.0}
    assert read_answer(DOCUMENTS) == {
        "responseHeader": {"zkConnected": True, "status": 0, "QTime": 9},
        "response": {
            "numFound": 2,
            "start": 0,
            "docs": [
                {**common, "id": "of-100000:99998", "position": 99_998, "tag": "ship"},
                {**common, "id": "of-100000:99999", "position": 99_999, "tag": "bird"},
            ],
        },
    }


def test_counts_and_numbers_are_read():
    assert read_answer(FACETS)["facets"] == {"count": 2, "x": 4.0, "b": {"buckets": [{"val": 4, "count": 2}]}}


@pytest.mark.parametrize("size", [0, 3, 30, 31, 127, 128, 3_072, 100_000])
def test_bytes_stay_bytes_whatever_their_number(size):
    image = bytes(number % 251 for number in range(size))
    document = b"\x0b\xa1\xe0$data\x0d" + _groups(size) + image
    assert read_answer(b"\x02" + document) == {"data": image}


@pytest.mark.parametrize("text", ["", "größe", "x" * 30, "y" * 31, "z" * 300])
def test_texts_are_read_whatever_their_length(text):
    stored = text.encode()
    head = bytes([0x20 | len(stored)]) if len(stored) < 31 else b"\x3f" + _groups(len(stored) - 31)
    assert read_answer(b"\x02" + head + stored) == text


@pytest.mark.parametrize(
    ("content", "value"),
    [
        (b"\x06\xff\xff\xff\xfe", -2),
        (b"\x07\x00\x00\x01\x00\x00\x00\x00\x00", 1 << 40),
        (b"\x75\x81\x01", 0x05 | (0x81 << 4)),
        (b"\x0a\x01\x21k\x41", {"k": 1}),
        (b"\x00", None),
    ],
)
def test_other_values_are_read(content, value):
    assert read_answer(b"\x02" + content) == value


@pytest.mark.parametrize("size", range(1, len(DOCUMENTS)))
def test_what_is_cut_short_is_refused(size):
    with pytest.raises(ValueError, match="cut short"):
        read_answer(DOCUMENTS[:size])


@pytest.mark.parametrize("content", [b"", b"{}", b"\x01\x00", b"\x02\x09", b"\x02\x1f", b"\x02\x81\x14"])
def test_what_is_not_expected_is_refused(content):
    with pytest.raises(ValueError, match="binary"):
        read_answer(content)


def _groups(number: int) -> bytes:
    groups = b""
    while number > 0x7F:
        groups, number = groups + bytes([number & 0x7F | 0x80]), number >> 7
    return groups + bytes([number])
