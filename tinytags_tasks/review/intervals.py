"""Shares of stratified samples, and their 95 % intervals.

The interval is Wilson's with the effective sample size: the size of a simple random sample with the same variance as
the stratified one. It is formed for the images that nobody looked at; those that were looked at are known. See Franco,
Little, Louis and Slud, "Comparative Study of Confidence Intervals for Proportions in Complex Sample Surveys", Journal
of Survey Statistics and Methodology 7, 2019, and Korn and Graubard, "Confidence Intervals for Proportions with Small
Expected Number of Positive Counts", Survey Methodology 24, 1998. Variances use shares that are drawn a little towards
those of similar strata, because a stratum in which all looks agree is not without variance. ``benchmarks/reviews.py``
checks by simulation how often the intervals cover the truth.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Z = 1.959964
"""Standard normal quantile of a 95 % interval."""

PSEUDO_LOOKS = 2.0
"""How many looks the share of similar strata counts for in a variance."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A share in percent, and its 95 % interval."""

    percent: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        """Half the width of its interval."""
        return (self.high - self.low) / 2

    def __str__(self) -> str:
        """Return it for people."""
        return f"{self.percent:.1f} % ({self.low:.1f} to {self.high:.1f})"


def wilson(share: float, looks: float) -> tuple[float, float]:
    """Return Wilson's interval of a share of so many looks, which need not be a whole number."""
    centre = (share + Z**2 / (2 * looks)) / (1 + Z**2 / looks)
    half = Z / (1 + Z**2 / looks) * math.sqrt(share * (1 - share) / looks + Z**2 / (4 * looks**2))
    return min(share, centre - half), max(share, centre + half)


def share_of_sample(images: float, looks: float, right: float) -> Estimate | None:
    """Return the share of so many images that is right, by a simple random sample of them; None without any looks."""
    if not looks:
        return None
    share, left = right / looks, images - looks
    interval = wilson(share, 1 / (1 / looks + 1 / left)) if left > 0 else (share, share)
    return _with_seen(images, looks, right, share, interval)


def share_of_strata(images: Floats, looks: Floats, right: Floats, similar: Floats) -> Estimate | None:
    """Return the share of the images of some strata that is right; None without any looks.

    Parameters
    ----------
    images, looks, right
        Of each stratum.
    similar
        The share of each stratum that is likely, from similar ones; it stands for a stratum without looks.
    """
    has_images = images > 0
    images, looks, right, similar = (each[has_images] for each in (images, looks, right, similar))
    seen, left = float(looks.sum()), np.maximum(images - looks, 0)
    if not seen:
        return None
    if not left.sum():
        return _with_seen(seen, seen, float(right.sum()), 1.0, (1.0, 1.0))
    weights = left / left.sum()
    drawn = (right + PSEUDO_LOOKS * similar) / (looks + PSEUDO_LOOKS)
    share = float(weights @ np.where(looks > 0, right / np.maximum(looks, 1), similar))
    # The square of a share that was estimated is too large by the estimate's own variance. A stratum without looks is
    # as uncertain as with one.
    shrunk = 1 - looks / (looks + PSEUDO_LOOKS) ** 2
    scatter = drawn * (1 - drawn) / shrunk * (1 / np.maximum(looks, 1) + 1 / np.maximum(left, 1))
    likely = float(weights @ drawn)
    effective = max(likely * (1 - likely) / max(float(weights**2 @ scatter), 1e-12), 1.0)
    return _with_seen(float(images.sum()), seen, float(right.sum()), share, wilson(share, effective))


def share_of_ratio(images: Floats, looks: Floats, found: Floats, all_there: Floats) -> Estimate | None:
    """Return the share of the pictures of a kind that were found; None if no look is at one of the kind.

    The variance of this ratio is that of its linear part (Taylor's), with half a look of each stratum at a picture of
    the kind that was not found, since a stratum without any may still have some.

    Parameters
    ----------
    images, looks
        Of each stratum.
    found, all_there
        How many looks of each stratum are at pictures of the kind that were found, and at pictures of the kind.
    """
    seen = (looks > 0) & (images > 0)
    images, looks, found, all_there = (each[seen] for each in (images, looks, found, all_there))
    there = float(images @ (all_there / looks))
    if not there:
        return None
    share = float(images @ (found / looks)) / there
    more = looks + 0.5
    likely_found, likely_missed = found / more, (all_there - found + 0.5) / more
    likely_there = float(images @ (likely_found + likely_missed))
    likely = float(images @ likely_found) / likely_there
    # The linear part of a look: 1 - share if found, -share if missed, else 0.
    mean = likely_found * (1 - likely) - likely_missed * likely
    square = likely_found * (1 - likely) ** 2 + likely_missed * likely**2
    left = np.maximum(1 - looks / images, 0)
    variance = float(images**2 @ (left * np.maximum(square - mean**2, 0) / looks)) / likely_there**2
    effective = likely * (1 - likely) / variance if variance > 0 else np.inf
    low, high = (share, share) if np.isinf(effective) else wilson(share, max(effective, 1.0))
    return Estimate(*(round(float(100.0 * min(1.0, max(0.0, each))), 2) for each in (share, low, high)))


def _with_seen(images: float, looks: float, right: float, share: float, interval: tuple[float, float]) -> Estimate:
    """Return the share of all images, given that of those that nobody looked at, and its interval."""
    left = max(images - looks, 0.0)
    low, high = (left * min(1.0, max(0.0, each)) for each in interval)
    # Whole images: of two that nobody looked at, none, one or both are right.
    counts = (left * share, math.floor(low + 1e-9), min(left, math.ceil(high - 1e-9)))
    return Estimate(*(round(float(100.0 * (right + each) / images), 2) for each in counts))
