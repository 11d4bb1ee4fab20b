"""Parquet with encoded images: which column, which rows, which names, and what is refused."""

import io
import json
import os
import re
from contextlib import closing

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tinytags_tasks.corpus.class_names import TAGS_KEY
from tinytags_tasks.corpus.definition import make_definition
from tinytags_tasks.corpus.formats import parquet as parquet_images
from tinytags_tasks.corpus.formats.registry import list_items, open_reader
from tinytags_tasks.corpus.listing import MemoryListing
from tinytags_tasks.corpus.sources.files import SourceFiles
from tinytags_tasks.errors import BadInputError, TransientError

SIDE = 8
IMG = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def picture(number: int) -> np.ndarray:
    """Return a picture that encodes its number, with a red upper left corner."""
    pixels = np.random.default_rng(number).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    pixels[0, 0] = 255, 0, 0
    return pixels


def png(number: int) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(picture(number)).save(sink, "PNG")
    return sink.getvalue()


def structs(images) -> pa.Array:
    return pa.array([image and {"bytes": image, "path": None} for image in images], IMG)


def class_labels(**names) -> dict:
    features = {column: {"names": words, "_type": "ClassLabel"} for column, words in names.items()}
    return {b"huggingface": json.dumps({"info": {"features": {**features, "img": {"_type": "Image"}}}})}


def definition(source, **fields):
    return make_definition(
        "birds", {"source": str(source), "format": "parquet", "height": SIDE, "width": SIDE, **fields}
    )


def listed(source, **fields):
    return list(list_items(SourceFiles(str(source)), definition(source, **fields)))


def read(source, items, first=0, images=None, *, decode=True, **fields):
    """Return a reader's batches, joined to one list per attribute."""
    images = sum(item.images for item in items) - first if images is None else images
    with closing(open_reader(definition(source, **fields), SourceFiles(str(source)), MemoryListing(items))) as reader:
        batches = list(reader.batches(first, images, decode=decode))
    assert [batch.first for batch in batches] == (first + np.cumsum([0] + [b.images for b in batches])[:-1]).tolist()
    assert sum(batch.images for batch in batches) == images
    pixels = np.concatenate([batch.pixels for batch in batches]) if decode else [batch.pixels for batch in batches]
    unreadable = {position: reason for batch in batches for position, reason in batch.unreadable.items()}
    return (
        pixels,
        unreadable,
        [word for batch in batches for word in batch.keywords],
        [image for batch in batches for image in batch.encoded],
    )


@pytest.fixture
def write(tmp_path):
    def write_table(columns, name="birds.parquet", metadata=None, **options):
        path = tmp_path / name
        pq.write_table(pa.table(columns).replace_schema_metadata(metadata), path, **options)
        return path

    return write_table


def birds(numbers, **columns):
    return {"img": structs(map(png, numbers)), **columns}


def test_rows_are_read_in_order(write):
    path = write(birds(range(20), label=list(range(20))), row_group_size=6)
    items = listed(path)
    assert [(item.path, item.images) for item in items] == [("birds.parquet", 20)]
    pixels, unreadable, keywords, encoded = read(path, items)
    np.testing.assert_array_equal(pixels, np.stack([picture(number) for number in range(20)]))
    assert (unreadable, keywords) == ({}, [])
    assert encoded == [png(number) for number in range(20)]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(st.data())
def test_any_positions_are_those_rows_however_they_are_grouped(write, tmp_path, data):
    if not list(tmp_path.iterdir()):
        for name, numbers, group in (("a", range(7), 3), ("b", range(7, 8), 9), ("c", range(8, 50), 5)):
            write(birds(numbers, label=list(numbers)), f"{name}.parquet", row_group_size=group)
    first = data.draw(st.integers(0, 49))
    images = data.draw(st.integers(1, 50 - first))
    wanted = range(first, first + images)
    items = listed(tmp_path, keywords="label")
    pixels, _, keywords, encoded = read(tmp_path, items, first, images, keywords="label")
    assert encoded == [png(number) for number in wanted]
    assert keywords == [str(number) for number in wanted]
    np.testing.assert_array_equal(pixels, np.stack([picture(number) for number in wanted]))


