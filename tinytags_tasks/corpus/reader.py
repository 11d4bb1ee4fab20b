"""What the reader of every format provides: images by position, with the reasons for those that cannot be read."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from tinytags_tasks.store.quoting import quoted


@dataclass(frozen=True)
class ListedItem:
    """A file of a source, or one encoded image in such a file; listed in the order of the positions.

    Attributes
    ----------
    path
        The file, as :class:`tinytags_tasks.corpus.sources.files.SourceFiles` names it.
    images
        How many images it holds.
    offset, size_bytes
        Where it starts in the file, and its length.
    version
        A value that changes when the file changes.
    keyword
        The image's keyword, if the listing knows it.
    member
        What the file calls the image, if it is a tar. It is no part of the identity: the place in the file is.
    """

    path: str
    images: int
    offset: int
    size_bytes: int
    version: str
    keyword: str | None = None
    member: str | None = None

    @property
    def identity(self) -> str:
        """What a source's hash is made of; see ``docs/adr/0017-identities.md`` before changing a character."""
        return (
            f"ListedItem(path={quoted(self.path)}, images={self.images}, offset={self.offset}, "
            f"size_bytes={self.size_bytes}, version={quoted(self.version)}, keyword={quoted(self.keyword)})"
        )


@dataclass(frozen=True, eq=False)
class Batch:
    """Some consecutive images.

    Attributes
    ----------
    first
        Position of the first one.
    images
        How many there are.
    pixels
        uint8, shape (images, row, column, 3), C-contiguous; unreadable images are zeros. None if not requested.
    unreadable
        Why images are unreadable, by position.
    keywords
        One per image, None where an image has none; empty if the corpus has no keywords.
    encoded
        The images' encoded bytes, for hashing; empty if the source holds pixels.
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
        """Yield the items that hold these positions, each with the position of its first image."""
        ...


class Reader(Protocol):
    """Reads one source."""

    def batches(self, first: int, images: int, *, decode: bool = True) -> Iterator[Batch]:
        """Yield the images from a position on, in order, in batches of at most a few thousand.

        Parameters
        ----------
        first
            Position of the first one.
        images
            How many.
        decode
            Whether to decode pixels; without them a batch has only the encoded bytes of the source.

        Raises
        ------
        BadInputError
            If the source is not as it was listed: which file, and where.
        TransientError
            If a remote source does not answer.
        """
        ...

    def close(self) -> None:
        """Close the files and end the workers."""
        ...
