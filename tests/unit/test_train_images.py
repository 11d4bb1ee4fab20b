"""Labelled images: prepared like those of a corpus, and refused with their row if they cannot be used."""

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tinytags_tasks.corpus.class_names import CIFAR10_TAGS, TAGS_KEY
from tinytags_tasks.corpus.labelled import file_sha256
from tinytags_tasks.corpus.pictures.prepare import prepare_picture
from tinytags_tasks.errors import BadInputError
from tinytags_tasks.train.images import preparation, read_labelled, read_labels, read_other

IMG = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def png(height: int, width: int, seed: int = 0) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)).save(sink, "PNG")
    return sink.getvalue()


@pytest.fixture
def write(tmp_path):
    def write_set(pictures, labels, tags=None, label_type=None, name="cifar10-labelled.parquet"):
        path = tmp_path / name
        img = pa.array([{"bytes": picture, "path": None} for picture in pictures], IMG)
        table = pa.table({"img": img, "label": pa.array(labels, label_type or pa.int64())})
        if tags:
            table = table.replace_schema_metadata({TAGS_KEY: json.dumps(tags)})
        pq.write_table(table, path)
        return path

    return write_set


@pytest.mark.parametrize(("height", "width"), [(32, 32), (8, 8), (24, 40), (50, 50)])
def test_pictures_of_any_size_become_what_a_corpus_makes_of_them(write, height, width):
    pictures = [png(32, 32, 1), png(64, 48, 2), png(20, 90, 3)]
    found = read_labelled(write(pictures, [0, 9, 3]), None, height, width)
    assert found.images.shape == (3, height, width, 3)
    for image, picture in zip(found.images, pictures, strict=True):
        np.testing.assert_array_equal(image, prepare_picture(picture, height, width))
    assert found.labels.tolist() == [0, 9, 3]
    assert f"box filter to {width}x{height}" in preparation(height, width)


def test_tags_are_those_given_else_those_carried_and_cifars_only_for_cifar(write):
    path = write([png(2, 2), png(2, 2)], [0, 1], tags=["square", "circle"])
    assert read_labelled(path, ("a", "b"), 2, 2).tags == ("a", "b")
    assert read_labelled(path, None, 2, 2).tags == ("square", "circle")
    assert read_labelled(write([png(2, 2), png(2, 2)], [0, 1]), None, 2, 2).tags == CIFAR10_TAGS
    unnamed = write([png(2, 2), png(2, 2)], [0, 1], name="mine.parquet")
    with pytest.raises(
        BadInputError, match=r"mine\.parquet: its labels are numbers without names; name them with --tags"
    ):
        read_labelled(unnamed, None, 2, 2)


@pytest.mark.parametrize("label", [-2, 10])
def test_a_label_without_a_tag_is_refused_by_its_row(write, label):
    with pytest.raises(BadInputError, match=rf"labelled\.parquet: row 1 has label {label}, .*\(labels 0 to 9\)"):
        read_labelled(write([png(2, 2)] * 3, [0, label, 1]), None, 2, 2)


def test_rows_are_counted_through_the_whole_file(write):
    path = write([png(1, 1)] * 1_005, [0, 1] * 502 + [77])
    with pytest.raises(BadInputError, match="row 1004 has label 77"):
        read_labelled(path, None, 1, 1)


@pytest.mark.parametrize("broken", [b"", None, b"no picture", png(8, 8)[:60]])
def test_a_broken_picture_is_refused_by_its_row(write, broken):
    with pytest.raises(BadInputError, match=r"labelled\.parquet: row 2: .*; repair the picture or remove the row"):
        read_labelled(write([png(8, 8), png(8, 8), broken], [0, 1, 2]), None, 8, 8)


@pytest.mark.parametrize(
    ("labels", "label_type", "message"),
    [
        ([4, 4, 4], pa.int64(), "all images have the same label; a classifier needs at least two tags"),
        ([], pa.int64(), "holds no images"),
        ([0.0, float("nan"), 1.0], pa.float64(), "needs a column label of integers"),
        ([0, None, 1], pa.int64(), "row 1 has no label"),
    ],
)
def test_a_set_that_nothing_can_be_learned_from_is_refused(write, labels, label_type, message):
    with pytest.raises(BadInputError, match=rf"labelled\.parquet: {message}"):
        read_labelled(write([png(2, 2)] * len(labels), labels, label_type=label_type), None, 2, 2)


