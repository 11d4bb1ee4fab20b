"""Posts blocks to Solr. While a block is posted, the next one is read, so that Solr never waits for the store."""

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tinytags_tasks.clients.solr import SolrClient
from tinytags_tasks.document_fields import LOOK_FIELDS, VECTOR_FIELD
from tinytags_tasks.errors import CorruptError, FinalError, MissingError, explained
from tinytags_tasks.index.documents import document_bodies
from tinytags_tasks.index.javabin import MIME
from tinytags_tasks.look import Looks, looks
from tinytags_tasks.prefetch import prefetch
from tinytags_tasks.store import layout
from tinytags_tasks.store.block_documents import expected_checksum
from tinytags_tasks.store.block_files import (
    BlockSource,
    KeywordsReader,
    Pixels,
    images_per_batch,
    read_pixel_batches,
    read_pixels,
    read_scored,
)
from tinytags_tasks.store.block_lease import HeldBlocks, refuse_lost
from tinytags_tasks.store.embedding_files import Embeddings, read_vectors
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.store.record import now
from tinytags_tasks.store.run_blocks import RunBlocks
from tinytags_tasks.store.run_records import BlockRecord, BlockState, Run


def post_blocks(
    held: HeldBlocks,
    blocks: RunBlocks,
    sources: Iterable[BlockSource],
    solr: SolrClient,
    report: Callable[[str], None],
) -> tuple[dict[int, BlockRecord], dict[int, FinalError]]:
    """Post blocks one after another; return the records of those that Solr accepted and the errors of the others.

    What is posted is corrected by people's words. A block's bodies are sent before the responses for the previous block
    have arrived, so Solr never idles between blocks.

    Raises
    ------
    MissingError
        If the run's collection does not exist.
    TransientError
        If Solr or the store is unavailable, or another writer has taken over a block.
    """
    run, storage = blocks.run, blocks.storage
    records: dict[int, BlockRecord] = {}
    failures: dict[int, FinalError] = {}

    def finish(posted: _PostedBlock) -> None:
        number = posted.contents.source.block
        try:
            posted.wait()
        except MissingError as error:  # the collection is gone, so every other block would fail too
            raise collection_missing(run) from error
        except FinalError as error:  # the other blocks of the group continue
            failures[number] = explained(error, f"run {run.name}: Solr refused a document of block {number}: {error}")
            return
        records[number] = posted.record(run, fields)
        refuse_lost(storage, run.name, number, held.writer)
        records[number].save(storage, layout.ledger_file(run.name, number))
        report(f"block {number}: {records[number].kept:,} documents posted")

    fields = solr.field_names(run.collection)
    with solr.posting(run.collection, MIME) as post:
        previous: _PostedBlock | None = None
        for contents in prefetch(_read_blocks(blocks, sources, fields), 1):
            if not isinstance(contents, _BlockContents):
                failures[contents[0]] = contents[1]
                continue
            current = _PostedBlock(contents, time.monotonic(), [post(body) for body in contents.bodies(run, fields)])
            if previous:
                finish(previous)
            previous = current
        if previous:
            finish(previous)
    return records, failures


def collection_missing(run: Run) -> MissingError:
    """Return the error for a run whose collection does not exist."""
    return MissingError(
        f"run {run.name}: its collection {run.collection} does not exist in Solr; index the whole run with "
        f"`tinytags index {run.name}`"
    )


@dataclass(frozen=True, eq=False)
class _BlockContents:
    """Everything that goes into a block's documents."""

    source: BlockSource
    table: pa.Table
    corrected: BlockRecord
    pixels: Pixels | None
    looks: Looks | None
    embeddings: Embeddings | None
    keywords: list[str | None] | None

    def bodies(self, run: Run, fields: frozenset[str]) -> Iterator[bytes]:
        return document_bodies(
            self.table,
            self.source,
            self.pixels,
            run.model,
            self.keywords,
            fields,
            known_looks=self.looks,
            embeddings=self.embeddings,
        )


@dataclass(frozen=True, eq=False)
class _PostedBlock:
    """A block whose bodies are being sent, and Solr's responses."""

    contents: _BlockContents
    started: float
    answers: list[Future[dict[str, Any]]]

    def wait(self) -> None:
        for answer in self.answers:
            answer.result()

    def record(self, run: Run, fields: frozenset[str]) -> BlockRecord:
        contents = self.contents
        return contents.corrected.replaced(
            state=BlockState.INDEXED,
            checksum=expected_checksum(contents.table, contents.source, run.model, contents.keywords, fields),
            index_seconds=round(time.monotonic() - self.started, 3),
            indexed=now(),
        )


def _read_blocks(
    blocks: RunBlocks, sources: Iterable[BlockSource], fields: frozenset[str]
) -> Iterator[_BlockContents | tuple[int, FinalError]]:
    """Yield each block's contents, or its number and the reason why it cannot be indexed."""
    keywords = KeywordsReader(blocks.storage)
    for source in sources:
        try:
            yield _read_block(blocks, source, keywords, fields)
        except FinalError as error:
            yield source.block, error


def _read_block(
    blocks: RunBlocks, source: BlockSource, keywords: KeywordsReader, fields: frozenset[str]
) -> _BlockContents:
    run, storage = blocks.run, blocks.storage
    path = layout.scored_file(run.name, source.block)
    command = f"tinytags score {run.name} --blocks {source.block}"
    try:
        table, scored = read_scored(storage, run.name, source.block)
    except MissingError as error:
        raise MissingError(f"run {run.name}: block {source.block} is not scored; run `{command}` first") from error
    if scored.model != run.model:
        raise CorruptError(
            f"{path}: was scored by {scored.model}, but the run's model is {run.model}; run `{command} --redo`"
        )
    if scored.sha256 != source.sha256:
        raise CorruptError(
            f"run {run.name}: block {source.block} was scored on bytes other than those in the shard; run "
            f"`{command} --redo`, which writes {path} again"
        )
    block = blocks.correct(table, scored, source=source)
    pixels = read_pixels(storage, source) if run.thumbnails == "solr" else None
    has_looks = pixels is None and not fields.isdisjoint(LOOK_FIELDS)
    known_looks = _read_looks(storage, source, block.table.column("position").to_numpy()) if has_looks else None
    embeddings = read_vectors(storage, source, run.similar) if VECTOR_FIELD in fields else None
    return _BlockContents(source, block.table, block.record, pixels, known_looks, embeddings, keywords.read(source))


def _read_looks(storage: Storage, source: BlockSource, positions: npt.NDArray[np.int64]) -> Looks:
    """Return a look for each image of a block, of which only those at the positions are filled."""
    found = np.zeros((source.images, 2), dtype=np.int32)
    rows, at = positions - source.first, 0
    for pixels in read_pixel_batches(storage, source, images_per_batch(source.image_bytes, 1)):
        own = rows[(rows >= at) & (rows < at + len(pixels))]
        found[own] = looks(pixels[own - at], source.width)
        at += len(pixels)
    return found
