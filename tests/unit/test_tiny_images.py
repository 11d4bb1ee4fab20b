"""The Tiny Images format: which byte is which pixel."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tinytags_tasks.corpus.formats.fixed_records import RecordLayout, to_row_major
from tinytags_tasks.corpus.formats.tiny_images import IMAGE_BYTES, SIDE, to_column_major


def test_a_marked_corner_lies_where_the_formats_paper_has_it():
    pictures = np.zeros((2, SIDE, SIDE, 3), dtype=np.uint8)
    pictures[1, 3, 30, 0] = 255  # the second picture: row 3, column 30, red
    pictures[1, 31, 0, 2] = 7  # and lower left, blue
    stored = to_column_major(pictures)
    marked = {at: value for at, value in enumerate(stored) if value}
    assert len(stored) == 2 * IMAGE_BYTES
    assert marked == {IMAGE_BYTES + 30 * 32 + 3: 255, IMAGE_BYTES + 2 * 1_024 + 31: 7}


@given(st.integers(0, 2**32 - 1), st.integers(1, 4))
def test_images_survive_the_way_to_the_file_and_back(seed, images):
    pictures = np.random.default_rng(seed).integers(0, 256, (images, SIDE, SIDE, 3), dtype=np.uint8)
    stored = np.frombuffer(to_column_major(pictures), dtype=np.uint8).reshape(images, IMAGE_BYTES)
    np.testing.assert_array_equal(to_row_major(stored, RecordLayout(SIDE, SIDE, "columns")), pictures)