def test_another_kind_of_file_and_none_at_all_are_named(tmp_path):
    (tmp_path / "other.parquet").write_bytes(b"PAR1 but not really")
    with pytest.raises(BadInputError, match=r"other\.parquet: not a readable Parquet file"):
        read_labelled(tmp_path / "other.parquet", None, 2, 2)
    with pytest.raises(BadInputError, match=r"none\.parquet: no such file"):
        read_labelled(tmp_path / "none.parquet", None, 2, 2)


def test_other_things_may_have_no_tag_or_be_left_out(write):
    path = write([png(2, 2)] * 4, [-1, -2, 1, -1])
    assert read_other(path, ("a", "b"), 2, 2).labels.tolist() == [-1, -2, 1, -1]
    with pytest.raises(BadInputError, match=r"row 2 has label 2, but there are 2 tags \(labels -2 to 1\)"):
        read_other(write([png(2, 2)] * 3, [-1, -2, 2]), ("a", "b"), 2, 2)
    with pytest.raises(BadInputError, match="row 0 has label -3"):
        read_other(write([png(2, 2)], [-3]), ("a", "b"), 2, 2)


def test_the_hubs_class_names_become_the_tags_instead_of_cifars(write):
    path = write([png(2, 2), png(2, 2)], [0, 1])
    names = {"info": {"features": {"label": {"names": ["apple", "pear"], "_type": "ClassLabel"}}}}
    pq.write_table(pq.read_table(path).replace_schema_metadata({b"huggingface": json.dumps(names)}), path)
    assert read_labelled(path, None, 2, 2).tags == ("apple", "pear")


@pytest.fixture
def folder(tmp_path):
    """A folder with a folder for each tag, one of which has a folder inside."""
    for name, seed in (("cat/b.png", 1), ("cat/a.PNG", 2), ("ant/old/c.png", 3), ("ant/notes.txt", 4)):
        path = tmp_path / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(8, 8, seed))
    return tmp_path / "set"


def test_the_folders_of_a_labelled_folder_are_the_tags(folder):
    found = read_labelled(folder, None, 8, 8)
    assert found.tags == ("ant", "cat")
    assert found.labels.tolist() == [0, 1, 1]
    expected = [prepare_picture(png(8, 8, seed), 8, 8) for seed in (3, 2, 1)]  # by their paths
    np.testing.assert_array_equal(found.images, expected)
    assert read_labels(folder, None)[1].tolist() == [0, 1, 1]


def test_the_tags_of_a_model_give_a_folders_labels_whatever_their_order(folder):
    assert read_labelled(folder, ("cat", "dog", "ant"), 8, 8).labels.tolist() == [2, 0, 0]
    with pytest.raises(BadInputError, match=r"cat/a\.PNG: its folder cat is none of the tags ant, dog"):
        read_labelled(folder, ("ant", "dog"), 8, 8)
    assert read_other(folder, ("ant", "dog"), 8, 8).labels.tolist() == [0, -1, -1]


def test_a_folder_is_identified_by_its_pictures(folder):
    before = file_sha256(folder)
    (folder / "ant/notes.txt").write_text("changed")
    assert file_sha256(folder) == before
    (folder / "cat/b.png").rename(folder / "ant/b.png")
    assert file_sha256(folder) != before


def test_a_picture_of_a_folder_that_cannot_be_used_is_named(folder):
    (folder / "cat/a.PNG").write_bytes(b"no picture")
    with pytest.raises(BadInputError, match=r"cat/a\.PNG: .*; repair the picture or remove it"):
        read_labelled(folder, None, 8, 8)
    (folder / "loose.png").write_bytes(png(8, 8))
    with pytest.raises(BadInputError, match=r"loose\.png: is in no folder of a tag"):
        read_labelled(folder, None, 8, 8)
