"""Pictures for a model's report: the surest images of each cell of its confusion matrix."""

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from tinytags_tasks.votes import Votes, confidence, winners

MOST_OF_CELL = 6
"""Pictures of a cell at most."""

MOST_BYTES = 700_000
"""Size of all pictures of a report at most, as the text that the page holds."""

_LARGEST_SIDE = 64
_QUALITY = 85

Part = Literal["test", "held_out"]
"""The figures on a card that have a confusion matrix."""

Cell = tuple[int, int]
"""The index of the right tag, and of the winning one."""


@dataclass(frozen=True)
class Picture:
    """One picture of a cell.

    Attributes
    ----------
    source
        Its JPEG file as a ``data:`` address.
    confidence
        Of the winning tag, in percent.
    """

    source: str
    confidence: int


@dataclass(frozen=True, eq=False)
class _Chosen:
    """The images of a cell that may be shown, and how many it has."""

    images: npt.NDArray[np.uint8]
    confidences: list[int]
    count: int


class Gallery:
    """Collects pictures while a model is evaluated."""

    def __init__(self) -> None:
        self._chosen: dict[tuple[Part, Cell], _Chosen] = {}

    def add(
        self,
        part: Part,
        votes: Votes,
        labels: npt.NDArray[np.int64],
        total: int,
        read: Callable[[npt.NDArray[np.int64]], npt.NDArray[np.uint8]],
    ) -> None:
        """Choose pictures from the images on which a model was evaluated: of each cell, those it is surest of.

        Parameters
        ----------
        part
            The figures that the images belong to.
        votes, total
            As for :func:`tinytags_tasks.train.evaluation.evaluate`.
        labels
            The images' tags, int64, shape (images,).
        read
            Returns some of the images by their numbers, which ascend: uint8, shape (some, height, width, 3).
        """
        winner, won = winners(votes)
        sure = confidence(won, total)
        cells = labels * votes.shape[1] + winner
        ordered = np.lexsort((-won, cells))  # stable: of equally sure images, the first in the file
        numbers, firsts, counts = np.unique(cells[ordered], return_index=True, return_counts=True)
        shown = [
            ordered[first : first + min(count, MOST_OF_CELL)]
            for first, count in zip(firsts.tolist(), counts.tolist(), strict=True)
        ]
        rows = np.sort(np.concatenate(shown))
        images = read(rows)
        for number, chosen, count in zip(numbers.tolist(), shown, counts.tolist(), strict=True):
            found = images[np.searchsorted(rows, chosen)]
            confidences = [int(each) for each in sure[chosen]]
            self._chosen[part, divmod(number, votes.shape[1])] = _Chosen(found, confidences, count)

    def pictures(self, part: Part) -> dict[Cell, list[Picture]]:
        """Return the pictures of each cell, the surest first.

        If not all of them fit into the page, each cell gets a first picture before any gets a second one, and cells
        with many images come first.
        """
        cells = sorted(
            ((cell, chosen) for (of, cell), chosen in self._chosen.items() if of == part),
            key=lambda item: (-item[1].count, item[0]),
        )
        left = MOST_BYTES // max(1, len({of for of, _ in self._chosen}))
        found: dict[Cell, list[Picture]] = {}
        for rank in range(MOST_OF_CELL):
            for cell, chosen in cells:
                if rank >= len(chosen.images):
                    continue
                source = _data_address(chosen.images[rank])
                left -= len(source)
                if left < 0:
                    return found
                found.setdefault(cell, []).append(Picture(source, chosen.confidences[rank]))
        return found


def _data_address(image: npt.NDArray[np.uint8]) -> str:
    picture = Image.fromarray(image)
    picture.thumbnail((_LARGEST_SIDE, _LARGEST_SIDE))
    jpeg = io.BytesIO()
    picture.save(jpeg, "JPEG", quality=_QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg.getvalue()).decode()}"
