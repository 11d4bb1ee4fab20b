"""Pictures that a page must not show although Solr may still have their documents: they were taken down."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from tinytags_tasks.search.images import TaggedImage

MOST_FILTERED = 2_000
"""Pictures that Solr is asked to leave out at most, so that counts are right; any others are left out afterwards."""


@dataclass(frozen=True, eq=False)
class Hidden:
    """Which pictures are taken down.

    Attributes
    ----------
    positions
        By corpus: positions, ascending.
    pending_ids
        Ids of documents that Solr may still have, at most :data:`MOST_FILTERED`.
    """

    positions: Mapping[str, npt.NDArray[np.int64]] = field(default_factory=dict)
    pending_ids: Sequence[str] = ()

    def hides(self, corpus: str, position: int) -> bool:
        """Return whether a picture must not be shown."""
        positions = self.positions.get(corpus)
        if positions is None or not len(positions):
            return False
        at = int(np.searchsorted(positions, position))
        return at < len(positions) and int(positions[at]) == position

    def leave_out(self, images: Iterable[TaggedImage]) -> tuple[TaggedImage, ...]:
        """Return the images that may be shown."""
        return tuple(image for image in images if not self.hides(image.corpus, image.position))


NOTHING = Hidden()
