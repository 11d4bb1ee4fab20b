"""A frame's pictures by position, and those of one tag."""

from dataclasses import replace

import numpy as np
import pyarrow as pa

from tinytags_tasks.errors import BadInputError
from tinytags_tasks.review.draw import Drawn
from tinytags_tasks.review.frame import Frame
from tinytags_tasks.store.review_records import Why


def drawn_at(frame: Frame, position: int, why: str) -> Drawn:
    """Return what the run says of a picture that can have been drawn, and why it was, if ``why`` can be true.

    Raises
    ------
    BadInputError
        If it cannot have been drawn.
    """
    row = int(frame.rows_of(np.array([position]))[0])
    if row < 0:
        raise BadInputError(f"position {position} was not drawn for the review of run {frame.run}")
    columns = frame.columns
    stratum = frame.strata[int(columns["stratum"][row])]
    # A picture that is there to teach only never measures, whatever a page says.
    is_measuring = why == Why.MEASURE and columns["order"][row] >= 0
    return Drawn(
        position=position,
        block=int(columns["block"][row]),
        tag=stratum.tag,
        confidence=int(columns["confidence"][row]),
        why=Why.MEASURE if is_measuring else Why.TEACH,
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
    chosen = [number for number, stratum in enumerate(frame.strata) if stratum.tag == tag and tag and stratum.images]
    if not chosen:
        raise BadInputError(f"run {frame.run} has no picture with the tag {tag[:100]!r}")
    numbers = np.full(len(frame.strata), -1, dtype=np.int32)
    numbers[chosen] = range(len(chosen))
    renumbered = numbers[frame.columns["stratum"]]
    column = frame.pictures.schema.get_field_index("stratum")
    pictures = frame.pictures.set_column(column, "stratum", pa.array(renumbered))
    return replace(
        frame,
        strata=tuple(frame.strata[number] for number in chosen),
        pictures=pictures.filter(pa.array(renumbered >= 0)),
    )
