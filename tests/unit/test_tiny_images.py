"""The Tiny Images format: which byte is which pixel, and what is said of a file that cannot be used."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinytags_tasks.corpus.tiny_images import IMAGE_BYTES, TinyImagesReader, from_column_major, to_column_major
from tinytags_tasks.errors import BadInputError


def stored_byte(channel: int, column: int, row: int) -> int:
    """Return a byte's index in the file, as the format's paper and MATLAB tools have it."""
    return channel * 1024 + column * 32 + row


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "tiny.bin"

    def write(content: bytes):
        path.write_bytes(content)
        return path

    return write


def test_a_marked_corner_comes_out_unturned_and_unmirrored(file):
    stored = bytearray(2 * IMAGE_BYTES)
    for row in range(5):  # the second picture: a high, narrow, red mark in the upper right corner
        for column in (30, 31):
            stored[IMAGE_BYTES + stored_byte(0, column, row)] = 255
    stored[IMAGE_BYTES + stored_byte(2, 0, 31)] = 7  # and a blue dot, lower left
    reader = TinyImagesReader(file(stored))
    picture = reader.read(1, 1)[0]
    reader.close()
    expected = np.zeros((32, 32, 3), dtype=np.uint8)
    expected[:5, 30:, 0] = 255
    expected[31, 0, 2] = 7
    np.testing.assert_array_equal(picture, expected)


@given(st.integers(0, 2**32 - 1), st.integers(1, 4))
def test_images_survive_the_way_to_the_file_and_back(seed, images):
    pictures = np.random.default_rng(seed).integers(0, 256, (images, 32, 32, 3), dtype=np.uint8)
    np.testing.assert_array_equal(from_column_major(to_column_major(pictures)), pictures)


def test_a_reader_finds_images_by_position(file):
    pictures = np.random.default_rng(0).integers(0, 256, (7, 32, 32, 3), dtype=np.uint8)
    reader = TinyImagesReader(file(to_column_major(pictures)))
    assert reader.images == 7
    np.testing.assert_array_equal(reader.read(5, 2), pictures[5:])
    np.testing.assert_array_equal(reader.read(0, 3), pictures[:3])
    reader.close()


def test_a_missing_file_is_named_with_what_to_give(tmp_path):
    with pytest.raises(BadInputError, match=r"none\.bin: no such file; give the path of a Tiny Images \.bin file"):
        TinyImagesReader(tmp_path / "none.bin")


def test_a_folder_is_no_tiny_images_file(tmp_path):
    with pytest.raises(BadInputError, match="give the path of a Tiny Images"):
        TinyImagesReader(tmp_path)


def test_an_empty_file_is_refused(file):
    with pytest.raises(BadInputError, match=r"tiny\.bin: the file is empty; give a file with at least one image"):
        TinyImagesReader(file(b""))


@pytest.mark.parametrize(("size", "offset"), [(1, "0"), (3_071, "0"), (3_073, "3,072"), (7_000, "6,144")])
def test_a_file_that_ends_within_an_image_is_refused_with_the_offset(file, size, offset):
    with pytest.raises(BadInputError, match=rf"tiny\.bin: .* at offset {offset}; is it complete"):
        TinyImagesReader(file(bytes(size)))


def test_a_file_that_shrinks_while_it_is_read_is_refused_with_image_and_offset(file):
    path = file(bytes(4 * IMAGE_BYTES))
    reader = TinyImagesReader(path)
    with path.open("r+b") as opened:
        opened.truncate(2 * IMAGE_BYTES + 100)
    with pytest.raises(BadInputError, match=r"tiny\.bin: ends at offset 6,244 where image 2 is expected"):
        reader.read(1, 3)
    reader.close()
