"""Fits a head in Spark, and a second one without the held-out images, by which it is measured."""

import hashlib
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tinytags_tasks.clients.spark import ConnectSpark, in_thread
from tinytags_tasks.store import layout
from tinytags_tasks.store.embedding_files import Embeddings
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.train.family import Classifier, Features
from tinytags_tasks.train.features import LabelledFeatures, are_among
from tinytags_tasks.train.none import Chosen
from tinytags_tasks.train.parameters import TrainRequest
from tinytags_tasks.train.reviews import Reviewed
from tinytags_tasks.train.spark_features import PARTITION_VALUES, Rows, write_features
from tinytags_tasks.train.whitening import Whitening


@dataclass(frozen=True)
class Lesson:
    """What a head learns from: the labelled images first, then the background, then reviewed pictures.

    Attributes
    ----------
    rows
        The features of all.
    tags
        The names of the tags; if there is one more class, it is "none of the tags".
    held_out
        bool, shape (labelled images,): those that the second head does not learn from.
    background
        How many pictures of the background there are.
    background_held_back
        The background that the second head does not learn from, int8, shape (pictures, dimensions).
    whitening
        How the embeddings are prepared before they are fitted; None if they are not.
    """

    rows: Rows
    tags: tuple[str, ...]
    held_out: npt.NDArray[np.bool_] = field(repr=False)
    background: int = 0
    background_held_back: Embeddings = field(default_factory=lambda: np.zeros((0, 0), dtype=np.int8), repr=False)
    whitening: Whitening | None = None


@dataclass(frozen=True)
class Fitted:
    """The head to publish, the one without the held-out images (None if there are none), and the seconds they took."""

    classifier: Classifier
    partial: Classifier | None
    seconds: dict[str, float]


def make_lesson(
    request: TrainRequest,
    labelled: LabelledFeatures,
    background: Chosen | None,
    reviewed: Reviewed | None = None,
    *,
    has_none: bool = False,
    whitening: Whitening | None = None,
) -> Lesson:
    """Return what a head learns from.

    Parameters
    ----------
    request
        The training.
    labelled
        The labelled images.
    background
        The general pictures that show none of the tags; None if it learns from none.
    reviewed
        The reviewed pictures, with their weight; None if it learns from none.
    has_none
        Whether "none of the tags" is a class even without a background.
    whitening
        How the embeddings are prepared; None if they are not.
    """
    tags = len(labelled.tags)
    held_out = hold_out(labelled.labels, tags, request)
    values: list[npt.NDArray[Any]] = [labelled.values]
    labels, held_back = [labelled.labels], [held_out]
    others: Embeddings = np.zeros((0, 0), dtype=np.int8)
    background_held_back = others
    if background is not None:
        others = background.embeddings
        chosen = _choose(len(others), request) if held_out.any() else np.zeros(len(others), dtype=np.bool_)
        background_held_back = others[chosen]
        values.append(others)
        labels.append(np.full(len(others), tags))
        held_back.append(chosen)
    row_weights = [1.0] * len(labels)
    if request.family.most_background is not None and len(others) > len(labelled.labels):
        row_weights[-1] = len(labelled.labels) / len(others)
    if reviewed is not None:
        row_weights.append(reviewed.weight)
        values.append(reviewed.embeddings)
        labels.append(reviewed.labels)
        held_back.append(are_among(reviewed.embeddings, labelled.values[held_out]))
    is_weighted = any(weight != 1 for weight in row_weights)
    rows = Rows(
        values=np.concatenate(values) if len(values) > 1 else labelled.values,  # pixels are many: no copy
        labels=np.concatenate(labels),
        classes=tags + (has_none or background is not None),
        held_out=np.concatenate(held_back),
        weights=np.repeat(row_weights, [len(each) for each in labels]) if is_weighted else None,
    )
    return Lesson(rows, labelled.tags, held_out, len(others), background_held_back, whitening)


def hold_out(labels: npt.NDArray[np.int64], tags: int, request: TrainRequest) -> npt.NDArray[np.bool_]:
    """Choose the images to hold out, bool, shape (images,).

    None are held out if they would be fewer than the tags, since figures on them would say nothing; or if fewer than
    two tags would be left to learn.
    """
    held_out = _choose(len(labels), request)
    if held_out.sum() < tags or len(np.unique(labels[~held_out])) < 2:
        held_out[:] = False
    return held_out


