"""Chooses how a head learns from reviewed pictures, by cross-validation on them.

How much they count, whether the background still helps, and how cautious the head is. Logistic regression in
scikit-learn stands in for the head: it has the same optimum as Spark's, and a part of the labelled images, with the
weight of all, is enough to rank a few ways in seconds. What is chosen depends on the data alone. See
docs/adr/0027-learning-from-reviews.md.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from tinytags_tasks.store.embedding_files import Embeddings
from tinytags_tasks.train.features import LabelledFeatures
from tinytags_tasks.train.logistic import LOGISTIC
from tinytags_tasks.train.none import Chosen
from tinytags_tasks.train.parameters import TrainRequest
from tinytags_tasks.train.reviews import ENOUGH, Reviewed

WEIGHTS = (5.0, 20.0, 50.0, 200.0)
"""How many times as much as a labelled picture a reviewed one may count."""

USUAL_WEIGHT = 20.0
"""What it counts if there are too few reviews to choose."""

CAUTIONS = (1, 10)
"""By how much a logistic head's regularization may be multiplied: reviews are few, and each has a great weight."""

KNOWN_WEIGHT = 200.0
"""What it counts, at the greatest caution, if the net was fine-tuned with reviews of the corpus.

Such a net knows these pictures by heart, so what predicts one of them from the others says nothing of new pictures.
"""

MOST_REGULARIZATION = next(each.high for each in LOGISTIC.parameters if each.name == "regularization")

FOLDS = 4

MOST_LABELLED, MOST_BACKGROUND = 5_000, 2_000
"""How many pictures the stand-in learns from at the most, besides the reviewed ones; each then counts for several."""

RULE = [1, *WEIGHTS, USUAL_WEIGHT, ENOUGH, *CAUTIONS, FOLDS, MOST_LABELLED, MOST_BACKGROUND]
"""What decides the choice besides the data; the first number changes with the code."""

KNOWN_RULE = [1, KNOWN_WEIGHT, USUAL_WEIGHT, ENOUGH, max(CAUTIONS)]
"""The same if the net was fine-tuned with reviews of the corpus."""

_Numbers = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Way:
    """A way to learn from reviews.

    Attributes
    ----------
    weight
        How many times as much as a labelled picture a reviewed one counts.
    with_background
        Whether the head also learns from the net's background.
    regularization
        Of a logistic head.
    """

    weight: float
    with_background: bool
    regularization: int

    def applied(
        self, request: TrainRequest, reviewed: Reviewed, background: Chosen | None
    ) -> tuple[TrainRequest, Reviewed, Chosen | None]:
        """Return what a head learns from, and how, in this way."""
        return (
            replace(request, regularization=self.regularization),
            replace(reviewed, weight=self.weight),
            background if self.with_background else None,
        )

    def __str__(self) -> str:
        """Return it in words."""
        background = "beside" if self.with_background else "without"
        return f"{self.weight:g} times, {background} a background, regularization {self.regularization:,}"


def choose_way(
    request: TrainRequest,
    labelled: LabelledFeatures,
    background: Chosen | None,
    reviewed: Reviewed,
    report: Callable[[str], None],
    *,
    net_knows: bool = False,
) -> Way:
    """Return the way to learn from reviews that predicts them best; a fixed one if the net has learned from such.

    Parameters
    ----------
    request
        The training.
    labelled, background
        What the head learns from otherwise; no background if there is none.
    reviewed
        The reviewed pictures.
    report
        Receives what was chosen.
    net_knows
        Whether the net was fine-tuned with reviews of the corpus.
    """
    usual = Way(USUAL_WEIGHT, background is not None, request.regularization)
    if len(reviewed.labels) < ENOUGH:
        report(f"reviewed images count {usual}: fewer than {ENOUGH} are too few to choose by")
        return usual
    if net_knows:
        caution = min(MOST_REGULARIZATION, request.regularization * max(CAUTIONS))
        fixed = replace(usual, weight=KNOWN_WEIGHT, regularization=caution)
        report(f"reviewed images count {fixed}: the net was fine-tuned with reviews, so they cannot choose")
        return fixed
    # Without a background, only reviews can teach none: there must be some in every fold.
    has_nones = int((reviewed.labels == len(labelled.tags)).sum()) >= ENOUGH
    uses = [True, False] if background is not None and has_nones else [usual.with_background]
    cautions = [min(MOST_REGULARIZATION, request.regularization * caution) for caution in CAUTIONS]
    stand_in = _StandIn(request, labelled, background, reviewed)
    # The weight matters least, so it is chosen last: a dozen fits instead of some forty.
    best = stand_in.best(
        [replace(usual, with_background=use, regularization=each) for use in uses for each in cautions]
    )
    best = stand_in.best([replace(best, weight=weight) for weight in WEIGHTS])
    report(
        f"reviewed images count {best}: the best of {stand_in.tried} ways in {FOLDS}-fold cross-validation on "
        f"{len(reviewed.labels):,} reviews"
    )
    return best


