"""Adds nodes to an ONNX graph one after the other, each fed by the one before."""

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper


class Chain:
    """Nodes in a row, with their constants.

    Parameters
    ----------
    start
        The tensor that the first node reads.
    prefix
        The beginning of every name that is added.

    Attributes
    ----------
    at
        The tensor that the last node gives.
    nodes, constants
        What was added.
    """

    def __init__(self, start: str, prefix: str) -> None:
        self.at = start
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._prefix = prefix

    def add(
        self,
        operator: str,
        *constants: npt.NDArray[Any],
        left: npt.NDArray[Any] | None = None,
        **attributes: object,
    ) -> None:
        """Add a node whose inputs are ``left``, the tensor so far, and ``constants``."""
        before = [] if left is None else [self._constant(left)]
        inputs = [*before, self.at, *(self._constant(constant) for constant in constants)]
        self.at = f"{self._prefix}{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [self.at], name=self.at, **attributes))

    def end(self, name: str) -> None:
        """Give the last node's tensor this name."""
        self.nodes[-1].output[0] = self.at = name

    def _constant(self, values: npt.NDArray[Any]) -> str:
        name = f"{self._prefix}constant{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name
