"""Turns a network's output into one row of numbers for each image: places are averaged, a token is chosen."""

from dataclasses import dataclass
from typing import Any, Literal

import onnx
from onnx import TensorProto, helper

from tinytags_tasks.errors import BadInputError
from tinytags_tasks.nets.onnx_input import Layout

Tokens = Literal["first", "mean"]
"""Which of a transformer's tokens is the embedding: the first one (the class token), or the mean of all."""

MOST_DIMENSIONS = 4_096

_Step = tuple[str, dict[str, Any]]


@dataclass(frozen=True)
class Pooling:
    """Operators with their attributes, how many numbers are left, and what they do in words; empty if nothing."""

    steps: tuple[_Step, ...]
    dimensions: int
    words: str


def choose_pooling(shape: tuple[int, ...], tokens: Tokens | None, layout: Layout, where: str) -> Pooling:
    """Return how an output becomes one row for each image.

    Parameters
    ----------
    shape
        The output's shape without the images.
    tokens
        For an output of (tokens, dimensions): which of them.
    layout
        Of the network's input; decides where the places are if the shape does not tell.
    where
        The file and the output, for messages.

    Raises
    ------
    BadInputError
        If the shape is not that of an embedding, or nobody said which token to take.
    """
    shown = "x".join(map(str, shape)) or "a single number"
    average: tuple[_Step, ...] = (("GlobalAveragePool", {}), ("Flatten", {"axis": 1}))
    if len(shape) == 1:
        pooling = Pooling((), shape[0], "")
    elif len(shape) == 2 and tokens is None:
        raise BadInputError(
            f"{where} is {shown} for each image: {shape[0]} tokens; choose by --tokens first (the class token) or "
            "--tokens mean"
        )
    elif len(shape) == 2 and tokens == "first":
        pooling = Pooling((("Gather", {"axis": 1}),), shape[1], f"the first of {shape[0]} tokens")
    elif len(shape) == 2:
        pooling = Pooling((("Transpose", {"perm": [0, 2, 1]}), *average), shape[1], f"mean of {shape[0]} tokens")
    elif len(shape) == 3 and _has_places_first(shape, layout):
        words = f"mean of {shape[0]}x{shape[1]} places"
        pooling = Pooling((("Transpose", {"perm": [0, 3, 1, 2]}), *average), shape[2], words)
    elif len(shape) == 3:
        pooling = Pooling(average, shape[0], f"mean of {shape[1]}x{shape[2]} places")
    else:
        raise BadInputError(f"{where} is {shown} for each image, which is no embedding; choose another by --output")
    if not 2 <= pooling.dimensions <= MOST_DIMENSIONS:
        raise BadInputError(
            f"{where} is {shown} for each image; an embedding has 2 to {MOST_DIMENSIONS:,} numbers: choose another "
            "by --output"
        )
    return pooling


def _has_places_first(shape: tuple[int, ...], layout: Layout) -> bool:
    """Return whether an output is (rows, columns, values); square maps show it, else it is as the input is."""
    if (shape[0] == shape[1]) != (shape[1] == shape[2]):
        return shape[0] == shape[1]
    return layout == "hwc"


def add_pooling(model: onnx.ModelProto, pooling: Pooling, prefix: str) -> onnx.ModelProto:
    """Return a copy of a network whose output ``values`` became ``embedding``; added nodes' names have the prefix."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    at = "values"
    steps = [*pooling.steps, ("Identity", {})]
    for number, (operator, attributes) in enumerate(steps, 1):
        after = "embedding" if number == len(steps) else f"pooling{number}"
        inputs = [at]
        if operator == "Gather":
            copy.graph.initializer.append(helper.make_tensor("first token", TensorProto.INT64, [], [0]))
            inputs.append("first token")
        copy.graph.node.append(helper.make_node(operator, inputs, [after], f"{prefix}{after}", **attributes))
        at = after
    del copy.graph.output[:]
    shape = ["images", pooling.dimensions]
    copy.graph.output.append(helper.make_tensor_value_info("embedding", TensorProto.FLOAT, shape))
    return copy
