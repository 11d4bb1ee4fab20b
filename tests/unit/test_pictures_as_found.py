"""Pictures as programs and cameras leave them: notes in many places, odd PNGs, JPEGs that were cut, and huge ones."""

import io
import struct
import zlib
from contextlib import closing

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from tinytags_tasks.corpus.pictures.decoder import PictureDecoder
from tinytags_tasks.corpus.pictures.prepare import Target, decode_rgb, most_pixels, prepare_picture
from tinytags_tasks.errors import BadInputError

CUT = "^broken JPEG: (its data ends early, before its end marker|broken data stream|image file is truncated)"


def encoded(picture: Image.Image, kind: str, **options) -> bytes:
    sink = io.BytesIO()
    picture.save(sink, kind, **options)
    return sink.getvalue()


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    """Return coarse noise, so that a JPEG of it has data everywhere."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height // 4 + 1, width // 4 + 1, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)


def exif(orientation: int) -> bytes:
    notes = Image.Exif()
    notes[0x0112] = orientation
    content = notes.tobytes()
    return content if content.startswith(b"Exif\0\0") else b"Exif\0\0" + content


def xmp(orientation: int, *, is_element: bool = False) -> bytes:
    value = f"<tiff:Orientation>{orientation}</tiff:Orientation>" if is_element else ""
    attribute = "" if is_element else f" tiff:Orientation='{orientation}'"
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/"{attribute}>{value}</rdf:Description>'
        "</rdf:RDF></x:xmpmeta>"
    ).encode()


def raw_profile(name: str, content: bytes) -> PngImagePlugin.PngInfo:
    notes = PngImagePlugin.PngInfo()
    notes.add_text(f"Raw profile type {name}", f"\n{name}\n{len(content):8d}\n{content.hex()}\n", zip=True)
    return notes


def xmp_chunk(orientation: int, padding: str = "") -> PngImagePlugin.PngInfo:
    notes = PngImagePlugin.PngInfo()
    if padding:
        notes.add_text("Comment", padding, zip=True)
    notes.add_itxt("XML:com.adobe.xmp", xmp(orientation).decode())
    return notes


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {"xmp": xmp(6)}),
        ("JPEG", {"xmp": xmp(6, is_element=True)}),
        ("WEBP", {"xmp": xmp(6)}),
        ("PNG", {"exif": exif(6)}),
        ("PNG", {"pnginfo": xmp_chunk(6)}),
        ("PNG", {"pnginfo": raw_profile("exif", exif(6))}),
        ("PNG", {"pnginfo": raw_profile("APP1", exif(6))}),
        ("PNG", {"pnginfo": raw_profile("xmp", xmp(6))}),
        ("PNG", {"pnginfo": xmp_chunk(6, "x" * 2_000_000)}),
        ("JPEG", {"xmp": xmp(1), "exif": exif(6)}),
        ("WEBP", {"xmp": xmp(3), "exif": exif(6)}),
        ("PNG", {"pnginfo": xmp_chunk(1), "exif": exif(6)}),
        ("JPEG", {"xmp": xmp(6), "exif": exif(9)}),
    ],
)
def test_a_picture_is_turned_as_any_of_its_notes_say_and_exif_wins(kind, options):
    picture = noise(96, 64)
    found = decode_rgb(encoded(picture, kind, **options))
    assert found.size == (64, 96)
    plain = decode_rgb(encoded(picture, kind))
    np.testing.assert_array_equal(np.asarray(found), np.asarray(plain.transpose(Image.Transpose.ROTATE_270)))


@pytest.mark.parametrize(
    "options", [{"pnginfo": raw_profile("exif", b"no exif")}, {"pnginfo": xmp_chunk(9)}, {"exif": exif(1)}]
)
def test_notes_that_say_nothing_turn_nothing(options):
    assert decode_rgb(encoded(noise(96, 64), "PNG", **options)).size == (96, 64)


@pytest.mark.parametrize("size", [(32, 32), (500, 375)])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"progressive": True},
        {"subsampling": 0, "optimize": True},
        {"restart_marker_blocks": 3},
        {"progressive": True, "restart_marker_rows": 1},
    ],
)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_jpeg_that_was_cut_is_unreadable_even_if_an_end_marker_follows(size, options, mode):
    whole = encoded(noise(*size).convert(mode), "JPEG", quality=90, **options)
    prepare_picture(whole, 16, 16)
    data = whole.rindex(b"\xff\xda") if not options.get("progressive") else whole.index(b"\xff\xda")
    for share in (0.2, 0.5, 0.7):
        cut = whole[: round(data + 14 + (len(whole) - data - 14) * share)].rstrip(b"\xff")
        with pytest.raises(BadInputError, match=CUT):
            prepare_picture(cut + b"\xff\xd9", 16, 16)


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("trailer", [b"", bytes(100), b"\xff\xd8 of a second picture \xff\xda\xff\xd9"])
def test_grey_pictures_and_what_stands_behind_a_picture_are_no_cut(mode, progressive, trailer):
    for picture in (Image.new("RGB", (100, 60), (128, 128, 128)), noise(100, 60)):
        picture.paste((128, 128, 128), (40, 20, 100, 60))
        whole = encoded(picture.convert(mode), "JPEG", progressive=progressive)
        assert prepare_picture(whole + trailer, 16, 16).shape == (16, 16, 3)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_whole_jpeg_is_never_taken_for_a_cut_one(data):
    width, height = data.draw(st.integers(1, 70)), data.draw(st.integers(1, 70))
    picture = noise(width, height, data.draw(st.integers(0, 9)))
    if data.draw(st.booleans()):
        picture.paste((128, 128, 128), (width // 2, height // 2, width, height))
    options = {
        "quality": data.draw(st.sampled_from([1, 50, 95, 100])),
        "progressive": data.draw(st.booleans()),
        "subsampling": data.draw(st.sampled_from([0, 1, 2])),
        "restart_marker_blocks": data.draw(st.sampled_from([0, 1, 5])),
    }
    mode = data.draw(st.sampled_from(["RGB", "L", "CMYK"]))
    prepare_picture(encoded(picture.convert(mode), "JPEG", **options), 8, 8)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def small_png(bits: int, kind: int, sample: int, transparent: bytes, palette: bytes = b"") -> bytes:
    """Return a PNG of 8 x 8 equal pixels."""
    samples = 3 if kind == 2 else 1
    row = int("".join(format(sample, f"0{bits}b") * samples for _ in range(8)), 2).to_bytes(bits * samples)
    head = struct.pack(">IIBBBBB", 8, 8, bits, kind, 0, 0, 0)
    chunks = [chunk(b"IHDR", head), *([chunk(b"PLTE", palette)] if palette else []), chunk(b"tRNS", transparent)]
    return b"".join(
        [b"\x89PNG\r\n\x1a\n", *chunks, chunk(b"IDAT", zlib.compress((b"\0" + row) * 8)), chunk(b"IEND", b"")]
    )


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("kind", [0, 2])
def test_the_colour_that_stands_for_transparent_becomes_white_whatever_its_bits(bits, kind):
    if kind == 2 and bits < 8:
        return  # PNG has no such pictures
    most = (1 << bits) - 1
    for sample in {0, 1, most // 3, most - 1}:
        other = sample ^ (most >> 1 or 1)
        for transparent in (sample, other):
            found = prepare_picture(small_png(bits, kind, sample, struct.pack(">H", transparent) * (kind + 1)), 8, 8)
            shown = 255 if transparent == sample else round(sample * 255 / most)
            np.testing.assert_allclose(found.astype(int), shown, atol=1 if bits == 16 else 0)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_transparent_colours_of_a_palette_become_white(bits):
    palette = bytes([10, 20, 30, 40, 50, 60])
    for alpha, shown in ((b"\xff\0", [255] * 3), (b"\0\xff", [40, 50, 60]), (b"\0", [40, 50, 60])):
        found = prepare_picture(small_png(bits, 3, 1, alpha, palette), 8, 8)
        assert found.tolist() == [[shown] * 8] * 8


def texts(count: int, size: int, way: str) -> PngImagePlugin.PngInfo:
    notes = PngImagePlugin.PngInfo()
    for number in range(count):
        if way == "iTXt":
            notes.add_itxt(f"note {number}", "a" * size, zip=True)
        else:
            notes.add_text(f"note {number}", "a" * size, zip=way == "zTXt")
    return notes


@pytest.mark.parametrize(
    "options",
    [
        {"icc_profile": bytes(2_000_000)},
        {"pnginfo": texts(1, 2_000_000, "zTXt")},
        {"pnginfo": texts(1, 2_000_000, "iTXt")},
        {"pnginfo": texts(70, 1_000_000, "zTXt")},
    ],
)
def test_a_png_with_large_notes_is_read(options):
    picture = noise(32, 32)
    np.testing.assert_array_equal(prepare_picture(encoded(picture, "PNG", **options), 32, 32), np.asarray(picture))


@pytest.mark.parametrize(("kind", "said"), [("PNG", "PNG"), ("JPEG", "JPEG"), ("WEBP", "WebP")])
def test_a_damaged_picture_is_called_by_the_format_of_its_first_bytes(kind, said):
    whole = encoded(noise(32, 32), kind)
    for damaged in (whole[:20], whole[:12] + bytes(40) + whole[52:], whole[:40] + b"\xff" * 10 + whole[50:100]):
        with pytest.raises(BadInputError, match=f"^broken {said}: "):
            prepare_picture(damaged, 32, 32)


def test_a_setting_bounds_the_pixels_and_a_jpeg_decoded_at_a_fraction_may_have_more(monkeypatch):
    png, jpeg = (encoded(noise(400, 300), kind) for kind in ("PNG", "JPEG"))
    progressive = encoded(noise(400, 300), "JPEG", progressive=True)
    monkeypatch.setenv("TINYTAGS_MOST_PIXELS", "100000")
    most_pixels.cache_clear()
    try:
        with closing(PictureDecoder(Target(16, 16), 1, is_apart=True)) as decoder:
            _, reasons = decoder.decode([png, jpeg, progressive])
        assert sorted(reasons) == [0, 2]
        assert reasons[0].startswith("400 x 300 pixels are more than 100,000: not opened")
        assert decode_rgb(encoded(noise(300, 300), "PNG")).size == (300, 300)
        with pytest.raises(BadInputError, match="more than 100,000"):
            decode_rgb(jpeg)  # it is needed in full
        with pytest.raises(BadInputError, match="more than 100,000"):
            prepare_picture(encoded(noise(1_200, 1_000), "JPEG"), 16, 16)
    finally:
        most_pixels.cache_clear()


def test_pictures_of_61_megapixels_are_read():
    jpeg = encoded(Image.new("L", (9_504, 6_336), 90), "JPEG")
    assert prepare_picture(jpeg, 32, 32).tolist() == [[[90] * 3] * 32] * 32
