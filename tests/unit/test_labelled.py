"""Labelled sets: what is read, and which row is at fault if it cannot be."""

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tinytags_tasks.corpus.class_names import CIFAR10_TAGS, TAGS_KEY
from tinytags_tasks.corpus.labelled import decode_image, file_sha256, read_labelled_set, tags_of_set
from tinytags_tasks.errors import BadInputError

IMG = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def encoded(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, kind)
    return sink.getvalue()


def pictures(number: int, side: int = 32) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (number, side, side, 3), dtype=np.uint8)


@pytest.fixture
def labelled(tmp_path):
    def write(images, labels, tags=None, label_type=None):
        path = tmp_path / "cifar10-labelled.parquet"
        img = pa.array([{"bytes": image, "path": None} for image in images], IMG)
        table = pa.table({"img": img, "label": pa.array(labels, label_type or pa.int64())})
        if tags is not None:
            table = table.replace_schema_metadata({TAGS_KEY: tags if isinstance(tags, bytes) else json.dumps(tags)})
        pq.write_table(table, path)
        return path

    return write


def test_images_and_labels_are_read_in_order(labelled):
    images = pictures(4)
    found = read_labelled_set(labelled([encoded(image) for image in images], [9, 0, 3, 3]))
    np.testing.assert_array_equal(found.images, images)
    assert found.labels.tolist() == [9, 0, 3, 3]
    assert found.tags == CIFAR10_TAGS


def test_tags_that_the_file_carries_are_taken(labelled):
    path = labelled([encoded(image) for image in pictures(2)], [0, 1], tags=["square", "circle"])
    assert read_labelled_set(path).tags == ("square", "circle")


def test_tags_that_are_given_win_over_those_of_the_file(labelled):
    path = labelled([encoded(image) for image in pictures(2)], [0, 1], tags=["square", "circle"])
    assert read_labelled_set(path, ("a", "b", "c")).tags == ("a", "b", "c")


@pytest.mark.parametrize("carried", [b"not json", b"5", b'{"a": 1}', b"[1, 2]", b"\xff"])
def test_tags_that_cannot_be_read_are_refused(labelled, carried):
    path = labelled([encoded(image) for image in pictures(2)], [0, 1], tags=carried)
    with pytest.raises(BadInputError, match=r"labelled\.parquet: .*tags"):
        read_labelled_set(path)


def test_larger_images_become_the_mean_of_the_pixels_they_cover(labelled):
    blocks = np.random.default_rng(3).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    large = np.repeat(np.repeat(blocks, 2, axis=0), 2, axis=1)
    large[0, 0], large[0, 1], large[1, 0], large[1, 1] = 0, 100, 100, 200
    found = read_labelled_set(labelled([encoded(large), encoded(blocks)], [0, 1]))
    expected = blocks.copy()
    expected[0, 0] = 100
    np.testing.assert_array_equal(found.images, np.stack([expected, blocks]))


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "1", "CMYK"])
def test_pictures_of_any_colour_mode_become_rgb(mode):
    sink = io.BytesIO()
    Image.new("RGB", (32, 32), "white").convert(mode).save(sink, "TIFF")
    assert decode_image(sink.getvalue()).tolist() == np.full((32, 32, 3), 255).tolist()


@pytest.mark.parametrize("label", [10, -2])
def test_a_label_without_a_tag_is_refused_by_its_row(labelled, label):
    path = labelled([encoded(image) for image in pictures(3)], [0, 1, label])
    with pytest.raises(BadInputError, match=rf"labelled\.parquet: row 2 has label {label}, .*labels 0 to 9"):
        read_labelled_set(path)


def test_rows_are_counted_through_the_whole_file(labelled):
    path = labelled([encoded(np.zeros((1, 1, 3), dtype=np.uint8))] * 1_005, [0, 1] * 502 + [77])
    with pytest.raises(BadInputError, match="row 1004 has label 77"):
        read_labelled_set(path, side=1)


