"""Evaluates a model on labelled images; the results are the figures on its card."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime

from tinytags_tasks.corpus.labelled import LabelledSet, file_sha256
from tinytags_tasks.nets.running import BATCH as NET_BATCH
from tinytags_tasks.store.embedding_files import Embeddings
from tinytags_tasks.store.model_records import (
    ConfidenceBand,
    Evaluation,
    OtherEvaluation,
    OtherFigures,
    ThresholdFigures,
)
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.train.family import Classifier
from tinytags_tasks.train.features import LabelledFeatures, Sight, are_among, head_votes, read_features
from tinytags_tasks.train.gallery import Gallery
from tinytags_tasks.train.images import LEFT_OUT, NONE, read_rows
from tinytags_tasks.votes import Decisions, Votes, decide, least_votes

THRESHOLDS = range(40, 101, 10)
"""The thresholds of confidence, in percent, that figures are given for; for ten trees these are 4 to 10 votes."""

BANDS = range(0, 100, 10)
"""Where the bands of confidence begin, in percent."""

_BATCH = 5_000


@dataclass(frozen=True)
class Yardstick:
    """What a head sees of the images on which it is evaluated: a test set, and images of other things.

    Attributes
    ----------
    sight
        What the head sees of an image.
    test, other
        The images.
    test_rows
        The numbers of the test images in their file, if some were left out.
    """

    sight: Sight
    test: LabelledFeatures | None
    other: LabelledFeatures | None
    test_rows: npt.NDArray[np.int64] | None = field(default=None, repr=False)

    @property
    def embed_seconds(self) -> float:
        """How long decoding and embedding took; 0 if nothing had to be embedded."""
        return sum(each.embed_seconds for each in (self.test, self.other) if each)

    def without(self, learned: Embeddings, report: Callable[[str], None]) -> "Yardstick":
        """Return the images that a head does not learn from; a set of which nothing is left is not measured."""
        left_out, rows = 0, None
        parts: list[LabelledFeatures | None] = []
        for part in (self.test, self.other):
            if part is None:
                parts.append(None)
                continue
            keep = ~are_among(part.values, learned)
            left_out += int((~keep).sum())
            parts.append(part.part(keep) if keep.any() else None)
            if part is self.test:
                rows = np.flatnonzero(keep)
        if left_out:
            report(
                f"{left_out:,} of the images to measure on were reviewed, and are left out: the model learns from them"
            )
        return Yardstick(self.sight, parts[0], parts[1], rows)

    def measure(self, head: Classifier, gallery: Gallery) -> tuple[Evaluation | None, OtherEvaluation | None]:
        """Return a head's figures, and add pictures of the test set to a gallery."""
        test = other = None
        if self.test:
            path, labels = self.test.path, self.test.labels
            votes = head_votes(head.onnx_model, self.test.values)
            test = evaluate(votes, self.test, head.total, self.test.sha256)

            def read(rows: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
                rows = rows if self.test_rows is None else self.test_rows[rows]
                return read_rows(path, rows, self.sight.height, self.sight.width)

            gallery.add("test", votes, labels, head.total, read)
        if self.other:
            votes = head_votes(head.onnx_model, self.other.values)
            other = evaluate_other(votes, self.other, head.total, self.other.sha256)
        return test, other


def read_yardstick(
    test: str | None,
    other: str | None,
    tags: tuple[str, ...],
    sight: Sight,
    storage: Storage,
    report: Callable[[str], None],
) -> Yardstick:
    """Read what a head sees of the images on which it is evaluated; without a file, nothing is evaluated.

    Embeddings are made once, as those of a labelled set are.

    Raises
    ------
    BadInputError
        If a file cannot be used.
    """

    def read(file: str | None, *, is_other: bool) -> LabelledFeatures | None:
        if not file:
            return None
        path = Path(file)
        found = read_features(path, file_sha256(path), tags, sight, storage, report, is_other=is_other)
        if found.unlabelled:
            report(f"{path}: left out because they have no label (-1): {found.unlabelled:,} images")
        return found

    return Yardstick(sight, read(test, is_other=False), read(other, is_other=True))


def count_votes(onnx_model: bytes, images: npt.NDArray[np.uint8]) -> Votes:
    """Return the votes of a published model's file for each tag, from pixels.

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


def evaluate(votes: Votes, labelled: LabelledSet | LabelledFeatures, total: int, sha256: str) -> Evaluation:
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
        images=len(labelled.labels),
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


def evaluate_other(votes: Votes, other: LabelledSet | LabelledFeatures, total: int, sha256: str) -> OtherEvaluation:
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
