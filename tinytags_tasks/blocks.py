"""Shard and block arithmetic.

A corpus of ``images`` images is cut into shards of ``shard_images`` (the last one holds the rest), and each shard into
``blocks_per_shard`` blocks. Block ``i`` of a shard of ``n`` images begins at image ``i * n // blocks_per_shard``, so
every image is in exactly one block, whatever the numbers. Blocks are numbered across the whole corpus.

Images that are appended to a corpus later begin a new shard, even if the last one is not full: so the shards and blocks
that there are keep their numbers and their bytes.
"""

import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

from tinytags_tasks.errors import BadInputError

MOST_SHARD_IMAGES, LEAST_BLOCKS = 1_000_000, 50
"""How a corpus of 32x32 images, or of smaller ones, is cut by default: into shards of so many images and blocks."""

_BLOCK_BYTES = MOST_SHARD_IMAGES * 32 * 32 * 3 // LEAST_BLOCKS
"""About 60 MB: the pixels that a worker holds, twice if it works at two blocks at once."""

_FEW_IMAGES = 100
"""Blocks of fewer images are not made by default: each costs some files, and a task's turn."""

MOST_BLOCK_BYTES = 1_000_000_000
"""The most pixels of a block, of which a worker may hold two."""

MOST_BLOCKS_PER_SHARD = 10_000
MOST_BLOCKS = 1_000_000
"""The most blocks of a corpus. Each has some files, and a ledger of so many takes a process 1 GB."""


