"""What every format's reader is: images by position, in TinyTags' own order, with what could not be read."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class ListedItem:
    """A file of a source, or one encoded image of a file, in the order of their positions.

    Attributes
    ----------
    path
        The file, as :class:`tinytags_tasks.corpus.sources.files.SourceFiles` names it.
    images
        How many it holds.
    offset, size_bytes
        Where it lies in the file, and its bytes.
    version
        What tells that the file has changed.
    keyword
        The image's keyword where the listing knows it.
    """

    path: str
    images: int
    offset: int
    size_bytes: int
    version: str
    keyword: str | None = None


@dataclass(frozen=True, eq=False)
class Batch:
    """Some consecutive images.

    Attributes
    ----------
    first
        Position of the first one.
    images
        How many.
    pixels
        uint8, shape (images, row, column, 3), C-contiguous; unreadable ones are zeros. None when not asked for.
    unreadable
        Why, by position.
    keywords
        One an image, None where an image has none; empty when the corpus has no keywords.
    encoded
        The images' encoded bytes, for hashing; empty where the source holds pixels.
    """

    first: int
    images: int
    pixels: npt.NDArray[np.uint8] | None
    unreadable: dict[int, str] = field(default_factory=dict)
    keywords: list[str | None] = field(default_factory=list)
    encoded: list[bytes] = field(default_factory=list)


class Listing(Protocol):
    """What a source holds, in the order of the positions."""

    def items(self, first: int, images: int) -> Iterator[tuple[int, ListedItem]]:
        """Yield the items that hold these positions, each with the position of its own first image."""
        ...


class Reader(Protocol):
    """Reads one source."""

    def batches(self, first: int, images: int, *, decode: bool = True) -> Iterator[Batch]:
        """Yield the images from a position on, in their order, a few thousand at most at a time.

        Parameters
        ----------
        first
            Position of the first one.
        images
            How many.
        decode
            Whether pixels are wanted; without them a batch has only what the source holds encoded.

        Raises
        ------
        BadInputError
            When the source is not as it was listed: which file, where.
        TransientError
            When a remote source does not answer now.
        """
        ...

    def close(self) -> None:
        """Close its files and end its workers."""
        ...
