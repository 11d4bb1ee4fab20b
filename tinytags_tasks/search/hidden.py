"""What readers do not see of the live index: pictures that were taken down, and what the publication leaves out."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from tinytags_tasks.search.images import TaggedImage

MOST_FILTERED = 2_000
"""Pictures that Solr is asked to leave out at most, so that counts are right; any others are left out afterwards."""


@dataclass(frozen=True, eq=False)
class Hidden:
    """What is left out.

    Attributes
    ----------
    positions
        Pictures that were taken down: by corpus their positions, ascending.
    pending_ids
        Ids of their documents that Solr may still have, at most :data:`MOST_FILTERED`.
    least
        By corpus, the lowest confidence, in percent, at which each tag is shown. A tag that is missing there is shown
        only where a person said it. Of a corpus that is missing, all are shown.
    between
        By corpus, the lowest and the highest confidence of each tag that are asked for; anything else, and what a
        person said, is not. None asks for all.
    """

    positions: Mapping[str, npt.NDArray[np.int64]] = field(default_factory=dict)
    pending_ids: Sequence[str] = ()
    least: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    between: Mapping[str, Mapping[str, tuple[int, int]]] | None = None

    @property
    def is_left_out_later(self) -> bool:
        """Whether Solr may count some of them, because they are more than it is asked to leave out."""
        return len(self.pending_ids) >= MOST_FILTERED

    def hides(self, corpus: str, position: int) -> bool:
        """Return whether a picture must not be shown."""
        positions = self.positions.get(corpus)
        if positions is None or not len(positions):
            return False
        at = int(np.searchsorted(positions, position))
        return at < len(positions) and int(positions[at]) == position

    def shows(self, image: TaggedImage) -> bool:
        """Return whether readers see an image: it is not taken down, and its tag is shown at its confidence."""
        if self.hides(image.corpus, image.position):
            return False
        if image.corpus not in self.least or image.values.get("corrected"):
            return True
        least = self.least[image.corpus].get(str(image.values["tag"]))
        return least is not None and int(image.values["confidence"] or 0) >= least

    def leave_out(self, images: Iterable[TaggedImage]) -> tuple[TaggedImage, ...]:
        """Return the images that may be shown."""
        return tuple(image for image in images if not self.hides(image.corpus, image.position))

    def at_least(self, least: Mapping[str, Mapping[str, int]]) -> "Hidden":
        """Return this with tags from certain confidences on, by corpus, as well."""
        both = {corpus: stricter(self.least[corpus], low) for corpus, low in least.items() if corpus in self.least}
        return replace(self, least={**self.least, **least, **both})


def stricter(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    """Return the lowest confidence at which each tag is shown if both limits count."""
    return {tag: max(one[tag], low) for tag, low in other.items() if tag in one}


NOTHING = Hidden()
