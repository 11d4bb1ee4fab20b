"""Comparing pictures: whether documents hold the bytes that their shards hold."""

import base64
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
from tinytags_tasks.store.block_files import block_sources, read_pixels
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.store.run_blocks import RunBlocks
from tinytags_tasks.store.run_records import BlockRecord, Run

_IDS_AT_ONCE = 500
_BLOCKS_AT_ONCE = 8
_AT_A_PLACE = 10


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
                table = blocks.read(block, upto=upto[block]).table
                positions = table.column("position").to_pylist()
                problems = (self._place_problem(positions[row : row + _AT_A_PLACE]) for row in sorted(drawn[block]))
                return next(filter(None, problems), "")
            except (MissingError, CorruptError) as error:
                return str(error)

        with ThreadPoolExecutor(_BLOCKS_AT_ONCE) as pool:
            return {block: found for block, found in zip(drawn, pool.map(problem, drawn), strict=True) if found}

    def block_problem(self, block: int, positions: Sequence[int]) -> str:
        """Compare pictures of one block, whose bytes in the shard are checked by their hash; return how they differ.

        Where pictures are not kept in Solr, only the shard is checked.

        Raises
        ------
        MissingError, CorruptError
            If the shard does not hold what was ingested.
        """
        (source,) = block_sources(self.storage, self.corpus, [block])
        pixels = read_pixels(self.storage, source)
        if self.run.thumbnails == "store":
            return ""
        return self._problem(positions, lambda position: pixels[position - source.first].tobytes())

    def _problem(self, positions: Sequence[int], picture_at: Callable[[int], bytes]) -> str:
        def compare(asked: Sequence[int]) -> str:
            ids = [layout.document_id(self.corpus.name, position) for position in asked]
            found = self.solr.images_by_id(self.run.collection, ids)
            for position, name in zip(asked, ids, strict=True):
                if name not in found or base64.b64decode(found[name]) != picture_at(position):
                    return f"document {name} has other bytes than the shard"
            return ""

        parts = [positions[at : at + _IDS_AT_ONCE] for at in range(0, len(positions), _IDS_AT_ONCE)]
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            return next(filter(None, pool.map(compare, parts)), "")

    def _place_problem(self, positions: Sequence[int]) -> str:
        """Compare pictures of one block that are close to each other."""
        first, size = positions[0], self.corpus.image_bytes
        shard, offset = divmod(first, self.corpus.shard_images)
        path = layout.shard_file(self.corpus.name, shard)
        stored = self.storage.read(path, offset * size, (positions[-1] - first + 1) * size)
        return self._problem(
            positions, lambda position: stored[(position - first) * size : (position - first + 1) * size]
        )
