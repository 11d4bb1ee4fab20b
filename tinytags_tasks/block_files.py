"""The files of a block: its byte range in a shard, its part of the shard's keywords, and its scored file."""

import hashlib
import io
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from tinytags_tasks import layout
from tinytags_tasks.errors import CorruptError, MissingError
from tinytags_tasks.records import BlockRecord, Corpus, ShardManifest
from tinytags_tasks.storage import Storage

RECORD_KEY = b"tinytags.block"
"""Key of a scored file's metadata that holds the block's record."""

SCHEMA = pa.schema(
    [("position", pa.int64()), ("tag", pa.string()), ("votes", pa.int16()), ("accuracy", pa.int16())],
)
"""Columns of a scored file: one row for each image that was kept, by position."""


@dataclass(frozen=True)
class BlockSource:
    """Where a block's bytes are, and what they must be.

    Attributes
    ----------
    corpus, block, shard
        The corpus' name, the block's number, its shard's.
    first, images
        Position of its first image, and how many it has.
    offset_bytes, image_bytes
        Where it begins in its shard, and the size of an image.
    width
        Of an image, in pixels.
    sha256
        What its bytes hash to.
    keywords_sha256
        What the shard's keywords file hashes to; None when the corpus has no keywords.
    unreadable
        Positions whose image could not be read.
    """

    corpus: str
    block: int
    shard: int
    first: int
    images: int
    offset_bytes: int
    image_bytes: int
    width: int
    sha256: str
    keywords_sha256: str | None
    unreadable: tuple[int, ...]


def block_sources(storage: Storage, corpus: Corpus, blocks: Iterable[int]) -> list[BlockSource]:
    """Look blocks up in their shards' manifests.

    Raises
    ------
    MissingError, CorruptError
        When a manifest is not there, damaged, or lacks the block.
    """
    manifests: dict[int, ShardManifest] = {}
    sources = []
    for number in blocks:
        block = corpus.partition.block(number)
        path = layout.shard_manifest_file(corpus.name, block.shard)
        if block.shard not in manifests:
            manifests[block.shard] = ShardManifest.load(storage, path)
        manifest = manifests[block.shard]
        entry = next((entry for entry in manifest.blocks if entry.number == number), None)
        if entry is None or (entry.first, entry.images) != (block.first, block.images):
            raise CorruptError(f"{path}: does not describe block {number} as the corpus is cut; ingest it again")
        sources.append(
            BlockSource(
                corpus=corpus.name,
                block=number,
                shard=block.shard,
                first=block.first,
                images=block.images,
                offset_bytes=block.offset * corpus.image_bytes,
                image_bytes=corpus.image_bytes,
                width=corpus.width,
                sha256=entry.sha256,
                keywords_sha256=manifest.keywords_sha256,
                unreadable=tuple(
                    image.position
                    for image in manifest.unreadable
                    if block.first <= image.position < block.first + block.images
                ),
            )
        )
    return sources


def read_pixels(storage: Storage, source: BlockSource) -> npt.NDArray[np.uint8]:
    """Return a block's pixels, uint8 of shape (images, values of an image), checked against the manifest.

    Raises
    ------
    MissingError
        When the shard is not there.
    CorruptError
        When its bytes are not those that were ingested.
    """
    path = layout.shard_file(source.corpus, source.shard)
    try:
        stored = storage.read(path, source.offset_bytes, source.images * source.image_bytes)
    except MissingError as error:
        raise MissingError(f"{path}: its manifest is there, the shard is not; ingest the corpus again") from error
    except CorruptError as error:
        raise CorruptError(
            f"{path}: block {source.block} cannot be read ({error}); write the shard again with "
            f"`tinytags ingest {source.corpus} --redo {source.shard}`"
        ) from error
    if hashlib.sha256(stored).hexdigest() != source.sha256:
        raise CorruptError(
            f"{path}: block {source.block} (offset {source.offset_bytes:,}, {len(stored):,} bytes) is not what was "
            "ingested; delete the shard and ingest the corpus again"
        )
    return np.frombuffer(stored, dtype=np.uint8).reshape(source.images, source.image_bytes)


