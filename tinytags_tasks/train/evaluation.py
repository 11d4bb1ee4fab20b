"""Evaluates a model on labelled images; the results are the figures on its card."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime

from tinytags_tasks.corpus.labelled import LabelledSet, file_sha256
from tinytags_tasks.store.model_records import Evaluation, OtherEvaluation, OtherFigures, ThresholdFigures
from tinytags_tasks.train.family import Classifier
from tinytags_tasks.train.images import LEFT_OUT, NONE, read_labelled, read_other
from tinytags_tasks.votes import Votes, is_kept, least_votes, winners

THRESHOLDS = range(40, 101, 10)
"""The thresholds of confidence, in percent, that figures are given for; for ten trees these are 4 to 10 votes."""

_BATCH = 5_000


@dataclass(frozen=True)
class Yardstick:
    """The images on which a model is evaluated: a test set and images of other things, each with its file's hash."""

    test: tuple[LabelledSet, str] | None
    other: tuple[LabelledSet, str] | None

    def measure(self, classifier: Classifier) -> tuple[Evaluation | None, OtherEvaluation | None]:
        """Return a model's figures."""
        test = other = None
        if self.test:
            images, sha256 = self.test
            test = evaluate(count_votes(classifier.onnx_model, images.images), images, classifier.total, sha256)
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
        float32, shape (images, tags).
    """
    session = onnxruntime.InferenceSession(onnx_model, providers=["CPUExecutionProvider"])
    flat = images.reshape(len(images), -1)
    return np.concatenate(
        [session.run(["votes"], {"pixels": flat[start : start + _BATCH]})[0] for start in range(0, len(flat), _BATCH)]
    )


def evaluate(votes: Votes, labelled: LabelledSet, total: int, sha256: str) -> Evaluation:
    """Return the figures of a model's votes on images whose tags are known.

    Parameters
    ----------
    votes
        float32, shape (images, tags).
    labelled
        The images, all of them with a tag.
    total
        The sum of an image's votes.
    sha256
        The labelled file's hash.
    """
    tags = len(labelled.tags)
    winner, won = winners(votes)
    is_right = winner == labelled.labels
    confusion = np.zeros((tags, tags), dtype=np.int64)
    np.add.at(confusion, (labelled.labels, winner), 1)
    of_tag = np.bincount(labelled.labels, minlength=tags)
    figures = []
    for threshold in THRESHOLDS:
        kept = is_kept(won, threshold, total)
        right_of_tag = np.bincount(winner[kept & is_right], minlength=tags)
        figures.append(
            ThresholdFigures(
                threshold=threshold,
                votes=least_votes(threshold, total),
                kept=int(kept.sum()),
                right=int((kept & is_right).sum()),
                precision=_percentages(right_of_tag, np.bincount(winner[kept], minlength=tags)),
                recall=_percentages(right_of_tag, of_tag),
            )
        )
    return Evaluation(
        labelled_set=labelled.path.name,
        sha256=sha256,
        images=len(labelled.images),
        accuracy=round(100.0 * float(is_right.mean()), 2),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        thresholds=tuple(figures),
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
    winner, won = winners(votes)
    has_none, has_tag = other.labels == NONE, other.labels >= 0
    figures = []
    for threshold in THRESHOLDS:
        kept = is_kept(won, threshold, total)
        figures.append(
            OtherFigures(
                threshold=threshold,
                votes=least_votes(threshold, total),
                tagged_without_tag=int((kept & has_none).sum()),
                tagged_with_tag=int((kept & has_tag).sum()),
                right=int((kept & has_tag & (winner == other.labels)).sum()),
            )
        )
    return OtherEvaluation(
        labelled_set=other.path.name,
        sha256=sha256,
        without_tag=int(has_none.sum()),
        with_tag=int(has_tag.sum()),
        left_out=int((other.labels == LEFT_OUT).sum()),
        thresholds=tuple(figures),
    )


def _percentages(parts: npt.NDArray[np.int64], wholes: npt.NDArray[np.int64]) -> tuple[float | None, ...]:
    return tuple(
        round(100.0 * part / whole, 2) if whole else None
        for part, whole in zip(parts.tolist(), wholes.tolist(), strict=True)
    )
