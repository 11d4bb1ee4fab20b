"""Decodes encoded pictures to images of one size."""

import io
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from tinytags_tasks.corpus.picture_kinds import FORMATS, MORE_KINDS, register_heif
from tinytags_tasks.errors import BadInputError

Resize = Literal["crop", "fit", "none"]
"""How a picture of another size is fitted to the corpus' size: cropped to the middle, or whole between black bars;
``none`` makes it unreadable."""

Filter = Literal["box", "bilinear", "hamming", "bicubic", "lanczos"]
"""Pillow's resampling filters; when shrinking, all of them average the covered pixels."""

MOST_PIXELS = 50_000_000
"""A picture with more is not opened: a small file may claim more pixels than fit into memory."""

_ORIENTATION = 0x0112
"""The tag of Exif 2.32 (CIPA DC-008), 4.6.4 A, with the orientation of the camera."""

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

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


@dataclass(frozen=True)
class Target:
    """The size in pixels that pictures are brought to, and how; see a corpus' definition."""

    height: int
    width: int
    resize: Resize = "crop"
    filter: Filter = "box"

    @property
    def image_bytes(self) -> int:
        """Bytes of one image."""
        return self.height * self.width * 3


def decode_rgb(
    encoded: bytes, formats: tuple[str, ...] | None = FORMATS, smallest: tuple[int, int] | None = None
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

    Raises
    ------
    BadInputError
        If it is not a picture, damaged, or too big: only the reason, because the caller knows the picture's name.
    """
    if not encoded:
        raise BadInputError("not a picture: 0 bytes")
    register_heif()
    try:
        picture = Image.open(io.BytesIO(encoded), formats=formats)
    except UnidentifiedImageError as error:
        kinds = f"neither JPEG, PNG nor WebP, nor {MORE_KINDS}" if formats == FORMATS else "of no known format"
        raise BadInputError(f"not a picture: {kinds}, or its head is broken") from error
    except Image.DecompressionBombError as error:
        raise BadInputError(f"more than {MOST_PIXELS:,} pixels: not opened (decompression bomb)") from error
    except _DAMAGE as error:
        raise BadInputError(f"not a picture: {_one_line(error)}") from error
    width, height = picture.size
    if width * height > MOST_PIXELS:
        raise BadInputError(
            f"{width:,} x {height:,} pixels are more than {MOST_PIXELS:,}: not opened (decompression bomb)"
        )
    try:
        if smallest is not None and picture.format == "JPEG":
            picture.draft(None, smallest[::-1] if _orientation(picture) > 4 else smallest)
        picture.load()
        rgb = _to_rgb(picture)
        orientation = _orientation(picture)
        return rgb if orientation == 1 else rgb.transpose(_UPRIGHT[orientation])
    except _DAMAGE as error:
        raise BadInputError(
            f"broken {(picture.format or 'picture').replace('WEBP', 'WebP')}: {_one_line(error)}"
        ) from error


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _orientation(picture: Image.Image) -> int:
    if "exif" not in picture.info:
        return 1
    try:
        orientation = picture.getexif().get(_ORIENTATION)
    except _DAMAGE:
        return 1  # damaged Exif data does not make the picture unreadable
    return orientation if isinstance(orientation, int) and orientation in _UPRIGHT else 1


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode == "RGB" and "transparency" not in picture.info:
        return picture
    if picture.mode in ("I", "F"):
        raise ValueError("its pixels are numbers of 32 bits, whose black and white are not known; convert it to 8 bits")
    if picture.mode.startswith("I;16"):  # Pillow's own conversion cuts off at 255
        grey = np.asarray(picture).astype(np.uint32)
        white = grey == picture.info.get("transparency", -1)
        return Image.fromarray(np.where(white, 255, (grey * 255 + 32_767) // 65_535).astype(np.uint8)).convert("RGB")
    if picture.mode in ("P", "PA") and picture.palette is None:
        raise ValueError("its palette is missing")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        canvas = Image.new("RGB", picture.size, "white")
        canvas.paste(picture, mask=picture.getchannel("A"))
        return canvas
    return picture.convert("RGB")


def _fitted(encoded: bytes, target: Target) -> tuple[Image.Image, tuple[int, int]]:
    """Return a picture that fits into the target, and the place of its upper left corner."""
    wide, high = target.width, target.height
    smallest = None if target.resize == "none" else (2 * wide, 2 * high)
    rgb = decode_rgb(encoded, FORMATS, smallest)
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
