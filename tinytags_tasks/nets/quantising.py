"""Turns a net in float32 into int8 by calibration on pictures (static QDQ, weights by channel)."""

import logging
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from tinytags_tasks.errors import BadInputError
from tinytags_tasks.nets.onnx_embedding import OWN_PREFIX
from tinytags_tasks.nets.onnx_file import first_line

OPERATORS: dict[str, tuple[str, ...] | None] = {
    "all operators": None,
    "convolutions and products": (
        "Conv",
        "Gemm",
        "MatMul",
        "Clip",
        "Relu",
    ),
}
"""Which operators are computed in int8, the faster choice first; None is every one that ONNX Runtime can quantise.

Clip and Relu belong to the convolutions: the range of a convolution's output then ends where they cut off.
"""

_BATCH = 16

Pixels = npt.NDArray[np.uint8]


def is_quantised(model: onnx.ModelProto) -> bool:
    """Return whether a network computes in int8 as it is."""
    return any("Quantize" in node.op_type or node.op_type.startswith("QLinear") for node in model.graph.node)


class _Pictures(CalibrationDataReader):  # type: ignore[misc] # onnxruntime has no types
    def __init__(self, pixels: Pixels) -> None:
        self._batches: Iterator[Pixels] = iter(
            [pixels[start : start + _BATCH] for start in range(0, len(pixels), _BATCH)]
        )

    def get_next(self) -> dict[str, Any] | None:
        pixels = next(self._batches, None)
        return None if pixels is None else {"pixels": pixels}


def simplified(model: onnx.ModelProto, where: str) -> onnx.ModelProto:
    """Return a net with constants computed and batch norms folded into convolutions, as quantising needs it.

    Raises
    ------
    BadInputError
        If ONNX Runtime cannot do it.
    """
    with tempfile.TemporaryDirectory() as folder, _quiet():
        given, target = Path(folder) / "given.onnx", Path(folder) / "simplified.onnx"
        onnx.save(model, given)  # a model in memory would be changed
        try:
            quant_pre_process(given, target, skip_symbolic_shape=True)
        except Exception as error:  # its exceptions have no common base class
            raise BadInputError(
                f"{where}: cannot be quantised ({first_line(error)}); use --arithmetic float32"
            ) from error
        return onnx.load(str(target))


def quantised(model: onnx.ModelProto, pixels: Pixels, operators: tuple[str, ...] | None, where: str) -> onnx.ModelProto:
    """Return a simplified net in int8.

    Parameters
    ----------
    model
        The net, of :func:`simplified`.
    pixels
        The pictures that the ranges of its activations are taken from, uint8 (images, height, width, 3).
    operators
        Which operators: a value of :data:`OPERATORS`.
    where
        The net's file, for messages.

    Raises
    ------
    BadInputError
        If ONNX Runtime cannot do it.
    """
    with tempfile.TemporaryDirectory() as folder, _quiet():
        given, target = Path(folder) / "given.onnx", Path(folder) / "int8.onnx"
        onnx.save(model, given)
        try:
            quantize_static(
                given,
                target,
                _Pictures(pixels),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(operators) if operators else None,
                per_channel=True,
                reduce_range=True,  # 7 bits: processors without VNNI add up 8 bits wrongly
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=[node.name for node in model.graph.node if node.name.startswith(OWN_PREFIX)],
                extra_options={"CalibMovingAverage": True},  # one odd picture does not widen a range for all
            )
        except Exception as error:
            raise BadInputError(
                f"{where}: cannot be quantised ({first_line(error)}); use --arithmetic float32"
            ) from error
        return onnx.load(str(target))


def _failure(where: str, error: Exception) -> BadInputError:
    return BadInputError(f"{where}: cannot be quantised ({first_line(error)}); import it with --arithmetic float32")


@contextmanager
def _quiet() -> Generator[None]:
    """Keep ONNX Runtime's advice out of the log."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
