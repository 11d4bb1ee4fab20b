"""The Tiny Images file: fixed-size images one after another, column-major planes.

Format: A. Torralba, R. Fergus, W. T. Freeman, "80 million tiny images", PAMI 2008; the MATLAB tools write each image
as ``uint8(32, 32, 3)`` in MATLAB's order, so a byte's index is ``channel * 1024 + column * 32 + row``.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from tinytags_tasks.errors import BadInputError

SIDE = 32
"""Height and width in pixels."""

IMAGE_BYTES = SIDE * SIDE * 3
"""Bytes of one image."""


def from_column_major(stored: bytes | bytearray | memoryview) -> npt.NDArray[np.uint8]:
    """Return images in TinyTags' own order.

    Parameters
    ----------
    stored
        A multiple of :data:`IMAGE_BYTES` bytes as the file holds them.

    Returns
    -------
    numpy.ndarray
        uint8, shape (images, row, column, channel), C-contiguous.
    """
    planes = np.frombuffer(stored, dtype=np.uint8).reshape(-1, 3, SIDE, SIDE)
    return np.ascontiguousarray(planes.transpose(0, 3, 2, 1))


def to_column_major(images: npt.NDArray[np.uint8]) -> bytes:
    """Return the bytes that a Tiny Images file holds for images of shape (images, row, column, channel)."""
    return images.transpose(0, 3, 2, 1).tobytes()


class TinyImagesReader:
    """Reads a Tiny Images file by position.

    Parameters
    ----------
    path
        The ``.bin`` file.

    Raises
    ------
    BadInputError
        When there is no such file, it is empty, or its size is no multiple of 3,072 bytes.
    """

    pixel_order = "column-major planes R, G, B"

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():
            raise BadInputError(f"{path}: no such file; give the path of a Tiny Images .bin file")
        try:
            self.size_bytes = path.stat().st_size
            self._file = path.open("rb")
        except OSError as error:
            raise BadInputError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
        self.images, rest = divmod(self.size_bytes, IMAGE_BYTES)
        if rest:
            raise BadInputError(
                f"{path}: {self.size_bytes:,} bytes are {self.images:,} images of {IMAGE_BYTES:,} bytes and {rest:,} "
                f"bytes too many at offset {self.images * IMAGE_BYTES:,}; is it complete, and a Tiny Images file?"
            )
        if not self.images:
            raise BadInputError(f"{path}: the file is empty; give a file with at least one image")

    def read(self, first: int, images: int) -> npt.NDArray[np.uint8]:
        """Return images by position.

        Parameters
        ----------
        first
            Position of the first one.
        images
            How many.

        Returns
        -------
        numpy.ndarray
            uint8, shape (images, 32, 32, 3).

        Raises
        ------
        BadInputError
            When the file ends before them: it was cut short while it was read.
        """
        self._file.seek(first * IMAGE_BYTES)
        stored = self._file.read(images * IMAGE_BYTES)
        if len(stored) != images * IMAGE_BYTES:
            raise BadInputError(
                f"{self.path}: ends at offset {first * IMAGE_BYTES + len(stored):,} where image "
                f"{first + len(stored) // IMAGE_BYTES:,} is expected; it became shorter while it was read"
            )
        return from_column_major(stored)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
