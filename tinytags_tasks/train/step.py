"""The training step: a labelled set in, a published model out."""

import hashlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tinytags_tasks import layout
from tinytags_tasks.corpus.labelled import LabelledSet, file_sha256
from tinytags_tasks.errors import CorruptError, MissingError
from tinytags_tasks.lease import Leases
from tinytags_tasks.models import model_version, publish_model, read_model
from tinytags_tasks.records import PIXEL_ORDER, Evaluation, ModelCard, Training, now
from tinytags_tasks.spark import ConnectSpark
from tinytags_tasks.storage import Storage
from tinytags_tasks.train.evaluation import count_votes, evaluate, read_yardstick
from tinytags_tasks.train.forest import Tree, forest_to_onnx
from tinytags_tasks.train.images import preparation, read_labelled
from tinytags_tasks.train.parameters import TrainRequest
from tinytags_tasks.train.report import render_report
from tinytags_tasks.train.spark_forest import PARTITION_VALUES, fit_trees, write_features

__all__ = ["TrainRequest", "TrainResult", "run"]

_NOT_DECISIVE = ("labelled", "test", "other", "held_out", "licence")
"""What changes a model's card and not its votes; the labelled file counts by its bytes."""


@dataclass(frozen=True)
class TrainResult:
    """The published model's version; ``trained`` is False when it stood already."""

    model: str
    trained: bool


def run(
    request: TrainRequest, *, storage: Storage, connect_spark: ConnectSpark, report: Callable[[str], None] = print
) -> TrainResult:
    """Publish the model that the labelled set and the parameters decide, unless it is published already.

    Another process that trains the same is waited for.

    Raises
    ------
    BadInputError
        When a labelled file cannot be used.
    TransientError
        When Spark or HDFS cannot do its part now.
    """
    labelled_sha256 = file_sha256(Path(request.labelled))
    training = _training_id(request, labelled_sha256)
    with Leases(storage).wait_for(layout.training_lease_file(training), f"training {training}", report):
        return _train(request, training, labelled_sha256, storage, connect_spark, report)


def _train(
    request: TrainRequest,
    training: str,
    labelled_sha256: str,
    storage: Storage,
    connect_spark: ConnectSpark,
    report: Callable[[str], None],
) -> TrainResult:
    """Train as the only one."""
    started = time.monotonic()
    storage.delete_leftovers(layout.training_file(training), layout.training_lease_file(training))
    standing = _standing_model(training, storage)
    if standing:
        report(f"model {standing.version} was learned from the same images with the same parameters: nothing to do")
        _remark_unmeasured(request, standing, report)
        return TrainResult(standing.version, trained=False)
    labelled = read_labelled(Path(request.labelled), request.tags, request.height, request.width)
    report(f"read {len(labelled.images):,} labelled images of {len(labelled.tags)} tags from {request.labelled}")
    # Before the long work, so that a file that cannot be used is told at once.
    yardstick = read_yardstick(request.test, request.other, labelled.tags, request.height, request.width)
    folder = layout.labelled_file(training)
    storage.delete_leftovers(folder, f"{folder}.trees")
    held_out = _hold_out(labelled, request)
    write_features(labelled, held_out, folder, storage)
    loaded = time.monotonic()
    spark = connect_spark()
    try:
        measured = None
        if held_out.any():
            report(f"fitting a forest that is measured on {held_out.sum():,} images it never saw")
            partial = fit_trees(request, folder, storage, spark, with_held_out=False)
            measured = _evaluate_part(_to_onnx(partial, labelled), labelled, held_out, request.trees, labelled_sha256)
        held_out_fitted = time.monotonic()
        report(f"fitting {request.trees} trees of depth {request.depth} in Spark")
        trees = fit_trees(request, folder, storage, spark, with_held_out=True)
        fitted = time.monotonic()
    finally:
        spark.stop()
    onnx_model = _to_onnx(trees, labelled)
    test, other = yardstick.measure(onnx_model, request.trees)
    winners = count_votes(onnx_model, labelled.images).argmax(axis=1)
    metrics = {"training_accuracy": round(100.0 * float((winners == labelled.labels).mean()), 2)}
    if measured:
        metrics["held_out_accuracy"] = measured.accuracy
    if test:
        metrics |= {"test_accuracy": test.accuracy, "test_images": float(test.images)}
    card = ModelCard(
        version=model_version(request.name, onnx_model),
        tags=labelled.tags,
        trees=request.trees,
        height=request.height,
        width=request.width,
        preparation=preparation(request.height, request.width),
        labelled_set=Path(request.labelled).name,
        labelled_sha256=labelled_sha256,
        labelled_images=len(labelled.images),
        licence=request.licence,
        parameters={**request.forest, "partition_values": PARTITION_VALUES},
        metrics=metrics,
        libraries={name: version(name) for name in ("pyspark", "onnx", "onnxruntime", "numpy", "pillow")},
        seconds={
            "load": round(loaded - started, 1),
            "held_out": round(held_out_fitted - loaded, 1),
            "fit": round(fitted - held_out_fitted, 1),
        },
        created=now(),
        held_out=measured,
        test=test,
        other=other,
    )
    publish_model(card, onnx_model, render_report(card), storage)
    Training(model=card.version).save(storage, layout.training_file(training))
    report(f"published {card.version}: " + ", ".join(f"{name} {value:g}" for name, value in metrics.items()))
    return TrainResult(card.version, trained=True)


