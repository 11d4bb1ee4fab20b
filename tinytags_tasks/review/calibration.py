"""What each confidence of each tag has meant: one curve a tag, learned from all looks together.

A logistic regression with partial pooling (Gelman and Hill, "Data Analysis Using Regression and Multilevel/Hierarchical
Models", 2007, chapter 14). The log-odds that a tag is right are a broken line in the confidence. That of a tag is the
line of all tags plus its own deviations, which are drawn towards zero the more, the fewer looks there are and the
more alike the tags turn out to be: their spread is not chosen, but averaged over a grid by its marginal likelihood
(Laplace's approximation). Last, each line is made to rise (isotonic regression, by pooling adjacent violators).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tinytags_tasks.review.intervals import Z

Floats = npt.NDArray[np.float64]

_SHIFTS = (0.15, 0.4, 0.8, 1.4)
"""Standard deviations, in log-odds, of how much a whole line of a tag may lie above or below that of all."""

_BENDS = (0.1, 0.3, 0.7)
"""The same of how much a tag's line may deviate at a single knot."""

_LEVEL, _ROUGH = 2.5, 1.5
"""Of the line of all tags: the standard deviations of its level around even odds, and of its bends."""

_STEPS = 30
_TOLERANCE = 1e-6


@dataclass(frozen=True)
class _Looks:
    """Looks, by tag and confidence: for each row its tag, its knots' weights (rows, knots), and how many are right."""

    tags: npt.NDArray[np.int64]
    weights: Floats
    looks: Floats
    right: Floats
    number_of_tags: int


@dataclass(frozen=True)
class _Fit:
    evidence: float
    means: Floats
    variances: Floats


def fit_curves(looks: Floats, right: Floats, images: Floats, knots: Sequence[int], bands: Sequence[int]) -> Floats:
    """Return the share that is right of each tag at each confidence.

    Parameters
    ----------
    looks, right
        Shape (tags, 101): of each tag and confidence in percent, how many pictures were looked at, and how many of
        these show the tag.
    images
        Shape (tags, 101): how many images there are; they weigh where a line has to be levelled.
    knots
        At least two confidences at which the lines may bend, in ascending order; they end at 100.
    bands
        Where bands of confidence begin. In each, the images that were looked at count as they were found; the line
        stands for the others.

    Returns
    -------
    numpy.ndarray
        Shape (3, tags, 101), 0 to 1, rising in the confidence: the share, and the ends of its 95 % interval.
    """
    weights = _knot_weights(np.array(knots))
    tags, confidences = np.nonzero(looks)
    found = _Looks(tags, weights[confidences], looks[tags, confidences], right[tags, confidences], len(looks))
    fits = [_fit(found, shift, bend) for shift in _SHIFTS for bend in _BENDS]
    mass = np.maximum(images @ weights, 1e-3)
    curves = []
    for at_knots in _mixed(fits):
        rising = np.stack([_rising(values, own) for values, own in zip(at_knots, mass, strict=True)])
        rising = np.clip(rising, 1e-6, 1 - 1e-6)
        lines = np.log(rising / (1 - rising)) @ weights.T
        curves.append(_with_seen(1 / (1 + np.exp(-lines)), looks, right, images, bands))
    return np.stack(curves)


def _mixed(fits: Sequence[_Fit]) -> tuple[Floats, Floats, Floats]:
    """Return the expected shares at the knots, and the ends of their 95 % intervals, over all spreads of the tags.

    Log-odds are taken as normal; for their expected share see MacKay, "The Evidence Framework Applied to Classification
    Networks", 1992.
    """
    evidences = np.array([fit.evidence for fit in fits])
    shares = np.exp(evidences - evidences.max())
    shares = (shares / shares.sum())[:, None, None]
    means, variances = np.stack([fit.means for fit in fits]), np.stack([fit.variances for fit in fits])
    expected = (shares / (1 + np.exp(-means / np.sqrt(1 + np.pi * variances / 8)))).sum(axis=0)
    mean = (shares * means).sum(axis=0)
    deviation = np.sqrt((shares * (variances + (means - mean) ** 2)).sum(axis=0))
    low, high = (1 / (1 + np.exp(-(mean + side * Z * deviation))) for side in (-1, 1))
    return expected, low, high


def _with_seen(curves: Floats, looks: Floats, right: Floats, images: Floats, bands: Sequence[int]) -> Floats:
    """Shift each band so that its mean counts the images that were looked at as they were found; lines still rise."""
    shifted = curves.copy()
    for low, end in zip(bands, (*bands[1:], curves.shape[1]), strict=True):
        own_looks, own_images = looks[:, low:end].sum(axis=1), np.maximum(images[:, low:end].sum(axis=1), 1e-9)
        expected = (images[:, low:end] * curves[:, low:end]).sum(axis=1) / own_images
        found = right[:, low:end].sum(axis=1) / np.maximum(own_looks, 1e-9)
        seen = np.minimum(own_looks / own_images, 1.0)
        shifted[:, low:end] += np.where(own_looks > 0, seen * (found - expected), 0.0)[:, None]
    shifted, weights = np.clip(shifted, 0.0, 1.0), np.maximum(images, 1e-6)
    return np.stack([_rising(values, own) for values, own in zip(shifted, weights, strict=True)])