def _choose(images: int, request: TrainRequest) -> npt.NDArray[np.bool_]:
    """Choose the percentage of images that is held out, bool, shape (images,)."""
    chosen = np.zeros(images, dtype=np.bool_)
    random = np.random.default_rng(request.seed % 2**63)
    chosen[random.permutation(images)[: images * request.held_out // 100]] = True
    return chosen


def fit_heads(
    request: TrainRequest,
    lesson: Lesson,
    training: str,
    storage: Storage,
    connect_spark: ConnectSpark,
    report: Callable[[str], None],
) -> Fitted:
    """Write what is to be learned to the store, and fit both heads in Spark.

    Raises
    ------
    TransientError
        If Spark or the store is unavailable.
    """
    family, chosen = request.family, request.parameters
    features = _write(request, lesson, training, storage)
    held_out = int(lesson.held_out.sum())
    started = time.monotonic()
    spark = connect_spark()

    def fit(*, with_held_out: bool) -> tuple[Classifier, float]:
        began = time.monotonic()
        classifier = family.fit(chosen, features, storage, spark, with_held_out=with_held_out)
        return classifier, time.monotonic() - began

    # A family that learns in one task leaves the other cores to the second fit.
    pool = ThreadPoolExecutor(2 if features.is_embedding and family.most_partitions == 1 else 1)
    try:
        partial = None
        if held_out:
            report(f"fitting a {family.name} head without {held_out:,} held-out images, to measure it on them")
            partial = pool.submit(in_thread(spark, fit), with_held_out=False)
        report(f"fitting {family.describe(chosen)} in Spark")
        whole = pool.submit(in_thread(spark, fit), with_held_out=True)
        measured, classifier = partial.result() if partial else None, whole.result()
    finally:
        spark.stop()  # first, because it cancels what still runs if this is interrupted or one fit fails
        pool.shutdown(cancel_futures=True)
    seconds = {"held_out": round(measured[1], 1)} if measured else {}
    seconds |= {"fit": round(classifier[1], 1), "spark": round(time.monotonic() - started, 1)}
    return Fitted(classifier[0], measured[0] if measured else None, seconds)


def _write(request: TrainRequest, lesson: Lesson, training: str, storage: Storage) -> Features:
    rows = lesson.rows
    # What is held out, and which background is left out, are no part of the training's id.
    decisive = [rows.held_out.tobytes(), rows.labels.tobytes()]
    if rows.weights is not None:
        decisive.append(rows.weights.tobytes())
    chosen = hashlib.sha256(b"".join(decisive)).hexdigest()[:8]
    folder = layout.labelled_file(f"{training}-{chosen}")
    is_embedding = rows.values.dtype == np.int8
    if is_embedding:
        partition_rows = math.ceil(len(rows.labels) / request.family.most_partitions)
    else:
        partition_rows = max(1, PARTITION_VALUES // rows.values.shape[1])
    storage.delete_leftovers(folder)
    written = rows
    if lesson.whitening is not None:
        written = replace(rows, values=lesson.whitening.apply(rows.values.astype(np.int8)))
    write_features(written, folder, storage, partition_rows=partition_rows)
    is_none = rows.labels == len(lesson.tags)
    is_background = np.zeros(len(rows.labels), dtype=np.bool_)
    is_background[len(lesson.held_out) : len(lesson.held_out) + lesson.background] = True
    is_reviewed_none = is_none & ~is_background
    return Features(
        folder,
        lesson.tags,
        rows.values.shape[1],
        is_embedding=is_embedding,
        has_none=rows.classes > len(lesson.tags),
        labelled=_weight(rows, ~is_none),
        held_out=_weight(rows, ~is_none & rows.held_out),
        background=lesson.background,
        background_held_out=len(lesson.background_held_back),
        none=_weight(rows, is_reviewed_none),
        none_held_out=_weight(rows, is_reviewed_none & rows.held_out),
        whitening=lesson.whitening,
    )


def _weight(rows: Rows, chosen: npt.NDArray[np.bool_]) -> float:
    """Return how much some of the rows weigh together."""
    return float(chosen.sum() if rows.weights is None else rows.weights[chosen].sum())