def _training_id(request: TrainRequest, labelled_sha256: str) -> str:
    """Hash all that decides a training's outcome; the files' places do not."""
    decisive = {name: value for name, value in asdict(request).items() if name not in _NOT_DECISIVE}
    decisive |= {"data": labelled_sha256, "spark": version("pyspark"), "partition_values": PARTITION_VALUES}
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]


def _standing_model(training: str, storage: Storage) -> ModelCard | None:
    if not storage.exists(layout.training_file(training)):
        return None
    model = Training.load(storage, layout.training_file(training)).model
    if not storage.exists(layout.card_file(model)):
        return None
    try:
        read_model(storage, model)
    except (MissingError, CorruptError):  # learned again, it is published again
        return None
    return ModelCard.load(storage, layout.card_file(model))


def _remark_unmeasured(request: TrainRequest, card: ModelCard, report: Callable[[str], None]) -> None:
    """Say it when the standing card lacks figures that are asked for now: it is never written again."""
    for file, figures in ((request.test, card.test), (request.other, card.other)):
        if file and (figures is None or figures.sha256 != file_sha256(Path(file))):
            report(f"its card has no figures on {file}, and a card is never changed: train under another name for them")


def _hold_out(labelled: LabelledSet, request: TrainRequest) -> npt.NDArray[np.bool_]:
    """Choose the images to hold out, bool of shape (images,); none where too few would be left to learn from."""
    images = len(labelled.images)
    held_out = np.zeros(images, dtype=np.bool_)
    random = np.random.default_rng(request.seed % 2**63)
    held_out[random.permutation(images)[: images * request.held_out // 100]] = True
    if len(np.unique(labelled.labels[~held_out])) < 2:
        held_out[:] = False
    return held_out


def _evaluate_part(
    onnx_model: bytes, labelled: LabelledSet, chosen: npt.NDArray[np.bool_], trees: int, sha256: str
) -> Evaluation:
    part = replace(labelled, images=labelled.images[chosen], labels=labelled.labels[chosen])
    return evaluate(count_votes(onnx_model, part.images), part, trees, sha256)


def _to_onnx(trees: list[Tree], labelled: LabelledSet) -> bytes:
    features = math.prod(labelled.images.shape[1:])
    metadata = {"tags": json.dumps(labelled.tags), "pixel_order": PIXEL_ORDER}
    return forest_to_onnx(trees, features, labelled.tags, metadata)