def test_rows_outside_the_wanted_row_groups_are_not_read(write, monkeypatch):
    path = write(birds(range(400)), row_group_size=100, compression="none")
    items = listed(path)
    read_bytes = []
    whole = SourceFiles.read

    def spy(self, path, offset, length, version=None):
        read_bytes.append((offset, length))
        return whole(self, path, offset, length, version)

    monkeypatch.setattr(SourceFiles, "read", spy)
    assert read(path, items, 210, 5)[3] == [png(number) for number in range(210, 215)]
    group = pq.read_metadata(path).row_group(2).column(0)
    footer = path.stat().st_size - 65_536
    for offset, length in read_bytes:
        assert offset >= footer or (
            offset >= group.data_page_offset - 100
            and offset + length <= group.data_page_offset + group.total_compressed_size + 100
        )


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary_view()])
def test_a_binary_column_is_one_of_images(write, kind):
    path = write({"photo.png": pa.array([png(1), png(2)], kind), "name": ["duck", "gull"]})
    assert read(path, listed(path))[3] == [png(1), png(2)]


def test_a_struct_with_bytes_comes_before_a_binary_column(write):
    path = write(birds([1, 2], thumbnail=pa.array([b"x", b"y"])))
    assert read(path, listed(path))[3] == [png(1), png(2)]
    assert read(path, listed(path), image_column="thumbnail")[3] == [b"x", b"y"]


@pytest.mark.parametrize("decode", [True, False])
def test_a_row_without_bytes_keeps_its_position(write, decode):
    images = pa.array(
        [{"bytes": png(0)}, None, {"bytes": None, "path": "a.png"}, {"bytes": b""}, {"bytes": png(4)}], IMG
    )
    path = write({"img": images})
    pixels, unreadable, _, encoded = read(path, listed(path), decode=decode)
    missing = dict.fromkeys([1, 2], "its row has no image")
    assert unreadable == ({**missing, 3: "not a picture: 0 bytes"} if decode else missing)
    assert encoded == [png(0), b"", b"", b"", png(4)]
    if decode:
        assert not pixels[1:4].any()
        np.testing.assert_array_equal(pixels[4], picture(4))
    else:
        assert pixels == [None]


@pytest.mark.parametrize(
    ("columns", "fields", "said"),
    [
        ({"name": ["duck"]}, {}, r"has no column of encoded images.*it has name \(string\)"),
        ({"a": [b"x"], "b": [b"y"]}, {}, "any of the columns a, b; name one as image_column"),
        ({"a": structs([b"x"]), "b": structs([b"y"]), "c": [b"z"]}, {}, "any of the columns a, b; name one"),
        ({"a": [b"x"]}, {"image_column": "img"}, r"has no column img of encoded images.*it has a \(binary\)"),
        ({"a": [b"x"], "n": [1]}, {"image_column": "n"}, "has no column n of encoded images"),
        ({"a": [b"x"]}, {"keywords": "label"}, r"has no column label of keywords; it has a \(binary\)"),
        (
            {"a": [b"x"], "label": [1.5]},
            {"keywords": "label"},
            "its column label is double; keywords are text or whole",
        ),
    ],
)
def test_columns_that_cannot_be_used_are_refused_with_those_that_there_are(write, columns, fields, said):
    with pytest.raises(BadInputError, match=rf"birds\.parquet: .*{said}"):
        listed(write(columns), **fields)


def test_words_are_keywords_and_missing_ones_are_none(write):
    words = pa.array([" duck ", None, "", "x" * 2_000])
    for column in (words, words.cast(pa.large_string()), words.dictionary_encode()):
        path = write(birds(range(4), word=column))
        assert read(path, listed(path, keywords="word"), keywords="word")[2] == ["duck", None, None, "x" * 1_000]


