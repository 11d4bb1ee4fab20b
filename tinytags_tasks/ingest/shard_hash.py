"""Hashes a shard block by block while its images are streamed."""

import hashlib
from collections.abc import Sequence

from tinytags_tasks.blocks import Block
from tinytags_tasks.corpus.reader import Batch
from tinytags_tasks.errors import CorruptError
from tinytags_tasks.store.corpus_records import BlockManifest


class ShardHash:
    """Hashes a shard's blocks, and the encoded images of its source.

    Parameters
    ----------
    blocks
        The shard's blocks in order.
    image_bytes
        Bytes of an image.
    """

    def __init__(self, blocks: Sequence[Block | BlockManifest], image_bytes: int) -> None:
        self._ends = [block.first + block.images for block in blocks]
        self._image_bytes = image_bytes
        self._at = blocks[0].first
        self._block = hashlib.sha256()
        self._blocks: list[str] = []
        self._encoded = hashlib.sha256()
        self._any_encoded = False

    def add(self, batch: Batch) -> memoryview:
        """Add the next images, and return their pixels; nothing if they were not decoded.

        Raises
        ------
        CorruptError
            If they are not the next images.
        """
        if batch.first != self._at:
            raise CorruptError(
                f"the source returned image {batch.first:,} where image {self._at:,} was expected: a bug in TinyTags"
            )
        for content in batch.encoded:
            self._any_encoded = True
            self._encoded.update(len(content).to_bytes(8))
            self._encoded.update(content)
        pixels = memoryview(b"") if batch.pixels is None else batch.pixels.reshape(-1).data
        stop = batch.first + batch.images
        while len(self._blocks) < len(self._ends) and self._ends[len(self._blocks)] <= stop:
            end = self._ends[len(self._blocks)]
            self._block.update(
                pixels[(self._at - batch.first) * self._image_bytes : (end - batch.first) * self._image_bytes]
            )
            self._blocks.append(self._block.hexdigest())
            self._block, self._at = hashlib.sha256(), end
        self._block.update(pixels[(self._at - batch.first) * self._image_bytes :])
        self._at = stop
        return pixels

    @property
    def blocks(self) -> list[str]:
        """The sha256 of each block.

        Raises
        ------
        CorruptError
            If images are missing.
        """
        if len(self._blocks) != len(self._ends) or self._at != self._ends[-1]:
            raise CorruptError(f"the source ended at image {self._at:,}, not {self._ends[-1]:,}: a bug in TinyTags")
        return self._blocks

    @property
    def encoded(self) -> str:
        """The sha256 of the encoded images, each preceded by its length; empty if there were none."""
        return self._encoded.hexdigest() if self._any_encoded else ""
