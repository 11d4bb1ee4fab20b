"""The strata of a run: its tags by bands of confidence, and the pictures that it dropped."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

EDGES = (65, 90)
"""Where bands of confidence begin, in percent, besides the one that begins at a run's threshold."""

NONE, BELOW = "none", "below"
DROPPED_STRATA = (NONE, BELOW)
"""Names of the strata of pictures that a run dropped: none of the tags by its model, or below the threshold."""


@dataclass(frozen=True)
class Stratum:
    """Pictures of a run that are alike: those of one tag in one band of confidence, or those that the run dropped.

    Attributes
    ----------
    name
        Such as ``cat 65-89``, ``none`` or ``below``.
    tag
        Their tag; empty if the run dropped them.
    low, high
        The lowest and the highest confidence, in percent, both included; -1 if the run dropped them.
    images
        How many they are.
    """

    name: str
    tag: str
    low: int
    high: int
    images: int

    @property
    def is_dropped(self) -> bool:
        """Whether the run dropped its pictures."""
        return not self.tag


@dataclass(frozen=True)
class Strata:
    """How a run's pictures are divided: each tag's bands one after the other, then none, then below."""

    tags: tuple[str, ...]
    threshold: int

    @property
    def lows(self) -> tuple[int, ...]:
        """Where each band begins."""
        return (self.threshold, *(edge for edge in EDGES if edge > self.threshold))

    @property
    def highs(self) -> tuple[int, ...]:
        """Where each band ends; the confidence is included."""
        return (*(low - 1 for low in self.lows[1:]), 100)

    @property
    def number(self) -> int:
        """How many there are."""
        return self.none + 2

    @property
    def none(self) -> int:
        """Index of the stratum of none."""
        return len(self.tags) * len(self.lows)

    def index(self, tags: npt.NDArray[np.int64], confidences: npt.NDArray[np.int16]) -> npt.NDArray[np.int64]:
        """Return the strata of pictures by the indexes of their tags and their confidences."""
        bands = np.searchsorted(np.array(self.lows), confidences, side="right") - 1
        return tags * len(self.lows) + np.maximum(bands, 0)

    def with_images(self, images: npt.NDArray[np.int64]) -> tuple[Stratum, ...]:
        """Return them all with their sizes, empty ones too."""
        bands = [
            Stratum(f"{tag} {low}-{high}", tag, low, high, 0)
            for tag in self.tags
            for low, high in zip(self.lows, self.highs, strict=True)
        ]
        every = [*bands, *(Stratum(name, "", -1, -1, 0) for name in DROPPED_STRATA)]
        return tuple(
            Stratum(each.name, each.tag, each.low, each.high, int(size))
            for each, size in zip(every, images, strict=True)
        )
