"""Pictures as the page shows them."""

import base64
import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

LONGEST_SIDE = 320
"""Pixels of a picture's longer side at most: about what a card shows on a high-resolution screen."""

ENLARGED_BELOW = 128
"""Pictures with fewer pixels a side are shown pixel by pixel, larger ones smoothly."""


COMPRESS_LEVEL = 3
"""Of zlib: a picture of 320 pixels a side takes a third of the usual level's time, and 6 % more bytes."""


@dataclass(frozen=True)
class Thumbnail:
    """A picture as the page shows it; ``source`` is empty for one that is missing.

    Attributes
    ----------
    source
        Its ``data:`` address.
    width, height
        Of the picture there, in pixels.
    is_enlarged
        Whether its pixels are to be seen.
    """

    source: str = ""
    width: int = 0
    height: int = 0
    is_enlarged: bool = False


def png_bytes(image: npt.NDArray[np.uint8], scale: int = 1) -> bytes:
    """Return an image of shape (rows, columns, 3) as a PNG, each pixel of it as ``scale`` x ``scale`` pixels."""
    if scale > 1:
        image = image.repeat(scale, axis=0).repeat(scale, axis=1)
    png = io.BytesIO()
    Image.fromarray(image).save(png, "PNG", compress_level=COMPRESS_LEVEL)
    return png.getvalue()


def encode_png(image: npt.NDArray[np.uint8]) -> str:
    """Return an image of shape (rows, columns, 3) as a ``data:`` address."""
    return "data:image/png;base64," + base64.b64encode(png_bytes(image)).decode()


def make_thumbnail(image: npt.NDArray[np.uint8] | None) -> Thumbnail:
    """Return an image of shape (rows, columns, 3) as the page shows it, scaled down if it is large."""
    if image is None:
        return Thumbnail()
    longest = max(image.shape[:2])
    image = reduced(image)
    return Thumbnail(encode_png(image), image.shape[1], image.shape[0], longest < ENLARGED_BELOW)


def reduced(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return an image of shape (rows, columns, 3), scaled down if it is larger than :data:`LONGEST_SIDE`."""
    height, width = image.shape[:2]
    longest = max(height, width)
    if longest <= LONGEST_SIDE:
        return image
    size = (max(1, width * LONGEST_SIDE // longest), max(1, height * LONGEST_SIDE // longest))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX))
