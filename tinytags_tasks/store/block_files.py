"""A block's files: its bytes in a shard, its part of the shard's keywords, and its scored file."""

import base64
import hashlib
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from tinytags_tasks.errors import CorruptError, MissingError, OtherWriterError
from tinytags_tasks.store import layout
from tinytags_tasks.store.corpus_records import BlockManifest, Corpus, ShardManifest
from tinytags_tasks.store.parquet_bytes import read_parquet
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.store.run_records import BlockRecord

Pixels = npt.NDArray[np.uint8]
"""Shape (images, values of an image)."""

BATCH_BYTES = 2**25
"""How many bytes of pixels are read and computed at once: a block may have gigabytes of large images."""

RECORD_KEY = b"tinytags.block"
"""Key in a scored file's metadata under which the block's record is kept."""

_NONE_KEY = b"tinytags.none"
"""Key in a scored file's metadata under which one bit an image says whether it is none of the tags.

Only files of models that know "none" have it, and of these only newer ones. It is base64, as Parquet wants text.
"""

CONFIDENCE_COLUMN = "accuracy"
"""A scored file's column of confidences; stored files keep the name that the original system gave it."""

SCHEMA = pa.schema(
    [("position", pa.int64()), ("tag", pa.string()), ("votes", pa.int16()), (CONFIDENCE_COLUMN, pa.int16())],
)
"""Columns of a scored file: one row for each image that was kept, by position."""


@dataclass(frozen=True)
class BlockSource:
    """Where a block's bytes are, and what they must hash to.

    Attributes
    ----------
    corpus, block, shard
        The corpus' name, and the numbers of the block and its shard.
    first, images
        Position of its first image, and how many images it has.
    offset_bytes, image_bytes
        Where it begins in its shard, and the size of an image.
    width
        Width of an image in pixels.
    sha256
        Hash of its bytes.
    keywords_sha256
        Hash of the shard's keywords file; None if the corpus has no keywords.
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
        If a manifest is missing or damaged, or does not list the block.
    """
    manifests: dict[int, ShardManifest] = {}
    entries: dict[int, dict[int, BlockManifest]] = {}
    sources = []
    for number in blocks:
        block = corpus.partition.block(number)
        path = layout.shard_manifest_file(corpus.name, block.shard)
        if block.shard not in manifests:
            manifests[block.shard] = ShardManifest.load(storage, path)
        manifest = manifests[block.shard]
        if block.shard not in entries:
            entries[block.shard] = {entry.number: entry for entry in manifest.blocks}
        entry = entries[block.shard].get(number)
        if entry is None or (entry.first, entry.images) != (block.first, block.images):
            raise CorruptError(
                f"{path}: does not describe block {number} as the corpus is divided; {ShardManifest.remedy(path)}"
            )
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


def read_pixels(storage: Storage, source: BlockSource) -> Pixels:
    """Return a block's pixels, uint8 of shape (images, values of an image), checked against the manifest.

    Raises
    ------
    MissingError, CorruptError
        As :func:`read_pixel_batches`.
    """
    (pixels,) = read_pixel_batches(storage, source, max(1, source.images))
    return pixels


