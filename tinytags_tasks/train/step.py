"""The training step: a labelled set in, a published model out."""

import hashlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnxruntime
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.ml.classification import RandomForestClassifier
from pyspark.ml.linalg import VectorUDT
from pyspark.sql.types import DoubleType, StructField, StructType

from tinytags_tasks import layout
from tinytags_tasks.corpus.labelled import LabelledSet, file_sha256, read_labelled_set
from tinytags_tasks.errors import BadInputError, CorruptError
from tinytags_tasks.records import PIXEL_ORDER, ModelCard, Training, now
from tinytags_tasks.spark import ConnectSpark, spark_errors
from tinytags_tasks.storage import Storage, temporary_name
from tinytags_tasks.train.forest import Tree, forest_to_onnx, trees_from_spark

SIDE = 32
_ROWS_PER_GROUP = 2_500
_SPLIT_BYTES = 16 * 2**20


@dataclass(frozen=True)
class TrainRequest:
    """What to learn from, and how.

    Attributes
    ----------
    labelled
        Parquet file of the training images.
    test
        Parquet file of images that the card's accuracy is measured on; None measures nothing.
    name
        First part of the model's version.
    tags
        Names of the labels; None takes those that the file carries, else CIFAR-10's.
    trees, depth, bins, seed
        The forest's parameters, as MLlib names them numTrees, maxDepth, maxBins, seed.
    """

    labelled: str
    test: str | None = None
    name: str = "forest"
    tags: tuple[str, ...] | None = None
    trees: int = 10
    depth: int = 10
    bins: int = 50
    seed: int = 42

    def __post_init__(self) -> None:
        """Refuse parameters that Spark or the index cannot take.

        Raises
        ------
        BadInputError
            When one is out of range.
        """
        layout.checked_name(self.name, "model")
        for parameter, low, high in (("trees", 1, 1000), ("depth", 1, 30), ("bins", 2, 65536)):
            if not low <= getattr(self, parameter) <= high:
                raise BadInputError(f"{parameter} is {getattr(self, parameter)}: it must be {low} to {high}")


@dataclass(frozen=True)
class TrainResult:
    """The published model's version; ``trained`` is False when it stood already."""

    model: str
    trained: bool


def run(
    request: TrainRequest, *, storage: Storage, connect_spark: ConnectSpark, report: Callable[[str], None] = print
) -> TrainResult:
    """Publish the model that the labelled set and the parameters decide, unless it is published already.

    Raises
    ------
    BadInputError
        When a labelled file cannot be used.
    TransientError
        When Spark or HDFS cannot do its part now.
    """
    started = time.monotonic()
    labelled_sha256 = file_sha256(Path(request.labelled))
    training = _training_id(request, labelled_sha256)
    if storage.exists(layout.training_file(training)):
        model = Training.load(storage, layout.training_file(training)).model
        if storage.exists(layout.card_file(model)):
            report(f"model {model} was learned from the same images with the same parameters: nothing to do")
            return TrainResult(model, trained=False)
    labelled = read_labelled_set(Path(request.labelled), request.tags, side=SIDE)
    report(f"read {len(labelled.images):,} labelled images of {len(labelled.tags)} tags from {request.labelled}")
    storage.delete_leftovers(layout.training_file(training))
    features_file = layout.labelled_file(training)
    _write_features(labelled, features_file, storage)
    loaded = time.monotonic()
    report(f"fitting {request.trees} trees of depth {request.depth} in Spark")
    trees = _fit(request, features_file, training, storage, connect_spark)
    fitted = time.monotonic()
    features = math.prod(labelled.images.shape[1:])
    onnx_model = forest_to_onnx(
        trees, features, labelled.tags, {"tags": json.dumps(labelled.tags), "pixel_order": PIXEL_ORDER}
    )
    metrics = {"training_accuracy": round(_accuracy(onnx_model, labelled), 2)}
    if request.test:
        test = read_labelled_set(Path(request.test), labelled.tags, side=SIDE)
        metrics |= {"test_accuracy": round(_accuracy(onnx_model, test), 2), "test_images": float(len(test.images))}
    model = f"{request.name}-{hashlib.sha256(onnx_model).hexdigest()[:12]}"
    card = ModelCard(
        version=model,
        tags=labelled.tags,
        trees=request.trees,
        height=SIDE,
        width=SIDE,
        preparation=f"decoded by Pillow, BOX filter to {SIDE}x{SIDE} where larger",
        labelled_set=Path(request.labelled).name,
        labelled_sha256=labelled_sha256,
        labelled_images=len(labelled.images),
        parameters={"trees": request.trees, "depth": request.depth, "bins": request.bins, "seed": request.seed},
        metrics=metrics,
        libraries={name: version(name) for name in ("pyspark", "onnx", "onnxruntime", "numpy", "pillow")},
        seconds={"load": round(loaded - started, 1), "fit": round(fitted - loaded, 1)},
        created=now(),
    )
    _publish(card, onnx_model, storage)
    Training(model=model).save(storage, layout.training_file(training))
    report(f"published {model}: " + ", ".join(f"{name} {value:g}" for name, value in metrics.items()))
    return TrainResult(model, trained=True)


