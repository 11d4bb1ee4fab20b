"""The training step: turns a labelled set into a published model."""

import hashlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tinytags_tasks.clients.spark import ConnectSpark
from tinytags_tasks.corpus.labelled import LabelledSet, file_sha256
from tinytags_tasks.errors import CorruptError, MissingError
from tinytags_tasks.store import layout
from tinytags_tasks.store.lease import Leases
from tinytags_tasks.store.model_records import Evaluation, ModelCard, OtherEvaluation, Training
from tinytags_tasks.store.models import model_version, publish_model, read_model
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.store.record import now
from tinytags_tasks.train.evaluation import count_votes, evaluate, read_yardstick
from tinytags_tasks.train.family import Classifier, Features
from tinytags_tasks.train.images import preparation, read_labelled
from tinytags_tasks.train.parameters import TrainRequest
from tinytags_tasks.train.report import render_report
from tinytags_tasks.train.spark_features import PARTITION_VALUES, write_features
from tinytags_tasks.votes import winners

__all__ = ["TrainRequest", "TrainResult", "train_model"]


@dataclass(frozen=True)
class TrainResult:
    """The published model's version; ``trained`` is False if it had been published before."""

    model: str
    trained: bool


@dataclass(frozen=True)
class _Figures:
    """A model's figures: on images held out from a second model, the test set and other things, and a summary."""

    held_out: Evaluation | None
    test: Evaluation | None
    other: OtherEvaluation | None
    metrics: dict[str, float]


