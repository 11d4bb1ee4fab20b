"""What an inspection counts and shows of a source, and its sheet of pictures."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from inspected_sources import encoded, labelled, photographs, stored, write
from PIL import Image

from tinytags_tasks.corpus import inspect as inspect_module
from tinytags_tasks.corpus import sampling
from tinytags_tasks.corpus.definition import make_definition
from tinytags_tasks.corpus.inspect import Inspection, choose_sheet, draw_sheet, guess_definition, inspect_source
from tinytags_tasks.corpus.pictures.sheet import make_sheet
from tinytags_tasks.corpus.reader import Batch, ListedItem
from tinytags_tasks.corpus.sources.files import SourceFiles
from tinytags_tasks.errors import BadInputError


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
    with pytest.raises(BadInputError, match=r"sheet\.png: cannot be written \(.*; make .*, or give another --sheet"):
        draw_sheet(inspected(images), tmp_path / "nowhere" / "sheet.png")
    write(tmp_path / "a file", b"")
    with pytest.raises(BadInputError, match="cannot be written"):
        draw_sheet(inspected(images), tmp_path / "a file" / "sheet.png")
    assert [path.name for path in tmp_path.iterdir()] == ["a file"]
