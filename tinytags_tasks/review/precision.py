"""What a run's confidence has meant on its corpus: measured precision and recall, from reviews that were drawn."""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from tinytags_tasks.review.frame import Frame

NOT_MEASURED = "not measured on this corpus"
"""What stands where a precision would, before anybody has looked."""


@dataclass(frozen=True)
class Estimate:
    """A share in percent, and its 95 % interval."""

    percent: float
    low: float
    high: float


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
        The precision that readers see, in percent: from the looks at other tags and bands, too. None without any.
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
    run, corpus, corpus_digest, model
        Of which run.
    last
        Number of the last request of the review log that counts.
    looks, dropped_looks, unclear
        How many pictures were looked at to measure; how many of these the run had dropped; how many more were unclear.
    rows, tags
        By tag and band, and by tag.
    overall
        Of all images with a tag; None without any looks.
    """

    run: str
    corpus: str
    corpus_digest: str
    model: str
    last: int
    looks: int
    dropped_looks: int
    unclear: int
    rows: tuple[PrecisionRow, ...]
    tags: tuple[TagPrecision, ...]
    overall: Estimate | None
    curves: dict[str, tuple[float, ...]] = field(repr=False)

    def precision_of(self, tag: str, confidence: int) -> float | None:
        """Return the stated precision in percent of a tag with a confidence; None if it was not measured."""
        raise NotImplementedError

    def recall(self, tag: str, threshold: int) -> Estimate | None:
        """Return the share of the pictures that show a tag that have it with at least this confidence."""
        raise NotImplementedError

    def as_json(self) -> dict[str, Any]:
        """Return it for the API."""
        raise NotImplementedError


def measure(frame: Frame, words: pa.Table, *, exclude: Collection[int] = ()) -> PrecisionTable:
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
    raise NotImplementedError
