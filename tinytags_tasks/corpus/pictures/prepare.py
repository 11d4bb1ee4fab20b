"""Decodes encoded pictures to images of one size."""

import io
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

from tinytags_tasks.corpus.picture_kinds import FORMATS, MORE_KINDS, kind_of, register_heif
from tinytags_tasks.corpus.pictures.jpeg_cut import is_cut
from tinytags_tasks.corpus.pictures.orientation import UPRIGHT, orientation_of
from tinytags_tasks.corpus.pictures.png_chunks import transparent_colour, without_large_notes
from tinytags_tasks.errors import BadInputError, joined_lines

Resize = Literal["crop", "fit", "none"]
"""How a picture of another size is fitted to the corpus' size: cropped to the middle, or whole between black bars;
``none`` makes it unreadable."""

Filter = Literal["box", "bilinear", "hamming", "bicubic", "lanczos"]
"""Pillow's resampling filters; when shrinking, all of them average the covered pixels."""

_MOST_REDUCED = 10
"""How many times as many pixels a JPEG may have that is decoded at a fraction, line by line."""

_LONGEST_SIDE = 10_000_000
"""Pillow cannot hold rows of tens of millions of pixels."""

Image.MAX_IMAGE_PIXELS = None  # decode_rgb has a bound of its own, and says what it is

# What Pillow's parsers raise on damaged bytes; its assertions also concern the file.
_DAMAGE = (
    AssertionError,
    OSError,
    EOFError,
    ValueError,
    SyntaxError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    RuntimeError,  # of libavif
    struct.error,
    zlib.error,
)


@cache
def most_pixels() -> int:
    """Return how many pixels of a picture are held in memory; the setting ``most_pixels``."""
    from tinytags_tasks.settings import load_settings  # takes longer to import than all that a decoder process needs

    return load_settings().most_pixels


@dataclass(frozen=True)
class Target:
    """The size in pixels that pictures are brought to, and how; see a corpus' definition."""

    height: int
    width: int
    resize: Resize = "crop"
    filter: Filter = "box"
    most_pixels: int = field(default_factory=most_pixels)

    @property
    def image_bytes(self) -> int:
        """Bytes of one image."""
        return self.height * self.width * 3


def decode_rgb(
    encoded: bytes,
    formats: tuple[str, ...] | None = FORMATS,
    smallest: tuple[int, int] | None = None,
    bound: int | None = None,
) -> Image.Image:
    """Decode a picture to RGB: upright, transparent parts on white; the first frame of an animation.

    Parameters
    ----------
    encoded
        A picture file.
    formats
        The formats that are tried; None tries all that Pillow reads.
    smallest
        A sufficient width and height in pixels: a JPEG may be decoded at a half, a quarter or an eighth of its size,
        which is faster, as long as it does not become smaller than this.
    bound
        A picture with more pixels is not opened; a JPEG may have ten times as many if it is decoded at a fraction.
        None takes the setting ``most_pixels``.

    Raises
    ------
    BadInputError
        If it is not a picture, damaged, or too big: only the reason, because the caller knows the picture's name.
    """
    if not encoded:
        raise BadInputError("not a picture: 0 bytes")
    bound = most_pixels() if bound is None else bound
    register_heif()
    try:
        return _decode(encoded, formats, smallest, bound)
    except _LargeNotesError:
        return _decode(without_large_notes(encoded), formats, smallest, bound)


class _LargeNotesError(Exception):
    """A PNG has more text, or a larger profile, than Pillow reads."""


def _decode(
    encoded: bytes, formats: tuple[str, ...] | None, smallest: tuple[int, int] | None, bound: int
) -> Image.Image:
    picture = _open(encoded, formats)
    is_jpeg = picture.format in ("JPEG", "MPO")
    width, height = picture.size
    try:
        if is_jpeg and smallest is not None and width * height <= _MOST_REDUCED * bound:
            _reduce(picture, smallest)
        held = width * height if picture.info.get("progressive") else picture.width * picture.height
        _check_size(width, height, held, bound)
        picture.load()
        if is_jpeg and is_cut(encoded, picture, lambda other: _decode_alike(other, smallest)):
            raise ValueError("its data ends early, before its end marker; it was cut off, or copied in part")
        orientation = orientation_of(picture)
        rgb = _to_rgb(picture, encoded)
        return rgb if orientation == 1 else rgb.transpose(UPRIGHT[orientation])
    except _DAMAGE as error:
        _check_notes(error)
        raise BadInputError(f"broken {_name(picture.format)}: {_one_line(error)}") from error


def _check_size(width: int, height: int, held: int, bound: int) -> None:
    """Refuse a picture of which more pixels would be held than the bound, or whose rows or columns are endless."""
    if held > bound:
        raise BadInputError(
            f"{width:,} x {height:,} pixels are more than {bound:,}: not opened (decompression bomb?); "
            "TINYTAGS_MOST_PIXELS sets the bound"
        )
    if max(width, height) > _LONGEST_SIDE:
        raise BadInputError(f"{width:,} x {height:,} pixels: not opened, because a side is too long")


