"""Resizes pictures inside an ONNX graph, as Pillow does: BOX where it shrinks, bilinear where it enlarges.

Weights are whole numbers, so sums are exact, in float32 too: every machine gives the same pixels.
"""

import math

import numpy as np
import numpy.typing as npt
from onnx import TensorProto

from tinytags_tasks.nets.chain import Chain

_PILLOW_PRECISION = 2**22
"""Pillow's weights are whole multiples of 1 / this (``PRECISION_BITS`` in src/libImaging/Resample.c)."""

_FEWEST_PIXELS = 16
"""In a product of matrices, fewer pixels of a row would be slower."""


def axis_weights(size: int, wanted: int) -> npt.NDArray[np.float32]:
    """Return how much each pixel of a line counts for each pixel of the resized line.

    The arithmetic is that of ``precompute_coeffs`` in Pillow's src/libImaging/Resample.c: BOX if ``wanted`` is smaller,
    or else BILINEAR.

    Returns
    -------
    numpy.ndarray
        float32, shape (size, wanted): whole numbers.
    """
    scale = size / wanted
    shrinks = scale > 1
    support = 0.5 * scale if shrinks else 1.0
    weights = np.zeros((size, wanted), dtype=np.float32)
    for index in range(wanted):
        center = (index + 0.5) * scale
        for pixel in range(max(int(center - support + 0.5), 0), min(int(center + support + 0.5), size)):
            distance = pixel - center + 0.5
            if not shrinks:  # whole multiples of 1 / (2 * wanted)
                weights[pixel, index] = round((1 - abs(distance)) * 2 * wanted)
            elif -0.5 < distance / scale <= 0.5:
                weights[pixel, index] = 1
    return weights


def _add_division(chain: Chain, weights: npt.NDArray[np.float32], *, column: bool = False) -> None:
    """Divide sums by the sums of their weights, and round as Pillow does.

    BOX rounds a half up, unless Pillow's weight is smaller than it should be, because it is rounded to its precision.
    For BILINEAR a half goes either way there; here it goes up along rows and down along columns, so that the two
    together are one level off at most.
    """
    sums = weights.sum(axis=0).astype(np.float64)
    exact = _PILLOW_PRECISION % sums == 0
    too_small = np.floor(_PILLOW_PRECISION / sums + 0.5) * sums < _PILLOW_PRECISION
    rounds_down = ~exact & (column if weights.max() > 1 else too_small)
    halves = sums / 2 - np.where(rounds_down, 0.25, 0)
    for operator, numbers in (("Add", halves), ("Div", sums)):
        same = numbers[0] if (numbers == numbers[0]).all() else numbers[:, None] if column else numbers
        chain.add(operator, np.asarray(same, dtype=np.float32))
    chain.add("Floor")


def _add_columns(chain: Chain, height: int, width: int, wanted: int) -> None:
    """Resize each row of (images, height, width * 3)."""
    weights = axis_weights(width, wanted)
    if wanted < width:
        # BOX: a group of pixels decides a group of its own, alike all along a row. Whole numbers, twice as fast.
        groups = math.gcd(width, wanted)
        while groups > 1 and width // groups < _FEWEST_PIXELS:
            groups = _smaller_divisor(groups)
        group = weights[: width // groups, : wanted // groups]
        chain.add("Reshape", np.array([-1, group.shape[0] * 3], dtype=np.int64))
        chain.add("MatMulInteger", np.kron(group, np.eye(3)).astype(np.int8))
        chain.add("Cast", to=TensorProto.FLOAT)
        chain.add("Reshape", np.array([-1, height, wanted * 3], dtype=np.int64))
    else:
        chain.add("Cast", to=TensorProto.FLOAT)
        chain.add("MatMul", np.kron(weights, np.eye(3, dtype=np.float32)))
    _add_division(chain, np.repeat(weights, 3, axis=1))


def _smaller_divisor(number: int) -> int:
    return next(divisor for divisor in range(number - 1, 0, -1) if number % divisor == 0)


def add_resize(chain: Chain, size: tuple[int, int], wanted: tuple[int, int]) -> None:
    """Resize pictures, uint8 (images, height, width, 3), from one height and width to another: along rows first."""
    (height, width), (wanted_height, wanted_width) = size, wanted
    if size == wanted:
        return
    chain.add("Reshape", np.array([-1, height, width * 3], dtype=np.int64))
    if width != wanted_width:
        _add_columns(chain, height, width, wanted_width)
    else:
        chain.add("Cast", to=TensorProto.FLOAT)
    if height != wanted_height:
        weights = axis_weights(height, wanted_height)
        chain.add("MatMul", left=weights.T)
        _add_division(chain, weights, column=True)
    chain.add("Cast", to=TensorProto.UINT8)
    chain.add("Reshape", np.array([-1, wanted_height, wanted_width, 3], dtype=np.int64))
