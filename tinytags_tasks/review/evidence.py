"""What the looks say of strata, of tags from a threshold on, and of the pictures that were missed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from tinytags_tasks.review.frame import Frame
from tinytags_tasks.review.intervals import Estimate, Floats, share_of_ratio, share_of_sample, share_of_strata
from tinytags_tasks.review.looks import Looks
from tinytags_tasks.review.sampler import Numbers


@dataclass(frozen=True, eq=False)
class ByConfidence:
    """Looks, and how many of them are right, of each tag at each confidence: shape (tags, 101)."""

    looks: Floats = field(repr=False)
    right: Floats = field(repr=False)


@dataclass(frozen=True, eq=False)
class Evidence:
    """What the looks at a run's strata say.

    Attributes
    ----------
    frame
        The run's pictures.
    images
        Of each stratum, how many images can be drawn to measure.
    looks, right
        Of each stratum.
    similar
        The likely share of each stratum, from the strata of the same band.
    by_confidence
        Of each tag.
    strata, confidences, shows
        Of each look: its stratum, its confidence, and the index of the tag that it shows, or -1.
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

    def of_stratum(self, index: int) -> Estimate | None:
        """Return the precision of one stratum."""
        return share_of_sample(self.images[index], self.looks[index], self.right[index])

    def overall(self) -> Estimate | None:
        """Return the precision of all images with a tag."""
        kept = np.array([not each.is_dropped for each in self.frame.strata], dtype=bool)
        return share_of_strata(self.images[kept], self.looks[kept], self.right[kept], self.similar[kept])

    def precision_from(self, tag: str, threshold: int) -> Estimate | None:
        """Return the precision of a tag's images with at least a confidence."""
        images, looks, right, similar = [], [], [], []
        for index, stratum in enumerate(self.frame.strata):
            if stratum.tag != tag or stratum.high < threshold:
                continue
            share, mask = self._part(index, threshold)
            images.append(self.images[index] * share)
            looks.append(float(mask.sum()))
            right.append(float((self.shows[mask] == self.frame.tags.index(tag)).sum()))
            similar.append(self.similar[index])
        columns = (np.array(column, dtype=np.float64) for column in (images, looks, right, similar))
        return share_of_strata(*columns)

    def _part(self, index: int, threshold: int) -> tuple[float, "np.ndarray[tuple[int], np.dtype[np.bool_]]"]:
        """Return the share of a stratum's images that have at least a confidence, and which looks are at them."""
        stratum = self.frame.strata[index]
        counts = self.frame.counts[stratum.tag]
        above = sum(counts[max(stratum.low, threshold) : stratum.high + 1])
        return above / max(1, stratum.images), (self.strata == index) & (self.confidences >= threshold)

    def recall_from(self, tags: Sequence[str], thresholds: Mapping[str, int]) -> Estimate | None:
        """Return the share of the pictures that show one of some tags that have it with at least its confidence.

        None if no picture that the run dropped was looked at, or no look shows one of the tags.
        """
        frame = self.frame
        dropped = [index for index, each in enumerate(frame.strata) if each.is_dropped]
        if dropped and not self.looks[dropped].sum():
            return None
        wanted = np.array([frame.tags.index(tag) for tag in tags], dtype=np.int64)
        least = np.full(len(frame.tags), 101, dtype=np.int64)
        for tag, place in zip(tags, wanted, strict=True):
            least[place] = thresholds[tag]
        places = {tag: place for place, tag in enumerate(frame.tags)}
        own = np.array([places.get(each.tag, -1) for each in frame.strata], dtype=np.int64)[self.strata]
        shows = np.isin(self.shows, wanted)
        found = shows & (self.shows == own) & (self.confidences >= least[np.maximum(self.shows, 0)])
        number = len(frame.strata)
        return share_of_ratio(
            self.images,
            self.looks,
            np.bincount(self.strata[found], minlength=number).astype(np.float64),
            np.bincount(self.strata[shows], minlength=number).astype(np.float64),
        )


def gather_evidence(frame: Frame, looks: Looks) -> Evidence:
    """Return what looks say of a run's strata."""
    number, tags = len(frame.strata), len(frame.tags)
    strata = frame.columns["stratum"][looks.rows].astype(np.int64)
    confidences = frame.columns["confidence"][looks.rows].astype(np.int64)
    count = np.bincount(strata, minlength=number).astype(np.float64)
    right = np.bincount(strata[looks.is_right], minlength=number).astype(np.float64)
    bands = np.array([each.low for each in frame.strata], dtype=np.int64)
    similar = np.zeros(number)
    for band in np.unique(bands):
        same = bands == band
        similar[same] = (right[same].sum() + 0.5) / (count[same].sum() + 1)
    own_tags = frame.row_tags[looks.rows]
    is_kept = own_tags >= 0
    cells = own_tags[is_kept] * 101 + confidences[is_kept]
    by_looks = np.bincount(cells, minlength=tags * 101).reshape(tags, 101).astype(np.float64)
    right_cells = own_tags[looks.is_right] * 101 + confidences[looks.is_right]
    by_right = np.bincount(right_cells, minlength=tags * 101).reshape(tags, 101).astype(np.float64)
    return Evidence(
        frame=frame,
        images=looks.sizes.astype(np.float64),
        looks=count,
        right=right,
        similar=similar,
        by_confidence=ByConfidence(by_looks, by_right),
        strata=strata,
        confidences=confidences,
        shows=looks.shows,
    )
