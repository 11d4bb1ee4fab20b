"""Comparing pictures: whether documents hold the bytes that their shards hold.

Pictures are read from Solr by ranges of positions, some megabytes at a time: memory does not grow with a block.
"""

import itertools
import random
from bisect import bisect_right
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from tinytags_tasks.clients.solr import SolrClient
from tinytags_tasks.clients.solr_http import CONNECTIONS
from tinytags_tasks.errors import CorruptError, MissingError
from tinytags_tasks.store import layout
from tinytags_tasks.store.block_files import Pixels, block_sources, read_pixels
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.store.run_blocks import RunBlocks
from tinytags_tasks.store.run_records import BlockRecord, Run

_PAGE_BYTES = 6_000_000
"""About 2,000 pictures of 32x32; larger pages and more connections were no faster."""

_BLOCKS_AT_ONCE = 8
_AT_A_PLACE = 10


@dataclass(frozen=True)
class BlockPixels:
    """A block's pictures as they were ingested, one a row; ``first`` is the position of the first one."""

    first: int
    pixels: Pixels

    def picture(self, position: int) -> bytes:
        """Return the bytes of a picture."""
        return bytes(self.pixels[position - self.first].data)


@dataclass(frozen=True)
class PictureComparison:
    """Compares pictures in Solr with the shards, byte by byte.

    Attributes
    ----------
    run, corpus
        The run and its corpus.
    storage, solr
        Where the shards and the documents are.
    """

    run: Run
    corpus: Corpus
    storage: Storage
    solr: SolrClient

    def sample(self, records: Sequence[BlockRecord], pictures: int) -> dict[int, str]:
        """Compare about so many pictures, at random places of these blocks; return the blocks that differ, and how.

        Some are read at each place, as reading a picture alone takes as long. Where pictures are not kept in Solr,
        there is nothing to compare.
        """
        ends = list(itertools.accumulate(record.kept for record in records))
        if not ends or self.run.thumbnails == "store":
            return {}
        places = range(ends[-1])
        drawn: dict[int, set[int]] = {}
        for row in places if ends[-1] <= pictures else random.sample(places, -(-pictures // _AT_A_PLACE)):
            which = bisect_right(ends, row)
            in_block = row - ends[which] + records[which].kept
            drawn.setdefault(records[which].block, set()).add(in_block - in_block % _AT_A_PLACE)

        blocks = RunBlocks(self.run, self.corpus, self.storage)
        upto = {record.block: record.corrections for record in records}

        def problem(block: int) -> str:
            try:
                positions = blocks.read(block, upto=upto[block]).table.column("position").to_numpy()
                problems = (
                    self._place_problem(positions[row : row + _AT_A_PLACE].tolist()) for row in sorted(drawn[block])
                )
                return next(filter(None, problems), "")
            except (MissingError, CorruptError) as error:
                return str(error)

        with ThreadPoolExecutor(_BLOCKS_AT_ONCE) as pool:
            return {block: found for block, found in zip(drawn, pool.map(problem, drawn), strict=True) if found}

    def read_block(self, block: int) -> BlockPixels:
        """Return a block's pictures as the shard holds them, checked by their hash.

        Raises
        ------
        MissingError, CorruptError
            If the shard does not hold what was ingested.
        """
        (source,) = block_sources(self.storage, self.corpus, [block])
        return BlockPixels(source.first, read_pixels(self.storage, source))

    def block_problem(self, positions: Sequence[int], ingested: BlockPixels) -> str:
        """Compare pictures of one block, and return how they differ; empty if they do not.

        Where pictures are not kept in Solr, there is nothing to compare.
        """
        if self.run.thumbnails == "store":
            return ""
        size = max(1, _PAGE_BYTES // self.corpus.image_bytes)
        pages = [positions[at : at + size] for at in range(0, len(positions), size)]
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            return next(filter(None, pool.map(lambda page: self._page_problem(page, ingested.picture), pages)), "")

    def _page_problem(self, positions: Sequence[int], picture_at: Callable[[int], bytes]) -> str:
        """Compare pictures of one block that are near each other, read in one request."""
        first, last, wanted = positions[0], positions[-1], len(positions)
        block = self.corpus.partition.block_at(first)
        documents, found = self.solr.images_at(self.run.collection, block, first, last, wanted)
        if documents > wanted:
            return f"has {documents:,} documents at positions {first} to {last}, not {wanted:,}"
        for position in positions:
            name = layout.document_id(self.corpus.name, position)
            if found.get(name) != picture_at(position):
                return f"document {name} has other bytes than the shard"
        return ""

    def _place_problem(self, positions: Sequence[int]) -> str:
        """Compare pictures of one block that are next to each other."""
        first, size = positions[0], self.corpus.image_bytes
        shard, offset = divmod(first, self.corpus.shard_images)
        path = layout.shard_file(self.corpus.name, shard)
        stored = self.storage.read(path, offset * size, (positions[-1] - first + 1) * size)
        return self._page_problem(
            positions, lambda position: stored[(position - first) * size : (position - first + 1) * size]
        )
