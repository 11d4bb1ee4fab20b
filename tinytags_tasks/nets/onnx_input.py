"""How pixels enter an imported network: its input's type, size and layout, and the nodes that serve it.

::

    pixels uint8, row-major HWC
      -> Reshape, Transpose   to the layout that the network takes
      -> Cast, Div, Sub, Div  to its type and scale
      -> the network, its names prefixed
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, compose, helper, numpy_helper

from tinytags_tasks.errors import BadInputError
from tinytags_tasks.nets.onnx_file import OWN_OPSET

Layout = Literal["hwc", "chw"]
"""Whether the three values of a pixel are adjacent, or each colour is a separate plane."""

FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE}
_INTEGERS = {TensorProto.UINT8, TensorProto.INT32, TensorProto.INT64}

PREFIX = "imported/"
"""Prefix of the network's own names, so that they never clash with ours."""

_OLDEST_IR = 8


@dataclass(frozen=True, kw_only=True)
class PixelFitting:
    """How images are passed to a network.

    Attributes
    ----------
    height, width
        The images' size, in pixels.
    scale
        Whether it takes values from 0 to 255 or from 0 to 1.
    mean, std
        For each colour, on that scale: the mean is subtracted, and the result is divided by std.
    layout
        None infers it from the shape of the input; a flat input is ``hwc``.
    """

    height: int
    width: int
    scale: Literal["0-255", "0-1"] = "0-255"
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    layout: Layout | None = None


def only_input(model: onnx.ModelProto, where: str) -> onnx.ValueInfoProto:
    """Return the only input of a network.

    Raises
    ------
    BadInputError
        If the network has no input or several, or the input is not a tensor.
    """
    constants = {constant.name for constant in model.graph.initializer}
    inputs = [entry for entry in model.graph.input if entry.name not in constants]
    if len(inputs) != 1 or not inputs[0].type.HasField("tensor_type"):
        names = ", ".join(entry.name for entry in inputs) or "none"
        raise BadInputError(f"{where}: must have one input, a tensor of images; it has {names}")
    return inputs[0]


def shape_of(entry: onnx.ValueInfoProto) -> list[int | None] | None:
    """Return the sizes of the dimensions, None for free dimensions; None if the shape is not declared."""
    tensor = entry.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return [axis.dim_value if axis.HasField("dim_value") and axis.dim_value > 0 else None for axis in tensor.shape.dim]


def shown_shape(entry: onnx.ValueInfoProto) -> str:
    """Return a declared shape for a message, such as ``?x3x32x32``."""
    shape = shape_of(entry) if entry.type.HasField("tensor_type") else None
    return "x".join("?" if size is None else str(size) for size in shape) if shape else "no declared shape"


def find_layout(model: onnx.ModelProto, fitting: PixelFitting, where: str) -> Layout:
    """Return the layout of a network's input, after checking that its type and shape fit the images.

    Raises
    ------
    BadInputError
        If they do not fit.
    """
    entry = only_input(model, where)
    kind = entry.type.tensor_type.elem_type
    if kind not in FLOATS | _INTEGERS:
        raise BadInputError(f"{where}: its input {entry.name} is {_type_name(kind)}; it must be numbers, such as float")
    if kind in _INTEGERS and (fitting.scale == "0-1" or fitting.mean or fitting.std):
        raise BadInputError(f"{where}: its input {entry.name} is {_type_name(kind)}: only the scale 0-255 fits it")
    shape = shape_of(entry)
    shown = "x".join("?" if size is None else str(size) for size in shape) if shape is not None else "not declared"
    prefix = f"{where}: its input {entry.name} is {shown}"
    if shape is None or len(shape) not in (2, 4):
        raise BadInputError(f"{prefix}; it must be images x values, images x 3 x height x width, or colours last")
    if shape[0] is not None:
        raise BadInputError(f"{prefix}: it takes {shape[0]} images at a time; export it with a free first dimension")
    height, width = fitting.height, fitting.width
    if len(shape) == 2:
        layout: Layout = fitting.layout or "hwc"
        fits = shape[1] in (None, height * width * 3)
    else:
        layout = fitting.layout or ("chw" if shape[1] == 3 else "hwc")
        wanted = (3, height, width) if layout == "chw" else (height, width, 3)
        fits = all(size in (None, want) for size, want in zip(shape[1:], wanted, strict=True))
    if not fits:
        raise BadInputError(
            f"{prefix}, which no image of {height}x{width} in colour fits; give the --height and --width that it takes"
        )
    return layout


