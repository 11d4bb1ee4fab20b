"""A block's file of embeddings: whole numbers of a net, kept beside the corpus and read by every head."""

import hashlib
import io

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from tinytags_tasks.errors import CorruptError
from tinytags_tasks.store import layout
from tinytags_tasks.store.block_files import BlockSource
from tinytags_tasks.store.net_records import EmbeddedBlock
from tinytags_tasks.store.protocol import Storage

EMBEDDINGS_KEY = b"tinytags.embeddings"
"""Key in the file's metadata under which its record is kept."""

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
        table = pq.read_table(io.BytesIO(stored), page_checksum_verification=True)
        record = EmbeddedBlock.parse(table.schema.metadata[EMBEDDINGS_KEY], path)
        column = table.column("embedding").combine_chunks()
        rows = b"" if not len(column) else memoryview(column.buffers()[1])
        embeddings = np.frombuffer(rows, dtype=np.int8).reshape(record.images, record.dimensions)
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise CorruptError(f"{path}: damaged ({error}); {EmbeddedBlock.remedy(path)}") from error
    if (record.corpus, record.block, record.net, record.images) != (source.corpus, source.block, net, source.images):
        raise CorruptError(f"{path}: holds another block's embeddings; {EmbeddedBlock.remedy(path)}")
    if record.source_sha256 != source.sha256:
        raise CorruptError(f"{path}: was made of other bytes than the shard holds; {EmbeddedBlock.remedy(path)}")
    if embeddings_sha256(embeddings) != record.sha256:
        raise CorruptError(f"{path}: damaged (its embeddings' sha256 differs); {EmbeddedBlock.remedy(path)}")
    return embeddings, record
