"""Evaluates a model on labelled images; the results are the figures on its card."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime

from tinytags_tasks.corpus.labelled import LabelledSet, file_sha256
from tinytags_tasks.nets.running import BATCH as NET_BATCH
from tinytags_tasks.store.lessons import picture_name
from tinytags_tasks.store.model_records import (
    ConfidenceBand,
    Evaluation,
    OtherEvaluation,
    OtherFigures,
    ThresholdFigures,
)
from tinytags_tasks.train.family import Classifier
from tinytags_tasks.train.gallery import Gallery
from tinytags_tasks.train.images import LEFT_OUT, NONE, read_labelled, read_other
from tinytags_tasks.votes import Decisions, Votes, decide, least_votes

THRESHOLDS = range(40, 101, 10)
"""The thresholds of confidence, in percent, that figures are given for; for ten trees these are 4 to 10 votes."""

BANDS = range(0, 100, 10)
"""Where the bands of confidence begin, in percent."""

_BATCH = 5_000


@dataclass(frozen=True)
class Yardstick:
    """The images on which a model is evaluated: a test set and images of other things, each with its file's hash."""

    test: tuple[LabelledSet, str] | None
    other: tuple[LabelledSet, str] | None

    @property
    def images(self) -> int:
        """How many images there are."""
        return sum(len(part[0].images) for part in (self.test, self.other) if part)

    def without(self, pictures: Collection[bytes]) -> "Yardstick":
        """Return the images that are not among some pictures, see :func:`~tinytags_tasks.store.lessons.picture_name`.

        A test set of which nothing is left is not measured.
        """

        def rest(part: tuple[LabelledSet, str] | None) -> tuple[LabelledSet, str] | None:
            if part is None:
                return None
            labelled, sha256 = part
            keep = np.array(
                [picture_name(image.tobytes()) not in pictures for image in labelled.images], dtype=np.bool_
            )
            left = replace(labelled, images=labelled.images[keep], labels=labelled.labels[keep])
            return (left, sha256) if keep.any() else None

        return Yardstick(rest(self.test), rest(self.other))

    def measure(
        self, classifier: Classifier, gallery: Gallery | None = None
    ) -> tuple[Evaluation | None, OtherEvaluation | None]:
        """Return a model's figures, and add pictures of the test set to a gallery."""
        test = other = None
        if self.test:
            images, sha256 = self.test
            votes = count_votes(classifier.onnx_model, images.images)
            test = evaluate(votes, images, classifier.total, sha256)
            if gallery:
                gallery.add("test", votes, images.labels, classifier.total, images.images.__getitem__)
        if self.other:
            images, sha256 = self.other
            votes = count_votes(classifier.onnx_model, images.images)
            other = evaluate_other(votes, images, classifier.total, sha256)
        return test, other


def read_yardstick(test: str | None, other: str | None, tags: tuple[str, ...], height: int, width: int) -> Yardstick:
    """Read the images on which a model is evaluated; without a file, nothing is evaluated.

    Raises
    ------
    BadInputError
        If a file cannot be used.
    """
    return Yardstick(
        (read_labelled(Path(test), tags, height, width), file_sha256(Path(test))) if test else None,
        (read_other(Path(other), tags, height, width), file_sha256(Path(other))) if other else None,
    )


def count_votes(onnx_model: bytes, images: npt.NDArray[np.uint8]) -> Votes:
    """Return a model's votes for each tag.

    Parameters
    ----------
    onnx_model
        A published model: input ``pixels``, output ``votes``.
    images
        uint8, shape (images, height, width, 3).

    Returns
    -------
    numpy.ndarray
        float32, shape (images, tags) or, with "none", (images, tags + 1).
    """
    session = onnxruntime.InferenceSession(onnx_model, providers=["CPUExecutionProvider"])
    # A model that sees through a net says so; the net's layers take far more memory than a head.
    batch = NET_BATCH if "features" in session.get_modelmeta().custom_metadata_map else _BATCH
    flat = images.reshape(len(images), -1)
    return np.concatenate(
        [session.run(["votes"], {"pixels": flat[start : start + batch]})[0] for start in range(0, len(flat), batch)]
    )


