"""A made reviewer: looks at the demo's pictures and says what its listing knows that they show.

It stands in for a person, so that a demo or a benchmark can show what reviews are worth.
"""

from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from tinytags_tasks.corpus.demo.make import Demo
from tinytags_tasks.errors import BadInputError
from tinytags_tasks.review.draw import Drawn
from tinytags_tasks.store.review_records import Verdict, Word

MADE_REVIEWER = "made-reviewer"
"""Its name in the review log."""


@dataclass(frozen=True)
class MadeReviewer:
    """Knows what each picture of the demo shows.

    Attributes
    ----------
    tags
        The names of the tags.
    labels
        int64, shape (images,): by position, an index into ``tags``, -1 for none of them, or less if it is unclear.
    """

    tags: tuple[str, ...]
    labels: npt.NDArray[np.int64] = field(repr=False)

    @classmethod
    def of_demo(cls, demo: Demo) -> "MadeReviewer":
        """Read the truth that the demo wrote beside its corpus.

        Raises
        ------
        BadInputError
            If there is no listing of the demo's positions.
        """
        path = demo.corpus_path.with_name("positions.parquet")
        try:
            table = pq.read_table(path, columns=["position", "label"])
        except (OSError, pa.ArrowException) as error:
            raise BadInputError(
                f"{path}: what the demo's pictures show cannot be read ({error}); run it first"
            ) from error
        labels = np.empty(len(table), dtype=np.int64)
        labels[table.column("position").to_numpy()] = table.column("label").to_numpy()
        return cls(demo.tags, labels)

    def look(self, pictures: Collection[Drawn]) -> list[Word]:
        """Return a word on each picture, as a person would say it who knows the tags."""
        return [self._word(picture) for picture in pictures]

    def _word(self, picture: Drawn) -> Word:
        label = int(self.labels[picture.position])
        verdict = Verdict.TAG if label >= 0 else Verdict.NONE if label == -1 else Verdict.UNCLEAR
        return Word(
            position=picture.position,
            verdict=verdict,
            tag=self.tags[label] if label >= 0 else "",
            why=picture.why,
            shown_tag=picture.tag,
            shown_confidence=picture.confidence,
        )