class _StandIn:
    """Fits the candidates in every fold, and asks for the reviews that were left out."""

    def __init__(
        self, request: TrainRequest, labelled: LabelledFeatures, background: Chosen | None, reviewed: Reviewed
    ) -> None:
        random = np.random.default_rng(request.seed % 2**63)
        self._classes = len(labelled.tags) + 1
        places = _sample(labelled.labels, len(labelled.tags), random)
        self._labelled = labelled.values[places].astype(np.float32)
        self._labels = labelled.labels[places]
        self._labelled_weight = len(labelled.labels) / len(places)
        others: Embeddings = background.embeddings if background else np.zeros((0, labelled.values.shape[1]), np.int8)
        chosen = random.permutation(len(others))[:MOST_BACKGROUND]
        self._background = others[chosen].astype(np.float32)
        self._background_weight = len(others) / max(1, len(chosen))
        self._reviewed = reviewed.embeddings.astype(np.float32)
        self._said = reviewed.labels
        self._losses: dict[Way, float] = {}
        self._fold = random.permutation(len(self._said)) % FOLDS

    def best(self, ways: Sequence[Way]) -> Way:
        """Return the way whose answers to left-out reviews are the best, and the first of several."""
        for way in ways:
            if way not in self._losses:
                losses = [self._fold_losses(way, self._fold == number) for number in range(FOLDS)]
                self._losses[way] = float(np.concatenate(losses).mean())
        return min(ways, key=self._losses.__getitem__)

    @property
    def tried(self) -> int:
        """How many ways were tried."""
        return len(self._losses)

    def _fold_losses(self, way: Way, left_out: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
        """Return minus the logarithm of the share that each left-out review's own answer gets."""
        learned = ~left_out
        values, labels = [self._labelled, self._reviewed[learned]], [self._labels, self._said[learned]]
        weights = [
            np.full(len(self._labels), self._labelled_weight),
            np.full(int(learned.sum()), way.weight),
        ]
        if way.with_background:
            values.append(self._background)
            labels.append(np.full(len(self._background), self._classes - 1))
            weights.append(np.full(len(self._background), self._background_weight))
        shares = predict_shares(
            np.concatenate(values),
            np.concatenate(labels),
            np.concatenate(weights),
            way.regularization,
            self._reviewed[left_out],
            self._classes,
        )
        own = shares[np.arange(len(shares)), self._said[left_out]]
        return -np.log(np.maximum(own, 1e-6))


def _sample(labels: npt.NDArray[np.int64], tags: int, random: np.random.Generator) -> npt.NDArray[np.int64]:
    """Return some images of each tag, in the shares that they have in the whole set."""
    if len(labels) <= MOST_LABELLED:
        return np.arange(len(labels))
    of_tag = [random.permutation(np.flatnonzero(labels == tag)) for tag in range(tags)]
    return np.concatenate([places[: max(1, len(places) * MOST_LABELLED // len(labels))] for places in of_tag])


def predict_shares(
    values: _Numbers,
    labels: npt.NDArray[np.int64],
    weights: npt.NDArray[np.float64],
    regularization: float,
    asked: _Numbers,
    classes: int,
) -> npt.NDArray[np.float64]:
    """Fit a regression as Spark does, on standardised values, and return the share of each class for other pictures."""
    mean = np.average(values, axis=0, weights=weights)
    deviation = np.sqrt(np.average(np.square(values - mean), axis=0, weights=weights))
    scale = np.where(deviation > 0, 1 / np.maximum(deviation, 1e-6), 0)
    head = LogisticRegression(C=1 / max(regularization, 1e-3), max_iter=20)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # so does Spark's, after as many iterations
        head.fit(((values - mean) * scale).astype(np.float32), labels, sample_weight=weights)
    shares = np.zeros((len(asked), classes))
    shares[:, head.classes_] = head.predict_proba(((asked - mean) * scale).astype(np.float32))
    return shares