def train_model(
    request: TrainRequest, *, storage: Storage, connect_spark: ConnectSpark, report: Callable[[str], None] = print
) -> TrainResult:
    """Publish the model that the labelled set and the parameters determine, unless it has been published already.

    If another process is training the same model, wait for it.

    Raises
    ------
    BadInputError
        If a labelled file cannot be used.
    TransientError
        If Spark or HDFS is unavailable.
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
    existing = _existing_model(training, storage)
    if existing:
        report(f"model {existing.version} was learned from the same images with the same parameters: nothing to do")
        _report_unmeasured(request, existing, report)
        return TrainResult(existing.version, trained=False)
    labelled = read_labelled(Path(request.labelled), request.tags, request.height, request.width)
    report(f"read {len(labelled.images):,} labelled images of {len(labelled.tags)} tags from {request.labelled}")
    # Before the long part, so that a file that cannot be used is reported at once.
    yardstick = read_yardstick(request.test, request.other, labelled.tags, request.height, request.width)
    folder = layout.labelled_file(training)
    storage.delete_leftovers(folder)
    held_out = _hold_out(labelled, request)
    write_features(labelled, held_out, folder, storage)
    seconds = {"load": round(time.monotonic() - started, 1)}
    features = Features(folder, labelled.tags, values=math.prod(labelled.images.shape[1:]))
    partial, classifier = _fit(request, features, int(held_out.sum()), storage, connect_spark, seconds, report)
    measured = _evaluate_part(partial, labelled, held_out, labelled_sha256) if partial else None
    test, other = yardstick.measure(classifier)
    figures = _Figures(measured, test, other, _metrics(classifier, labelled, measured, test))
    card = _card(request, labelled, labelled_sha256, classifier, figures, seconds)
    publish_model(card, classifier.onnx_model, render_report(card), storage)
    Training(model=card.version).save(storage, layout.training_file(training))
    report(f"published {card.version}: " + ", ".join(f"{name} {value:g}" for name, value in card.metrics.items()))
    return TrainResult(card.version, trained=True)


def _training_id(request: TrainRequest, labelled_sha256: str) -> str:
    """Hash everything that determines a model's votes, but not the card's figures or the files' paths.

    A parameter that is added later is included only if it is not at its default: see ``docs/adr/0017-identities.md``.
    """
    decisive = {
        "bins": request.bins,
        "data": labelled_sha256,
        "depth": request.depth,
        "height": request.height,
        "name": request.name,
        "partition_values": PARTITION_VALUES,
        "seed": request.seed,
        "spark": version("pyspark"),
        "tags": request.tags,
        "trees": request.trees,
        "width": request.width,
    }
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]


def _existing_model(training: str, storage: Storage) -> ModelCard | None:
    if not storage.exists(layout.training_file(training)):
        return None
    try:
        model = Training.load(storage, layout.training_file(training)).model
        read_model(storage, model)
        return ModelCard.load(storage, layout.card_file(model))
    except (MissingError, CorruptError):  # if it is trained again, it is also published again
        return None


def _report_unmeasured(request: TrainRequest, card: ModelCard, report: Callable[[str], None]) -> None:
    """Report which requested figures are missing on the existing card, which is never rewritten."""
    for file, figures in ((request.test, card.test), (request.other, card.other)):
        if file and (figures is None or figures.sha256 != file_sha256(Path(file))):
            report(f"its card has no figures on {file}, and a card is never changed: train under another name for them")


def _hold_out(labelled: LabelledSet, request: TrainRequest) -> npt.NDArray[np.bool_]:
    """Choose the images to hold out, bool, shape (images,); none if too few would be left to learn from."""
    images = len(labelled.images)
    held_out = np.zeros(images, dtype=np.bool_)
    random = np.random.default_rng(request.seed % 2**63)
    held_out[random.permutation(images)[: images * request.held_out // 100]] = True
    if len(np.unique(labelled.labels[~held_out])) < 2:
        held_out[:] = False
    return held_out


def _fit(
    request: TrainRequest,
    features: Features,
    held_out: int,
    storage: Storage,
    connect_spark: ConnectSpark,
    seconds: dict[str, float],
    report: Callable[[str], None],
) -> tuple[Classifier | None, Classifier]:
    """Fit a model without the held-out images, if any, and the one to publish; record the ``seconds`` taken."""
    family, chosen = request.family, request.parameters
    started = time.monotonic()
    spark = connect_spark()
    try:
        partial = None
        if held_out:
            report(f"fitting a {family.name} without {held_out:,} held-out images, to measure it on them")
            partial = family.fit(chosen, features, storage, spark, with_held_out=False)
        partial_fitted = time.monotonic()
        report(f"fitting {family.describe(chosen)} in Spark")
        classifier = family.fit(chosen, features, storage, spark, with_held_out=True)
        fitted = time.monotonic()
    finally:
        spark.stop()
    seconds |= {"held_out": round(partial_fitted - started, 1), "fit": round(fitted - partial_fitted, 1)}
    return partial, classifier


def _evaluate_part(
    classifier: Classifier, labelled: LabelledSet, chosen: npt.NDArray[np.bool_], sha256: str
) -> Evaluation:
    part = replace(labelled, images=labelled.images[chosen], labels=labelled.labels[chosen])
    return evaluate(count_votes(classifier.onnx_model, part.images), part, classifier.total, sha256)


def _metrics(
    classifier: Classifier, labelled: LabelledSet, held_out: Evaluation | None, test: Evaluation | None
) -> dict[str, float]:
    """Return the main figures: test accuracies in percent, whatever the confidence."""
    winner, _ = winners(count_votes(classifier.onnx_model, labelled.images))
    metrics = {"training_accuracy": round(100.0 * float((winner == labelled.labels).mean()), 2)}
    if held_out:
        metrics["held_out_accuracy"] = held_out.accuracy
    if test:
        metrics |= {"test_accuracy": test.accuracy, "test_images": float(test.images)}
    return metrics


def _card(
    request: TrainRequest,
    labelled: LabelledSet,
    labelled_sha256: str,
    classifier: Classifier,
    figures: _Figures,
    seconds: dict[str, float],
) -> ModelCard:
    return ModelCard(
        version=model_version(request.name, classifier.onnx_model),
        tags=labelled.tags,
        trees=classifier.total,
        output=classifier.output,
        height=request.height,
        width=request.width,
        preparation=preparation(request.height, request.width),
        labelled_set=Path(request.labelled).name,
        labelled_sha256=labelled_sha256,
        labelled_images=len(labelled.images),
        licence=request.licence,
        parameters={**classifier.parameters, "partition_values": PARTITION_VALUES},
        metrics=figures.metrics,
        libraries={name: version(name) for name in ("pyspark", "onnx", "onnxruntime", "numpy", "pillow")},
        seconds=seconds,
        created=now(),
        held_out=figures.held_out,
        test=figures.test,
        other=figures.other,
    )
