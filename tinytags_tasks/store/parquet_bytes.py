"""Reads Parquet from memory, in the calling thread."""

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq


def read_parquet(stored: bytes, columns: Sequence[str] | None = None) -> pa.Table:
    """Return a Parquet file's rows, as ``pyarrow.parquet.read_table`` does, but without Arrow's threads.

    These threads may still hold Python's bytes when the process ends, and then abort it: "terminate called without an
    active exception" (https://github.com/apache/arrow/issues/34314).

    Parameters
    ----------
    stored
        The file's bytes.
    columns
        The columns that are read; all if it is None.

    Raises
    ------
    pyarrow.ArrowException, OSError
        If it is damaged.
    """
    file = pq.ParquetFile(pa.BufferReader(stored), pre_buffer=False, page_checksum_verification=True)
    return file.read(columns, use_threads=False)
