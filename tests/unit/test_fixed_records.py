"""Files of fixed-size images: which byte is which pixel, which record which image, and what is refused."""

import os
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinytags_tasks.corpus.definition import make_definition
from tinytags_tasks.corpus.formats import fixed_records
from tinytags_tasks.corpus.formats.fixed_records import RecordLayout, to_row_major
from tinytags_tasks.corpus.formats.registry import find_format, list_items, open_reader
from tinytags_tasks.corpus.formats.tiny_images import METADATA_BYTES, read_keyword
from tinytags_tasks.corpus.listing import MemoryListing
from tinytags_tasks.corpus.sources.files import SourceFiles
from tinytags_tasks.errors import BadInputError

ORDERS = ("hwc", "planes", "columns")


def byte_of(order, height, width, row, column, channel):
    """Return a pixel's byte in its image, as each order is defined."""
    return {
        "hwc": (row * width + column) * 3 + channel,
        "planes": channel * height * width + row * width + column,
        "columns": channel * height * width + column * height + row,
    }[order]


def stored_in(order, pictures):
    """Return the records of a file in a pixel order, for images of shape (images, row, column, channel)."""
    axes = {"hwc": (0, 1, 2, 3), "planes": (0, 3, 1, 2), "columns": (0, 3, 2, 1)}[order]
    return np.ascontiguousarray(pictures.transpose(axes)).reshape(len(pictures), -1)


def make_pictures(images, height=32, width=32, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (images, height, width, 3), dtype=np.uint8)


def define(source, format_name="tiny-images", **fields):
    return make_definition("birds", {"source": str(source), "format": format_name, **fields})


class Opened:
    """A source with its listing and its reader."""

    def __init__(self, definition):
        self.files = SourceFiles(definition.source)
        self.items = list(list_items(self.files, definition))
        self.listing = MemoryListing(self.items)
        self.reader = open_reader(definition, self.files, self.listing)
        self.images = self.listing.images

    def read(self, first=0, images=None, **options):
        """Return pixels and keywords of a range, after checking that its batches are consecutive."""
        images = self.images - first if images is None else images
        pixels, keywords, at = [], [], first
        for batch in self.reader.batches(first, images, **options):
            assert batch.first == at
            assert batch.unreadable == {}
            assert batch.encoded == []
            pixels.append(batch.pixels)
            keywords += batch.keywords
            at += batch.images
        self.reader.close()
        assert at == first + images
        return (np.concatenate(pixels) if pixels and pixels[0] is not None else None), keywords


# Which byte is which pixel


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(("height", "width"), [(32, 32), (4, 7), (7, 4), (1, 5), (5, 1)])
def test_a_marked_picture_comes_out_unturned_and_unmirrored(tmp_path, order, height, width):
    layout = RecordLayout(height, width, order)
    stored = bytearray(2 * layout.record_bytes)  # in the second picture: red upper right, blue lower left
    stored[layout.record_bytes + byte_of(order, height, width, 0, width - 1, 0)] = 255
    stored[layout.record_bytes + byte_of(order, height, width, height - 1, 0, 2)] = 7
    (tmp_path / "pictures.bin").write_bytes(stored)
    source = Opened(define(tmp_path / "pictures.bin", "raw", height=height, width=width, pixel_order=order))
    pixels, keywords = source.read()
    expected = np.zeros((2, height, width, 3), dtype=np.uint8)
    expected[1, 0, width - 1, 0] = 255
    expected[1, height - 1, 0, 2] = 7
    np.testing.assert_array_equal(pixels, expected)
    assert keywords == []


@settings(deadline=None)
@given(
    order=st.sampled_from(ORDERS),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    images=st.integers(1, 5),
    labels=st.integers(0, 2),
    into=st.booleans(),
)
def test_every_order_is_turned_into_rows(order, height, width, images, labels, into):
    pictures = make_pictures(images, height, width)
    records = np.hstack([np.full((images, labels), 9, np.uint8), stored_in(order, pictures)])
    out = np.empty_like(pictures) if into else None
    turned = to_row_major(records, RecordLayout(height, width, order, labels), out)
    np.testing.assert_array_equal(turned, pictures)
    assert turned.flags.c_contiguous
    assert (turned is out) is into


