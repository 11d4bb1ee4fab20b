"""Writes a labelled set to the store as Spark ML vectors, and reads it for training."""

import io
import json
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.ml.linalg import VectorUDT
from pyspark.sql.types import BooleanType, DoubleType, StructField, StructType

from tinytags_tasks.corpus.labelled import LabelledSet
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


def write_features(labelled: LabelledSet, held_out: npt.NDArray[np.bool_], folder: str, storage: Storage) -> None:
    """Write a labelled set to the store as Spark ML vectors, so that no row needs to be converted when it is read.

    Parameters
    ----------
    labelled
        The images.
    held_out
        bool, shape (images,): the images that one of the two models does not learn from, but is evaluated on.
    folder
        The folder for the files, one per partition. It appears once all files are complete; an existing folder is left
        unchanged.
    storage
        The store.
    """
    if storage.exists(folder):
        return
    temporary = temporary_name(folder)
    schema = _arrow_schema(len(labelled.tags))
    step = max(1, PARTITION_VALUES // math.prod(labelled.images.shape[1:]))

    def encode(start: int) -> bytes:
        rows = slice(start, start + step)
        return _encode(labelled.images[rows], labelled.labels[rows], held_out[rows], schema)

    contents = prefetch(map(encode, range(0, len(labelled.images), step)), 1)  # the next is encoded while one is sent
    for part, content in enumerate(contents):
        storage.write(f"{temporary}/part-{part:05d}.parquet", content)
    if not storage.rename(temporary, folder):
        storage.delete(temporary)


def _encode(
    images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64], held_out: npt.NDArray[np.bool_], schema: pa.Schema
) -> bytes:
    """Return a Parquet file; a pixel has 256 values, so dictionary encoding stores each double in one byte."""
    sink = io.BytesIO()
    step = max(1, _GROUP_VALUES // math.prod(images.shape[1:]))
    with pq.ParquetWriter(sink, schema, compression="none", dictionary_pagesize_limit=2**20) as writer:
        for start in range(0, len(images), step):
            rows = slice(start, start + step)
            flat = images[rows].reshape(-1, math.prod(images.shape[1:]))
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
            columns = [pa.array(labels[rows].astype(np.float64)), vectors, pa.array(held_out[rows])]
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


def _arrow_schema(tags: int) -> pa.Schema:
    """Return the files' schema; the label declares the number of classes, even if a class has no images."""
    label = StructField("label", DoubleType(), metadata={"ml_attr": {"type": "nominal", "num_vals": tags}})
    frame = StructType([label, StructField("features", VectorUDT()), StructField("held_out", BooleanType())])
    return pa.schema(
        [("label", pa.float64()), ("features", _VECTOR), ("held_out", pa.bool_())],
        metadata={_SPARK_SCHEMA_KEY: json.dumps(json.loads(frame.json()))},
    )


def read_features(
    spark: Any,  # noqa: ANN401 - see tinytags_tasks.clients.spark.connect_spark
    url: str,
    *,
    with_held_out: bool,
) -> Any:  # noqa: ANN401
    """Return what :func:`write_features` wrote as a Spark frame (``label``, ``features``), one partition per file."""
    spark.conf.set("spark.sql.files.maxPartitionBytes", _ONE_FILE_A_PARTITION)
    spark.conf.set("spark.sql.files.openCostInBytes", _ONE_FILE_A_PARTITION)
    spark.conf.set("spark.sql.files.minPartitionNum", 1)
    frame = spark.read.parquet(url)
    return frame if with_held_out else frame.filter("not held_out")