def test_numbers_have_the_names_of_their_class_labels(write):
    columns = birds(range(4), fine_label=[1, 0, None, 7], coarse_label=[0, 0, 1, -1])
    path = write(columns, metadata=class_labels(fine_label=["duck", "gull"], coarse_label=["swims", "flies"]))
    items = listed(path, keywords="fine_label")
    assert read(path, items, keywords="fine_label")[2] == ["gull", "duck", None, "7"]
    assert read(path, items, keywords="coarse_label")[2] == ["swims", "swims", "flies", "-1"]


def test_numbers_have_the_tags_that_a_labelled_set_carries(write):
    path = write(birds(range(2), label=[1, 0], size=[0, 1]), metadata={TAGS_KEY: json.dumps(["duck", "gull"])})
    assert read(path, listed(path), keywords="label")[2] == ["gull", "duck"]
    assert read(path, listed(path), keywords="size")[2] == ["0", "1"]


@pytest.mark.parametrize(
    "described", [b"no json", b"[]", b'{"info": {"features": {"label": {"names": [1]}}}}', b"\xff"]
)
def test_numbers_without_names_remain_numbers(write, described):
    path = write(birds(range(2), label=[1, 0]), metadata={b"huggingface": described})
    assert read(path, listed(path), keywords="label")[2] == ["1", "0"]


def test_several_files_follow_each_other(write, tmp_path):
    for name, numbers in (("train-00000", [0, 1]), ("train-00001", []), ("train-00002", [2])):
        write(birds(numbers), f"{name}.parquet")
    (tmp_path / "README.md").write_text("birds")
    for source in (tmp_path, tmp_path / "train-*.parquet"):
        items = listed(source)
        assert [item.images for item in items] == [2, 0, 1]
        assert read(source, items)[3] == [png(0), png(1), png(2)]


@pytest.mark.parametrize(
    ("columns", "metadata"),
    [
        ({"photo": structs([png(2)]), "label": [0]}, class_labels(label=["duck", "gull"])),
        (birds([2], label=["duck"]), None),
        (birds([2], label=[0]), class_labels(label=["gull", "duck"])),
    ],
)
def test_files_that_do_not_fit_each_other_are_refused(write, tmp_path, columns, metadata):
    write(birds([1], label=[0]), "a.parquet", class_labels(label=["duck", "gull"]))
    write(columns, "b.parquet", metadata)
    with pytest.raises(BadInputError, match=r"b\.parquet: has images in .* and .*a\.parquet has images in img\.bytes"):
        listed(tmp_path, keywords="label")


def test_no_files_and_no_rows_are_refused(write, tmp_path):
    with pytest.raises(BadInputError, match=r"contains no \.parquet file"):
        listed(tmp_path)
    write(birds([]))
    with pytest.raises(BadInputError, match="have no rows"):
        listed(tmp_path)


@pytest.mark.parametrize("content", [b"", b"PAR1 but not really", b"PAR1" + bytes(100) + b"PAR1"])
def test_another_kind_of_file_is_refused(tmp_path, content):
    (tmp_path / "birds.parquet").write_bytes(content)
    with pytest.raises(BadInputError, match=r"birds\.parquet: not a readable Parquet file"):
        listed(tmp_path)


def test_a_file_damaged_in_its_middle_is_refused_with_its_row_group(write):
    path = write(birds(range(30)), row_group_size=10, use_dictionary=False, write_page_checksum=True)
    items = listed(path)
    status = path.stat()
    content = bytearray(path.read_bytes())
    chunk = pq.read_metadata(path).row_group(1).column(0)
    content[chunk.data_page_offset + chunk.total_compressed_size - 50] ^= 0xFF
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert len(read(path, items, 20, 10)[3]) == 10
    with pytest.raises(BadInputError, match=r"birds\.parquet: damaged in row group 1, rows 10 to 19 \("):
        read(path, items, 15, 1)


