"""Recognising a source by its names, sizes and bytes; nothing in it is executed."""

import io
import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from inspected_sources import encoded, labelled, photographs, stored, write

from tinytags_tasks.corpus.inspect import guess_definition
from tinytags_tasks.corpus.sources.files import SourceFiles
from tinytags_tasks.errors import BadInputError


def guess(path: Path, **size: int):
    return guess_definition(SourceFiles(str(path)), **size)


# Files of pixels


@pytest.mark.parametrize(
    ("pixel_order", "source_format"), [("hwc", "raw"), ("planes", "raw"), ("columns", "tiny-images")]
)
def test_the_order_of_pixels_is_told_from_the_pictures(tmp_path, pixel_order, source_format):
    definition, notes = guess(write(tmp_path / "some.bin", stored(photographs(), pixel_order)))
    assert definition.format == source_format
    assert source_format == "tiny-images" or definition.pixel_order == pixel_order
    assert not any("weak" in note or "noise" in note for note in notes)


@pytest.mark.parametrize("pixel_order", ["hwc", "planes", "columns"])
def test_the_order_of_pixels_is_told_at_any_size(tmp_path, pixel_order):
    source = write(tmp_path / "some.bin", stored(photographs(height=40, width=24), pixel_order))
    definition, _ = guess(source, height=40, width=24)
    assert (definition.format, definition.pixel_order) == ("raw", pixel_order)
    assert (definition.height, definition.width) == (40, 24)


def test_grey_pictures_are_not_taken_for_planes(tmp_path):
    grey = photographs().mean(axis=-1, keepdims=True).astype(np.uint8).repeat(3, axis=-1)
    definition, _ = guess(write(tmp_path / "grey.bin", stored(grey, "hwc")))
    assert definition.pixel_order == "hwc"


@pytest.mark.parametrize(
    ("pixel_order", "other"), [("columns", "planes"), ("planes", "columns")], ids=["columns", "planes"]
)
def test_planes_come_with_how_to_see_that_they_lie_on_their_side(tmp_path, pixel_order, other):
    _, notes = guess(write(tmp_path / "some.bin", stored(photographs(), pixel_order)))
    (note,) = (note for note in notes if "on its side" in note)
    assert "smoothness cannot tell" in note
    assert "lit from above" in note
    assert note.endswith(f"--format raw --pixel-order {other}")


def test_a_name_says_more_than_the_pictures(tmp_path):
    definition, notes = guess(write(tmp_path / "tiny_images.bin", stored(photographs(), "planes")))
    assert definition.format == "tiny-images"
    assert "as its name says" in notes[-1]


def test_few_planes_are_taken_for_tiny_images_and_the_doubt_is_told(tmp_path):
    definition, notes = guess(write(tmp_path / "some.bin", stored(photographs(20), "planes")))
    assert definition.format == "tiny-images"
    assert "do not tell" in notes[-1]


def test_nouns_beside_tiny_images_are_pointed_at(tmp_path):
    source = write(tmp_path / "tiny_images.bin", stored(photographs(), "columns"))
    write(tmp_path / "tiny_metadata.bin", bytes(768 * 320))
    _, notes = guess(source)
    assert "--keywords" in notes[-1]


def test_a_wrong_size_of_the_pictures_is_suspected(tmp_path):
    _, notes = guess(write(tmp_path / "some.bin", stored(photographs(height=64, width=64), "hwc")))
    assert any("are they 32x32? Otherwise give --height and --width" in note for note in notes)


def test_noise_is_called_noise(tmp_path):
    _, notes = guess(write(tmp_path / "some.bin", np.random.default_rng(0).bytes(3072 * 40)))
    assert any("looks like noise" in note for note in notes)


def test_only_a_part_of_a_large_file_is_read(tmp_path, monkeypatch):
    source = write(tmp_path / "some.bin", stored(np.tile(photographs(), (7, 1, 1, 1)), "hwc"))
    lengths = []
    read = SourceFiles.read

    def counted(self, path, offset, length, *arguments):
        lengths.append(length)
        return read(self, path, offset, length, *arguments)

    monkeypatch.setattr(SourceFiles, "read", counted)
    assert guess(source)[0].pixel_order == "hwc"
    assert sum(lengths) < source.stat().st_size / 5


# CIFAR


def test_cifar_10_is_known_by_its_labels(tmp_path):
    images = photographs(50)
    definition, notes = guess(write(tmp_path / "data_batch_1.bin", labelled(images, np.arange(50) % 10)))
    assert (definition.format, notes) == ("cifar-binary", ())


def test_cifar_100_is_known_by_its_two_labels(tmp_path):
    content = labelled(photographs(50), np.arange(50) % 20, np.arange(50) + 50)
    assert guess(write(tmp_path / "train.bin", content))[0].format == "cifar-binary"


@pytest.mark.parametrize("name", ["data_batch_1.bin", "mine.bin"])
def test_a_wrong_label_in_a_file_of_cifars_is_named(tmp_path, name):
    labels = np.arange(50) % 10
    labels[[7, 20]] = 77, 10
    told = rf"{name}: record 7 \(at offset 21,511\) has the label 77, but labels are 0 to 9"
    with pytest.raises(BadInputError, match=told):
        guess(write(tmp_path / name, labelled(photographs(50), labels)))