def images_per_batch(image_bytes: int, multiple_of: int) -> int:
    """Return how many images are read at once: a multiple of a number, of about 32 MB at most.

    Parameters
    ----------
    image_bytes
        The size of an image.
    multiple_of
        How many images are computed at once. Then the results are those of a block that is read as a whole.
    """
    return max(1, BATCH_BYTES // (image_bytes * multiple_of)) * multiple_of


def read_pixel_batches(storage: Storage, source: BlockSource, images_at_once: int) -> Iterator[Pixels]:
    """Yield a block's pixels in order, as many images at once as are asked for; a block without images is one batch.

    The last batch is yielded only if all bytes are those of the manifest: then what the others gave may be kept.

    Raises
    ------
    MissingError
        If the shard is missing.
    CorruptError
        If its bytes are not those that were ingested.
    """
    digest = hashlib.sha256()
    for start in range(0, max(1, source.images), images_at_once):
        images = min(images_at_once, source.images - start)
        stored = _read_shard(storage, source, start, images)
        digest.update(stored)
        if start + images == source.images and digest.hexdigest() != source.sha256:
            raise CorruptError(
                f"{layout.shard_file(source.corpus, source.shard)}: block {source.block} (offset "
                f"{source.offset_bytes:,}, {source.images * source.image_bytes:,} bytes) is not what was ingested; "
                f"write the shard again with `tinytags ingest {source.corpus} --redo {source.shard}`"
            )
        yield np.frombuffer(stored, dtype=np.uint8).reshape(images, source.image_bytes)
        del stored  # before the next batch is read


def _read_shard(storage: Storage, source: BlockSource, start: int, images: int) -> bytes:
    """Return the bytes of some of a block's images."""
    path = layout.shard_file(source.corpus, source.shard)
    size = source.image_bytes
    try:
        return storage.read(path, source.offset_bytes + start * size, images * size)
    except MissingError as error:
        raise MissingError(
            f"{path}: is missing although its manifest exists; ingest the corpus again with `tinytags ingest "
            f"{source.corpus}`"
        ) from error
    except CorruptError as error:
        raise CorruptError(
            f"{path}: block {source.block} cannot be read ({error}); write the shard again with "
            f"`tinytags ingest {source.corpus} --redo {source.shard}`"
        ) from error


class KeywordsReader:
    """Reads blocks' keywords.

    Blocks come in order, so the last shard's file is kept: it is read and parsed once for all of its blocks.

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
        """Return a block's keywords, one for each image; None if the corpus has no keywords.

        Raises
        ------
        MissingError
            If the shard's keywords are missing.
        CorruptError
            If they are not those that were ingested.
        """
        if source.keywords_sha256 is None:
            return None
        path = layout.keywords_file(source.corpus, source.shard)
        if (path, source.keywords_sha256) != (self._path, self._sha256):
            self._column = read_shard_keywords(self._storage, path, source.keywords_sha256)
            self._path, self._sha256 = path, source.keywords_sha256
        keywords: list[str | None] = self._column.slice(
            source.offset_bytes // source.image_bytes, source.images
        ).to_pylist()
        if len(keywords) != source.images:
            raise CorruptError(
                f"{path}: has {len(self._column):,} keywords, too few for block {source.block}; "
                f"{_write_keywords_again(path)}"
            )
        return keywords


def read_shard_keywords(storage: Storage, path: str, sha256: str) -> pa.ChunkedArray:
    """Return a shard's keywords, one for each image, from a file that must have this hash."""
    try:
        stored = storage.read(path)
    except MissingError as error:
        raise MissingError(
            f"{path}: is missing although its manifest exists; ingest the corpus again with `tinytags ingest "
            f"{layout.path_name(path)}`"
        ) from error
    except CorruptError as error:
        raise CorruptError(f"{path}: cannot be read ({error}); {_write_keywords_again(path)}") from error
    if hashlib.sha256(stored).hexdigest() != sha256:
        raise CorruptError(f"{path}: is not the file that was ingested; {_write_keywords_again(path)}")
    try:
        return read_parquet(stored, ["keyword"]).column("keyword")
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise CorruptError(f"{path}: no keywords file ({error}); {_write_keywords_again(path)}") from error


def _write_keywords_again(path: str) -> str:
    return (
        "write the shard and its keywords again with "
        f"`tinytags ingest {layout.path_name(path)} --redo {layout.path_number(path)}`"
    )


def write_scored(storage: Storage, table: pa.Table, record: BlockRecord, *, overwrite: bool = True) -> BlockRecord:
    """Commit a scored block and return its record, which is kept in the file's metadata, with the file's own size.

    Without ``overwrite``, a file that exists is left as it is, and its record is returned.

    Raises
    ------
    OtherWriterError
        If that file was deleted in this moment.
    """
    sink = io.BytesIO()
    none = {key: value for key, value in (table.schema.metadata or {}).items() if key == _NONE_KEY}
    pq.write_table(
        table.replace_schema_metadata({RECORD_KEY: record.stored(), **none}),
        sink,
        compression="zstd",
        write_page_checksum=True,
    )
    if not storage.write(layout.scored_file(record.run, record.block), sink.getvalue(), overwrite=overwrite):
        try:
            return read_scored(storage, record.run, record.block)[1]
        except MissingError as error:
            raise OtherWriterError(f"{error}: another writer deleted it meanwhile; try again") from error
    return _with_file(record, sink.getvalue())


def with_none_bits(table: pa.Table, none: npt.NDArray[np.bool_]) -> pa.Table:
    """Return the table of a scored file that says which images of its block are none of the tags.

    Parameters
    ----------
    table
        The images that were kept.
    none
        One for each image of the block.
    """
    return table.replace_schema_metadata({_NONE_KEY: base64.b64encode(np.packbits(none).tobytes())})


def none_bits(table: pa.Table, scored: BlockRecord, images: int) -> npt.NDArray[np.bool_] | None:
    """Return for each image of a block whether it is none of the tags; None if its scored file does not say.

    Parameters
    ----------
    table, scored
        The scored file, as :func:`read_scored` returns it.
    images
        How many images the block has.

    Raises
    ------
    CorruptError
        If what the file says is damaged, or contradicts its record.
    """
    stored = (table.schema.metadata or {}).get(_NONE_KEY)
    if stored is None:
        return None
    path = layout.scored_file(scored.run, scored.block)
    try:
        packed = np.frombuffer(base64.b64decode(stored, validate=True), dtype=np.uint8)
    except ValueError as error:
        raise CorruptError(f"{path}: damaged ({error}); {BlockRecord.remedy(path)}") from error
    none = np.unpackbits(packed).astype(np.bool_)
    if len(packed) != -(-images // 8) or none[images:].any() or int(none.sum()) != scored.none:
        raise CorruptError(
            f"{path}: damaged ({int(none.sum()):,} images are marked as none of the tags, and it counts "
            f"{scored.none:,}); {BlockRecord.remedy(path)}"
        )
    return none[:images]


def _with_file(record: BlockRecord, stored: bytes) -> BlockRecord:
    return record.replaced(scored_bytes=len(stored), scored_sha256=hashlib.sha256(stored).hexdigest())


def read_scored(storage: Storage, run: str, block: int) -> tuple[pa.Table, BlockRecord]:
    """Read a committed block: its table, and the record that it was committed with.

    Raises
    ------
    MissingError
        If it was never scored.
    NewerFormatError
        If a newer TinyTags scored it.
    CorruptError
        If the file is damaged, or another block's.
    """
    path = layout.scored_file(run, block)
    try:
        stored = storage.read(path)
    except CorruptError as error:
        raise CorruptError(f"{error}; {BlockRecord.remedy(path)}") from error
    try:
        table = read_parquet(stored)
        record_json = table.schema.metadata[RECORD_KEY]
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise CorruptError(f"{path}: damaged ({error}); {BlockRecord.remedy(path)}") from error
    record = BlockRecord.parse(record_json, path)
    if (record.run, record.block, record.kept) != (run, block, table.num_rows):
        raise CorruptError(f"{path}: holds another block's images; {BlockRecord.remedy(path)}")
    return table, _with_file(record, stored)


def read_scored_record(storage: Storage, run: str, block: int) -> BlockRecord:
    """Read the record of a committed block alone; its rows are hashed with the file, but not decoded.

    Raises
    ------
    MissingError, NewerFormatError, CorruptError
        As :func:`read_scored`.
    """
    path = layout.scored_file(run, block)
    stored = storage.read(path)
    try:
        record_json = pq.read_metadata(io.BytesIO(stored)).metadata[RECORD_KEY]
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise CorruptError(f"{path}: damaged ({error}); {BlockRecord.remedy(path)}") from error
    return _with_file(BlockRecord.parse(record_json, path), stored)


def unscored_blocks(storage: Storage, run: str, blocks: Iterable[int]) -> list[int]:
    """Return the blocks that have no scored file, in the order given."""
    scored = set(storage.names(layout.scored_folder(run)))
    return [block for block in blocks if layout.file_name(layout.scored_file(run, block)) not in scored]