@pytest.mark.parametrize(
    ("format_name", "file", "fields", "expected"),
    [
        ("tiny-images", "x.bin", {}, RecordLayout(32, 32, "columns")),
        ("raw", "x.bin", {"height": 2, "width": 3, "pixel_order": "planes"}, RecordLayout(2, 3, "planes")),
        ("cifar-binary", "data_batch_1.bin", {}, RecordLayout(32, 32, "planes", 1)),
        ("cifar-binary", "folder/train.bin", {}, RecordLayout(32, 32, "planes", 2)),
        ("cifar-binary", "test.bin", {"keywords": "label"}, RecordLayout(32, 32, "planes", 2)),
        ("cifar-binary", "x.bin", {"keywords": "coarse_label"}, RecordLayout(32, 32, "planes", 2)),
    ],
)
def test_a_formats_records_are_as_its_authors_say(format_name, file, fields, expected):
    assert find_format(format_name).record_layout(define("/x", format_name, **fields), file) == expected
    assert expected.record_bytes == expected.label_bytes + expected.height * expected.width * 3


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"format_name": "tiny-images"}, "column-major planes R, G, B, turned to row-major here"),
        ({"format_name": "raw"}, "row-major, interleaved"),
        ({"format_name": "raw", "pixel_order": "columns"}, "column-major planes R, G, B, turned to row-major here"),
    ],
)
def test_how_images_were_prepared_is_told(fields, told):
    definition = define("/x", **fields)
    source_format = find_format(definition.format)
    assert source_format.preparation(definition) == f"as the source holds them ({told})"
    assert source_format.holds_pixels


# Which record is which image


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    """A folder with images in three files, the middle one empty, and all of them in order."""
    folder = tmp_path_factory.mktemp("several")
    pictures = make_pictures(23, 5, 3)
    for name, part in (("a/1.bin", pictures[:9]), ("a/2.bin", pictures[:0]), ("b.bin", pictures[9:])):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(part.tobytes())
    return define(folder, "raw", height=5, width=3), pictures


@settings(deadline=None)
@given(st.integers(0, 23), st.integers(0, 23), st.integers(1, 400), st.integers(1, 200))
def test_any_part_is_the_same_as_that_part_of_the_whole(several, first, stop, batch_bytes, cached_bytes):
    definition, pictures = several
    first, stop = min(first, stop), max(first, stop)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fixed_records, "_BATCH_BYTES", batch_bytes)
        patch.setattr(fixed_records, "_CACHED_BYTES", cached_bytes)
        pixels, _ = Opened(definition).read(first, stop - first)
    if stop > first:
        np.testing.assert_array_equal(pixels, pictures[first:stop])
    else:
        assert pixels is None


def test_batches_are_small_and_follow_each_other(several, monkeypatch):
    definition, _ = several
    monkeypatch.setattr(fixed_records, "_BATCH_BYTES", 4 * 45)
    batches = list(Opened(definition).reader.batches(2, 20))
    assert [(batch.first, batch.images) for batch in batches] == [(2, 4), (6, 3), (9, 4), (13, 4), (17, 4), (21, 1)]


def test_images_that_are_larger_than_a_batch_are_read_one_by_one(tmp_path, monkeypatch):
    monkeypatch.setattr(fixed_records, "_BATCH_BYTES", 10)
    pictures = make_pictures(3, 4, 4)
    (tmp_path / "x.bin").write_bytes(pictures.tobytes())
    pixels, _ = Opened(define(tmp_path / "x.bin", "raw", height=4, width=4)).read()
    np.testing.assert_array_equal(pixels, pictures)


def test_without_decoding_there_are_no_pixels(several):
    definition, _ = several
    assert Opened(definition).read(decode=False) == (None, [])


def test_files_are_listed_in_their_order_with_what_they_hold(several):
    definition, _ = several
    items = Opened(definition).items
    assert [(item.path, item.images, item.offset, item.size_bytes) for item in items] == [
        ("a/1.bin", 9, 0, 405),
        ("a/2.bin", 0, 0, 0),
        ("b.bin", 14, 0, 630),
    ]


# CIFAR


def write_cifar(path, labels, pictures):
    path.write_bytes(np.hstack([np.array(labels, np.uint8), stored_in("planes", pictures)]).tobytes())


