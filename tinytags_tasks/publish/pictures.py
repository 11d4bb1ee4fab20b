"""Comparing pictures: whether documents hold the bytes that their shards hold, and what follows from these.

That is how a picture looks, and its embedding, as far as the run has them. Pictures are read from Solr by ranges of
positions, some megabytes at a time: memory does not grow with a block.
"""

import itertools
import random
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from tinytags_tasks.clients.solr import SolrClient
from tinytags_tasks.clients.solr_http import CONNECTIONS
from tinytags_tasks.document_fields import LOOK_FIELDS, VECTOR_FIELD, VECTOR_NUMBERS
from tinytags_tasks.errors import CorruptError, MissingError
from tinytags_tasks.look import looks
from tinytags_tasks.store import layout
from tinytags_tasks.store.block_files import Pixels, block_sources, images_per_batch, read_pixel_batches
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.embedding_files import Embeddings, read_vectors
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.store.run_blocks import RunBlocks
from tinytags_tasks.store.run_records import BlockRecord, Run

_PAGE_BYTES = 6_000_000
"""About 2,000 pictures of 32x32; larger pages and more connections were no faster."""

_BLOCKS_AT_ONCE = 8
_AT_A_PLACE = 10


@dataclass(frozen=True)
class BlockPixels:
    """Pictures of a block as they were ingested, one a row, and their embeddings if documents have these.

    ``first`` is the position of the first one.
    """

    first: int
    pixels: Pixels
    embeddings: Embeddings | None = None

    def picture(self, position: int) -> bytes:
        """Return the bytes of a picture."""
        return bytes(self.pixels[position - self.first].data)

    def vector(self, position: int) -> list[int] | None:
        """Return the vector that a picture's document must have; None if it must have none."""
        if self.embeddings is None:
            return None
        numbers: list[int] = self.embeddings[position - self.first].tolist()
        return numbers + [0] * (VECTOR_NUMBERS - len(numbers))