def _knot_weights(knots: npt.NDArray[np.int64]) -> Floats:
    """Return how a broken line is put together at each confidence: shape (101, knots)."""
    confidences = np.clip(np.arange(101), knots[0], knots[-1])
    return np.stack([np.interp(confidences, knots, unit) for unit in np.eye(len(knots))], axis=1)


def _fit(found: _Looks, shift: float, bend: float) -> _Fit:
    """Fit the lines by Newton's method, for one spread of the tags; the tags' own steps are eliminated first."""
    number, knots = found.number_of_tags, found.weights.shape[1]
    spread = np.linalg.inv(shift**2 * np.ones((knots, knots)) + bend**2 * np.eye(knots)).astype(np.float64)
    rough = np.diff(np.eye(knots), n=2, axis=0) if knots > 2 else np.zeros((0, knots))
    level = np.full((1, knots), 1 / knots)
    prior: Floats = level.T @ level / _LEVEL**2 + rough.T @ rough / _ROUGH**2 + np.eye(knots) / 5.0**2
    line, own = np.zeros(knots), np.zeros((number, knots))
    value = _log_posterior(found, line, own, prior, spread)
    for _ in range(_STEPS):
        pull, curvature = _derivatives(found, line, own)
        inverse = np.linalg.inv(curvature + spread)
        own_pull = pull - own @ spread
        reduced = prior + (curvature - curvature @ inverse @ curvature).sum(axis=0)
        target = pull.sum(axis=0) - prior @ line - np.einsum("tij,tjk,tk->i", curvature, inverse, own_pull)
        line_step = np.linalg.solve(reduced, target)
        own_step = np.einsum("tij,tj->ti", inverse, own_pull - curvature @ line_step)
        size = 1.0
        while True:
            ahead = _log_posterior(found, line + size * line_step, own + size * own_step, prior, spread)
            if ahead >= value or size < 1e-4:
                break
            size /= 2
        line, own, gained, value = line + size * line_step, own + size * own_step, ahead - value, ahead
        if gained < _TOLERANCE:
            break
    _, curvature = _derivatives(found, line, own)
    inverse = np.linalg.inv(curvature + spread)
    reduced = prior + (curvature - curvature @ inverse @ curvature).sum(axis=0)
    evidence = value + 0.5 * (
        number * np.linalg.slogdet(spread)[1]
        - np.linalg.slogdet(curvature + spread)[1].sum()
        - np.linalg.slogdet(reduced)[1]
    )
    # The line of a tag is line + own; its variance follows from both, by the inverse of the joint curvature.
    left = np.eye(knots) - inverse @ curvature
    covariances = inverse + left @ np.linalg.inv(reduced) @ left.transpose(0, 2, 1)
    return _Fit(float(evidence), line + own, np.diagonal(covariances, axis1=1, axis2=2).copy())


def _log_posterior(found: _Looks, line: Floats, own: Floats, prior: Floats, spread: Floats) -> float:
    odds = (found.weights * (line + own)[found.tags]).sum(axis=1)
    likelihood = found.right * odds - found.looks * np.logaddexp(0, odds)
    return float(likelihood.sum() - 0.5 * line @ prior @ line - 0.5 * np.einsum("ti,ij,tj->", own, spread, own))


def _derivatives(found: _Looks, line: Floats, own: Floats) -> tuple[Floats, Floats]:
    """Return the likelihood's gradient, shape (tags, knots), and its negative curvature, (tags, knots, knots)."""
    shares = 1 / (1 + np.exp(-(found.weights * (line + own)[found.tags]).sum(axis=1)))
    knots = found.weights.shape[1]
    pull, curvature = np.zeros((found.number_of_tags, knots)), np.zeros((found.number_of_tags, knots, knots))
    np.add.at(pull, found.tags, found.weights * (found.right - found.looks * shares)[:, None])
    mass = (found.looks * shares * (1 - shares))[:, None, None]
    np.add.at(curvature, found.tags, mass * found.weights[:, :, None] * found.weights[:, None, :])
    return pull, curvature


def _rising(values: Floats, weights: Floats) -> Floats:
    """Return the nearest values that never fall, by pooling adjacent violators."""
    if (np.diff(values) >= 0).all():
        return values
    levels: list[list[float]] = []
    for value, weight in zip(values.tolist(), weights.tolist(), strict=True):
        levels.append([value, weight, 1])
        while len(levels) > 1 and levels[-2][0] > levels[-1][0]:
            upper, lower = levels.pop(), levels.pop()
            total = lower[1] + upper[1]
            levels.append([(lower[0] * lower[1] + upper[0] * upper[1]) / total, total, lower[2] + upper[2]])
    return np.concatenate([np.full(int(count), value) for value, _, count in levels])
