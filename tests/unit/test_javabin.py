"""Solr's binary format: what is written is read back as it was, by a reader that shares no code with the writer."""

from hypothesis import given
from hypothesis import strategies as st
from read_javabin import read_documents

from tinytags_tasks.index.javabin import Body

NAMES = st.text(min_size=1, max_size=40)
SCALARS = st.one_of(st.integers(0, 2**56 - 1), st.text(max_size=60))
VALUES = st.one_of(SCALARS, st.binary(max_size=300))


@given(st.lists(st.tuples(st.dictionaries(NAMES, VALUES, max_size=6), st.integers(0, 2)), max_size=8), st.data())
def test_documents_are_read_as_they_were_written(owns, data):
    commons = data.draw(st.lists(st.dictionaries(NAMES, SCALARS, max_size=4), min_size=3, max_size=3))
    body = Body()
    written = []
    for own, which in owns:
        own = {name: value for name, value in own.items() if name not in commons[which]}
        body.add(own, commons[which])
        written.append({**commons[which], **own})
    assert read_documents(body.finished()) == written


def test_a_view_of_bytes_is_written_as_its_bytes():
    pixels = bytearray(range(200))
    body = Body()
    body.add({"data": memoryview(pixels)[3:190]}, {})
    assert read_documents(body.finished()) == [{"data": bytes(pixels[3:190])}]


def test_names_are_written_out_once_however_many_documents_use_them():
    body = Body()
    common = {"corpus": "pets"}
    for position in range(50):
        body.add({"position": position}, common)
    content = body.finished()
    assert (content.count(b"position"), content.count(b"corpus")) == (1, 1)