def test_a_file_damaged_anywhere_is_read_or_refused_but_never_crashes(write):
    path = write(birds(range(3), label=[0, 1, 2]))
    content = path.read_bytes()
    for at in range(4, len(content), 7):
        damaged = bytearray(content)
        damaged[at] ^= 0xFF
        path.write_bytes(damaged)
        try:
            read(path, listed(path, keywords="label"), keywords="label", decode=False)
        except BadInputError as error:
            assert "birds.parquet" in str(error)


def test_a_page_that_promises_2_gb_does_not_need_them(write):
    path = write(birds(range(30)), compression="none", use_dictionary=False)
    content, chunk = path.read_bytes(), pq.read_metadata(path).row_group(0).column(0)
    end = chunk.data_page_offset + chunk.total_compressed_size
    # The header's fields are the page's type and its size, then its size when it is compressed.
    sizes = re.compile(rb"\x15\x00\x15[\x80-\xff]*[\x00-\x7f]\x15([\x80-\xff]*[\x00-\x7f])")
    start, stop = sizes.match(content, chunk.data_page_offset).span(1)
    promise = b"\xfe\xff\xff\xff\x0f"
    longer = len(promise) - (stop - start)
    path.write_bytes(content[:start] + promise + content[stop : end - longer] + content[end:])
    with pytest.raises(BadInputError, match=r"damaged in row group 0.* expected \(2147483647\)"):
        read(path, listed(path))
    assert pa.default_memory_pool().max_memory() < 1_000_000_000


def test_a_file_that_changed_before_or_while_it_was_read_is_an_error(write):
    path = write(birds(range(3)))
    items = listed(path)
    with closing(open_reader(definition(path), SourceFiles(str(path)), MemoryListing(items))) as reader:
        batches = reader.batches(0, 3, decode=False)
        assert next(batches).images == 3
        os.utime(path, ns=(1, 1))
        for _ in range(2):
            with pytest.raises(BadInputError, match=r"birds\.parquet: has changed since it was listed"):
                next(batches)
            batches = reader.batches(0, 3, decode=False)


def test_a_source_that_does_not_answer_while_it_is_read_is_worth_a_retry(write, monkeypatch):
    path = write(birds(range(3)))
    items = listed(path)

    def fail(self, path, offset, length, version=None):
        raise TransientError("the network is away")

    monkeypatch.setattr(SourceFiles, "read", fail)
    for attempt in (lambda: listed(path), lambda: read(path, items)):
        with pytest.raises(TransientError, match="the network is away"):
            attempt()


def test_batches_of_large_images_have_few_rows(write, monkeypatch):
    path = write(birds(range(40)), compression="none", use_dictionary=False)
    monkeypatch.setattr(parquet_images, "MOST_BATCH_BYTES", 8 * len(png(1)))
    with closing(open_reader(definition(path), SourceFiles(str(path)), MemoryListing(listed(path)))) as reader:
        sizes = [batch.images for batch in reader.batches(0, 40, decode=False)]
    assert sum(sizes) == 40
    assert 5 <= max(sizes) <= 8


def test_small_row_groups_make_no_small_batches(write):
    path = write(birds([1] * 300), row_group_size=10)
    with closing(open_reader(definition(path), SourceFiles(str(path)), MemoryListing(listed(path)))) as reader:
        assert [batch.images for batch in reader.batches(5, 290, decode=False)] == [290]


def test_files_behind_an_address_are_read_too(write):
    import fsspec

    fsspec.filesystem("memory").pipe("/parquet/birds.parquet", write(birds(range(6))).read_bytes())
    items = listed("memory://parquet")
    assert read("memory://parquet", items, 2, 3)[3] == [png(2), png(3), png(4)]
