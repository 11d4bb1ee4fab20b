"""A net of this recipe as a beginning: its weights, biases and scales, read from its ONNX file."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import numpy_helper

from tinytags_tasks.errors import BadInputError
from tinytags_tasks.nets.catalogue import net_for, read_net
from tinytags_tasks.nets.recipe.graph import Arrays
from tinytags_tasks.nets.recipe.shape import SIZES, Shape
from tinytags_tasks.store.net_records import NetCard
from tinytags_tasks.store.protocol import Storage


@dataclass(frozen=True)
class Base:
    """The net that a fine-tuning begins with.

    Attributes
    ----------
    card, shape
        Its card and its widths.
    arrays
        Weights, biases and scales by name, as :mod:`~.graph` writes them.
    """

    card: NetCard
    shape: Shape
    arrays: Arrays = field(repr=False)


def find_base(name: str, storage: Storage) -> Base:
    """Return a net to begin with.

    Parameters
    ----------
    name
        A net's name, version, or the version's beginning.
    storage
        The store.

    Raises
    ------
    BadInputError
        If it is not a net of this recipe.
    MissingError
        If there is no such net.
    CorruptError
        If its file is damaged.
    """
    card = net_for(name, storage)
    model = onnx.load_from_string(read_net(storage, card.version))
    for shape, _ in SIZES.values():
        if (arrays := read_arrays(model, shape)) is not None:
            return Base(card, shape, arrays)
    raise BadInputError(
        f"net {card.version} cannot be fine-tuned: only general32 and nets that `tinytags nets train` learned have the "
        "form that it reads; choose one of these with --from"
    )


def read_arrays(model: onnx.ModelProto, shape: Shape) -> Arrays | None:
    """Return what :func:`~.graph.int8_model` wrote, or None if it did not write this model with this shape."""
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    made_by = {output: node for node in model.graph.node for output in node.output}
    convolutions = (node for node in model.graph.node if node.op_type == "Conv")
    rounders = (node for node in model.graph.node if node.op_type == "QuantizeLinear")
    arrays = dict[str, np.ndarray]()
    try:
        for name, weight_shape in _layers(shape):
            if weight_shape:
                node = next(convolutions)
                for part, source in zip(("weight", "bias"), node.input[1:], strict=True):
                    whole, scale, _ = (constants[each] for each in made_by[source].input)
                    arrays[f"{name}.{part}"] = (whole * scale.reshape(-1, *[1] * (whole.ndim - 1))).astype(np.float32)
                if arrays[f"{name}.weight"].shape != weight_shape:
                    return None
            arrays[f"{name}.out.scale".removeprefix(".")] = constants[next(rounders).input[1]]
    except (KeyError, ValueError, StopIteration):
        return None
    return None if next(convolutions, next(rounders, None)) else arrays


def _layers(shape: Shape) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield what is rounded, in the graph's order: its name and, of a convolution, the shape of its weights."""
    inputs, layer = 3, 0
    for width, _ in shape.stem:
        yield f"layers.{layer}", (width, inputs, 3, 3)
        inputs, layer = width, layer + 1
    for width, blocks, stride in shape.stages:
        for block in range(blocks):
            name = f"layers.{layer}"
            yield f"{name}.first", (width, inputs, 3, 3)
            yield f"{name}.second", (width, width, 3, 3)
            if inputs != width or (stride > 1 and block == 0):
                yield f"{name}.shortcut", (width, inputs, 1, 1)
            yield name, ()
            inputs, layer = width, layer + 1
    yield "", ()