def test_cifar_10_has_a_label_before_each_image(tmp_path):
    pictures = make_pictures(6)
    write_cifar(tmp_path / "test_batch.bin", [[3], [9]], pictures[4:])
    write_cifar(tmp_path / "data_batch_2.bin", [[1], [7]], pictures[2:4])
    write_cifar(tmp_path / "data_batch_1.bin", [[0], [8]], pictures[:2])
    (tmp_path / "batches.meta.txt").write_text("\n".join(f"tag {number}" for number in range(10)) + "\n\n")
    pixels, keywords = Opened(define(tmp_path, "cifar-binary", keywords="label")).read()
    np.testing.assert_array_equal(pixels, pictures)
    assert keywords == ["tag 0", "tag 8", "tag 1", "tag 7", "tag 3", "tag 9"]
    assert Opened(define(tmp_path, "cifar-binary")).read(2, 2)[1] == []


def test_cifar_10_without_its_names_has_its_own_tags(tmp_path):
    write_cifar(tmp_path / "one.bin", [[0], [9]], make_pictures(2))
    assert Opened(define(tmp_path / "one.bin", "cifar-binary", keywords="label")).read()[1] == ["airplane", "truck"]


@pytest.mark.parametrize(("keywords", "expected"), [("coarse_label", ["wet", "1"]), ("label", ["dog", "fish"])])
def test_cifar_100_has_a_coarse_and_a_fine_label_before_each_image(tmp_path, keywords, expected):
    pictures = make_pictures(2)
    write_cifar(tmp_path / "train.bin", [[0, 1], [1, 2]], pictures)
    (tmp_path / "coarse_label_names.txt").write_text("wet\n")
    (tmp_path / "fine_label_names.txt").write_text("cat\ndog\nfish\n")
    pixels, found = Opened(define(tmp_path, "cifar-binary", keywords=keywords)).read()
    np.testing.assert_array_equal(pixels, pictures)
    assert found == expected


@pytest.mark.parametrize(("name", "label"), [("data_batch_1.bin", 255), ("mine.bin", 10)])
def test_a_label_that_cifar_10_does_not_have_is_an_error_and_no_keyword(tmp_path, name, label):
    write_cifar(tmp_path / name, [[0], [label], [9]], make_pictures(3))
    told = rf"{name}: record 1 \(at offset 3,073\) has the label {label}, but labels are 0 to 9; correct the file"
    with pytest.raises(BadInputError, match=told):
        Opened(define(tmp_path / name, "cifar-binary", keywords="label")).read()
    assert len(Opened(define(tmp_path / name, "cifar-binary")).read()[0]) == 3


def test_more_names_are_more_labels(tmp_path):
    write_cifar(tmp_path / "data_batch_1.bin", [[11]], make_pictures(1))
    (tmp_path / "batches.meta.txt").write_text("\n".join(f"tag {number}" for number in range(12)))
    assert Opened(define(tmp_path, "cifar-binary", keywords="label")).read()[1] == ["tag 11"]


@pytest.mark.parametrize(
    ("keywords", "told"), [("coarse_label", "label 20, but .* 0 to 19"), ("label", "label 100, .*")]
)
def test_a_label_that_cifar_100_does_not_have_is_an_error(tmp_path, keywords, told):
    write_cifar(tmp_path / "train.bin", [[0, 1], [20, 100]], make_pictures(2))
    with pytest.raises(BadInputError, match=rf"train\.bin: record 1 \(at offset 3,074\) has the {told}"):
        Opened(define(tmp_path, "cifar-binary", keywords=keywords)).read()


def test_of_a_folder_only_cifars_files_are_taken(tmp_path):
    write_cifar(tmp_path / "data_batch_1.bin", [[0]], make_pictures(1))
    for name in ("other.bin", "my_data_batch_1.bin", "data_batch_1.bin.bin", "data_batch_.bin"):
        (tmp_path / name).write_bytes(b"something else")
    assert [item.path for item in Opened(define(tmp_path, "cifar-binary")).items] == ["data_batch_1.bin"]