def take_pixels(
    model: onnx.ModelProto, fitting: PixelFitting, layout: Layout, *, flat: bool
) -> tuple[onnx.ModelProto, list[onnx.NodeProto]]:
    """Return a copy of a network that takes uint8 ``pixels``, and its own nodes.

    The copy's own names are prefixed with :data:`PREFIX`. It has no outputs yet.

    Parameters
    ----------
    model, fitting, layout
        The network, how images are passed to it, and the layout of its input.
    flat
        Whether ``pixels`` are (images, height * width * 3), or (images, height, width, 3).
    """
    entry = only_input(model, "")
    rank = len(shape_of(entry) or [])
    kind = entry.type.tensor_type.elem_type
    wrapped = compose.add_prefix(model, PREFIX)
    graph = wrapped.graph
    nodes, constants = _pixel_nodes(fitting, layout, kind, flat_in=flat, flat_out=rank == 2)
    nodes[-1].output[0] = PREFIX + entry.name
    inner = list(graph.node)
    del graph.node[:], graph.input[:], graph.output[:]
    graph.node.extend([*nodes, *inner])
    graph.initializer.extend(constants)
    shape = [fitting.height * fitting.width * 3] if flat else [fitting.height, fitting.width, 3]
    graph.input.append(helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["images", *shape]))
    if "" not in {opset.domain for opset in wrapped.opset_import}:
        wrapped.opset_import.append(helper.make_opsetid("", OWN_OPSET))
    wrapped.ir_version = max(wrapped.ir_version, _OLDEST_IR)  # older versions require each constant to be an input
    return wrapped, inner


def _pixel_nodes(
    fitting: PixelFitting, layout: Layout, kind: int, *, flat_in: bool, flat_out: bool
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    nodes: list[onnx.NodeProto] = []
    constants: list[onnx.TensorProto] = []
    at = "pixels"

    def add(operator: str, constant: npt.NDArray[Any] | None = None, **attributes: object) -> None:
        nonlocal at
        inputs = [at]
        if constant is not None:
            constants.append(numpy_helper.from_array(constant, f"constant{len(constants)}"))
            inputs.append(constants[-1].name)
        at = f"step{len(nodes)}"
        nodes.append(helper.make_node(operator, inputs, [at], **attributes))

    if flat_in:
        add("Reshape", np.array([-1, fitting.height, fitting.width, 3], dtype=np.int64))
    if layout == "chw":
        add("Transpose", perm=[0, 3, 1, 2])
    if kind != TensorProto.UINT8:
        add("Cast", to=TensorProto.FLOAT if kind in FLOATS else kind)
    by_colour = (3, 1, 1) if layout == "chw" else (3,)
    if fitting.scale == "0-1":
        add("Div", np.array(255, dtype=np.float32))
    if fitting.mean:
        add("Sub", np.array(fitting.mean, dtype=np.float32).reshape(by_colour))
    if fitting.std:
        add("Div", np.array(fitting.std, dtype=np.float32).reshape(by_colour))
    if flat_out:
        add("Reshape", np.array([-1, fitting.height * fitting.width * 3], dtype=np.int64))
    if kind in (TensorProto.FLOAT16, TensorProto.DOUBLE):
        add("Cast", to=kind)
    if not nodes:  # a network that takes uint8 pixels as they are
        add("Identity")
    return nodes, constants


def _type_name(kind: int) -> str:
    return str(TensorProto.DataType.Name(kind)).lower()
