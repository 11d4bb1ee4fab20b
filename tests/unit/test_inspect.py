"""Inspecting: a source is recognised by its names, sizes and bytes, and nothing in it is executed."""

import io
import os
import pickle
import tarfile
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tinytags_tasks.corpus import inspect as inspect_module
from tinytags_tasks.corpus import sampling
from tinytags_tasks.corpus.definition import make_definition
from tinytags_tasks.corpus.inspect import Inspection, choose_sheet, draw_sheet, guess_definition, inspect_source
from tinytags_tasks.corpus.pictures.sheet import make_sheet
from tinytags_tasks.corpus.reader import Batch, ListedItem
from tinytags_tasks.corpus.sources.files import SourceFiles
from tinytags_tasks.errors import BadInputError


@lru_cache
def photographs(images: int = 320, height: int = 32, width: int = 32) -> np.ndarray:
    """Return smooth pictures that are lit from above, uint8 of shape (images, height, width, 3)."""
    rng = np.random.default_rng(7)
    coarse = rng.integers(0, 200, (images, 5, 5, 3), dtype=np.uint8)
    smooth = [Image.fromarray(one).resize((width, height), Image.Resampling.BICUBIC) for one in coarse]
    light = np.linspace(55, 0, height)[None, :, None, None]
    noise = rng.integers(0, 8, (images, height, width, 3))
    return np.clip(np.stack(smooth) + light + noise, 0, 255).astype(np.uint8)


def stored(images: np.ndarray, pixel_order: str) -> bytes:
    axes = {"hwc": (0, 1, 2, 3), "planes": (0, 3, 1, 2), "columns": (0, 3, 2, 1)}[pixel_order]
    return images.transpose(axes).tobytes()


def labelled(images: np.ndarray, *labels: np.ndarray) -> bytes:
    columns = [label.astype(np.uint8)[:, None] for label in labels]
    return np.concatenate([*columns, images.transpose(0, 3, 1, 2).reshape(len(images), -1)], axis=1).tobytes()


def encoded(kind: str = "PNG") -> bytes:
    sink = io.BytesIO()
    Image.fromarray(photographs(1)[0]).save(sink, kind)
    return sink.getvalue()


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


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


# Inspecting


def test_an_inspection_counts_and_shows_what_a_source_holds(tmp_path):
    images = photographs(100)
    files = SourceFiles(str(write(tmp_path / "some.bin", stored(images, "columns"))))
    definition, notes = guess_definition(files)
    found = inspect_source(definition, files, notes)
    assert (found.images, found.files, found.size_bytes, found.looked_at) == (100, 1, images.size, 100)
    np.testing.assert_array_equal(found.first, images[:64])
    for channel in range(3):
        np.testing.assert_array_equal(
            found.histogram[channel], np.bincount(images[..., channel].ravel(), minlength=256)
        )
    assert (found.unreadable, found.notes) == ({}, notes)


def test_a_folder_is_inspected_from_its_guess_to_its_broken_picture(tmp_path):
    for name in ("a.png", "b.png", "c.png"):
        write(tmp_path / name, b"broken" if name == "b.png" else encoded())
    files = SourceFiles(str(tmp_path))
    found = inspect_source(guess_definition(files)[0], files)
    assert (found.definition.format, found.images) == ("folder", 3)
    assert list(found.unreadable) == [1]
    np.testing.assert_array_equal(found.first[2], photographs(1)[0])
    assert found.histogram.sum() == 2 * found.first[0].size


def listed(count: int):
    return (ListedItem(f"{number:06}.jpg", 1, 0, 500, "") for number in range(count))


class SomeUnreadable:
    """Reads white pictures, of which those at positions 3 and 70 are unreadable."""

    closed = False

    def __init__(self, definition, files, listing):
        type(self).listing = listing

    def batches(self, first, images, *, decode=True):
        for start in range(first, first + images, 50):
            count = min(50, first + images - start)
            pixels = np.full((count, 32, 32, 3), 255, dtype=np.uint8)
            unreadable = {at: "a broken JPEG" for at in (3, 70) if start <= at < start + count}
            for at in unreadable:
                pixels[at - start] = 0
            yield Batch(start, count, pixels, unreadable)

    def close(self):
        type(self).closed = True


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder whose listing and reader are a test's own; the number of files is set by the test."""
    monkeypatch.setattr(sampling, "open_reader", SomeUnreadable)

    def prepare(count):
        monkeypatch.setattr(inspect_module, "list_items", lambda files, definition: listed(count))
        return make_definition("pets", {"source": str(tmp_path), "format": "folder"}), SourceFiles(str(tmp_path))

    return prepare