class KeywordsReader:
    """Reads blocks' keywords.

    Blocks come in their order, so a shard's file is read and parsed once for all of its blocks: the last one is kept.

    Parameters
    ----------
    storage
        The store.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._path = ""
        self._sha256 = ""
        self._column = pa.chunked_array([], pa.string())

    def read(self, source: BlockSource) -> list[str | None] | None:
        """Return a block's keywords, one an image; None when the corpus has none.

        Raises
        ------
        MissingError
            When the shard's keywords are not there.
        CorruptError
            When they are not those that were ingested.
        """
        if source.keywords_sha256 is None:
            return None
        path = layout.keywords_file(source.corpus, source.shard)
        if (path, source.keywords_sha256) != (self._path, self._sha256):
            self._column = _read_keywords_file(self._storage, path, source.keywords_sha256)
            self._path, self._sha256 = path, source.keywords_sha256
        keywords: list[str | None] = self._column.slice(
            source.offset_bytes // source.image_bytes, source.images
        ).to_pylist()
        if len(keywords) != source.images:
            raise CorruptError(
                f"{path}: has {len(self._column):,} keywords, too few for block {source.block}; delete it and ingest "
                "the corpus again"
            )
        return keywords


def _read_keywords_file(storage: Storage, path: str, sha256: str) -> pa.ChunkedArray:
    try:
        stored = storage.read(path)
    except MissingError as error:
        raise MissingError(f"{path}: its shard's manifest is there, it is not; ingest the corpus again") from error
    if hashlib.sha256(stored).hexdigest() != sha256:
        raise CorruptError(f"{path}: is not what was ingested; delete it and ingest the corpus again")
    try:
        return pq.read_table(io.BytesIO(stored), columns=["keyword"]).column("keyword")
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise CorruptError(f"{path}: no file of keywords ({error}); delete it and ingest the corpus again") from error


def write_scored(storage: Storage, table: pa.Table, record: BlockRecord, *, overwrite: bool = True) -> BlockRecord:
    """Commit a scored block; return its record, which travels in the file's metadata, with the file's own size.

    Without ``overwrite`` a file that exists is left as it is, and its record is returned.
    """
    sink = io.BytesIO()
    pq.write_table(
        table.replace_schema_metadata({RECORD_KEY: record.model_dump_json().encode()}),
        sink,
        compression="zstd",
        write_page_checksum=True,
    )
    if not storage.write(layout.scored_file(record.run, record.block), sink.getvalue(), overwrite=overwrite):
        return read_scored(storage, record.run, record.block)[1]
    return _with_file(record, sink.getvalue())


def _with_file(record: BlockRecord, stored: bytes) -> BlockRecord:
    return record.replaced(scored_bytes=len(stored), scored_sha256=hashlib.sha256(stored).hexdigest())


def read_scored(storage: Storage, run: str, block: int) -> tuple[pa.Table, BlockRecord]:
    """Read a committed block: its table and the record it was committed with.

    Raises
    ------
    MissingError
        When it was never scored.
    CorruptError
        When the file is damaged or another block's.
    """
    path = layout.scored_file(run, block)
    stored = storage.read(path)
    try:
        table = pq.read_table(io.BytesIO(stored), page_checksum_verification=True)
        record = BlockRecord.model_validate_json(table.schema.metadata[RECORD_KEY])
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise CorruptError(f"{path}: damaged ({error}); delete it and score block {block} again") from error
    if (record.run, record.block, record.kept) != (run, block, table.num_rows):
        raise CorruptError(f"{path}: holds another block's images; delete it and score block {block} again")
    return table, _with_file(record, stored)


def unscored_blocks(storage: Storage, run: str, blocks: Iterable[int]) -> list[int]:
    """Return those of a run's blocks that have no scored file, in their order."""
    scored = set(storage.names(layout.scored_folder(run)))
    return [block for block in blocks if layout.file_name(layout.scored_file(run, block)) not in scored]


def documents_checksum(rows: Iterable[tuple[str, str, int, int, str]]) -> str:
    """Return the sha256 of what a block's documents say: what was scored and what Solr holds are compared by it.

    Parameters
    ----------
    rows
        Id, tag, votes, accuracy and model of each document, by position.
    """
    digest = hashlib.sha256()
    for row in rows:
        digest.update("\t".join(map(str, row)).encode() + b"\n")
    return digest.hexdigest()


def scored_checksum(table: pa.Table, corpus: str, model: str) -> str:
    """Return the checksum that the documents of a scored block must have."""
    columns = table.to_pydict()
    return documents_checksum(
        (layout.document_id(corpus, position), tag, votes, accuracy, model)
        for position, tag, votes, accuracy in zip(
            columns["position"], columns["tag"], columns["votes"], columns["accuracy"], strict=True
        )
    )
