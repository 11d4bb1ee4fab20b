"""WebDataset's tars as a labelled set: where a class comes from, and which sample is at fault if there is none."""

import bz2
import gzip
import io
import json
import lzma
import tarfile

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from tinytags_tasks.corpus.labelled import file_sha256, place_of, tags_of_set
from tinytags_tasks.corpus.labelled_tar import tars_of
from tinytags_tasks.errors import BadInputError
from tinytags_tasks.train.images import read_labelled, read_labels, read_other, read_rows


def png(number: int, side: int = 8) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(picture(number, side)).save(sink, "PNG")
    return sink.getvalue()


def picture(number: int, side: int = 8) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (side, side, 3), dtype=np.uint8)


@pytest.fixture
def write(tmp_path):
    """Return a function that writes a tar of members, which are names and contents."""

    def write_tar(members, name="birds.tar"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        with tarfile.open(path, "w") as tar:
            for member, content in members:
                described = tarfile.TarInfo(member)
                described.size = len(content)
                tar.addfile(described, io.BytesIO(content))
        return path

    return write_tar


def samples(classes, ending="cls", first=0):
    """Return the members of samples whose classes are in files with this ending."""
    return [
        member
        for number, name in enumerate(classes, first)
        for member in ((f"{number:04d}.png", png(number)), (f"{number:04d}.{ending}", name.encode()))
    ]


def test_pictures_and_the_classes_in_cls_files_are_read_in_order(write):
    path = write(samples(["gull", "duck\n", "gull"]))
    found = read_labelled(path, None, 8, 8)
    np.testing.assert_array_equal(found.images, [picture(0), picture(1), picture(2)])
    assert found.tags == tags_of_set(path) == ("duck", "gull")
    assert found.labels.tolist() == read_labels(path, None)[1].tolist() == [1, 0, 1]
    np.testing.assert_array_equal(read_rows(path, np.array([1, 2]), 8, 8), [picture(1), picture(2)])


@pytest.mark.parametrize(
    "fields",
    [
        lambda name: {"label": name},
        lambda name: {"class": name, "width": 8},
        lambda name: {"label": 3, "class_name": name},
    ],
)
def test_classes_come_from_json_where_there_are_no_cls_files(write, fields):
    path = write(samples([json.dumps(fields(name)) for name in ("gull", "duck")], "json"))
    assert read_labelled(path, None, 8, 8).tags == ("duck", "gull")


def test_classes_come_from_the_folder_of_a_sample_where_there_is_nothing_else(write):
    path = write([("train/gull/1.png", png(1)), ("train/duck/1.png", png(2)), ("train/duck/2.png", png(3))])
    found = read_labelled(path, None, 8, 8)
    assert (found.tags, found.labels.tolist()) == (("duck", "gull"), [1, 0, 0])


@pytest.mark.parametrize("place", ["classnames.txt", "train/classnames.txt"])
def test_numbers_are_named_by_the_list_beside_the_tars_or_above(write, tmp_path, place):
    paths = [write(samples(["2", "0"]), "train/0.tar"), write(samples(["1"], first=2), "train/1.tar")]
    assert tars_of(paths[0].parent) == paths
    with pytest.raises(BadInputError, match=r"0\.tar: its classes are numbers without names; name them with --tags"):
        tags_of_set(paths[0].parent)
    before = file_sha256(paths[0].parent)
    (tmp_path / place).write_text("duck\ngull\nowl\nwren\n")
    found = read_labelled(paths[0].parent, None, 8, 8)
    assert found.tags == ("duck", "gull", "owl", "wren")
    assert found.labels.tolist() == [2, 0, 1]
    assert file_sha256(paths[0].parent) != before  # other tags, another training
    assert place_of(paths[0].parent, 2) == f"{paths[1]}: sample 0002"


def test_numbers_without_names_are_those_of_the_tags_that_are_given(write):
    path = write(samples(["1", "0", "-1", "2"]))
    found = read_labelled(path, ("duck", "gull", "owl"), 8, 8)
    assert (found.labels.tolist(), found.unlabelled) == ([1, 0, 2], 1)
    np.testing.assert_array_equal(read_rows(path, np.array([2]), 8, 8), [picture(3)])
    assert read_labelled(path, ("0", "1", "2"), 8, 8).labels.tolist() == [1, 0, 2]
    with pytest.raises(BadInputError, match=r"sample 0003: its class is 2, but there are 2 tags \(classes 0 to 1\)"):
        read_labelled(path, ("duck", "gull"), 8, 8)


def test_a_test_set_has_the_labels_of_the_tags_it_is_given_and_others_are_none(write):
    path = write(samples(["owl", "duck"]))
    assert read_labelled(path, ("duck", "gull", "owl"), 8, 8).labels.tolist() == [2, 0]
    assert read_other(path, ("duck", "gull"), 8, 8).labels.tolist() == [-1, 0]
    with pytest.raises(BadInputError, match=r"birds\.tar: sample 0000: its class owl is none of the tags duck, gull"):
        read_labelled(path, ("duck", "gull"), 8, 8)


def test_a_folder_with_folders_is_no_set_of_tars(write, tmp_path):
    write(samples(["owl", "duck"]))
    (tmp_path / "owl").mkdir()
    (tmp_path / "owl" / "1.png").write_bytes(png(1))
    assert tars_of(tmp_path) == []
    assert tags_of_set(tmp_path) == ("owl",)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([], r"birds\.tar: holds no samples"),
        ([("1.png", png(1))], r"birds\.tar: no sample has a class; give each a \.cls file"),
        (
            [*samples(["owl"]), ("0001.png", png(1))],
            r"birds\.tar: sample 0001 has no class in its \.cls, where others have",
        ),
        ([*samples(["owl"]), ("a\nb.png", png(1))], r"birds\.tar: sample a\\nb has no class in its \.cls"),
        ([*samples(["owl"]), ("1.cls", b"owl")], r"birds\.tar: sample 1 has no image; images are members that end in"),
        ([*samples(["owl"]), ("0000.jpg", png(1))], r"0000\.jpg' at offset \d+,?\d* is a second image of its sample"),
        (samples(["owl", "owl"]), "all images have the same label"),
        (
            [*samples(["owl"]), ("1.png", b"no picture"), ("1.cls", b"gull")],
            r"sample 1: .*the picture or remove it",
        ),
    ],
)
def test_what_cannot_be_used_is_told_with_its_sample(write, members, message):
    with pytest.raises(BadInputError, match=message):
        read_labelled(write(members), None, 8, 8)


