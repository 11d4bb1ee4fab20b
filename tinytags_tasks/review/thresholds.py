"""Chooses for each tag the lowest confidence from which on its measured precision reaches what is asked for."""

from collections.abc import Mapping
from dataclasses import dataclass

from tinytags_tasks.errors import BadInputError
from tinytags_tasks.review.intervals import Estimate
from tinytags_tasks.review.precision import NOT_MEASURED, PrecisionTable

STEP = 5
"""Thresholds are tried at each so many percent of confidence, and where bands begin."""


@dataclass(frozen=True)
class Thresholds:
    """The thresholds that reach a precision, and what they cost.

    Attributes
    ----------
    least_precision
        In percent: the lower end of the 95 % interval of each tag's measured precision is at least this.
    thresholds
        The lowest confidence, in percent, of each tag that reaches it.
    dropped
        The highest lower end that a tag reaches that does not; None if nobody has looked at one of its images.
    images, images_before
        How many images the run's tags have with these thresholds, and without them.
    recall, recall_before
        The share of the pictures that show one of the tags that have it, with these thresholds and without them; None
        if that was not measured.
    """

    least_precision: float
    thresholds: dict[str, int]
    dropped: dict[str, float | None]
    images: int
    images_before: int
    recall: Estimate | None
    recall_before: Estimate | None

    @property
    def lines(self) -> list[str]:
        """What was chosen and what it costs, for people."""
        chosen = ", ".join(f"{tag} {threshold} %" for tag, threshold in sorted(self.thresholds.items()))
        lines = [f"at a measured precision of {self.least_precision:g} % or more, readers see: {chosen}"]
        share = 100.0 * self.images / max(1, self.images_before)
        lines.append(f"these are {self.images:,} of {self.images_before:,} images with a tag ({share:.1f} %)")
        if self.recall and self.recall_before:
            lines.append(f"recall falls from {self.recall_before} to {self.recall}")
        else:
            lines.append(f"what that costs in recall is {NOT_MEASURED}")
        for tag, best in sorted(self.dropped.items()):
            why = "no image was looked at" if best is None else f"its precision is at least {best:.1f} %, no more"
            lines.append(f"{tag} is dropped: {why}")
        return lines


def choose_thresholds(table: PrecisionTable, least_precision: float) -> Thresholds:
    """Return the thresholds that reach a precision with 95 % certainty.

    Raises
    ------
    BadInputError
        If nothing was measured, or no tag reaches it.
    """
    if not table.is_measured:
        raise BadInputError(
            f"the precision of run {table.run} is {NOT_MEASURED}: look at some of its pictures on the page Review "
            f"first, or show every tag with `tinytags publish {table.run} --gate-measured-precision 0`"
        )
    tags = {each.tag: each for each in table.tags}
    thresholds: dict[str, int] = {}
    dropped: dict[str, float | None] = {}
    for tag, own in tags.items():
        if not own.images:
            continue
        best: float | None = None
        for threshold in _candidates(table):
            found = table.precision_from(tag, threshold)
            if found is None:
                break
            best = max(best or 0.0, found.low)
            if found.low >= least_precision:
                thresholds[tag] = threshold
                break
        if tag not in thresholds:
            dropped[tag] = best
    if not thresholds:
        highest = max((best for best in dropped.values() if best is not None), default=0.0)
        raise BadInputError(
            f"no tag of run {table.run} reaches a measured precision of {least_precision:g} % with 95 % certainty "
            f"(the best reaches {highest:.1f} %, after {table.looks:,} looks): look at more pictures, learn from the "
            "reviews with `tinytags train --reviews`, or ask for less (0 shows every tag)"
        )
    return Thresholds(
        least_precision=least_precision,
        thresholds=thresholds,
        dropped=dropped,
        images=_images(table, thresholds),
        images_before=sum(each.images for each in table.tags),
        recall=table.recall_with(thresholds),
        recall_before=table.recall_overall,
    )


def _candidates(table: PrecisionTable) -> list[int]:
    bands = {row.band_low for row in table.rows}
    return sorted({table.threshold, *bands, *range(table.threshold, 100, STEP)})


def _images(table: PrecisionTable, thresholds: Mapping[str, int]) -> int:
    counts = table.evidence.frame.counts
    return sum(sum(counts[tag][threshold:]) for tag, threshold in thresholds.items())