def test_a_row_without_a_label_is_refused(labelled):
    path = labelled([encoded(image) for image in pictures(3)], [0, None, 1])
    with pytest.raises(BadInputError, match=r"labelled\.parquet: row 1 has no label"):
        read_labelled_set(path)


@pytest.mark.parametrize("broken", [b"", b"no picture", encoded(pictures(1)[0], "JPEG")[:300], None])
def test_a_broken_picture_is_refused_by_its_row(labelled, broken):
    good = encoded(pictures(1)[0], "JPEG")
    path = labelled([good, good, broken, good], [0, 1, 2, 3])
    with pytest.raises(BadInputError, match=r"labelled\.parquet: row 2: not a readable picture"):
        read_labelled_set(path)


def test_a_picture_with_any_damaged_byte_is_read_or_refused_but_never_crashes():
    whole = encoded(pictures(1, side=4)[0])
    for at in range(len(whole)):
        damaged = bytearray(whole)
        damaged[at] ^= 0xFF
        try:
            assert decode_image(bytes(damaged)).dtype == np.uint8
        except BadInputError as error:
            assert "not a readable picture" in str(error)


def test_one_class_alone_is_refused(labelled):
    path = labelled([encoded(image) for image in pictures(3)], [4, 4, 4])
    with pytest.raises(BadInputError, match="at least two tags"):
        read_labelled_set(path)


def test_a_file_without_images_is_refused(labelled):
    with pytest.raises(BadInputError, match=r"contains no images; give a folder with"):
        read_labelled_set(labelled([], []))


def test_a_file_without_pictures_is_refused_with_the_columns_it_has(tmp_path):
    path = tmp_path / "other.parquet"
    pq.write_table(pa.table({"image": ["x"], "label": [1]}), path)
    with pytest.raises(
        BadInputError, match=r"other\.parquet: has no column image of encoded images.*image \(string\), label \(int64\)"
    ):
        read_labelled_set(path)


def test_labels_that_are_neither_integers_nor_words_are_refused(labelled):
    with pytest.raises(BadInputError, match="needs a column label of integers or words; its column label is double"):
        read_labelled_set(labelled([b"x"], [0.5], label_type=pa.float64()))


def test_another_kind_of_file_is_refused(tmp_path):
    path = tmp_path / "other.parquet"
    path.write_bytes(b"PAR1 but not really")
    with pytest.raises(BadInputError, match=r"other\.parquet: not a readable Parquet file .*; download it again"):
        read_labelled_set(path)


def test_a_file_damaged_in_its_middle_is_refused(labelled):
    path = labelled([encoded(image) for image in pictures(40)], [0, 1] * 20)
    content = bytearray(path.read_bytes())
    content[4:60] = bytes(56)
    path.write_bytes(content)
    with pytest.raises(BadInputError, match=r"labelled\.parquet"):
        read_labelled_set(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(BadInputError, match=r"none\.parquet: no such file; give the path"):
        read_labelled_set(tmp_path / "none.parquet")
    with pytest.raises(BadInputError, match=r"none\.parquet: no such file; give the path"):
        file_sha256(tmp_path / "none.parquet")


def test_an_error_of_several_lines_is_told_in_one(labelled, monkeypatch):
    def fail(*_, **__):
        raise pa.ArrowInvalid("cannot deserialize\nthe header.\n")

    path = labelled([encoded(image) for image in pictures(2)], [0, 1])
    monkeypatch.setattr(pq, "ParquetFile", fail)
    with pytest.raises(BadInputError, match=r"\(cannot deserialize the header\.\); download it again") as raised:
        read_labelled_set(path)
    assert "\n" not in str(raised.value)


def test_labels_that_are_not_text_are_damage(tmp_path):
    path = tmp_path / "labels.parquet"
    words = pa.Array.from_buffers(pa.string(), 2, pa.array([b"duck", b"g\xda"]).buffers())
    pq.write_table(pa.table({"image": [encoded(picture) for picture in pictures(2)], "label": words}), path)
    with pytest.raises(
        BadInputError, match=r"labels\.parquet: damaged after row 0 \('utf-8' codec.*\); download it again"
    ):
        tags_of_set(path)