@pytest.mark.parametrize(
    ("name", "labels", "fields", "told"),
    [
        (
            "mine.bin",
            [[0, 0]],
            {},
            "looks like CIFAR-100, whose files are named train.bin and test.bin: rename it, or c",
        ),
        (
            "train.bin",
            [[0]],
            {},
            "looks like CIFAR-10, whose files are named data_batch_1.bin and so on: rename it, or",
        ),
        ("data_batch_1.bin", [[0]], {"keywords": "coarse_label"}, "looks like CIFAR-10, .*, or correct keywords"),
    ],
)
def test_the_other_cifar_is_recognised(tmp_path, name, labels, fields, told):
    write_cifar(tmp_path / name, labels, make_pictures(1))
    with pytest.raises(
        BadInputError, match=rf"/{re.escape(name)}: .* (at offset [\d,]+|short of 1 image .*); it {told}"
    ):
        Opened(define(tmp_path, "cifar-binary", **fields))


# Keywords of Tiny Images


def write_metadata(path, words):
    path.write_bytes(b"".join(word.ljust(80, b" ").ljust(METADATA_BYTES, b"\xee") for word in words))


def write_tiny(path, images):
    pictures = make_pictures(images)
    path.write_bytes(stored_in("columns", pictures).tobytes())
    return pictures


@pytest.mark.parametrize(
    ("record", "keyword"),
    [
        (b"tabby".ljust(80), "tabby"),
        (b"tabby\0\0junk".ljust(80, b"\0"), "tabby"),
        (b"guinea_pig".ljust(80) + b"filename.jpg", "guinea_pig"),
        ("größe 猫".encode().ljust(80), "größe 猫"),
        (b"caf\xe9".ljust(80), "caf\ufffd"),
        (b"x" * 100, "x" * 80),
        (b" " * 80, None),
        (b"\0" * 80, None),
        (b"", None),
    ],
)
def test_a_records_noun_is_its_first_80_bytes_without_what_fills_them_up(record, keyword):
    assert read_keyword(record) == keyword


