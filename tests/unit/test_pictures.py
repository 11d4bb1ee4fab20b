"""Pictures turned into images of a corpus: orientation, colours, cropping, and why they are refused."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tinytags_tasks.corpus.labelled import decode_image
from tinytags_tasks.corpus.pictures.prepare import Target, decode_rgb, prepare_picture, prepare_pictures
from tinytags_tasks.errors import BadInputError

RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)


def encoded(picture: Image.Image | np.ndarray, kind: str = "PNG", **options) -> bytes:
    sink = io.BytesIO()
    (Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture).save(sink, kind, **options)
    return sink.getvalue()


def marked(height: int = 32, width: int = 32) -> np.ndarray:
    """Return a picture whose upper left corner is red, upper right green, lower left blue; else noise."""
    pixels = np.random.default_rng(height * width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    pixels[:8, :8], pixels[:8, -8:], pixels[-8:, :8] = RED, GREEN, BLUE
    return pixels


def corners(image: np.ndarray) -> list[list[int]]:
    return [image[row, column].tolist() for row, column in ((0, 0), (0, -1), (-1, 0))]


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_a_picture_of_the_right_size_keeps_its_pixels_in_their_places(kind):
    picture = marked(24, 40)
    found = prepare_picture(encoded(picture, kind, lossless=True), 24, 40)
    np.testing.assert_array_equal(found, picture)
    assert found.flags.c_contiguous
    assert found.flags.writeable


def test_a_jpeg_has_its_corners_where_they_were():
    found = prepare_picture(encoded(marked(64, 64), "JPEG", quality=95, subsampling=0), 32, 32)
    np.testing.assert_allclose(corners(found), [RED, GREEN, BLUE], atol=12)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(
    ("orientation", "stored"),
    [
        (1, lambda upright: upright),
        (2, lambda upright: upright[:, ::-1]),
        (3, lambda upright: upright[::-1, ::-1]),
        (4, lambda upright: upright[::-1]),
        (5, lambda upright: upright.transpose(1, 0, 2)),
        (6, lambda upright: np.rot90(upright)),
        (7, lambda upright: upright[::-1, ::-1].transpose(1, 0, 2)),
        (8, lambda upright: np.rot90(upright, -1)),
    ],
)
def test_a_picture_is_turned_upright_as_its_camera_noted(kind, orientation, stored):
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = marked(32, 48)
    picture = encoded(np.ascontiguousarray(stored(upright)), kind, exif=exif, quality=95, lossless=True)
    found = prepare_picture(picture, 32, 48, resize="none")
    np.testing.assert_allclose(corners(found), [RED, GREEN, BLUE], atol=12)
    assert decode_image(picture).shape == (32, 48, 3)


@pytest.mark.parametrize("orientation", [0, 9, 6_000])
def test_an_orientation_that_is_none_is_passed_over(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(prepare_picture(encoded(marked(), exif=exif), 32, 32), marked())


def test_broken_notes_of_a_camera_do_not_make_its_picture_unreadable():
    picture = encoded(marked(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff" + bytes(20), quality=95, subsampling=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        np.testing.assert_allclose(corners(prepare_picture(picture, 32, 32)), [RED, GREEN, BLUE], atol=12)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_what_is_transparent_lies_on_white(mode):
    picture = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
    picture.paste((0, 0, 0, 255), (0, 0, 16, 32))
    picture.paste((0, 0, 0, 128), (8, 0, 16, 32))
    stored = picture.quantize(8) if mode == "PA" else picture.convert(mode)  # in PNG, alpha is not part of a palette
    found = prepare_picture(encoded(stored), 32, 32)
    assert found[0, 0].tolist() == list(BLACK)
    assert found[0, -1].tolist() == list(WHITE)
    np.testing.assert_allclose(found[0, 10], [127] * 3, atol=2)


def test_a_colour_that_stands_for_transparent_becomes_white():
    for picture, colour in (
        (Image.new("RGB", (32, 32), RED), RED),
        (Image.new("L", (32, 32), 7), 7),
        (Image.fromarray(np.full((32, 32), 700, dtype=np.uint16)), 700),
    ):
        assert prepare_picture(encoded(picture, transparency=colour), 32, 32).tolist() == [[[255] * 3] * 32] * 32


def test_a_palette_gives_its_colours():
    picture = Image.fromarray(marked()).quantize(200)
    np.testing.assert_array_equal(prepare_picture(encoded(picture), 32, 32), np.asarray(picture.convert("RGB")))


def test_a_palette_picture_without_its_palette_is_broken():
    content = encoded(Image.fromarray(marked()).quantize(16))
    at = content.index(b"PLTE")
    size = struct.unpack(">I", content[at - 4 : at])[0]
    with pytest.raises(BadInputError, match="broken PNG: its palette is missing"):
        prepare_picture(content[: at - 4] + content[at + 8 + size :], 32, 32)


def test_cmyk_becomes_rgb():
    picture = Image.new("CMYK", (32, 32), (0, 255, 255, 0))
    np.testing.assert_allclose(prepare_picture(encoded(picture, "JPEG"), 32, 32)[5, 5], RED, atol=4)


def test_sixteen_bits_of_grey_become_eight_without_being_cut_off():
    grey = np.linspace(0, 65_535, 1024).astype(np.uint16).reshape(32, 32)
    found = prepare_picture(encoded(Image.fromarray(grey)), 32, 32)
    np.testing.assert_array_equal(found, np.repeat(np.round(grey / 257).astype(np.uint8)[..., None], 3, axis=2))


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_the_first_picture_of_an_animation_is_taken(kind):
    frames = [Image.new("RGB", (32, 32), colour) for colour in (RED, GREEN)]
    content = encoded(frames[0], kind, save_all=True, append_images=frames[1:], lossless=True)
    assert prepare_picture(content, 32, 32)[3, 3].tolist() == list(RED)


@given(st.integers(1, 80), st.integers(1, 80), st.integers(1, 24), st.integers(1, 24))
def test_crop_takes_the_middle_and_leaves_nothing_of_the_target_empty(height, width, high, wide):
    found = prepare_picture(encoded(np.full((height, width, 3), 255, dtype=np.uint8)), high, wide)
    assert found.shape == (high, wide, 3)
    assert found.min() == 255


def test_crop_cuts_as_much_from_both_sides():
    picture = np.zeros((32, 96, 3), dtype=np.uint8)
    picture[:, 32:64] = marked()
    np.testing.assert_array_equal(prepare_picture(encoded(picture), 32, 32), marked())
    np.testing.assert_array_equal(
        prepare_picture(encoded(np.ascontiguousarray(picture.transpose(1, 0, 2))), 32, 32), marked().transpose(1, 0, 2)
    )


@given(st.integers(1, 80), st.integers(1, 80), st.integers(1, 24), st.integers(1, 24))
def test_fit_shows_the_whole_picture_between_black_bars(height, width, high, wide):
    found = prepare_picture(encoded(np.full((height, width, 3), 255, dtype=np.uint8)), high, wide, resize="fit")
    assert found.shape == (high, wide, 3)
    rows, columns = found.any(axis=(1, 2)), found.any(axis=(0, 2))
    shown_height, shown_width = int(rows.sum()), int(columns.sum())
    assert shown_height == high or shown_width == wide
    scale = min(high / height, wide / width)
    assert abs(shown_height - height * scale) <= 1
    assert abs(shown_width - width * scale) <= 1
    for shown in (rows, columns):
        at = np.flatnonzero(shown)
        assert abs(int(at[0]) - (len(shown) - 1 - int(at[-1]))) <= 1


def test_a_box_filter_averages_the_pixels_that_it_covers():
    small = marked()
    large = np.repeat(np.repeat(small, 2, axis=0), 2, axis=1)
    large[20, 20], large[20, 21], large[21, 20], large[21, 21] = 0, 100, 100, 200
    small[10, 10] = 100
    np.testing.assert_array_equal(prepare_picture(encoded(large), 32, 32), small)


@pytest.mark.parametrize("filter_name", ["box", "bilinear", "hamming", "bicubic", "lanczos"])
def test_every_filter_sees_all_pixels_when_it_makes_smaller(filter_name):
    stripes = np.zeros((256, 256, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    found = prepare_picture(encoded(stripes), 32, 32, filter=filter_name)
    assert 118 < found.mean() < 137
    assert found.std() < 12


@pytest.mark.parametrize("resize", ["crop", "fit"])
def test_a_large_jpeg_looks_as_if_all_of_it_had_been_decoded(resize):
    picture = Image.fromarray(marked(20, 28)[::4, ::4]).resize((700, 500), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112] = 6
    jpeg = encoded(picture, "JPEG", quality=95, exif=exif)
    whole = prepare_picture(encoded(decode_rgb(jpeg)), 32, 24, resize=resize)
    assert decode_rgb(jpeg, smallest=(48, 64)).size < (500, 700)
    np.testing.assert_allclose(prepare_picture(jpeg, 32, 24, resize=resize), whole.astype(int), atol=16)


@pytest.mark.parametrize(("width", "height"), [(700, 500), (64, 640), (129, 128), (90, 90), (127, 4_000)])
def test_a_jpeg_is_never_decoded_smaller_than_asked(width, height):
    found = decode_rgb(encoded(Image.new("RGB", (width, height)), "JPEG"), smallest=(64, 64))
    assert min(found.size) >= 64


def test_none_takes_only_pictures_of_the_size():
    assert prepare_picture(encoded(marked()), 32, 32, resize="none").shape == (32, 32, 3)
    with pytest.raises(BadInputError, match=r"^64x48 and not 32x32$"):
        prepare_picture(encoded(marked(48, 64)), 32, 32, resize="none")


def png_head(width: int, height: int) -> bytes:
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = b"IDAT" + zlib.compress(b"")
    chunks = [
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in (head, pixels)
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def test_a_decompression_bomb_is_not_opened():
    with pytest.raises(BadInputError, match=r"^12,000 x 9,000 pixels are more than 100,000,000: not opened \(decomp"):
        prepare_picture(png_head(12_000, 9_000), 32, 32)
    with pytest.raises(BadInputError, match=r"more than 100,000,000: not opened \(decompression bomb\?\); TINYTAGS"):
        prepare_picture(png_head(60_000, 60_000), 32, 32)
    with pytest.raises(BadInputError, match="broken PNG"):
        prepare_picture(png_head(10_000, 10_000), 32, 32)
    with pytest.raises(BadInputError, match=r"^100,000,000 x 1 pixels: not opened, because a side is too long"):
        prepare_picture(png_head(100_000_000, 1), 32, 32)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not a picture: 0 bytes"),
        (b"<html>not found</html>", "not a picture: neither JPEG, PNG nor WebP"),
        (encoded(marked(), "PPM"), "not a picture: neither JPEG, PNG nor WebP"),
        (encoded(marked(), "JPEG")[:500], "(not a picture|broken JPEG): .*[Tt]runcated"),
        (encoded(marked(), "JPEG")[:-200], "broken JPEG: image file is truncated"),
        (encoded(marked(), "PNG")[:-600], "broken PNG: .*truncated"),
        (encoded(marked(), "WEBP")[:-40], "not a picture|broken WebP"),
    ],
)
def test_why_a_picture_cannot_be_read_is_told_in_one_line_that_never_varies(content, reason):
    for _ in range(2):
        with pytest.raises(BadInputError, match=f"^({reason})") as caught:
            prepare_picture(content, 32, 32)
        assert "\n" not in str(caught.value)
        assert "0x" not in str(caught.value)


@pytest.mark.parametrize("content", [encoded(marked(9, 7), kind) for kind in ("JPEG", "PNG", "WEBP")])
def test_a_picture_with_any_damaged_byte_is_read_or_refused_but_never_crashes(content):
    for at in range(0, len(content), 3):
        damaged = bytearray(content)
        damaged[at] ^= 0xFF
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                assert prepare_picture(bytes(damaged), 4, 4).shape == (4, 4, 3)
        except BadInputError as error:
            assert str(error).startswith(("not a picture", "broken", "more than")) or "not opened" in str(error)


@pytest.mark.parametrize("resize", ["crop", "fit"])
def test_many_pictures_are_what_each_is_by_itself(resize):
    sizes = [(32, 32), (20, 60), (61, 20), (33, 32), (1, 1)]
    pictures = [
        encoded(marked(*size)) if min(size) > 8 else encoded(np.full((1, 1, 3), 9, dtype=np.uint8)) for size in sizes
    ]
    broken = [*pictures[:2], b"no picture", *pictures[2:]]
    content, reasons = prepare_pictures(broken, Target(24, 16, resize))
    found = np.frombuffer(content, dtype=np.uint8).reshape(-1, 24, 16, 3)
    assert list(reasons) == [2]
    assert not found[2].any()
    for image, picture in zip(np.delete(found, 2, axis=0), pictures, strict=True):
        np.testing.assert_array_equal(image, prepare_picture(picture, 24, 16, resize=resize))
