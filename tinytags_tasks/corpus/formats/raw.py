"""Plain pixels: consecutive images of one size and nothing else, in any of three pixel orders."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tinytags_tasks.corpus.formats.base import Definition, Guess, Sample
from tinytags_tasks.corpus.formats.fixed_records import FixedRecords, RecordLayout

_SURELY_SMOOTHER = 1.3
_NOISE = 60  # neighbours differ by 10 to 20 in photographs, by 85 in random bytes
_UNEQUAL_AXES = 1.4
_ENOUGH_FOR_A_MEAN = 200
_SURELY_UPRIGHT = 2.0


class Raw(FixedRecords):
    """Plain pixels of any size; the definition says the size and the order."""

    name = "raw"
    recognised_by = "a size that is a multiple of height x width x 3 bytes"
    fields = frozenset({"pixel_order"})
    keywords = ()

    def record_layout(self, definition: Definition, path: str = "") -> RecordLayout:
        """See :meth:`FixedRecords.record_layout`."""
        return RecordLayout(definition.height, definition.width, definition.pixel_order)

    def guess(self, sample: Sample) -> Guess | None:
        """See :meth:`Format.guess`: anything that is a whole number of images."""
        found = guess_pixel_order(sample)
        return Guess({"pixel_order": found[0]}, found[1]) if found else None


def guess_pixel_order(sample: Sample) -> tuple[str, tuple[str, ...]] | None:
    """Tell by smoothness in which order the pixels of a file lie.

    Returns
    -------
    tuple, or None
        The order, and what a person should know about the guess; None if the file is not a whole number of images.
    """
    images, rest = divmod(sample.file.size_bytes, sample.image_bytes)
    if not images or rest:
        return None
    height, width = sample.height, sample.width
    readings = _readings(sample.records(sample.image_bytes), height, width)
    roughness = {order: _roughness(pixels) for order, pixels in readings.items()}
    ranked = sorted(readings, key=lambda order: max(roughness[order]))
    order = ranked[0]
    differences = ", ".join(f"{max(roughness[reading]):.1f} as {reading}" for reading in ranked)
    notes = [
        f"neighbours differ on average by {differences}: taken for {order}",
        *_doubts(roughness[order], roughness[ranked[1]], height, width),
    ]
    if order == "planes" and height == width:
        order, reason = _guess_side(sample.file.path, readings["planes"])
        other = "planes" if order == "columns" else "columns"
        notes.append(
            "smoothness cannot tell whether a plane is stored row by row or column by column: a picture on its side is "
            f"as smooth. {'Columns' if order == 'columns' else 'Rows'} are assumed ({reason}). Look at the sheet: if "
            f"the pictures lie on their side, define the corpus with --format {Raw.name} --pixel-order {other}"
        )
    return order, tuple(notes)


def _readings(pixels: npt.NDArray[np.uint8], height: int, width: int) -> dict[str, npt.NDArray[np.uint8]]:
    """Return images of shape (images, height, width, 3) for each pixel order that smoothness can tell from others."""
    readings = {
        "hwc": pixels.reshape(-1, height, width, 3),
        "planes": pixels.reshape(-1, 3, height, width).transpose(0, 2, 3, 1),
    }
    if height != width:
        readings["columns"] = pixels.reshape(-1, 3, width, height).transpose(0, 3, 2, 1)
    return readings


def _roughness(images: npt.NDArray[np.uint8]) -> tuple[float, float]:
    """Return by how much vertical and horizontal neighbours differ on average."""
    vertical, horizontal = (
        float(np.abs(np.diff(images.astype(np.int16), axis=axis)).mean()) if images.shape[axis] > 1 else 0.0
        for axis in (1, 2)
    )
    return vertical, horizontal


def _doubts(best: tuple[float, float], second: tuple[float, float], height: int, width: int) -> Iterator[str]:
    """Yield what speaks against the smoothest reading."""
    if max(second) <= _SURELY_SMOOTHER * max(best):
        yield "another reading is about as smooth, so this is a weak guess: look at the sheet"
    if max(best) > _NOISE:
        yield "this looks like noise, not like pictures: is it really a file of pixels?"
    elif max(best) > _UNEQUAL_AXES * max(min(best), 1.0):
        yield (
            f"vertical neighbours differ by {best[0]:.1f}, horizontal ones by {best[1]:.1f}, while in pictures both "
            f"are mostly alike: are they {height}x{width}? Otherwise give --height and --width"
        )


def _guess_side(path: str, planes: npt.NDArray[np.uint8]) -> tuple[str, str]:
    """Return whether square planes are stored by rows (``planes``) or by ``columns``, and why.

    The mean of many photographs is brighter at the top than at the bottom, and alike on the left and on the right.
    """
    if Path(path).name.lower().startswith("tiny_images"):
        return "columns", "as its name says"
    if len(planes) >= _ENOUGH_FOR_A_MEAN:
        mean = planes.mean(axis=(0, 3))
        down, across = (float(np.abs(line - line[::-1]).mean()) for line in (mean.mean(axis=1), mean.mean(axis=0)))
        if max(down, across) > _SURELY_UPRIGHT * min(down, across):
            return (
                "columns" if across > down else "planes",
                "their mean picture is then lit from above, as photographs are",
            )
    if planes.shape[1:3] == (32, 32):
        return "columns", "as in Tiny Images, the best-known file of this size; the pictures themselves do not tell"
    return "planes", "the pictures themselves do not tell"
