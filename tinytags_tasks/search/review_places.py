"""A frame's pictures by position, and those of one tag."""

from dataclasses import replace

import numpy as np
import pyarrow as pa

from tinytags_tasks.errors import BadInputError
from tinytags_tasks.review.draw import Drawn
from tinytags_tasks.review.frame import Frame
from tinytags_tasks.store.review_records import Why


class FramePlaces:
    """Finds a frame's pictures by position."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        positions = frame.pictures.column("position").to_numpy()
        self._order = np.argsort(positions, kind="stable")
        self._positions = positions[self._order]

    def drawn(self, position: int, why: str) -> Drawn:
        """Return what the run says of a picture that can have been drawn, and why it was, if ``why`` can be true.

        Raises
        ------
        BadInputError
            If it cannot have been drawn.
        """
        place = int(np.searchsorted(self._positions, position))
        if place == len(self._positions) or self._positions[place] != position:
            raise BadInputError(f"position {position} was not drawn for the review of run {self._frame.run}")
        row = self._frame.pictures.slice(int(self._order[place]), 1).to_pylist()[0]
        stratum = self._frame.strata[row["stratum"]]
        # A picture that is there to teach only never measures, whatever a page says.
        reason = Why.MEASURE if why == Why.MEASURE and row["order"] >= 0 else Why.TEACH
        return Drawn(
            position=position,
            block=row["block"],
            tag=stratum.tag,
            confidence=row["confidence"],
            why=reason,
            stratum=stratum.name,
            chance=0.0,
        )


def frame_of_tag(frame: Frame, tag: str) -> Frame:
    """Return a frame with only the pictures that the run gave a tag.

    Raises
    ------
    BadInputError
        If the run gave it to none.
    """
    chosen = [number for number, stratum in enumerate(frame.strata) if stratum.tag == tag and tag]
    if not chosen:
        raise BadInputError(f"run {frame.run} has no picture with the tag {tag[:100]!r}")
    numbers = np.full(len(frame.strata), -1)
    numbers[chosen] = range(len(chosen))
    renumbered = numbers[frame.pictures.column("stratum").to_numpy()]
    column = frame.pictures.schema.get_field_index("stratum")
    field = frame.pictures.schema.field(column)
    pictures = frame.pictures.set_column(column, field, pa.array(renumbered).cast(field.type, safe=False))
    return replace(
        frame,
        strata=tuple(frame.strata[number] for number in chosen),
        pictures=pictures.filter(pa.array(renumbered >= 0)),
    )