def evaluate(votes: Votes, labelled: LabelledSet, total: int, sha256: str) -> Evaluation:
    """Return the figures of a model's votes on images whose tags are known.

    Parameters
    ----------
    votes
        float32, shape (images, tags) or, with "none", (images, tags + 1).
    labelled
        The images, all of them with a tag.
    total
        The sum of an image's votes.
    sha256
        The labelled file's hash.
    """
    tags = len(labelled.tags)
    of_tag = np.bincount(labelled.labels, minlength=tags)
    figures = []
    for threshold in THRESHOLDS:
        decided = decide(votes, tags, threshold, total)
        is_right = decided.is_kept & (decided.winner == labelled.labels)
        right_of_tag = np.bincount(decided.winner[is_right], minlength=tags)
        figures.append(
            ThresholdFigures(
                threshold=threshold,
                votes=least_votes(threshold, total),
                kept=int(decided.is_kept.sum()),
                right=int(is_right.sum()),
                precision=_percentages(right_of_tag, np.bincount(decided.winner[decided.is_kept], minlength=tags)),
                recall=_percentages(right_of_tag, of_tag),
            )
        )
    decided = decide(votes, tags, 0, total)
    confusion = np.zeros((tags, votes.shape[1]), dtype=np.int64)
    np.add.at(confusion, (labelled.labels, decided.winner), 1)
    return Evaluation(
        labelled_set=labelled.path.name,
        sha256=sha256,
        images=len(labelled.images),
        accuracy=round(100.0 * float((decided.winner == labelled.labels).mean()), 2),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        thresholds=tuple(figures),
        reliability=_reliability(decided, labelled.labels, total),
    )


def _reliability(decided: Decisions, labels: npt.NDArray[np.int64], total: int) -> tuple[ConfidenceBand, ...]:
    """Return how often the winning tag is right, by band of confidence."""
    confidences = 100.0 * decided.won[~decided.is_none].astype(np.float64) / total
    is_right = (decided.winner == labels)[~decided.is_none]
    # A percentage of float32 may be a little above 100.
    band = np.clip(np.searchsorted(BANDS, confidences, side="right") - 1, 0, len(BANDS) - 1)
    return tuple(
        ConfidenceBand(
            confidence=first,
            images=int((band == number).sum()),
            right=int(is_right[band == number].sum()),
            mean_confidence=round(float(confidences[band == number].mean()), 2) if (band == number).any() else 0.0,
        )
        for number, first in enumerate(BANDS)
    )


def evaluate_other(votes: Votes, other: LabelledSet, total: int, sha256: str) -> OtherEvaluation:
    """Return the figures of a model's votes on images of other things.

    Parameters
    ----------
    votes, total, sha256
        As for :func:`evaluate`.
    other
        The images; some have the label -1 (none of the tags) or -2 (excluded from all figures).
    """
    return _evaluate_other(votes, other.labels, len(other.tags), total, (other.path.name, sha256))


def evaluate_background(votes: Votes, tags: int, total: int, net: str, sha256: str) -> OtherEvaluation:
    """Return the figures of a model's votes on background that it did not learn from: none of it shows a tag.

    Parameters
    ----------
    votes, total
        As for :func:`evaluate`.
    tags
        The number of tags.
    net, sha256
        The net that the background came with, and the hash of the background's file.
    """
    labels = np.full(len(votes), NONE, dtype=np.int64)
    return _evaluate_other(votes, labels, tags, total, (f"background of {net}", sha256))


def _evaluate_other(
    votes: Votes, labels: npt.NDArray[np.int64], tags: int, total: int, source: tuple[str, str]
) -> OtherEvaluation:
    without_tag, with_tag = labels == NONE, labels >= 0
    figures = []
    for threshold in THRESHOLDS:
        decided = decide(votes, tags, threshold, total)
        figures.append(
            OtherFigures(
                threshold=threshold,
                votes=least_votes(threshold, total),
                tagged_without_tag=int((decided.is_kept & without_tag).sum()),
                tagged_with_tag=int((decided.is_kept & with_tag).sum()),
                right=int((decided.is_kept & with_tag & (decided.winner == labels)).sum()),
            )
        )
    is_none = decide(votes, tags, 0, total).is_none
    has_none = votes.shape[1] > tags
    return OtherEvaluation(
        labelled_set=source[0],
        sha256=source[1],
        without_tag=int(without_tag.sum()),
        with_tag=int(with_tag.sum()),
        left_out=int((labels == LEFT_OUT).sum()),
        thresholds=tuple(figures),
        none_without_tag=int((is_none & without_tag).sum()) if has_none else None,
        none_with_tag=int((is_none & with_tag).sum()) if has_none else None,
        auroc=_auroc(votes[with_tag, :tags].max(axis=1), votes[without_tag, :tags].max(axis=1)),
    )


def _auroc(of_tag: npt.NDArray[np.number], of_none: npt.NDArray[np.number]) -> float | None:
    """Return the probability that an image of a tag has more votes than an image of none; a tie counts half."""
    if not len(of_tag) or not len(of_none):
        return None
    ordered = np.sort(of_none)
    fewer = np.searchsorted(ordered, of_tag, side="left")
    not_more = np.searchsorted(ordered, of_tag, side="right")
    return round(float((fewer + not_more).mean()) / (2 * len(ordered)), 4)


def _percentages(parts: npt.NDArray[np.int64], wholes: npt.NDArray[np.int64]) -> tuple[float | None, ...]:
    return tuple(
        round(100.0 * part / whole, 2) if whole else None
        for part, whole in zip(parts.tolist(), wholes.tolist(), strict=True)
    )
