"""Shares of stratified samples, and their 95 % intervals.

The interval is Wilson's with the effective sample size: the size of a simple random sample with the same variance as
the stratified one. It is formed for the images that nobody looked at; those that were looked at are known. See Franco,
Little, Louis and Slud, "Comparative Study of Confidence Intervals for Proportions in Complex Sample Surveys", Journal
of Survey Statistics and Methodology 7, 2019, and Korn and Graubard, "Confidence Intervals for Proportions with Small
Expected Number of Positive Counts", Survey Methodology 24, 1998. Variances use shares that are drawn a little towards
those of similar strata, because a stratum in which all looks agree is not without variance. ``benchmarks/precision.py``
checks by simulation how often the intervals cover the truth.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Z = 1.959964
"""Standard normal quantile of a 95 % interval."""

PSEUDO_LOOKS = 4.0
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


@dataclass(frozen=True)
class Share:
    """A share, 0 to 1, or a number of images, and its 95 % interval."""

    share: float
    low: float
    high: float

    @property
    def estimate(self) -> Estimate:
        """The same in percent, with two decimals."""
        return Estimate(*(round(100.0 * min(1.0, max(0.0, each)), 2) for each in (self.share, self.low, self.high)))

    def times(self, images: float) -> "Share":
        """Return how many of so many images that is."""
        return Share(self.share * images, self.low * images, self.high * images)

    def plus(self, images: float) -> "Share":
        """Return this number of images and so many more."""
        return Share(self.share + images, self.low + images, self.high + images)


def wilson(share: float, looks: float) -> tuple[float, float]:
    """Return Wilson's interval of a share of so many looks, which need not be a whole number."""
    centre = (share + Z**2 / (2 * looks)) / (1 + Z**2 / looks)
    half = Z / (1 + Z**2 / looks) * math.sqrt(share * (1 - share) / looks + Z**2 / (4 * looks**2))
    return min(share, centre - half), max(share, centre + half)


def share_of_sample(images: float, looks: float, right: float) -> Share | None:
    """Return the share of so many images that is right, by a simple random sample of them; None without any looks."""
    if not looks:
        return None
    share, left = right / looks, images - looks
    interval = wilson(share, 1 / (1 / looks + 1 / left)) if left > 0 else (share, share)
    return _with_seen(images, looks, right, share, interval)


def share_of_strata(images: Floats, looks: Floats, right: Floats, similar: Floats) -> Share | None:
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
    effective = likely * (1 - likely) / max(float(weights**2 @ scatter), 1e-12)
    effective = max(effective * _few_looks(seen, int((looks > 0).sum())), 1.0)
    return _with_seen(float(images.sum()), seen, float(right.sum()), share, wilson(share, effective))


def _few_looks(looks: float, strata: int) -> float:
    """Return by how much few looks shrink an effective sample size: Korn and Graubard's ratio of quantiles, squared.

    Student's quantile is by the first term of its expansion. Similar strata lend looks, so that at least half of them
    count as degrees of freedom.
    """
    freedom = max(looks - strata, looks / 2, 1.0)
    return (Z / (Z + (Z**3 + Z) / (4 * freedom))) ** 2


def with_known(found: Share | None, images: float, known: float, right: float) -> Share | None:
    """Return the share of so many images and of others that are known, some of them right.

    ``found`` is the share of the images; None if nobody looked at one. So is the result then, unless there are none.
    Negative numbers are of images that are to be taken off; if none is left, there is no share either.
    """
    if images + known <= 0 or (found is None and images > 0):
        return None
    return (found or Share(0.0, 0.0, 0.0)).times(images).plus(right).times(1 / (images + known))


def share_found(found: Share, missed: Share) -> Share | None:
    """Return the share of pictures that were found, of those found and missed; None if there are none.

    Both are numbers of pictures, estimated from different strata. The interval is that of their ratio by the recovery
    of variance estimates from both intervals (Newcombe, "MOVER-R confidence intervals for ratios and products of two
    independently estimated quantities", Statistical Methods in Medical Research 25, 2016).
    """
    if found.share + missed.share <= 0:
        return None
    low, high = _ratio_interval(missed, found) if found.share > 0 else (missed.low / max(found.high, 1e-9), math.inf)
    return Share(found.share / (found.share + missed.share), 1 / (1 + high), 1 / (1 + max(0.0, low)))


def _ratio_interval(top: Share, bottom: Share) -> tuple[float, float]:
    """Return the interval of a ratio, of which the bottom is positive."""
    product = top.share * bottom.share
    ends = []
    for of_top, of_bottom, side in ((top.low, bottom.high, -1), (top.high, bottom.low, 1)):
        divisor = of_bottom * (2 * bottom.share - of_bottom)
        inside = product**2 - of_top * (2 * top.share - of_top) * divisor
        if divisor > 0 and inside >= 0:
            ends.append((product + side * math.sqrt(inside)) / divisor)
        else:
            ends.append(of_top / of_bottom if of_bottom > 0 else math.inf)
    return ends[0], ends[1]


def _with_seen(images: float, looks: float, right: float, share: float, interval: tuple[float, float]) -> Share:
    """Return the share of all images, given that of those that nobody looked at, and its interval."""
    left = max(images - looks, 0.0)
    low, high = (left * min(1.0, max(0.0, each)) for each in interval)
    # Whole images: of two that nobody looked at, none, one or both are right.
    counts = (left * share, math.floor(low + 1e-9), min(left, math.ceil(high - 1e-9)))
    return Share(*(float(right + each) / images for each in counts))