@dataclass
class PictureComparison:
    """Compares pictures in Solr with the shards, byte by byte, and what documents say of how they look.

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
    _has_looks: bool = field(init=False)
    _net: str = field(init=False)

    def __post_init__(self) -> None:
        """Ask Solr for the collection's fields."""
        fields = self.solr.field_names(self.run.collection)
        self._has_looks = fields.issuperset(LOOK_FIELDS)
        self._net = self.run.similar if VECTOR_FIELD in fields else ""

    @property
    def _has_nothing(self) -> bool:
        return self.run.thumbnails == "store" and not self._has_looks and not self._net

    def sample(self, records: Sequence[BlockRecord], pictures: int) -> dict[int, str]:
        """Compare about so many pictures, at random places of these blocks; return the blocks that differ, and how.

        Some are read at each place, as reading a picture alone takes as long. Where documents say nothing of how
        pictures look, there is nothing to compare.
        """
        ends = list(itertools.accumulate(record.kept for record in records))
        if not ends or self._has_nothing:
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
                embeddings = self._embeddings(block)
                problems = (
                    self._place_problem(block, positions[row : row + _AT_A_PLACE].tolist(), embeddings)
                    for row in sorted(drawn[block])
                )
                return next(filter(None, problems), "")
            except (MissingError, CorruptError) as error:
                return str(error)

        with ThreadPoolExecutor(_BLOCKS_AT_ONCE) as pool:
            return {block: found for block, found in zip(drawn, pool.map(problem, drawn), strict=True) if found}

    def read_batches(self, block: int) -> Iterator[BlockPixels]:
        """Yield a block's pictures as the shard holds them, in batches; once all are there, their hash is checked.

        Raises
        ------
        MissingError, CorruptError
            If the shard does not hold what was ingested, or the embeddings are missing or damaged.
        """
        (source,) = block_sources(self.storage, self.corpus, [block])
        embeddings = self._embeddings(block)
        at = 0
        for pixels in read_pixel_batches(self.storage, source, images_per_batch(source.image_bytes, 1)):
            yield BlockPixels(source.first + at, pixels, None if embeddings is None else embeddings[at:])
            at += len(pixels)

    def _embeddings(self, block: int) -> Embeddings | None:
        (source,) = block_sources(self.storage, self.corpus, [block])
        return read_vectors(self.storage, source, self._net)

    def block_problem(self, positions: Sequence[int], ingested: BlockPixels) -> str:
        """Compare those pictures of one block that are in a batch, and return how they differ; empty if they do not.

        Where documents say nothing of how pictures look, there is nothing to compare.
        """
        if self._has_nothing:
            return ""
        size = max(1, _PAGE_BYTES // self.corpus.image_bytes)
        stop = ingested.first + len(ingested.pixels)
        positions = [position for position in positions if ingested.first <= position < stop]
        pages = [positions[at : at + size] for at in range(0, len(positions), size)]
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            return next(filter(None, pool.map(lambda page: self._page_problem(page, ingested), pages)), "")

    def _page_problem(self, positions: Sequence[int], ingested: BlockPixels) -> str:
        """Compare pictures of one block that are near each other, read in one request or two."""
        problem = "" if self.run.thumbnails == "store" else self._pixels_problem(positions, ingested)
        return problem or (self._values_problem(positions, ingested) if self._has_looks or self._net else "")

    def _pixels_problem(self, positions: Sequence[int], ingested: BlockPixels) -> str:
        first, last, wanted = positions[0], positions[-1], len(positions)
        block = self.corpus.partition.block_at(first)
        documents, found = self.solr.images_at(self.run.collection, block, first, last, wanted)
        if documents > wanted:
            return _too_many(documents, positions)
        for position in positions:
            name = layout.document_id(self.corpus.name, position)
            if found.get(name) != ingested.picture(position):
                return f"document {name} has other bytes than the shard"
        return ""

    def _values_problem(self, positions: Sequence[int], ingested: BlockPixels) -> str:
        first, last, wanted = positions[0], positions[-1], len(positions)
        fields = [*(LOOK_FIELDS if self._has_looks else ()), *([VECTOR_FIELD] if self._net else ())]
        block = self.corpus.partition.block_at(first)
        documents, found = self.solr.picture_values_at(self.run.collection, block, first, last, wanted, fields)
        if documents > wanted:
            return _too_many(documents, positions)
        rows = np.array(positions) - ingested.first
        expected = looks(ingested.pixels[rows], self.corpus.width).tolist() if self._has_looks else [[]] * wanted
        for position, look in zip(positions, expected, strict=True):
            name = layout.document_id(self.corpus.name, position)
            document = found.get(name, {})
            if [document.get(field) for field in fields if field in LOOK_FIELDS] != look:
                return f"document {name} has another look than its picture in the shard"
            if self._net and document.get(VECTOR_FIELD) != ingested.vector(position):
                return f"document {name} has another vector than the picture's embedding"
        return ""

    def _place_problem(self, block: int, positions: Sequence[int], embeddings: Embeddings | None) -> str:
        """Compare pictures of one block that are next to each other."""
        first, size = positions[0], self.corpus.image_bytes
        shard, offset = self.corpus.partition.place(first)
        path = layout.shard_file(self.corpus.name, shard)
        size_bytes = (positions[-1] - first + 1) * size
        stored = self.storage.read(path, offset * size, size_bytes)
        if len(stored) != size_bytes:
            raise CorruptError(f"{path}: ends before the picture at position {positions[-1]}")
        pixels = np.frombuffer(stored, dtype=np.uint8).reshape(-1, size)
        row = first - self.corpus.partition.block(block).first
        return self._page_problem(
            positions, BlockPixels(first, pixels, None if embeddings is None else embeddings[row:])
        )


def _too_many(documents: int, positions: Sequence[int]) -> str:
    return f"has {documents:,} documents at positions {positions[0]} to {positions[-1]}, not {len(positions):,}"
