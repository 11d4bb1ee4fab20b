"""What a run's confidence has meant on its corpus: measured precision and recall, from reviews that were drawn.

Two figures answer two questions. The *measured* precision of a tag and band counts the looks at it alone, with an
interval (:mod:`.intervals`). The *stated* precision of a tag with a confidence is what readers see: it learns from the
looks at other tags and bands, too (:mod:`.calibration`), and counts those at its own band exactly.
"""

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from tinytags_tasks.review.calibration import fit_curves
from tinytags_tasks.review.draw import DROPPED_SHARE
from tinytags_tasks.review.evidence import Evidence, gather_evidence
from tinytags_tasks.review.frame import Frame
from tinytags_tasks.review.intervals import Estimate, Floats
from tinytags_tasks.review.looks import read_looks
from tinytags_tasks.review.sampler import Numbers
from tinytags_tasks.review.strata import Strata

NOT_MEASURED = "not measured on this corpus"
"""What stands where a precision would, before anybody has looked."""

MORE_LOOKS = 100

__all__ = ["NOT_MEASURED", "Estimate", "PrecisionRow", "PrecisionTable", "TagPrecision", "measure"]


@dataclass(frozen=True)
class PrecisionRow:
    """The measured precision of one tag in one band of confidence.

    Attributes
    ----------
    tag
        The tag.
    band_low, band_high
        The lowest and the highest confidence, in percent, both included.
    images
        How many images have the tag with such a confidence.
    looks, right
        How many of them were drawn to measure and looked at, and how many of these have the tag rightly.
    precision, low, high
        The share that is right, in percent, and its 95 % interval, from these looks alone; None without any.
    stated
        The mean of what :meth:`PrecisionTable.precision_of` states of these images; None without any looks at all.
    """

    tag: str
    band_low: int
    band_high: int
    images: int
    looks: int
    right: int
    precision: float | None
    low: float | None
    high: float | None
    stated: float | None


@dataclass(frozen=True)
class TagPrecision:
    """The measured precision of a tag, whatever its confidence, and how many of its pictures were found.

    Attributes
    ----------
    tag, images, looks, right
        As in :class:`PrecisionRow`.
    precision
        Of all its images; None without any looks.
    recall
        The share of the pictures that show the tag that have it; None if that was not measured.
    """

    tag: str
    images: int
    looks: int
    right: int
    precision: Estimate | None
    recall: Estimate | None


@dataclass(frozen=True, eq=False)
class PrecisionTable:
    """A run's measured precision.

    Attributes
    ----------
    run, corpus, corpus_digest, model, threshold
        Of which run.
    last
        Number of the last request of the review log that was read; with the run, it is the version of this table.
    looks, dropped_looks, unclear, labelled
        How many pictures were looked at to measure; how many of these the run had dropped; how many more were unclear,
        and how many more are in the labelled set that the model learned from, and count nowhere.
    rows, tags
        By tag and band, and by tag.
    overall, recall_overall
        Of all images with a tag, and of all pictures that show one; None without any looks.
    """

    run: str
    corpus: str
    corpus_digest: str
    model: str
    threshold: int
    last: int
    looks: int
    dropped_looks: int
    unclear: int
    rows: tuple[PrecisionRow, ...]
    tags: tuple[TagPrecision, ...]
    overall: Estimate | None
    recall_overall: Estimate | None
    evidence: Evidence = field(repr=False)
    curves: dict[str, Floats] = field(repr=False)
    labelled: int = 0

    @property
    def is_measured(self) -> bool:
        """Whether anybody has looked at an image with a tag."""
        return bool(self.curves)

    def precision_of(self, tag: str, confidence: int) -> Estimate | None:
        """Return the stated precision of a tag with a confidence, and its 95 % interval; None if it was not measured.

        It never falls as the confidence rises, and is the same for the same looks.
        """
        curve = self.curves.get(tag)
        return None if curve is None else Estimate(*curve[:, min(100, max(0, confidence))].tolist())

    def precision_from(self, tag: str, threshold: int) -> Estimate | None:
        """Return the measured precision of a tag's images with at least this confidence; None without any looks."""
        return self.evidence.precision_from(tag, threshold)

    def recall(self, tag: str, threshold: int) -> Estimate | None:
        """Return the share of the pictures that show a tag that have it with at least this confidence."""
        return self.evidence.recall_from((tag,), {tag: threshold})

    def recall_with(self, thresholds: Mapping[str, int]) -> Estimate | None:
        """Return the share of the pictures that show one of the model's tags that have it from these thresholds on."""
        return self.evidence.recall_from([each.tag for each in self.tags], thresholds)

    @cached_property
    def more_looks(self) -> str:
        """What 100 more looks would buy: a sentence for people; empty if nothing was measured."""
        measured = [each for each in self.tags if each.precision and each.images > each.looks]
        if not measured:
            return ""
        more = MORE_LOOKS * (1 - DROPPED_SHARE) / len(self.tags)
        now = [each.precision.half_width for each in measured if each.precision]
        then = [half * (each.looks / (each.looks + more)) ** 0.5 for half, each in zip(now, measured, strict=True)]
        return (
            f"{MORE_LOOKS} more looks that measure would narrow a tag's interval from ±{np.mean(now):.1f} to about "
            f"±{np.mean(then):.1f} points"
        )

    def as_json(self) -> dict[str, Any]:
        """Return it for programs."""
        return {
            "run": self.run,
            "corpus": self.corpus,
            "corpus_digest": self.corpus_digest,
            "model": self.model,
            "threshold": self.threshold,
            "last_request": self.last,
            "is_measured": self.is_measured,
            "looks": self.looks,
            "dropped_looks": self.dropped_looks,
            "unclear": self.unclear,
            "labelled": self.labelled,
            "overall": asdict(self.overall) if self.overall else None,
            "recall": asdict(self.recall_overall) if self.recall_overall else None,
            "tags": [asdict(each) for each in self.tags],
            "bands": [asdict(each) for each in self.rows],
            "more_looks": self.more_looks,
        }