def test_unreadable_images_are_told_and_counted_in_no_histogram(folder):
    found = inspect_source(*folder(120))
    assert found.unreadable == {3: "a broken JPEG", 70: "a broken JPEG"}
    assert found.histogram[:, 255].tolist() == [118 * 1024] * 3
    assert found.histogram.sum() == 3 * 118 * 1024
    assert (found.first[2].min(), found.first[3].max()) == (255, 0)
    assert SomeUnreadable.closed


def test_only_the_first_of_many_files_are_read_and_kept(folder):
    found = inspect_source(*folder(20_000))
    assert (found.images, found.files, found.size_bytes) == (20_000, 20_000, 20_000 * 500)
    assert (found.looked_at, SomeUnreadable.listing.images) == (1_000, 1_000)


def test_any_part_of_a_source_can_be_looked_at(tmp_path):
    images = photographs(100)
    files = SourceFiles(str(write(tmp_path / "some.bin", stored(images, "columns"))))
    definition, _ = guess_definition(files)
    found = inspect_source(definition, files, first=90)
    assert (found.looked_at, found.positions, found.images) == (10, tuple(range(90, 100)), 100)
    np.testing.assert_array_equal(found.first, images[90:])
    found = inspect_source(definition, files, is_random=True)
    assert len(found.positions) > 20
    np.testing.assert_array_equal(found.first, images[list(found.positions)])
    with pytest.raises(BadInputError, match=r"some\.bin: has 100 images, from 0, and none at 100"):
        inspect_source(definition, files, first=100)


@pytest.mark.parametrize("is_random", [False, True])
def test_a_random_sample_or_a_part_of_a_folder_has_the_pictures_of_its_positions(tmp_path, is_random):
    images = photographs(12)
    for number, image in enumerate(images):
        (tmp_path / f"set-{number % 2}").mkdir(exist_ok=True)
        Image.fromarray(image).save(tmp_path / f"set-{number % 2}" / f"{number:02}.png")
    in_order = [*images[::2], *images[1::2]]
    files = SourceFiles(str(tmp_path))
    found = inspect_source(guess_definition(files)[0], files, first=0 if is_random else 5, is_random=is_random)
    assert found.positions
    for place, position in enumerate(found.positions):
        np.testing.assert_array_equal(found.first[place], in_order[position])


def test_random_positions_are_as_likely_as_each_other():
    sample = sampling.RandomSample(20_000)
    for start, count in ((0, 1), (1, 6), (7, 0), (7, 1), (8, 2)):
        sample.add(start, ListedItem(f"{start}", count, 0, 1, ""))
    at = np.bincount([position for position, _, _ in sample._drawn], minlength=10)
    assert at.min() > 1_700
    assert at.max() < 2_300


def test_possible_keywords_and_own_sizes_are_told_with_counts(tmp_path):
    for name, size in (
        ("cat/a.png", (40, 30)),
        ("cat/b.png", (40, 30)),
        ("cafe\u0301/deep/c.png", (8, 8)),
        ("d.png", (1, 2)),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size).save(tmp_path / name)
    files = SourceFiles(str(tmp_path))
    found = inspect_source(guess_definition(files)[0], files)
    assert found.keywords == sampling.FoundKeywords("folder", (("cat", 2), ("caf\u00e9", 1)), 4)
    assert found.sizes == {"40x30": 2, "8x8": 1, "1x2": 1}


def test_labels_are_told_as_possible_keywords(tmp_path):
    images = photographs(8)
    labels = np.array([0, 1, 1, 1, 2, 2, 0, 1])
    files = SourceFiles(str(write(tmp_path / "data_batch_1.bin", labelled(images, labels))))
    found = inspect_source(guess_definition(files)[0], files)
    assert (found.keywords.where, found.keywords.possible) == ("label", ("coarse_label",))
    assert dict(found.keywords.counts) == {"automobile": 4, "airplane": 2, "bird": 2}
    assert found.definition.keywords == ""


def test_columns_are_told_as_possible_keywords(tmp_path):
    columns = {"img": [encoded()] * 3, "word": ["cat", "dog", "cat"], "label": [1, 2, None], "share": [0.5] * 3}
    pq.write_table(pa.table(columns), tmp_path / "some.parquet")
    files = SourceFiles(str(tmp_path / "some.parquet"))
    found = inspect_source(guess_definition(files)[0], files)
    assert found.keywords == sampling.FoundKeywords("word", (("cat", 2), ("dog", 1)), 3, ("label",))
    assert found.sizes == {"32x32": 3}