def usual_shard_images(image_bytes: int) -> int:
    """Return how many images a shard has by default: about 3 GB, in two significant digits, and at most a million."""
    images = max(1, min(MOST_SHARD_IMAGES, LEAST_BLOCKS * _BLOCK_BYTES // image_bytes))
    unit = int(10 ** max(0, len(str(images)) - 2))
    return images // unit * unit


def usual_blocks_per_shard(shard_images: int, image_bytes: int) -> int:
    """Return into how many blocks a shard is cut by default: about 60 MB each, and 50 blocks if it has the images."""
    blocks = -(-shard_images * image_bytes // _BLOCK_BYTES)
    return min(MOST_BLOCKS_PER_SHARD, shard_images, max(LEAST_BLOCKS, blocks))


def fewer_blocks(blocks_per_shard: int, images: int, most_bytes: int) -> int:
    """Return into how many blocks a shard is cut by default if it is not full: few images make few blocks.

    Parameters
    ----------
    blocks_per_shard
        The blocks of a full one.
    images
        How many images it has.
    most_bytes
        The most pixels that a shard of this corpus has.
    """
    needed = -(-most_bytes // _BLOCK_BYTES)
    return min(blocks_per_shard, max(1, needed, -(-images // _FEW_IMAGES)))


def smaller_shard_images(blocks_per_shard: int, image_bytes: int) -> int:
    """Return how many images a shard of so few blocks has by default, so that blocks are no larger once it is full."""
    return min(MOST_SHARD_IMAGES, max(1, blocks_per_shard * _BLOCK_BYTES // image_bytes))


@dataclass(frozen=True)
class Block:
    """A block, and where its images are.

    Attributes
    ----------
    number
        Its number in the corpus, from 0.
    shard
        The number of its shard, from 0.
    first
        The position of its first image in the corpus.
    offset
        How many images of the shard precede it.
    images
        How many images it has; 0 is possible in a shard with fewer images than blocks.
    """

    number: int
    shard: int
    first: int
    offset: int
    images: int


@dataclass(frozen=True)
class Partition:
    """How a corpus is divided into shards and blocks.

    Attributes
    ----------
    images
        How many images it has.
    shard_images, blocks_per_shard
        Images of a full shard, and blocks of each shard.
    appended
        How many of the images were appended each time that it grew, in order. Each time, a new shard was begun.
    """

    images: int
    shard_images: int = MOST_SHARD_IMAGES
    blocks_per_shard: int = LEAST_BLOCKS
    appended: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Refuse numbers that cannot divide a corpus.

        Raises
        ------
        BadInputError
            If one of them is out of range.
        """
        if self.images < 0 or self.shard_images < 1 or self.blocks_per_shard < 1:
            raise BadInputError(
                f"cannot divide {self.images} images into shards of {self.shard_images} "
                f"with {self.blocks_per_shard} blocks each: the numbers must be positive"
            )
        if min(self.appended, default=1) < 1 or sum(self.appended) > self.images:
            raise BadInputError(f"cannot divide {self.images} images of which {self.appended} were appended")

    @property
    def identity(self) -> str:
        """The beginning of a corpus' digest; read ``docs/adr/0017-identities.md`` before you change a character."""
        appended = f", appended={list(self.appended)}" if self.appended else ""
        return (
            f"Partition(images={self.images}, shard_images={self.shard_images}, "
            f"blocks_per_shard={self.blocks_per_shard}{appended})"
        )

    @cached_property
    def _part_images(self) -> tuple[int, ...]:
        return (self.images - sum(self.appended), *self.appended)

    @cached_property
    def _first_positions(self) -> tuple[int, ...]:
        """Position of the first image of each part: of what the corpus began with, and of each growth."""
        return (0, *accumulate(self._part_images))[:-1]

    @cached_property
    def _first_shards(self) -> tuple[int, ...]:
        """Number of the first shard of each part, and of the shard after the last one."""
        return (0, *accumulate(-(-images // self.shard_images) for images in self._part_images))

    @property
    def shards(self) -> int:
        """Number of shards."""
        return self._first_shards[-1]

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return self.shards * self.blocks_per_shard

    def part_of_shard(self, shard: int) -> int:
        """Return which part of the corpus a shard is in: 0 is what it began with, 1 its first growth."""
        return bisect_right(self._first_shards, shard, hi=len(self._part_images)) - 1

    def shards_of_part(self, part: int) -> range:
        """Return the numbers of a part's shards."""
        return range(self._first_shards[part], self._first_shards[part + 1])

    def first_of_shard(self, shard: int) -> int:
        """Return the position of a shard's first image."""
        part = self.part_of_shard(shard)
        return self._first_positions[part] + (shard - self._first_shards[part]) * self.shard_images

    def images_in_shard(self, shard: int) -> int:
        """Return how many images a shard holds."""
        part = self.part_of_shard(shard)
        return min(self.shard_images, self._part_images[part] - (shard - self._first_shards[part]) * self.shard_images)

    def place(self, position: int) -> tuple[int, int]:
        """Return the number of the shard that an image is in, and how many of the shard's images precede it."""
        part = bisect_right(self._first_positions, position) - 1
        shard, offset = divmod(position - self._first_positions[part], self.shard_images)
        return self._first_shards[part] + shard, offset

    def block(self, number: int) -> Block:
        """Return one block by its number.

        Raises
        ------
        BadInputError
            If the corpus does not have this block.
        """
        if not 0 <= number < self.blocks:
            last = f"0 to {self.blocks - 1}" if self.blocks else "none"
            raise BadInputError(f"block {number} is out of range: this corpus has blocks {last}")
        shard, index = divmod(number, self.blocks_per_shard)
        images = self.images_in_shard(shard)
        start = index * images // self.blocks_per_shard
        stop = (index + 1) * images // self.blocks_per_shard
        return Block(number, shard, self.first_of_shard(shard) + start, start, stop - start)

    def block_at(self, position: int) -> int:
        """Return the number of the block that an image is in.

        Raises
        ------
        BadInputError
            If the corpus has no such image.
        """
        if not 0 <= position < self.images:
            raise BadInputError(f"position {position} is out of range: this corpus has {self.images:,} images, from 0")
        shard, offset = self.place(position)
        index = ((offset + 1) * self.blocks_per_shard - 1) // self.images_in_shard(shard)
        return shard * self.blocks_per_shard + index

    def name_blocks(self, numbers: Iterable[int]) -> str:
        """Return shards and blocks in a form for people: ``"shard 0, blocks 3, 17-20"``."""
        numbers = sorted(set(numbers))
        shards = sorted({number // self.blocks_per_shard for number in numbers})
        return (
            f"shard{'s' if len(shards) > 1 else ''} {format_block_numbers(shards)}, "
            f"block{'s' if len(numbers) > 1 else ''} {format_block_numbers(numbers)}"
        )

    def blocks_of_shard(self, shard: int) -> list[Block]:
        """Return a shard's blocks in order."""
        first = shard * self.blocks_per_shard
        return [self.block(number) for number in range(first, first + self.blocks_per_shard)]


def parse_block_numbers(text: str, blocks: int) -> tuple[int, ...]:
    """Parse block numbers and ranges that a person wrote.

    Parameters
    ----------
    text
        ``"3, 17-20"``; empty means all.
    blocks
        How many blocks there are.

    Returns
    -------
    tuple of int
        The numbers in ascending order, without duplicates.

    Raises
    ------
    BadInputError
        If a part is not a number or range, runs backwards, or is out of range.
    """
    if not text.strip():
        return tuple(range(blocks))
    numbers: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,12})\s*(?:-\s*(\d{1,12})\s*)?", part)
        if not match:
            raise BadInputError(f"{part.strip()!r} is not a block number: write numbers and ranges, such as 3,17-20")
        first = int(match[1])
        last = int(match[2]) if match[2] else first
        if last < first:
            raise BadInputError(f"{part.strip()!r} runs backwards: write {last}-{first}")
        if last >= blocks:
            known = f"0 to {blocks - 1}" if blocks else "none"
            raise BadInputError(f"block {last} is out of range: this corpus has blocks {known}")
        numbers.update(range(first, last + 1))
    return tuple(sorted(numbers))


def format_block_numbers(numbers: Iterable[int]) -> str:
    """Return block numbers in a form for people: ``"3, 17-20"``.

    The inverse of :func:`parse_block_numbers`, for messages and names.
    """
    parts: list[list[int]] = []
    for number in sorted(set(numbers)):
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in parts)


def block_numbers_argument(numbers: Iterable[int]) -> str:
    """Return block numbers as a command-line argument that needs no quotes: ``"3,17-20"``."""
    return format_block_numbers(numbers).replace(" ", "")


USUAL_GROUPS = 400
"""So many groups at most if nobody says how large they are: Airflow takes about half a second for each task."""


def group_blocks(numbers: Sequence[int], blocks_per_task: int, most_groups: int | None = None) -> list[tuple[int, ...]]:
    """Divide block numbers into groups, one for each mapped task.

    Parameters
    ----------
    numbers
        Block numbers in ascending order.
    blocks_per_task
        Blocks per group; 0 chooses a number that gives at most :data:`USUAL_GROUPS` groups.
    most_groups
        How many groups there may be at most, whatever ``blocks_per_task`` is; None means any number.

    Raises
    ------
    BadInputError
        If ``blocks_per_task`` is negative.
    """
    if blocks_per_task < 0:
        raise BadInputError(f"blocks_per_task is {blocks_per_task}: it must be 1 or more, or 0 for automatic")
    size = blocks_per_task or max(1, -(-len(numbers) // USUAL_GROUPS))
    if most_groups is not None:
        size = max(size, -(-len(numbers) // most_groups))
    return [tuple(numbers[start : start + size]) for start in range(0, len(numbers), size)]
