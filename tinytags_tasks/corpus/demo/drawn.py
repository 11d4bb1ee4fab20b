"""Generated pictures of ten shapes, for a demo without photographs."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from tinytags_tasks.corpus.formats.tiny_images import SIDE

SHAPES = ("arrow", "circle", "cross", "diamond", "heart", "hexagon", "ring", "square", "star", "triangle")
"""The shapes' names in the order of their labels."""

SCRIBBLE = -1
"""The label of a picture that shows no shape."""

_CANVAS = 4 * SIDE  # drawn four times as large and averaged, for smooth edges


def draw_pictures(
    pictures: int, *, seed: int, batch: int = 1_000, scribbles: float = 0.0
) -> Iterator[tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]]:
    """Yield pictures of shapes with random colours, positions, sizes and rotations; reproducible for equal arguments.

    Parameters
    ----------
    pictures
        How many.
    seed
        Seed of the random numbers.
    batch
        Pictures per batch.
    scribbles
        The share of pictures that show no shape.

    Yields
    ------
    tuple of numpy.ndarray
        uint8, shape (pictures, 32, 32, 3); int64, shape (pictures,): indexes into :data:`SHAPES` or :data:`SCRIBBLE`.
    """
    rng = np.random.default_rng(seed)
    for start in range(0, pictures, batch):
        size = min(batch, pictures - start)
        labels = rng.integers(len(SHAPES), size=size)
        labels[rng.random(size) < scribbles] = SCRIBBLE
        cover = np.stack([_draw_cover(int(label), rng) for label in labels])[..., np.newaxis]
        # Dark ground, bright shape: their contrast must not depend on chance.
        ground = rng.uniform(0, 100, (size, 1, 1, 3)) + _slope(size, rng)
        paint = rng.uniform(140, 255, (size, 1, 1, 3))
        noise = rng.normal(0, 10, (size, SIDE, SIDE, 3))
        yield np.clip(ground + (paint - ground) * cover + noise, 0, 255).astype(np.uint8), labels


def _slope(size: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Return a gradient of brightness for each picture."""
    along = np.linspace(-1, 1, SIDE)
    rise = rng.uniform(-25, 25, (2, size, 1, 1, 1))
    return np.asarray(rise[0] * along[:, np.newaxis, np.newaxis] + rise[1] * along[np.newaxis, :, np.newaxis])


def _draw_cover(label: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Return how much of each pixel is covered by the shape, 0 to 1."""
    canvas = Image.new("L", (_CANVAS, _CANVAS))
    pen = ImageDraw.Draw(canvas)
    if label == SCRIBBLE:
        _scribble(pen, rng)
    else:
        turn = rng.uniform(-0.35, 0.35)
        radius = _CANVAS * rng.uniform(0.32, 0.44)
        centre = _CANVAS / 2 + rng.uniform(-0.08, 0.08, 2) * _CANVAS
        turned = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]]) * radius
        outline = _OUTLINES[SHAPES[label]]
        pen.polygon((outline @ turned + centre).ravel().tolist(), fill=255)
        if SHAPES[label] == "ring":
            pen.polygon((0.55 * outline @ turned + centre).ravel().tolist(), fill=0)
    return np.asarray(canvas.resize((SIDE, SIDE), Image.Resampling.BOX), dtype=np.float64) / 255


def _scribble(pen: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    for _ in range(rng.integers(2, 5)):
        points = rng.uniform(0.05, 0.95, (rng.integers(3, 7), 2)) * _CANVAS
        pen.line(points.ravel().tolist(), fill=255, width=int(rng.integers(4, 12)), joint="curve")


def _points(*points: tuple[float, float]) -> npt.NDArray[np.float64]:
    return np.array(points)


def _regular(corners: int, *radii: float, first: float = -np.pi / 2) -> npt.NDArray[np.float64]:
    """Return corners around a centre, the first one on top, whose distances alternate through ``radii``."""
    angles = first + np.arange(corners) * 2 * np.pi / corners
    distances = np.resize(radii or (1.0,), corners)
    return np.stack([np.cos(angles) * distances, np.sin(angles) * distances], axis=1)


def _heart() -> npt.NDArray[np.float64]:
    t = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    across = 16 * np.sin(t) ** 3
    down = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    return np.stack([across, down], axis=1) / 17


_THIRD = 0.33
_OUTLINES = {
    "arrow": _points((0, -1), (0.85, -0.1), (0.35, -0.1), (0.35, 1), (-0.35, 1), (-0.35, -0.1), (-0.85, -0.1)),
    "circle": _regular(48),
    "cross": _points(
        (-_THIRD, -1),
        (_THIRD, -1),
        (_THIRD, -_THIRD),
        (1, -_THIRD),
        (1, _THIRD),
        (_THIRD, _THIRD),
        (_THIRD, 1),
        (-_THIRD, 1),
        (-_THIRD, _THIRD),
        (-1, _THIRD),
        (-1, -_THIRD),
        (-_THIRD, -_THIRD),
    ),
    "diamond": _points((0, -1.1), (0.6, 0), (0, 1.1), (-0.6, 0)),
    "heart": _heart(),
    "hexagon": _regular(6, first=0.0),
    "ring": _regular(48),
    "square": _regular(4, 1.25, first=np.pi / 4),
    "star": _regular(10, 1.1, 0.45),
    "triangle": _regular(3, 1.15),
}
"""Corners (x, y) around the centre, at a distance of about 1."""
