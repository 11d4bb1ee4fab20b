"""What a picture looks like in two numbers: copies of a picture that were compressed or resized again mostly share one.

A picture's brightness is broken down into :data:`_WAVES`, the coarsest of its cosine transform. Each is rounded to a
multiple of its step, and a look is a hash of these multiples. A copy differs little in them, but now and then enough to
be rounded elsewhere; the other look, whose steps lie half a step further, then mostly stays the same. All arithmetic is
on whole numbers, so that every machine gives the same. Figures, and what else was tried: ``docs/adr/0030-similar.md``.
"""

from functools import lru_cache

import numpy as np
import numpy.typing as npt

Looks = npt.NDArray[np.int32]
"""Shape (images, 2): a look and the other one."""

_WAVES = ((0, 0), (1, 0), (2, 0), (3, 0), (4, 0), (0, 1), (0, 2), (1, 1), (2, 1), (2, 2))
"""Half-waves down and across the picture."""

_STEPS = (320, 150, 140, 115, 110, 120, 120, 75, 75, 75)
"""About sixty times what copies differ by on average, in hundredths of a level of brightness (0 to 255)."""

_WEIGHTS = np.array([38.0, 75.0, 15.0])
"""Of red, green and blue in the brightness (ITU-R BT.601), times 128."""

_SCALE = 256
"""What cosines are multiplied by before they are rounded. Sums stay below 2**53 up to four million pixels a picture."""

_PIXELS_AT_ONCE = 2**20


def looks(pixels: npt.NDArray[np.uint8], width: int) -> Looks:
    """Return the looks of pictures.

    Parameters
    ----------
    pixels
        Shape (images, height * width * 3), row-major HWC.
    width
        Pixels in a row.
    """
    height = pixels.shape[1] // (3 * width)
    found = np.empty((len(pixels), 2), dtype=np.int32)
    at_once = max(1, _PIXELS_AT_ONCE // (height * width))
    for start in range(0, len(pixels), at_once):
        part = pixels[start : start + at_once]
        found[start : start + at_once] = _looks(part.reshape(len(part), height, width, 3))
    return found


def _looks(pictures: npt.NDArray[np.uint8]) -> Looks:
    images, height, width, _ = pictures.shape
    rows = pictures.reshape(images * height, 3 * width).astype(np.float64)
    across = np.kron(_cosines(width), _WEIGHTS).T
    transformed = _cosines(height) @ (rows @ across).reshape(images, height, -1)
    waves = transformed[:, *np.array(_WAVES).T].astype(np.int64)
    half_steps = np.array(_STEPS, dtype=np.int64) * (128 * _SCALE * _SCALE * height * width // 200)
    multiples = np.stack([waves // (2 * half_steps), (waves + half_steps) // (2 * half_steps)], axis=1)
    return _hashes(multiples.astype(np.uint64))


@lru_cache(maxsize=8)
def _cosines(size: int) -> npt.NDArray[np.float64]:
    """Return the waves along a side of the picture, one a row: whole numbers, in a type that BLAS multiplies fast."""
    places = (2 * np.arange(size) + 1) * (np.pi / (2 * size))
    rows: npt.NDArray[np.float64] = np.rint(_SCALE * np.cos(np.arange(5)[:, None] * places))
    return rows


def _hashes(numbers: npt.NDArray[np.uint64]) -> Looks:
    """Hash the numbers along the last axis to 32 bits, by the multiplications of SplitMix64 (Steele et al., 2014)."""
    mixed = np.zeros(numbers.shape[:-1], dtype=np.uint64)
    for column in np.moveaxis(numbers, -1, 0):
        mixed = (mixed ^ column) + np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed ^= mixed >> np.uint64(31)
    return (mixed >> np.uint64(32)).astype(np.uint32).view(np.int32)