def test_a_size_that_would_fit_labels_by_chance_is_no_cifar(tmp_path):
    source = write(
        tmp_path / "some.bin", stored(np.tile(photographs(439), (7, 1, 1, 1)), "hwc")
    )  # as many bytes as 3,072 labelled images
    definition, _ = guess(source)
    assert (definition.format, definition.pixel_order) == ("raw", "hwc")


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickled_dictionary_is_known_in_every_protocol_but_the_old_binary_one(tmp_path, protocol):
    source = write(tmp_path / "batch", pickle.dumps({b"data": b"", b"labels": [1, 2]}, protocol=protocol))
    if protocol == 1:
        with pytest.raises(BadInputError):
            guess(source)
    else:
        assert guess(source)[0].format == "cifar-pickle"


def test_nothing_of_a_pickle_is_run(tmp_path):
    class Harmful:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "harm"),)

    guess(write(tmp_path / "data_batch_1", pickle.dumps({b"data": Harmful()})))
    assert not (tmp_path / "harm").exists()


# Other files, by their first bytes


def tar_bytes() -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as tar:
        member = tarfile.TarInfo("0.png")
        member.size = len(encoded())
        tar.addfile(member, io.BytesIO(encoded()))
    return sink.getvalue()


def parquet_bytes() -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table({"img": [encoded()]}), sink)
    return sink.getvalue()


@pytest.mark.parametrize(
    ("content", "source_format"),
    [
        (parquet_bytes(), "parquet"),
        (tar_bytes(), "webdataset"),
        (encoded("PNG"), "folder"),
        (encoded("JPEG"), "folder"),
        (encoded("WEBP"), "folder"),
    ],
    ids=["parquet", "tar", "png", "jpeg", "webp"],
)
def test_a_file_is_known_by_its_first_bytes_whatever_its_name(tmp_path, content, source_format):
    assert guess(write(tmp_path / "something", content))[0].format == source_format


# Folders


@pytest.mark.parametrize(
    ("name", "content", "source_format"),
    [
        ("cat/1.JPG", b"broken", "folder"),
        ("part-0.parquet", parquet_bytes(), "parquet"),
        ("000.tar", tar_bytes(), "webdataset"),
        ("data_batch_1", pickle.dumps({b"data": b""}), "cifar-pickle"),
        ("data_batch_1.bin", labelled(photographs(2), np.array([3, 9])), "cifar-binary"),
        ("part.bin", stored(photographs(), "hwc"), "raw"),
    ],
)
def test_a_folder_is_known_by_most_of_its_bytes(tmp_path, name, content, source_format):
    write(tmp_path / "deep" / name, content)
    write(tmp_path / "README.md", b"# " + b"what this is " * 100_000)
    definition, notes = guess(tmp_path)
    assert definition.format == source_format
    assert notes[0] == "not read: 1 other file, such as README.md"


def test_a_folder_of_two_kinds_is_the_larger_one(tmp_path):
    write(tmp_path / "images.parquet", parquet_bytes())
    write(tmp_path / "thumbnail.png", b"")
    definition, notes = guess(tmp_path)
    assert definition.format == "parquet"
    assert "thumbnail.png" in notes[0]


@pytest.mark.parametrize(
    ("name", "expected"),
    [("My Photos", "my-photos"), ("data_batch_1.bin", "data-batch-1"), ("Bücher", "b-cher"), ("猫", "corpus")],
)
def test_the_guess_has_a_name_that_can_be_used(tmp_path, name, expected):
    definition, _ = guess(write(tmp_path / name, encoded()))
    assert definition.name == expected


# What fits no format


def test_what_fits_nothing_says_what_was_looked_at(tmp_path):
    with pytest.raises(BadInputError) as raised:
        guess(write(tmp_path / "notes.txt", b"hello" * 1_000))
    message = str(raised.value)
    assert f"{tmp_path}/notes.txt" in message
    assert "1,144 bytes short of 2 images of 32x32x3" in message
    assert "5,000 bytes that begin with 68 65 6c 6c 6f" in message
    for looked_for in ("PAR1", "ustar at offset 257", "pickled", "JPEG", "3,073", "--format", "--height"):
        assert looked_for in message


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "smaller than one image"),
        (stored(photographs(3), "hwc")[:-1], "1 byte short of 3 images of 32x32x3"),
        (b"\x1f\x8b\x08 cifar", "compressed with gzip; unpack it"),
        (b"PK\x03\x04 zip", "compressed with zip"),
    ],
    ids=["empty", "cut short", "gzip", "zip"],
)
def test_a_file_that_cannot_be_used_is_refused_with_the_reason(tmp_path, content, expected):
    with pytest.raises(BadInputError, match=expected):
        guess(write(tmp_path / "some.bin", content))


def test_a_name_that_lies_is_refused(tmp_path):
    with pytest.raises(BadInputError, match="its name says parquet, its content does not"):
        guess(write(tmp_path / "some.parquet", tar_bytes()))


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(BadInputError, match="contains no files"):
        guess(tmp_path)
