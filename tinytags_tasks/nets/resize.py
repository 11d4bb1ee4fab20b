"""Resizes pictures inside an ONNX graph, as Pillow does: BOX where it shrinks, bilinear where it enlarges.

Weights are whole numbers, so float32 adds them up without any rounding: every machine gives the same pixels.
"""

import numpy as np
import numpy.typing as npt
from onnx import TensorProto

from tinytags_tasks.nets.chain import Chain

_PILLOW_PRECISION = 2**22
"""Pillow's weights are whole multiples of 1 / this (``PRECISION_BITS`` in src/libImaging/Resample.c)."""


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
    """Divide sums by the sums of their weights, and round as Pillow does."""
    sums = weights.sum(axis=0).astype(np.float64)
    # A half is rounded up, unless Pillow's own weight, rounded to its precision, is smaller than it should be.
    rounds_down = np.floor(_PILLOW_PRECISION / sums + 0.5) * sums < _PILLOW_PRECISION
    halves = sums / 2 - np.where(rounds_down, 0.25, 0)
    for operator, numbers in (("Add", halves), ("Div", sums)):
        same = numbers[0] if (numbers == numbers[0]).all() else numbers[:, None] if column else numbers
        chain.add(operator, np.asarray(same, dtype=np.float32))
    chain.add("Floor")


def add_resize(chain: Chain, size: tuple[int, int], wanted: tuple[int, int]) -> None:
    """Resize pictures, uint8 (images, height, width, 3), from one height and width to another; rows first."""
    (height, width), (wanted_height, wanted_width) = size, wanted
    if size == wanted:
        return
    chain.add("Transpose", perm=[0, 3, 1, 2])
    chain.add("Cast", to=TensorProto.FLOAT)
    if width != wanted_width:
        weights = axis_weights(width, wanted_width)
        chain.add("MatMul", weights)
        _add_division(chain, weights)
    if height != wanted_height:
        weights = axis_weights(height, wanted_height)
        chain.add("MatMul", left=weights.T)
        _add_division(chain, weights, column=True)
    chain.add("Cast", to=TensorProto.UINT8)
    chain.add("Transpose", perm=[0, 2, 3, 1])