def test_keywords_by_folders_without_folders_are_refused(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    definition = make_definition("pets", {"source": str(tmp_path), "format": "folder", "keywords": "folder"})
    with pytest.raises(BadInputError, match="none of its 1 pictures is in a folder whose name would be the keyword"):
        inspect_source(definition, SourceFiles(str(tmp_path)))


def test_the_sheet_is_never_written_into_the_source(tmp_path, monkeypatch):
    source = tmp_path / "photos"
    source.mkdir()
    files = SourceFiles(str(source))
    monkeypatch.chdir(source)
    assert not choose_sheet(files, "photos", None).resolve().is_relative_to(source)
    for given in ("sheet.png", "deep/../sheet.png", str(source / "sheet.png")):
        with pytest.raises(BadInputError, match=r"sheet\.png: is in the source, .*; give another --sheet"):
            choose_sheet(files, "photos", Path(given))
        with pytest.raises(BadInputError, match="is in the source"):
            choose_sheet(SourceFiles(f"{source}/*.png"), "photos", Path(given))
    assert choose_sheet(files, "photos", tmp_path / "sheet.png") == tmp_path / "sheet.png"
    monkeypatch.chdir(tmp_path)
    assert choose_sheet(files, "photos", None) == Path("photos-sheet.png")
    write(source / "a.bin", b"x")
    assert choose_sheet(SourceFiles(f"{source}/a.bin"), "a", source / "sheet.png") == source / "sheet.png"
    with pytest.raises(BadInputError, match="is in the source"):
        choose_sheet(SourceFiles(f"{source}/a.bin"), "a", source / "a.bin")


def test_a_source_without_images_is_refused(folder):
    with pytest.raises(BadInputError, match="contains no images of the format folder"):
        inspect_source(*folder(0))


# The sheet


def inspected(images: np.ndarray, **changes) -> Inspection:
    height, width = images.shape[1:3]
    definition = make_definition("pets", {"source": "x", "format": "raw", "height": height, "width": width})
    histogram = np.stack([np.bincount(images[..., channel].ravel(), minlength=256) for channel in range(3)])
    found = Inspection(definition, len(images), 1, images.size, len(images), images, {}, histogram)
    return replace(found, **changes)


def test_a_sheet_shows_every_pixel_enlarged_and_unsmoothed(tmp_path):
    images = np.zeros((2, 32, 32, 3), dtype=np.uint8)
    images[1, 0, 0] = (255, 0, 0)
    draw_sheet(inspected(images), tmp_path / "sheet.png")
    sheet = np.asarray(Image.open(tmp_path / "sheet.png").convert("RGB"))
    rows, columns = np.nonzero((sheet == (255, 0, 0)).all(axis=-1))
    assert (len(rows), np.ptp(rows), np.ptp(columns)) == (9, 2, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]


def test_unreadable_images_are_crossed_out():
    images = np.zeros((2, 32, 32, 3), dtype=np.uint8)
    histogram = np.zeros((3, 256), dtype=np.int64)
    plain = np.asarray(make_sheet(images, {}, histogram, "pets"))
    crossed = np.asarray(make_sheet(images, {1: "broken"}, histogram, "pets"))
    changed = np.nonzero((plain != crossed).any(axis=(0, 2)))[0]
    assert changed.min() > 16 + 96  # only the second picture
    assert (crossed == (200, 30, 30)).all(axis=-1).any()


@pytest.mark.parametrize("shape", [(1, 1, 1), (64, 8, 400), (3, 400, 8), (64, 500, 500), (64, 1, 1024)])
def test_a_sheet_of_any_size_can_be_drawn(shape):
    images = np.zeros((*shape, 3), dtype=np.uint8)
    sheet = make_sheet(images, {0: "broken"}, np.zeros((3, 256), dtype=np.int64), "pets")
    assert sheet.width < 2_200
    assert sheet.height < 6_000


def test_a_sheet_that_cannot_be_written_leaves_nothing(tmp_path):
    images = np.zeros((1, 32, 32, 3), dtype=np.uint8)
    with pytest.raises(BadInputError, match=r"sheet\.png: cannot be written \(.*; give another --sheet"):
        draw_sheet(inspected(images), tmp_path / "nowhere" / "sheet.png")
    write(tmp_path / "a file", b"")
    with pytest.raises(BadInputError, match="cannot be written"):
        draw_sheet(inspected(images), tmp_path / "a file" / "sheet.png")
    assert [path.name for path in tmp_path.iterdir()] == ["a file"]
