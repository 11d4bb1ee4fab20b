"""Writes what a head learns from to the store as Spark ML vectors, and reads it for training."""

import io
import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.ml.linalg import VectorUDT
from pyspark.sql.types import BooleanType, DoubleType, StructField, StructType

from tinytags_tasks.prefetch import prefetch
from tinytags_tasks.store.protocol import Storage, temporary_name

PARTITION_VALUES = 25_000 * 3_072
"""How many values one Spark task learns from: those of 25,000 images of 32x32.

Each task computes sums for every node of a level, and the sums of all tasks are then added up: fewer tasks mean less to
add. Bagging has one seed per partition, so the partitions are the same on any number of cores. See
docs/adr/0005-training-time.md.
"""

_GROUP_VALUES = PARTITION_VALUES // 10
_ONE_FILE_A_PARTITION = 2**31 - 1


@dataclass(frozen=True)
class Rows:
    """What a head learns from.

    Attributes
    ----------
    values
        uint8, int8 or float64, shape (rows, values): pixels, embeddings or whitened embeddings.
    labels
        int64, shape (rows,).
    classes
        How many classes there are, even if one has no rows.
    held_out
        bool, shape (rows,): the rows that one of the two models does not learn from, but is evaluated on.
    weights
        float64, shape (rows,); None if every row counts once, and then Spark reads no weights.
    """

    values: npt.NDArray[np.uint8] | npt.NDArray[np.int8] | npt.NDArray[np.float64] = field(repr=False)
    labels: npt.NDArray[np.int64] = field(repr=False)
    classes: int
    held_out: npt.NDArray[np.bool_] = field(repr=False)
    weights: npt.NDArray[np.float64] | None = field(default=None, repr=False)

    def part(self, rows: slice) -> "Rows":
        """Return some of the rows."""
        weights = None if self.weights is None else self.weights[rows]
        return Rows(self.values[rows], self.labels[rows], self.classes, self.held_out[rows], weights)


def write_features(rows: Rows, folder: str, storage: Storage, *, partition_rows: int) -> None:
    """Write rows to the store as Spark ML vectors, so that none of them needs to be converted when it is read.

    Parameters
    ----------
    rows
        The rows.
    folder
        The folder for the files, one per partition. It appears once all files are complete; an existing folder is left
        unchanged.
    storage
        The store.
    partition_rows
        How many rows a file has; the last one has the rest.
    """
    if storage.exists(folder):
        return
    temporary = temporary_name(folder)
    schema = _arrow_schema(rows)

    def encode(start: int) -> bytes:
        return _encode(rows.part(slice(start, start + partition_rows)), schema)

    # The next is encoded while one is sent.
    contents = prefetch(map(encode, range(0, len(rows.labels), partition_rows)), 1)
    for part, content in enumerate(contents):
        storage.write(f"{temporary}/part-{part:05d}.parquet", content)
    if not storage.rename(temporary, folder):
        storage.delete(temporary)


def _encode(rows: Rows, schema: pa.Schema) -> bytes:
    """Return a Parquet file; a value has 256 forms, so dictionary encoding stores each double in one byte."""
    sink = io.BytesIO()
    step = max(1, _GROUP_VALUES // rows.values.shape[1])
    with pq.ParquetWriter(sink, schema, compression="none", dictionary_pagesize_limit=2**20) as writer:
        for start in range(0, len(rows.labels), step):
            group = rows.part(slice(start, start + step))
            flat = group.values
            offsets = np.arange(0, flat.size + 1, flat.shape[1], dtype=np.int32)
            vectors = pa.StructArray.from_arrays(
                [
                    pa.array(np.ones(len(flat), dtype=np.int8)),  # 1 means dense: only values are given
                    pa.nulls(len(flat), pa.int32()),
                    pa.nulls(len(flat), _VECTOR.field("indices").type),
                    pa.ListArray.from_arrays(
                        offsets, flat.ravel().astype(np.float64), type=_VECTOR.field("values").type
                    ),
                ],
                fields=list(_VECTOR),
            )
            columns = [pa.array(group.labels.astype(np.float64)), vectors, pa.array(group.held_out)]
            if group.weights is not None:
                columns.append(pa.array(group.weights))
            writer.write_table(pa.table(columns, schema=schema))
    return sink.getvalue()


_VECTOR = pa.struct(
    [
        pa.field("type", pa.int8(), nullable=False),
        pa.field("size", pa.int32()),
        pa.field("indices", pa.list_(pa.field("element", pa.int32(), nullable=False))),
        pa.field("values", pa.list_(pa.field("element", pa.float64(), nullable=False))),
    ]
)
"""The stored form of ``org.apache.spark.ml.linalg.VectorUDT``."""

_SPARK_SCHEMA_KEY = b"org.apache.spark.sql.parquet.row.metadata"
"""The key under which Spark keeps a frame's schema, including its own types, in a Parquet file."""

WEIGHT = "weight"
"""The column of the rows' weights; rows that all count once have none."""


def _arrow_schema(rows: Rows) -> pa.Schema:
    """Return the files' schema; the label declares the number of classes, even if a class has no rows."""
    label = StructField("label", DoubleType(), metadata={"ml_attr": {"type": "nominal", "num_vals": rows.classes}})
    frame = [label, StructField("features", VectorUDT()), StructField("held_out", BooleanType())]
    fields = [("label", pa.float64()), ("features", _VECTOR), ("held_out", pa.bool_())]
    if rows.weights is not None:
        frame.append(StructField(WEIGHT, DoubleType()))
        fields.append((WEIGHT, pa.float64()))
    return pa.schema(fields, metadata={_SPARK_SCHEMA_KEY: json.dumps(json.loads(StructType(frame).json()))})


def read_features(
    spark: Any,  # noqa: ANN401 - see tinytags_tasks.clients.spark.connect_spark
    url: str,
    *,
    with_held_out: bool,
) -> Any:  # noqa: ANN401
    """Return what :func:`write_features` wrote as a Spark frame, one partition per file.

    Its columns are ``label``, ``features`` and, if rows count differently, ``weight``.
    """
    spark.conf.set("spark.sql.files.maxPartitionBytes", _ONE_FILE_A_PARTITION)
    spark.conf.set("spark.sql.files.openCostInBytes", _ONE_FILE_A_PARTITION)
    spark.conf.set("spark.sql.files.minPartitionNum", 1)
    frame = spark.read.parquet(url)
    return frame if with_held_out else frame.filter("not held_out")
