"""Chooses the arithmetic of an imported net: int8 where that keeps the ranking of pictures, else float32."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from tinytags_tasks.errors import BadInputError
from tinytags_tasks.nets.graph import LARGEST
from tinytags_tasks.nets.onnx_file import first_line
from tinytags_tasks.nets.quantising import OPERATORS, is_quantised, quantised, simplified
from tinytags_tasks.nets.ranking import FEWEST_SHARED, LOWEST_CORRELATION, Ranking, compare_rankings
from tinytags_tasks.nets.running import open_session

Arithmetic = Literal["auto", "int8", "float32"]
"""``auto``: int8 where that keeps the ranking, else float32."""

_QUANTILE = 0.9995  # the few numbers beyond it are cut off, so that the others use int8's whole range
_BATCH = 64
_TIMED = 16

Pixels = npt.NDArray[np.uint8]
Values = npt.NDArray[np.float32]
Report = Callable[[str], None]


@dataclass(frozen=True)
class Form:
    """A form of the net: its file, its arithmetic, what is in int8, and what was measured."""

    content: bytes = field(repr=False)
    arithmetic: str
    operators: str
    figures: dict[str, float]


class Measure:
    """Runs forms of a net on pictures; every other one calibrates, the rest is held back for comparing."""

    def __init__(self, pixels: Pixels, where: str) -> None:
        self.pixels, self.where = pixels, where
        self.calibrating, self._held_back = slice(0, None, 2), slice(1, None, 2)
        self.images_per_second = 0.0  # of the form that ran last, for a second of one core's time

    def run(self, model: onnx.ModelProto) -> Values:
        """Return all embeddings, float32 (pictures, dimensions)."""
        content = model.SerializeToString()
        self.images_per_second = self._speed(content)
        session = open_session(content, self.where, threads=0)
        parts = [
            session.run(["embedding"], {"pixels": self.pixels[start : start + _BATCH]})[0]
            for start in range(0, len(self.pixels), _BATCH)
        ]
        embeddings: Values = np.concatenate(parts)
        if not np.isfinite(embeddings).all():
            picture = int(np.flatnonzero(~np.isfinite(embeddings).all(axis=1))[0])
            raise BadInputError(
                f"{self.where}: gives values that are not finite numbers (NaN) for picture {picture} of the "
                "calibration; check --scale, --mean and --std"
            )
        return embeddings

    def _speed(self, content: bytes) -> float:
        """Return images per second on one core, as the pipeline runs it; other work on the machine does not count."""
        session, some = open_session(content, self.where), self.pixels[:_TIMED]
        session.run(["embedding"], {"pixels": some})
        started = time.process_time()
        session.run(["embedding"], {"pixels": some})
        return round(len(some) / max(time.process_time() - started, 1e-6), 1)

    def compare(self, given: npt.NDArray[Any], other: npt.NDArray[Any], scale: float) -> Ranking:
        """Compare the network as given with what would be stored of another form, on pictures that were held back."""
        whole = np.clip(np.rint(other[self._held_back] / np.float32(scale)), -LARGEST, LARGEST)
        return compare_rankings(given[self._held_back], whole)


def scale_of(embeddings: Values, where: str) -> float:
    """Return what one whole number of a stored embedding stands for."""
    largest = float(np.quantile(np.abs(embeddings), _QUANTILE))
    if not largest > 0:
        raise BadInputError(f"{where}: gives zeros for the pictures; check --scale, --mean and --std")
    return float(f"{largest / LARGEST:.5g}")  # few digits, so that another processor's last bits change nothing


def file_of(model: onnx.ModelProto, scale: float, where: str) -> bytes:
    """Return a net's file; it names the scale, so that the same network with another scale is another net."""
    named = onnx.ModelProto()
    named.CopyFrom(model)
    del named.metadata_props[:]
    helper.set_model_props(named, {"tinytags.scale": repr(scale)})
    try:
        content: bytes = named.SerializeToString(deterministic=True)
    except ValueError as error:
        raise BadInputError(f"{where}: is larger than 2 GB ({first_line(error)}); choose a smaller network") from error
    return content


def choose_form(
    model: onnx.ModelProto, wanted: Arithmetic, measure: Measure, scale: float, given: Values, report: Report
) -> Form:
    """Return a net in the arithmetic that is wanted, or for ``auto`` in int8 if that keeps the ranking.

    Parameters
    ----------
    model
        The net, with the interface of a net.
    wanted
        See :data:`Arithmetic`.
    measure
        The pictures that it is calibrated and compared on.
    scale, given
        Of :func:`scale_of`; and its embeddings of these pictures.
    report
        Takes each message.

    Raises
    ------
    BadInputError
        If int8 is wanted, and ranks pictures worse or cannot be made.
    """
    where = measure.where
    stored = measure.compare(given, given, scale)
    arithmetic = "int8" if is_quantised(model) else "float32"
    figures = {
        "images a second a core": measure.images_per_second,
        "neighbours shared once rounded": round(stored.shared, 4),
        "rank correlation once rounded": round(stored.correlation, 5),
    }
    unchanged = Form(file_of(model, scale, where), arithmetic, "", figures)
    if wanted == "float32" or arithmetic == "int8":
        return unchanged
    worst: list[str] = []
    try:
        ready = simplified(model, where)
        for name, operators in OPERATORS.items():
            candidate = quantised(ready, measure.pixels[measure.calibrating], operators, where)
            ranking = measure.compare(given, measure.run(candidate), scale)
            report(f"int8, {name}: {ranking}; {measure.images_per_second:,.0f} images a second a core")
            if ranking.is_kept:
                own = {
                    "images a second a core": measure.images_per_second,
                    "images a second a core in float32": figures["images a second a core"],
                    "neighbours shared by int8": round(ranking.shared, 4),
                    "rank correlation of int8": round(ranking.correlation, 5),
                }
                return Form(file_of(candidate, scale, where), "int8", name, own)
            worst.append(f"{name}: {ranking}")
    except BadInputError as error:
        if wanted == "int8":
            raise
        report(f"stays in float32: {error}")
        return unchanged
    reason = (
        f"int8 ranks pictures worse than float32 ({'; '.join(worst)}; the bounds are {100 * FEWEST_SHARED:.0f} % and "
        f"{LOWEST_CORRELATION})"
    )
    if wanted == "int8":
        raise BadInputError(f"{where}: {reason}; import it with --arithmetic float32")
    report(f"stays in float32: {reason}")
    return unchanged
