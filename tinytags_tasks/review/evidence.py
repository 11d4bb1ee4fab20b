"""What the looks say of strata, of tags from a threshold on, and of the pictures that were missed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from tinytags_tasks.review.frame import Frame
from tinytags_tasks.review.intervals import (
    PSEUDO_LOOKS,
    Estimate,
    Floats,
    Share,
    share_found,
    share_of_sample,
    share_of_strata,
    with_known,
)
from tinytags_tasks.review.looks import Flags, Looks
from tinytags_tasks.review.sampler import Numbers
from tinytags_tasks.review.strata import Stratum


@dataclass(frozen=True, eq=False)
class ByConfidence:
    """Looks, and how many of them are right, of each tag at each confidence: shape (tags, 101)."""

    looks: Floats = field(repr=False)
    right: Floats = field(repr=False)


@dataclass(frozen=True, eq=False)
class Pictures:
    """Of some pictures: their strata, their confidences, and the indexes of the tags that they show, or -1.

    Each counts as one image, or as -1 if it is to be taken off.
    """

    strata: Numbers = field(repr=False)
    confidences: Numbers = field(repr=False)
    shows: Numbers = field(repr=False)
    images: Floats = field(repr=False)

    def number(self, chosen: Flags) -> float:
        """Return how many images some of them are."""
        return float(self.images[chosen].sum())


@dataclass(frozen=True, eq=False)
class Evidence:
    """What the looks at a run's strata say.

    Attributes
    ----------
    frame
        The run's pictures.
    images
        Of each stratum, how many images can be drawn to measure and are clear.
    looks, right
        Of each stratum.
    similar
        The likely share of each stratum, from the strata of the same band.
    by_confidence
        Of each tag.
    strata, confidences, shows
        Of each look: its stratum, its confidence, and the index of the tag that it shows, or -1.
    known
        The same of each picture that is known without a look that measures. These are in every share, but no sample.
        Those that a look measured and a public word changed are taken off: readers no longer see the run's tag.
    lost
        The same of each picture that cannot be drawn to measure, but not what it shows.
    """

    frame: Frame = field(repr=False)
    images: Floats = field(repr=False)
    looks: Floats = field(repr=False)
    right: Floats = field(repr=False)
    similar: Floats = field(repr=False)
    by_confidence: ByConfidence = field(repr=False)
    strata: Numbers = field(repr=False)
    confidences: Numbers = field(repr=False)
    shows: Numbers = field(repr=False)
    known: "Pictures" = field(repr=False)
    lost: "Pictures" = field(repr=False)

    def of_stratum(self, index: int) -> Estimate | None:
        """Return the precision of one stratum."""
        images = self.images[index]
        found = share_of_sample(images, self.looks[index], self.right[index])
        is_own = self.known.strata == index
        found = with_known(found, images, self.known.number(is_own), self.known.number(is_own & self._is_known_right))
        return found.estimate if found else None

    def overall(self) -> Estimate | None:
        """Return the precision of all images with a tag."""
        kept = ~self._is_dropped
        found = share_of_strata(self.images[kept], self.looks[kept], self.right[kept], self.similar[kept])
        known = self.known.number(kept[self.known.strata])
        found = with_known(found, float(self.images[kept].sum()), known, self.known.number(self._is_known_right))
        return found.estimate if found else None

    def precision_from(self, tag: str, threshold: int) -> Estimate | None:
        """Return the precision of a tag's images with at least a confidence."""
        found, _ = self._found({tag: threshold})
        return found.estimate if found else None

    def recall_from(self, tags: Sequence[str], thresholds: Mapping[str, int]) -> Estimate | None:
        """Return the share of the pictures that show one of some tags that have it with at least its confidence.

        A tag without a threshold is found nowhere. None if no picture that the run dropped was looked at, although
        there are some, or no look is at an image with one of the tags.
        """
        if self._is_dropped.any() and not self.looks[self._is_dropped].sum():
            return None
        found, images = self._found({tag: thresholds[tag] for tag in tags if tag in thresholds})
        missed = self._missed(tags, thresholds)
        if missed is None or (found is None and any(tag in thresholds for tag in tags)):
            return None
        share = share_found((found or Share(0.0, 0.0, 0.0)).times(images), missed)
        return share.estimate if share else None

    def _found(self, thresholds: Mapping[str, int]) -> tuple[Share | None, float]:
        """Return the share of the images from some tags' thresholds on that is right, and how many images these are."""
        own = [index for tag in thresholds for index in self._own.get(tag, ())]
        above = np.zeros(len(self.images))
        for index in own:
            stratum = self.frame.strata[index]
            above[index] = _images_from(self.frame, stratum, thresholds[stratum.tag])
        least = self._least(thresholds)
        lost = np.bincount(self.lost.strata, minlength=len(above))
        is_lost = self.lost.confidences >= least[self.lost.strata]
        above -= np.bincount(self.lost.strata[is_lost], minlength=len(above))
        images = self.images * np.maximum(above, 0) / np.maximum(self.frame.sizes - lost, 1)
        is_in = self.confidences >= least[self.strata]
        looks = np.bincount(self.strata[is_in], minlength=len(above)).astype(np.float64)
        right = np.bincount(self.strata[is_in & self._is_right], minlength=len(above)).astype(np.float64)
        found = share_of_strata(
            images[own], np.minimum(looks, images)[own], np.minimum(right, images)[own], self.similar[own]
        )
        is_known = self.known.confidences >= least[self.known.strata]
        known, free = self.known.number(is_known), float(images.sum())
        return with_known(found, free, known, self.known.number(is_known & self._is_known_right)), free + known

    def _missed(self, tags: Sequence[str], thresholds: Mapping[str, int]) -> Share | None:
        """Return how many images show one of some tags and do not have it from its threshold on."""
        chosen = set(tags)
        wanted = np.array([*(tag in chosen for tag in self.frame.tags), False], dtype=bool)
        least = self._least(thresholds)
        is_missed = wanted[self.shows] & ~(self._is_right & (self.confidences >= least[self.strata]))
        missed = np.bincount(self.strata[is_missed], minlength=len(self.images)).astype(np.float64)
        # That no look at a dropped picture shows the tag does not mean that none does: these are too many for that.
        similar = np.where(self._is_dropped, 0.5, _similar(self.frame, self.looks, missed))
        found = share_of_strata(self.images, self.looks, missed, similar)
        is_found = self._is_known_right & (self.known.confidences >= least[self.known.strata])
        known = self.known.number(wanted[self.known.shows] & ~is_found)
        return found and found.times(float(self.images.sum())).plus(known)

    def _least(self, thresholds: Mapping[str, int]) -> Numbers:
        """Return for each stratum the threshold of its own tag; 101 if it has none."""
        least = np.full(len(self.images), 101, dtype=np.int64)
        for tag, threshold in thresholds.items():
            least[self._own.get(tag, [])] = threshold
        return least

    @cached_property
    def _own(self) -> dict[str, list[int]]:
        """The strata of each tag."""
        own: dict[str, list[int]] = {}
        for index, stratum in enumerate(self.frame.strata):
            own.setdefault(stratum.tag, []).append(index)
        return own

    @cached_property
    def _is_dropped(self) -> Flags:
        return np.array([each.is_dropped for each in self.frame.strata], dtype=bool)

    @cached_property
    def _is_right(self) -> Flags:
        right: Flags = self.shows == self._own_tags[self.strata]
        return right

    @cached_property
    def _is_known_right(self) -> Flags:
        right: Flags = self.known.shows == self._own_tags[self.known.strata]
        return right

    @cached_property
    def _own_tags(self) -> Numbers:
        """The index of each stratum's tag; -2 if it was dropped."""
        places = {tag: place for place, tag in enumerate(self.frame.tags)}
        return np.array([places.get(each.tag, -2) for each in self.frame.strata], dtype=np.int64)