def _training_id(request: TrainRequest, labelled_sha256: str) -> str:
    """Hash all that decides a training's outcome; the files' places do not."""
    decisive = {name: value for name, value in asdict(request).items() if name not in ("labelled", "test")}
    decisive |= {"data": labelled_sha256, "spark": version("pyspark"), "split": _SPLIT_BYTES}
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]


def _write_features(labelled: LabelledSet, path: str, storage: Storage) -> None:
    """Put the labelled set into the store as Spark ML's own vectors, so that no row is converted when it is read.

    A pixel takes 256 values, so the dictionary encoding of parquet keeps a double in one byte.
    """
    if storage.exists(path):
        return
    schema = pa.schema(
        [("label", pa.float64()), ("features", _VECTOR)],
        metadata={_SPARK_SCHEMA_KEY: _spark_schema(len(labelled.tags))},
    )
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, schema, compression="zstd", dictionary_pagesize_limit=2**20) as writer:
        for start in range(0, len(labelled.images), _ROWS_PER_GROUP):
            flat = labelled.images[start : start + _ROWS_PER_GROUP].reshape(-1, math.prod(labelled.images.shape[1:]))
            offsets = np.arange(0, flat.size + 1, flat.shape[1], dtype=np.int32)
            vectors = pa.StructArray.from_arrays(
                [
                    pa.array(np.ones(len(flat), dtype=np.int8)),  # 1 says dense: only values are filled
                    pa.nulls(len(flat), pa.int32()),
                    pa.nulls(len(flat), _VECTOR.field("indices").type),
                    pa.ListArray.from_arrays(
                        offsets, flat.ravel().astype(np.float64), type=_VECTOR.field("values").type
                    ),
                ],
                fields=list(_VECTOR),
            )
            labels = labelled.labels[start : start + _ROWS_PER_GROUP].astype(np.float64)
            writer.write_table(pa.table([pa.array(labels), vectors], schema=schema))
    storage.write(path, sink.getvalue().to_pybytes())


_VECTOR = pa.struct(
    [
        pa.field("type", pa.int8(), nullable=False),
        pa.field("size", pa.int32()),
        pa.field("indices", pa.list_(pa.field("element", pa.int32(), nullable=False))),
        pa.field("values", pa.list_(pa.field("element", pa.float64(), nullable=False))),
    ]
)
"""``org.apache.spark.ml.linalg.VectorUDT`` as it is stored."""

_SPARK_SCHEMA_KEY = b"org.apache.spark.sql.parquet.row.metadata"
"""Where Spark keeps a frame's schema in a parquet file, its own types included."""


def _spark_schema(tags: int) -> str:
    """Return the frame's schema for Spark; the label says how many classes there are, even where one has no image."""
    label = StructField("label", DoubleType(), metadata={"ml_attr": {"type": "nominal", "num_vals": tags}})
    schema: str = StructType([label, StructField("features", VectorUDT())]).json()
    return schema


def _fit(
    request: TrainRequest, features_file: str, training: str, storage: Storage, connect_spark: ConnectSpark
) -> list[Tree]:
    """Fit the forest in Spark and fetch its trees."""
    saved = temporary_name(layout.training_file(training))
    spark = connect_spark()
    try:
        with spark_errors("training the forest"):
            # Bagging is seeded a partition, so the same cut must come of any number of cores.
            spark.conf.set("spark.sql.files.maxPartitionBytes", _SPLIT_BYTES)
            spark.conf.set("spark.sql.files.minPartitionNum", 1)
            frame = spark.read.parquet(storage.url(features_file))
            forest = RandomForestClassifier(
                numTrees=request.trees, maxDepth=request.depth, maxBins=request.bins, seed=request.seed
            ).fit(frame)
            forest.write().overwrite().save(storage.url(saved))
            trees = trees_from_spark(spark.read.parquet(storage.url(f"{saved}/data")).toArrow().to_pylist())
        if len(trees) != request.trees:
            raise CorruptError(f"Spark saved {len(trees)} of {request.trees} trees; train again")
        return trees
    finally:
        spark.stop()
        storage.delete(saved)


def _accuracy(onnx_model: bytes, labelled: LabelledSet) -> float:
    """Return the percentage of images whose winning tag is theirs."""
    session = onnxruntime.InferenceSession(onnx_model, providers=["CPUExecutionProvider"])
    flat = labelled.images.reshape(len(labelled.images), -1)
    right = 0
    for start in range(0, len(flat), 5_000):
        (votes,) = session.run(["votes"], {"pixels": flat[start : start + 5_000]})
        right += int((votes.argmax(axis=1) == labelled.labels[start : start + 5_000]).sum())
    return 100.0 * right / len(flat)


def _publish(card: ModelCard, onnx_model: bytes, storage: Storage) -> None:
    """Put a model's folder under its final name in one step; one that stands is the same model."""
    storage.delete_leftovers(layout.model_folder(card.version))
    temporary = temporary_name(layout.model_folder(card.version))
    storage.write(f"{temporary}/model.onnx", onnx_model)
    card.save(storage, f"{temporary}/model.json")
    if not storage.rename(temporary, layout.model_folder(card.version)):
        storage.delete(temporary)
