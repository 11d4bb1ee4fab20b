"""A net's background: embeddings of general pictures, and what each shows."""

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from tinytags_tasks.errors import CorruptError
from tinytags_tasks.store.embedding_files import Embeddings
from tinytags_tasks.store.parquet_bytes import read_parquet


@dataclass(frozen=True)
class Background:
    """General pictures, by their embeddings.

    Attributes
    ----------
    embeddings
        int8, shape (pictures, dimensions).
    classes
        What each picture shows: names with commas between, the usual one first, as in WordNet.
    kinds
        Everyday words for it, such as ``dog`` and ``animal`` for a Chihuahua.
    """

    embeddings: Embeddings = field(repr=False)
    classes: tuple[str, ...] = field(repr=False)
    kinds: tuple[tuple[str, ...], ...] = field(repr=False)


def parse_background(stored: bytes, dimensions: int, where: str, remedy: str) -> Background:
    """Return the background in a Parquet file with the columns ``embedding``, ``class`` and, if known, ``kinds``.

    Raises
    ------
    CorruptError
        If it is not such a file, or of another net: the path (``where``) and what to do about it.
    """
    try:
        table = read_parquet(stored)
        column = table.column("embedding").combine_chunks()
        if column.type != pa.binary(dimensions) or column.null_count:
            raise ValueError(f"its embeddings are {column.type}, not {dimensions} numbers each")
        rows = b"" if not len(column) else memoryview(column.buffers()[1])
        embeddings = np.frombuffer(rows, dtype=np.int8).reshape(len(column), dimensions)
        classes = tuple(table.column("class").to_pylist())
        kinds = table.column("kinds").to_pylist() if "kinds" in table.column_names else [()] * len(column)
    except (pa.ArrowException, OSError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise CorruptError(f"{where}: not a background that can be read ({error}); {remedy}") from error
    return Background(embeddings, classes, tuple(tuple(words or ()) for words in kinds))