def measure(frame: Frame, words: pa.Table, *, exclude: Collection[int] | Numbers = ()) -> PrecisionTable:
    """Return what a corpus' reviews say of a run.

    Parameters
    ----------
    frame
        The run's pictures.
    words
        The words of the corpus' review log.
    exclude
        Positions that the run's model learned from; words on them do not count.
    """
    looks = read_looks(frame, words, exclude)
    evidence = gather_evidence(frame, looks)
    curves = _stated_curves(frame, evidence)
    dropped = sum(int(count) for count, each in zip(evidence.looks, frame.strata, strict=True) if each.is_dropped)
    return PrecisionTable(
        run=frame.run,
        corpus=frame.corpus,
        corpus_digest=frame.corpus_digest,
        model=frame.model,
        threshold=frame.threshold,
        last=looks.last,
        looks=len(looks.rows),
        dropped_looks=dropped,
        unclear=looks.unclear,
        rows=tuple(_rows(frame, evidence, curves)),
        tags=tuple(_tags(frame, evidence)),
        overall=evidence.overall(),
        recall_overall=evidence.recall_from(frame.tags, dict.fromkeys(frame.tags, 0)),
        evidence=evidence,
        curves=curves,
        labelled=looks.labelled,
    )


def _stated_curves(frame: Frame, evidence: Evidence) -> dict[str, Floats]:
    """Return each tag's stated precision in percent, shape (3, 101), as :func:`fit_curves`; empty without looks."""
    if not evidence.by_confidence.looks.sum():
        return {}
    strata = Strata(frame.tags, frame.threshold)
    images = np.array([frame.counts[tag] for tag in frame.tags], dtype=np.float64).reshape(-1, 101)
    by = evidence.by_confidence
    curves = fit_curves(by.looks, by.right, images, (*strata.lows, 100), strata.lows)
    return {tag: np.round(100.0 * curves[:, place], 1) for place, tag in enumerate(frame.tags)}


def _rows(frame: Frame, evidence: Evidence, curves: dict[str, Floats]) -> list[PrecisionRow]:
    rows = []
    for index, stratum in enumerate(frame.strata):
        if stratum.is_dropped:
            continue
        found, curve = evidence.of_stratum(index), curves.get(stratum.tag)
        band = slice(stratum.low, stratum.high + 1)
        counts = np.array(frame.counts[stratum.tag][band])
        rows.append(
            PrecisionRow(
                tag=stratum.tag,
                band_low=stratum.low,
                band_high=stratum.high,
                images=stratum.images,
                looks=int(evidence.looks[index]),
                right=int(evidence.right[index]),
                precision=found.percent if found else None,
                low=found.low if found else None,
                high=found.high if found else None,
                stated=round(float(counts @ curve[0, band] / counts.sum()), 1) if curve is not None else None,
            )
        )
    return rows


def _tags(frame: Frame, evidence: Evidence) -> list[TagPrecision]:
    by = evidence.by_confidence
    return [
        TagPrecision(
            tag=tag,
            images=sum(frame.counts[tag]),
            looks=int(by.looks[place].sum()),
            right=int(by.right[place].sum()),
            precision=evidence.precision_from(tag, 0),
            recall=evidence.recall_from((tag,), {tag: 0}),
        )
        for place, tag in enumerate(frame.tags)
    ]
