"""Kinds of picture files besides JPEG, PNG and WebP: read alike, by their content, wherever they come from."""

import io
import tarfile

import numpy as np
import pillow_heif
import pytest
from PIL import Image, features

from tinytags_tasks.corpus.definition import make_definition
from tinytags_tasks.corpus.formats.registry import list_items, open_reader
from tinytags_tasks.corpus.listing import MemoryListing
from tinytags_tasks.corpus.picture_kinds import ENDINGS, remedy_of
from tinytags_tasks.corpus.pictures.prepare import decode_rgb, prepare_picture
from tinytags_tasks.corpus.sources.files import SourceFiles
from tinytags_tasks.errors import BadInputError

needs_avif = pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")
LOSSLESS = ["GIF", "BMP", "TIFF"]


def halves(size=(32, 32)):
    """A picture whose left half is red and whose right half is blue."""
    picture = Image.new("RGB", size, (255, 0, 0))
    picture.paste((0, 0, 255), (size[0] // 2, 0, *size))
    return picture


def encoded(picture, kind, **options):
    sink = io.BytesIO()
    picture.save(sink, kind, **options)
    return sink.getvalue()


@pytest.mark.parametrize("kind", LOSSLESS)
def test_pixels_of_every_kind_are_kept(kind):
    assert np.array_equal(prepare_picture(encoded(halves(), kind), 32, 32), np.asarray(halves()))


@needs_avif
def test_avif_is_read():
    found = prepare_picture(encoded(halves(), "AVIF", quality=100), 32, 32)
    assert np.abs(found.astype(int) - np.asarray(halves())).mean() < 6


@pytest.mark.parametrize("kind", ["TIFF", pytest.param("AVIF", marks=needs_avif)])
def test_other_kinds_are_turned_upright(kind):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn it right by 90 degrees
    upright = decode_rgb(encoded(halves((32, 16)), kind, exif=exif))
    assert upright.size == (16, 32)
    assert upright.getpixel((8, 4))[0] > 200 > 100 > upright.getpixel((8, 4))[2]
    assert upright.getpixel((8, 28))[2] > 200


@pytest.mark.parametrize("kind", ["GIF", "TIFF"])
def test_the_first_frame_is_taken(kind):
    other = Image.new("RGB", (32, 32), "green")
    content = encoded(halves(), kind, save_all=True, append_images=[other])
    assert np.array_equal(prepare_picture(content, 32, 32), np.asarray(halves()))


def test_transparent_parts_of_a_gif_become_white():
    picture = Image.new("P", (32, 32), 0)
    picture.putpalette([255, 0, 0, 0, 0, 255])
    assert prepare_picture(encoded(picture, "GIF", transparency=0), 32, 32).min() == 255


@pytest.mark.parametrize("mode", ["I;16", "I;16B"])
def test_sixteen_bits_of_a_tiff_are_not_cut_off(mode):
    grey = np.full((32, 32), 0x8000, dtype=">u2" if mode.endswith("B") else "<u2")
    picture = Image.frombytes(mode, (32, 32), grey.tobytes())
    assert set(np.unique(prepare_picture(encoded(picture, "TIFF"), 32, 32))) == {128}


@pytest.mark.parametrize("mode", ["I", "F"])
def test_a_tiff_whose_black_and_white_are_not_known_is_unreadable(mode):
    with pytest.raises(BadInputError, match="numbers of 32 bits, whose black and white are not known"):
        prepare_picture(encoded(Image.new(mode, (32, 32)), "TIFF"), 32, 32)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", [*LOSSLESS, pytest.param("AVIF", marks=needs_avif)])
def test_damaged_files_of_other_kinds_are_refused_or_read_but_never_crash(kind):
    content = encoded(halves((9, 7)), kind)
    for at in range(0, len(content), max(1, len(content) // 150)):
        damaged = bytearray(content)
        damaged[at] ^= 0xFF
        for tried in (bytes(damaged), content[:at]):
            try:
                assert prepare_picture(tried, 4, 4).shape == (4, 4, 3)
            except BadInputError as error:
                assert "\n" not in str(error)


def test_heic_is_read_where_its_package_is_installed():
    sink = io.BytesIO()
    pillow_heif.from_pillow(halves()).save(sink, quality=100)
    found = prepare_picture(sink.getvalue(), 32, 32)
    assert np.abs(found.astype(int) - np.asarray(halves())).mean() < 6


def test_a_kind_that_is_not_read_has_a_remedy():
    assert remedy_of(".cr2") == "pictures: convert them to JPEG"
    assert remedy_of(".txt") == remedy_of(".gif") == ""
    assert ".heic" in ENDINGS or "install tinytags[heic]" in remedy_of(".heic")


def test_a_folder_takes_every_ending(tmp_path):
    names = ["a.jfif", "b.jpe", "c.gif", "d.BMP", "e.tif", "f.tiff"]
    for name, kind in zip(names, ["JPEG", "JPEG", "GIF", "BMP", "TIFF", "TIFF"], strict=True):
        (tmp_path / name).write_bytes(encoded(halves(), kind))
    definition = make_definition("kinds", {"source": str(tmp_path), "format": "folder"})
    files = SourceFiles(str(tmp_path))
    listing = MemoryListing(list_items(files, definition))
    (batch,) = open_reader(definition, files, listing).batches(0, 10)
    assert (batch.images, batch.unreadable) == (6, {})
    assert all(np.abs(pixels[:, 2].astype(int) - [255, 0, 0]).max() < 20 for pixels in batch.pixels)


def test_a_tar_takes_every_ending_a_common_one_first_and_no_thumbnails(tmp_path):
    members = {
        "a.jfif": encoded(halves(), "JPEG"),
        "b.gif": encoded(halves(), "GIF"),
        "c.jpg": encoded(halves(), "JPEG"),
        "c.tif": encoded(Image.new("RGB", (32, 32)), "TIFF"),  # a mask
        "@eaDir/c.jpg/thumb.jpg": encoded(Image.new("RGB", (32, 32)), "JPEG"),
    }
    with tarfile.open(tmp_path / "set.tar", "w") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    definition = make_definition("kinds", {"source": str(tmp_path), "format": "webdataset"})
    files = SourceFiles(str(tmp_path))
    listing = MemoryListing(list_items(files, definition))
    (batch,) = open_reader(definition, files, listing).batches(0, 10)
    assert (batch.images, batch.unreadable) == (3, {})
    assert all(pixels[0, 0, 0] > 200 for pixels in batch.pixels)
    (group,) = files.left_out
    assert (group.count, group.example) == (1, f"{tmp_path}/set.tar, member @eaDir/c.jpg/thumb.jpg")
    assert [item.member for _, item in listing.items(0, 3)] == ["a.jfif", "b.gif", "c.jpg"]
