"""The Tiny Images file: fixed-size images one after another, column-major planes.

Format: A. Torralba, R. Fergus, W. T. Freeman, "80 million tiny images", PAMI 2008; the MATLAB tools write each image
as ``uint8(32, 32, 3)`` in MATLAB's order, so a byte's index is ``channel * 1024 + column * 32 + row``. It is read by
:mod:`tinytags_tasks.corpus.formats.fixed_records`.
"""

import numpy as np
import numpy.typing as npt

SIDE = 32
"""Height and width in pixels."""

IMAGE_BYTES = SIDE * SIDE * 3
"""Bytes of one image."""


def to_column_major(images: npt.NDArray[np.uint8]) -> bytes:
    """Return the bytes that a Tiny Images file holds for images of shape (images, row, column, channel)."""
    return images.transpose(0, 3, 2, 1).tobytes()
