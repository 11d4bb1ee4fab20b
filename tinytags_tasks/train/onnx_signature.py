"""Checks that an ONNX classifier takes the images it will tag, and finds the output with a number for each tag."""

from dataclasses import dataclass
from typing import Literal

import onnx
from onnx import TensorProto

from tinytags_tasks.errors import BadInputError

Layout = Literal["hwc", "chw"]
"""Whether the three values of a pixel are adjacent, or each colour is a separate plane."""

Kind = Literal["votes", "scores", "probabilities"]
"""Whole numbers with a constant sum; any numbers, higher is better; or numbers that add up to 1."""

FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE}
_INTEGERS = {TensorProto.UINT8, TensorProto.INT32, TensorProto.INT64}


@dataclass(frozen=True)
class Fitting:
    """How images are passed to a classifier, and what its output means.

    Attributes
    ----------
    height, width
        The images' size, in pixels.
    tags
        Number of tags.
    scale
        Whether it takes values from 0 to 255 or from 0 to 1.
    mean, std
        For each colour, on that scale: the mean is subtracted, and the result is divided by std.
    layout
        None infers it from the shape of the input; a flat input is ``hwc``.
    output
        The name of its output; empty takes the only one that fits.
    kind
        None infers it from the output's values.
    """

    height: int
    width: int
    tags: int
    scale: Literal["0-255", "0-1"] = "0-255"
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    layout: Layout | None = None
    output: str = ""
    kind: Kind | None = None


def only_input(model: onnx.ModelProto, where: str) -> onnx.ValueInfoProto:
    """Return the only input of a classifier.

    Raises
    ------
    BadInputError
        If the classifier has no input or several, or the input is not a tensor.
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


def find_layout(model: onnx.ModelProto, fitting: Fitting, where: str) -> Layout:
    """Return the layout of a classifier's input, after checking that its type and shape fit the images.

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


def find_output(model: onnx.ModelProto, fitting: Fitting, where: str) -> str:
    """Return the name of the output with a value for each tag.

    Raises
    ------
    BadInputError
        If no output or several outputs have one.
    """
    outputs = {entry.name: entry for entry in model.graph.output}
    shown = ", ".join(f"{name} ({_shown_shape(entry)})" for name, entry in outputs.items())
    if fitting.output:
        if fitting.output not in outputs:
            raise BadInputError(f"{where}: has no output {fitting.output}; its outputs are {shown}")
        candidates = [fitting.output]
    else:
        candidates = [name for name, entry in outputs.items() if entry.type.tensor_type.elem_type in FLOATS]
    fitting_names = [name for name in candidates if _has_value_for_each(outputs[name], fitting.tags)]
    if not fitting_names:
        raise BadInputError(f"{where}: no output has {fitting.tags} numbers, one for each tag; its outputs are {shown}")
    if len(fitting_names) > 1:
        raise BadInputError(f"{where}: has several outputs that fit ({', '.join(fitting_names)}); choose by --output")
    return fitting_names[0]


def _shown_shape(entry: onnx.ValueInfoProto) -> str:
    shape = shape_of(entry) if entry.type.HasField("tensor_type") else None
    return "x".join("?" if size is None else str(size) for size in shape) if shape else "no declared shape"


def _has_value_for_each(entry: onnx.ValueInfoProto, tags: int) -> bool:
    if not entry.type.HasField("tensor_type"):
        return False
    shape = shape_of(entry)
    return shape is None or (len(shape) == 2 and shape[1] in (None, tags))


def _type_name(kind: int) -> str:
    return str(TensorProto.DataType.Name(kind)).lower()