def _open(encoded: bytes, formats: tuple[str, ...] | None) -> Image.Image:
    try:
        return Image.open(io.BytesIO(encoded), formats=formats)
    except UnidentifiedImageError as error:
        if kind := kind_of(encoded):
            raise BadInputError(f"broken {kind}: its head cannot be read") from error
        kinds = f"neither JPEG, PNG nor WebP, nor {MORE_KINDS}" if formats == FORMATS else "of no known format"
        raise BadInputError(f"not a picture: {kinds}, or its head is broken") from error
    except _DAMAGE as error:
        _check_notes(error)
        kind = kind_of(encoded)
        raise BadInputError(f"{f'broken {kind}' if kind else 'not a picture'}: {_one_line(error)}") from error


def _name(format_name: str | None) -> str:
    return {"WEBP": "WebP", "MPO": "JPEG", None: "picture"}.get(format_name, format_name or "")


def _check_notes(error: BaseException) -> None:
    if isinstance(error, ValueError) and "MAX_TEXT" in str(error):
        raise _LargeNotesError from error


def _reduce(picture: Image.Image, smallest: tuple[int, int]) -> None:
    """Have a JPEG decoded at a fraction."""
    picture.draft(None, smallest[::-1] if orientation_of(picture) > 4 else smallest)


def _decode_alike(encoded: bytes, smallest: tuple[int, int] | None) -> Image.Image:
    picture = JpegImageFile(io.BytesIO(encoded))
    if smallest is not None and "progressive" not in picture.info:
        _reduce(picture, smallest)
    picture.load()
    return picture


def _one_line(error: BaseException) -> str:
    return joined_lines(error)[:200] or type(error).__name__


def _to_rgb(picture: Image.Image, encoded: bytes) -> Image.Image:
    transparency = picture.info.get("transparency")
    if picture.mode == "RGB" and transparency is None:
        return picture
    if picture.mode in ("I", "F"):
        raise ValueError("its pixels are numbers of 32 bits, whose black and white are not known; convert it to 8 bits")
    if picture.mode.startswith("I;16"):  # Pillow's own conversion cuts off at 255
        grey = np.asarray(picture).astype(np.uint32)
        white = grey == (-1 if transparency is None else transparency)
        return Image.fromarray(np.where(white, 255, (grey * 255 + 32_767) // 65_535).astype(np.uint8)).convert("RGB")
    if picture.mode in ("P", "PA") and picture.palette is None:
        raise ValueError("its palette is missing")
    if picture.has_transparency_data:
        if picture.format == "PNG" and transparency is not None:
            picture.info["transparency"] = transparent_colour(encoded, transparency)
        picture = picture.convert("RGBA")
        canvas = Image.new("RGB", picture.size, "white")
        canvas.paste(picture, mask=picture.getchannel("A"))
        return canvas
    return picture.convert("RGB")


def _fitted(encoded: bytes, target: Target) -> tuple[Image.Image, tuple[int, int]]:
    """Return a picture that fits into the target, and the place of its upper left corner."""
    wide, high = target.width, target.height
    smallest = None if target.resize == "none" else (2 * wide, 2 * high)
    rgb = decode_rgb(encoded, FORMATS, smallest, target.most_pixels)
    width, height = rgb.size
    if (width, height) == (wide, high):
        return rgb, (0, 0)
    if target.resize == "none":
        raise BadInputError(f"{width}x{height} and not {wide}x{high}")
    resampling = Image.Resampling[target.filter.upper()]
    if target.resize == "fit":
        scale = min(wide / width, high / height)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        return rgb.resize(size, resampling), ((wide - size[0]) // 2, (high - size[1]) // 2)
    cut_width = min(width, max(1, round(height * wide / high)))
    cut_height = min(height, max(1, round(width * high / wide)))
    left, top = (width - cut_width) // 2, (height - cut_height) // 2
    return rgb.resize((wide, high), resampling, (left, top, left + cut_width, top + cut_height)), (0, 0)


def prepare_picture(
    encoded: bytes, height: int, width: int, *, resize: Resize = "crop", filter: Filter = "box"
) -> npt.NDArray[np.uint8]:
    """Decode a picture to an image of a corpus.

    Parameters
    ----------
    encoded
        A JPEG, PNG or WebP file.
    height, width
        Of the image, in pixels.
    resize
        ``crop`` takes the middle, ``fit`` keeps the whole picture between black bars, ``none`` accepts only pictures
        of this size.
    filter
        Pillow's resampling filter; when shrinking, it averages all pixels that it covers.

    Returns
    -------
    numpy.ndarray
        uint8, shape (height, width, 3).

    Raises
    ------
    BadInputError
        If it cannot be decoded: the reason, in a few words.
    """
    target = Target(height, width, resize, filter)
    picture, corner = _fitted(encoded, target)
    if picture.size != (width, height):
        canvas = Image.new("RGB", (width, height))
        canvas.paste(picture, corner)
        picture = canvas
    return np.array(picture)


def prepare_pictures(encoded: Sequence[bytes], target: Target) -> tuple[bytes, dict[int, str]]:
    """Decode pictures to images of a corpus, as :func:`prepare_picture` does.

    Returns
    -------
    tuple
        The pixels of all, uint8 (pictures, height, width, 3), zeros where decoding failed; and the reasons by index.
    """
    # One tall sheet: taking an image's pixels out of Pillow costs as much as pasting ten of them.
    sheet = Image.new("RGB", (target.width, target.height * len(encoded)))
    reasons = {}
    for place, picture in enumerate(encoded):
        try:
            image, (left, top) = _fitted(picture, target)
        except BadInputError as error:
            reasons[place] = str(error)
        else:
            sheet.paste(image, (left, place * target.height + top))
    return sheet.tobytes(), reasons