def test_a_number_beyond_the_list_of_names_is_told(write, tmp_path):
    (tmp_path / "classnames.txt").write_text("duck\ngull\n")
    with pytest.raises(BadInputError, match=r"sample 0001 is of class 2, but .*classnames\.txt has 2 names \(from 0\)"):
        read_labelled(write(samples(["0", "2"])), None, 8, 8)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"duck\ngull\nduck\n", r"classnames\.txt: has the name duck twice"),
        (b"duck\n\xff\n", r"classnames\.txt: is not text in UTF-8"),
    ],
)
def test_a_list_of_names_that_cannot_be_used_is_told(write, tmp_path, content, message):
    (tmp_path / "classnames.txt").write_bytes(content)
    with pytest.raises(BadInputError, match=message):
        read_labelled(write(samples(["0", "1"])), None, 8, 8)


def test_a_tar_that_is_not_there_is_told(tmp_path):
    for read in (file_sha256, tags_of_set):
        with pytest.raises(BadInputError, match=r"gone\.tar: (no such file|cannot be read)"):
            read(tmp_path / "gone.tar")


def test_a_cut_tar_is_told(write):
    path = write(samples(["owl", "gull"]))
    path.write_bytes(path.read_bytes()[:2_000])
    with pytest.raises(BadInputError, match=r"birds\.tar: (damaged|ends) at offset"):
        read_labelled(path, None, 8, 8)


def packed(content, ending):
    packing = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}
    return packing[ending](content) if ending in packing else pa.compress(content, "zstd", asbytes=True)


@pytest.mark.parametrize("ending", ["gz", "bz2", "xz", "zst"])
def test_compressed_tars_are_read_as_others_are(write, tmp_path, ending):
    for name, first in (("a", 0), ("b", 3)):
        tar = write(samples(["owl", "gull", "owl"], first=first), f"{name}.tar")
        (tmp_path / f"packed/{name}.tar.{ending}").parent.mkdir(exist_ok=True)
        (tmp_path / f"packed/{name}.tar.{ending}").write_bytes(packed(tar.read_bytes(), ending))
        tar.unlink()
    found = read_labelled(tmp_path / "packed", None, 8, 8)
    np.testing.assert_array_equal(found.images, [picture(number) for number in range(6)])
    assert (found.tags, found.labels.tolist()) == (("gull", "owl"), [1, 0, 1, 1, 0, 1])
    assert place_of(tmp_path / "packed", 4) == f"{tmp_path}/packed/b.tar.{ending}: sample 0004"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda content: gzip.compress(content)[:200], r"birds\.tar\.gz: damaged: cannot be unpacked after"),
        (lambda content: content, r"birds\.tar\.gz: is not compressed as its name says; rename it"),
        (lambda content: gzip.compress(content[:2_000]), r"birds\.tar\.gz: (damaged|ends) at offset"),
    ],
)
def test_a_compressed_tar_that_is_damaged_is_told(write, spoil, message):
    path = write(samples(["owl", "gull"]), "birds.tar.gz")
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(BadInputError, match=message):
        read_labelled(path, None, 8, 8)


def test_a_tar_that_was_written_again_is_read_again(write):
    path = write(samples(["owl", "gull"]))
    assert tags_of_set(path) == ("gull", "owl")
    write(samples(["wren", "gull", "owl"]))
    assert tags_of_set(path) == ("gull", "owl", "wren")