def _images_from(frame: Frame, stratum: Stratum, threshold: int) -> int:
    """Return how many images of a stratum have at least a confidence."""
    if stratum.is_dropped:
        return 0
    return sum(frame.counts[stratum.tag][max(stratum.low, threshold) : stratum.high + 1])


def _clear_images(frame: Frame, looks: Looks, clear: Floats) -> Floats:
    """Return how many images of each stratum are clear: unclear ones are no part of what is estimated.

    The share of those that nobody looked at follows from the looks at the stratum and, a little, at its band.
    """
    images = clear.copy()
    for band in np.unique(frame.lows):
        same = frame.lows == band
        drawn = looks.drawn[same]
        in_band = clear[same].sum() / drawn.sum() if drawn.sum() else 1.0
        shares = (clear[same] + PSEUDO_LOOKS * in_band) / (drawn + PSEUDO_LOOKS)
        images[same] += shares * np.maximum(looks.sizes[same] - drawn, 0)
    return images


def _similar(frame: Frame, looks: Floats, right: Floats) -> Floats:
    """Return the likely share of each stratum, from those of the same band."""
    similar = np.zeros(len(frame.strata))
    for band in np.unique(frame.lows):
        same = frame.lows == band
        similar[same] = (right[same].sum() + 0.5) / (looks[same].sum() + 1)
    return similar


def gather_evidence(frame: Frame, looks: Looks) -> Evidence:
    """Return what looks say of a run's strata."""
    number, tags = len(frame.strata), len(frame.tags)
    strata = frame.columns["stratum"][looks.rows].astype(np.int64)
    confidences = frame.columns["confidence"][looks.rows].astype(np.int64)
    count = np.bincount(strata, minlength=number).astype(np.float64)
    right = np.bincount(strata[looks.is_right], minlength=number).astype(np.float64)
    own_tags = frame.row_tags[looks.rows]
    is_kept = own_tags >= 0
    cells = own_tags[is_kept] * 101 + confidences[is_kept]
    by_looks = np.bincount(cells, minlength=tags * 101).reshape(tags, 101).astype(np.float64)
    right_cells = own_tags[looks.is_right] * 101 + confidences[looks.is_right]
    by_right = np.bincount(right_cells, minlength=tags * 101).reshape(tags, 101).astype(np.float64)
    return Evidence(
        frame=frame,
        images=_clear_images(frame, looks, count),
        looks=count,
        right=right,
        similar=_similar(frame, count, right),
        by_confidence=ByConfidence(by_looks, by_right),
        strata=strata,
        confidences=confidences,
        shows=looks.shows,
        known=_pictures(frame, looks.known.rows, looks.known.shows, looks.known.images),
        lost=_pictures(frame, looks.lost, np.full(len(looks.lost), -1), np.ones(len(looks.lost))),
    )


def _pictures(frame: Frame, rows: Numbers, shows: Numbers, images: npt.ArrayLike) -> Pictures:
    strata, confidences = (frame.columns[name][rows].astype(np.int64) for name in ("stratum", "confidence"))
    return Pictures(strata, confidences, shows, np.asarray(images, dtype=np.float64))