@settings(deadline=None)
@given(st.integers(0, 23), st.integers(0, 23), st.integers(1, 40_000))
def test_any_part_has_the_keywords_of_its_positions(tiny, first, stop, cached_bytes):
    definition, words = tiny
    first, stop = min(first, stop), max(first, stop)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fixed_records, "_CACHED_BYTES", cached_bytes)
        source = Opened(definition)
        assert source.read(first, stop - first)[1] == words[first:stop]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Tiny Images in one file with the metadata in another, and its keywords."""
    folder = tmp_path_factory.mktemp("tiny")
    words = [None if number % 5 == 0 else f"wörd {number}" for number in range(23)]
    write_tiny(folder / "tiny_images.bin", 23)
    write_metadata(folder / "tiny_metadata.bin", [(word or "").encode() for word in words])
    keywords = str(folder / "tiny_metadata.bin")
    return define(folder / "tiny_images.bin", keywords=keywords), words


def test_metadata_in_the_folder_of_the_images_is_no_images(tmp_path):
    pictures = write_tiny(tmp_path / "tiny_images.bin", 4)
    write_metadata(tmp_path / "tiny_metadata.bin", [b"a", b"b", b"c", b"d"])  # as long as one image
    assert (tmp_path / "tiny_metadata.bin").stat().st_size == 3_072
    for fields in ({}, {"keywords": str(tmp_path / "tiny_metadata.bin")}):
        pixels, keywords = Opened(define(tmp_path, **fields)).read()
        np.testing.assert_array_equal(pixels, pictures)
        assert keywords == (["a", "b", "c", "d"] if fields else [])


@pytest.mark.parametrize(
    ("records", "told"), [(3, "2,304 bytes are 3.00"), (5, "3,840 bytes are 5.00"), (0, "0 bytes a")]
)
def test_metadata_with_another_count_than_the_images_is_refused_with_both(tmp_path, records, told):
    write_tiny(tmp_path / "tiny.bin", 4)
    write_metadata(tmp_path / "tiny_metadata.bin", [b"a"] * records)
    with pytest.raises(
        BadInputError,
        match=rf"tiny_metadata\.bin: {told}.* records of 768 bytes, and the corpus has 4 images; give the metadata of",
    ):
        Opened(define(tmp_path / "tiny.bin", keywords=str(tmp_path / "tiny_metadata.bin")))


@pytest.mark.parametrize(
    ("name", "told"), [("none.bin", "none.bin: no such file"), ("", "2 files where one is needed")]
)
def test_metadata_that_is_not_one_file_is_refused(tmp_path, name, told):
    for other in ("tiny.bin", "other.bin"):
        write_tiny(tmp_path / other, 1)
    with pytest.raises(BadInputError, match=told):
        Opened(define(tmp_path / "tiny.bin", keywords=str(tmp_path / name)))


# What is refused


@pytest.mark.parametrize(
    ("size", "format_name", "fields", "told"),
    [
        (1, "tiny-images", {}, "1 bytes are 0 images of 3,072 bytes and 1 byte too many at offset 0"),
        (3_071, "tiny-images", {}, "3,071 bytes are 1 byte short of 1 image of 3,072 bytes"),
        (7_000, "tiny-images", {}, "7,000 bytes are 2 images of 3,072 bytes and 856 bytes too many at offset 6,144"),
        (100, "raw", {"height": 4, "width": 8}, "1 image of 96 bytes and 4 bytes too many at offset 96"),
        (6_147, "cifar-binary", {}, "2 images of 3,073 bytes and 1 byte too many at offset 6,146"),
    ],
)
def test_a_file_that_ends_within_an_image_is_refused_with_the_offset(tmp_path, size, format_name, fields, told):
    (tmp_path / "x.bin").write_bytes(bytes(size))
    with pytest.raises(
        BadInputError, match=rf"/x\.bin: .*{told}; is it complete, and of the format {format_name}\? .* inspect` tells"
    ):
        Opened(define(tmp_path / "x.bin", format_name, **fields))


def test_the_damaged_one_of_several_files_is_named(tmp_path):
    write_tiny(tmp_path / "a.bin", 2)
    (tmp_path / "b.bin").write_bytes(bytes(3_000))
    with pytest.raises(BadInputError, match=r"/b\.bin: 3,000 bytes are 72 bytes short of 1 image"):
        Opened(define(tmp_path))


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(BadInputError, match=r"none\.bin: no such file or folder; correct the corpus' source"):
        Opened(define(tmp_path / "none.bin"))


def test_an_empty_file_and_an_empty_folder_hold_no_images(tmp_path):
    assert Opened(define(tmp_path)).images == 0
    (tmp_path / "x.bin").touch()
    assert Opened(define(tmp_path / "x.bin")).images == 0


# Changes


def shorten(path):
    os.truncate(path, 3_072)


def overwrite(path):
    size = path.stat().st_size
    path.write_bytes(bytes(size))
    os.utime(path, ns=(1, 1))


def replace(path):
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    os.utime(other, ns=(1, 1))
    other.replace(path)


CHANGES = [shorten, overwrite, replace, os.unlink]
TOLD = r"x\.bin: (has changed since it was listed|no such file|ends at offset)"


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_changed_since_it_was_listed_is_refused_before_an_image_is_given(tmp_path, change):
    write_tiny(tmp_path / "x.bin", 4)
    source = Opened(define(tmp_path / "x.bin"))
    change(tmp_path / "x.bin")
    with pytest.raises(BadInputError, match=TOLD):
        next(source.reader.batches(0, 1))


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("read", [1, 3])
def test_a_file_that_changes_while_it_is_read_is_refused_before_its_end(tmp_path, monkeypatch, change, read):
    monkeypatch.setattr(fixed_records, "_BATCH_BYTES", 3_072)
    write_tiny(tmp_path / "x.bin", 4)
    source = Opened(define(tmp_path / "x.bin"))
    batches = source.reader.batches(0, 4)
    for _ in range(read):
        next(batches)
    change(tmp_path / "x.bin")
    with pytest.raises(BadInputError, match=TOLD):
        list(batches)


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_changes_after_its_last_image_was_read_is_refused(tmp_path, change):
    write_tiny(tmp_path / "x.bin", 4)
    source = Opened(define(tmp_path / "x.bin"))
    batches = source.reader.batches(0, 4)
    next(batches)
    change(tmp_path / "x.bin")
    with pytest.raises(BadInputError, match=TOLD):
        next(batches)


@pytest.mark.parametrize("change", [overwrite, replace, os.unlink])
def test_metadata_that_changes_while_it_is_read_is_refused(tmp_path, change):
    write_tiny(tmp_path / "tiny.bin", 4)
    write_metadata(tmp_path / "x.bin", [b"a"] * 4)
    source = Opened(define(tmp_path / "tiny.bin", keywords=str(tmp_path / "x.bin")))
    batches = source.reader.batches(0, 4)
    next(batches)
    change(tmp_path / "x.bin")
    with pytest.raises(BadInputError, match=TOLD):
        list(batches)
