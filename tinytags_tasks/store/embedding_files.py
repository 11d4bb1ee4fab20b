"""A block's file of embeddings: whole numbers of a net, kept beside the corpus and read by every head."""

import hashlib
import io
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from tinytags_tasks.errors import CorruptError, MissingError
from tinytags_tasks.store import layout
from tinytags_tasks.store.block_files import BlockSource
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.net_records import EmbeddedBlock
from tinytags_tasks.store.parquet_bytes import read_parquet
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.store.some_files import sizes_of

EMBEDDINGS_KEY = b"tinytags.embeddings"
"""Key in the file's metadata under which its record is kept."""

_FOOTER_BYTES = 65_536
"""The end of a file that surely holds its metadata, which are hardly 4,000 bytes."""

_READERS = 8

Embeddings = npt.NDArray[np.int8]
"""Shape (images, dimensions)."""


def embeddings_sha256(embeddings: Embeddings) -> str:
    """Return the hash of embeddings, row by row."""
    return hashlib.sha256(np.ascontiguousarray(embeddings).data).hexdigest()


def write_embeddings(
    storage: Storage, embeddings: Embeddings, record: EmbeddedBlock, *, overwrite: bool = False
) -> bool:
    """Commit a block's embeddings in one atomic step; return False if the file exists and is not to be overwritten."""
    flat = pa.py_buffer(np.ascontiguousarray(embeddings))
    kind = pa.binary(record.dimensions)
    column = pa.Array.from_buffers(kind, record.images, [None, flat])
    schema = pa.schema([("embedding", kind)], metadata={EMBEDDINGS_KEY: record.stored()})
    sink = io.BytesIO()
    pq.write_table(
        pa.table([column], schema=schema), sink, compression="zstd", use_dictionary=False, write_page_checksum=True
    )
    path = layout.embeddings_file(record.corpus, record.net, record.block)
    return storage.write(path, sink.getvalue(), overwrite=overwrite)


def read_embeddings(storage: Storage, source: BlockSource, net: str) -> tuple[Embeddings, EmbeddedBlock]:
    """Read a block's embeddings, checked against their record and against the block's bytes in the manifest.

    Raises
    ------
    MissingError
        If the block has not been embedded by this net.
    CorruptError
        If the file is damaged, or the shard has changed since then.
    """
    path = layout.embeddings_file(source.corpus, net, source.block)
    try:
        stored = storage.read(path)
    except CorruptError as error:
        raise CorruptError(f"{error}; {EmbeddedBlock.remedy(path)}") from error
    try:
        table = read_parquet(stored)
        record = EmbeddedBlock.parse(table.schema.metadata[EMBEDDINGS_KEY], path)
        column = table.column("embedding").combine_chunks()
        rows = b"" if not len(column) else memoryview(column.buffers()[1])
        embeddings = np.frombuffer(rows, dtype=np.int8).reshape(record.images, record.dimensions)
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise CorruptError(f"{path}: damaged ({error}); {EmbeddedBlock.remedy(path)}") from error
    _refuse_other(record, source, net, path)
    if embeddings_sha256(embeddings) != record.sha256:
        raise CorruptError(f"{path}: damaged (its embeddings' sha256 differs); {EmbeddedBlock.remedy(path)}")
    return embeddings, record


def read_vectors(storage: Storage, source: BlockSource, net: str) -> Embeddings | None:
    """Return the embeddings that are the vectors of a block's documents; None if no net is named.

    Raises
    ------
    MissingError
        If the block has not been embedded by this net; the message says how to.
    CorruptError
        As :func:`read_embeddings`.
    """
    if not net:
        return None
    try:
        return read_embeddings(storage, source, net)[0]
    except MissingError as error:
        raise MissingError(
            f"{layout.embeddings_file(source.corpus, net, source.block)}: is missing, and holds the vectors of the "
            f"documents; make it with `tinytags embed {source.corpus} --net {net} --blocks {source.block}`"
        ) from error


def read_embedding_record(storage: Storage, source: BlockSource, net: str, size_bytes: int) -> EmbeddedBlock:
    """Read the record of a block's embeddings alone, from the end of their file; the embeddings are not checked.

    Parameters
    ----------
    storage, source, net
        As for :func:`read_embeddings`.
    size_bytes
        The file's size.

    Raises
    ------
    MissingError, CorruptError
        As :func:`read_embeddings`.
    """
    path = layout.embeddings_file(source.corpus, net, source.block)
    try:
        stored = storage.read(path, max(0, size_bytes - _FOOTER_BYTES))
    except CorruptError as error:
        raise CorruptError(f"{error}; {EmbeddedBlock.remedy(path)}") from error
    try:
        metadata = pq.read_metadata(io.BytesIO(stored))
        record = EmbeddedBlock.parse(metadata.metadata[EMBEDDINGS_KEY], path)
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise CorruptError(f"{path}: damaged ({error}); {EmbeddedBlock.remedy(path)}") from error
    _refuse_other(record, source, net, path)
    return record


def _refuse_other(record: EmbeddedBlock, source: BlockSource, net: str, path: str) -> None:
    """Refuse embeddings that are not a block's, or were made of other bytes than it has now."""
    if (record.corpus, record.block, record.net, record.images) != (source.corpus, source.block, net, source.images):
        raise CorruptError(f"{path}: holds another block's embeddings; {EmbeddedBlock.remedy(path)}")
    if record.source_sha256 != source.sha256:
        raise CorruptError(f"{path}: was made of other bytes than the shard holds; {EmbeddedBlock.remedy(path)}")


def unembedded(sources: Iterable[BlockSource], net: str, storage: Storage) -> list[BlockSource]:
    """Return the blocks, all of one corpus, whose embeddings are missing, damaged or made of other bytes.

    The end of each file is read. That finds a shard that has changed since, and a file
    that was cut short; other damage is found by :func:`read_embeddings`.
    """
    sources = list(sources)
    if not sources:
        return []
    sizes = embedding_sizes(sources, net, storage)

    def is_usable(source: BlockSource) -> bool:
        size = sizes.get(source.block)
        if size is None:
            return False
        try:
            read_embedding_record(storage, source, net, size)
        except (MissingError, CorruptError):
            return False
        return True

    with ThreadPoolExecutor(_READERS) as pool:
        return [source for source, usable in zip(sources, pool.map(is_usable, sources), strict=True) if not usable]


def embedding_sizes(sources: Sequence[BlockSource], net: str, storage: Storage) -> dict[int, int]:
    """Return the size of the file of each block, all of one corpus, that has embeddings by a net."""
    paths = {layout.embeddings_file(source.corpus, net, source.block): source for source in sources}
    found = sizes_of(storage, list(paths), lambda: _blocks(sources[0].corpus, storage))
    return {paths[path].block: size for path, size in found.items()}


def _blocks(corpus: str, storage: Storage) -> int:
    return Corpus.load(storage, layout.corpus_file(corpus)).partition.blocks
