"""Any ONNX classifier given the one interface that scoring knows: ``pixels`` in, ``votes`` out.

::

    pixels uint8 (images, height * width * 3), row-major HWC
      -> Reshape, Transpose   to the layout that the classifier takes
      -> Cast, Div, Sub, Div  to its type and scale
      -> the classifier, its names prefixed
      -> Softmax              where it gives scores
      -> Mul 100              where it gives no votes
    votes float32 (images, tags), adding up to the number of trees, or to 100
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import TensorProto, compose, helper, numpy_helper

from tinytags_tasks.errors import BadInputError

Layout = Literal["hwc", "chw"]
"""Whether the three values of a pixel lie together, or each colour's plane by itself."""

Kind = Literal["votes", "scores", "probabilities"]
"""Whole numbers that add up to a constant; anything, the higher the better; or parts that add up to 1."""

PERCENT = 100
"""What the votes of a classifier that is no forest add up to."""

_PREFIX = "imported/"
_OLDEST_OPSET, _OWN_OPSET, _OLDEST_IR = 7, 13, 8
_FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE}
_INTEGERS = {TensorProto.UINT8, TensorProto.INT32, TensorProto.INT64}
_MOST_VOTES = 32_767  # a scored file's type


@dataclass(frozen=True)
class Fitting:
    """How images are handed to a classifier, and what its output is.

    Attributes
    ----------
    height, width
        The images' size, in pixels.
    tags
        How many it tells apart.
    scale
        Whether it takes values from 0 to 255 or from 0 to 1.
    mean, std
        For each colour, on that scale: subtracted, then divided by.
    layout
        None reads it from the shape of its input; a flat input is ``hwc``.
    output
        Name of its output; empty takes the only one that fits.
    kind
        None tells it from the values.
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


@dataclass(frozen=True)
class Wrapped:
    """A classifier with the one interface; ``trees`` is what its votes add up to."""

    onnx_model: bytes = field(repr=False)
    trees: int
    kind: Kind
    layout: Layout
    output: str


def read_onnx(path: Path) -> onnx.ModelProto:
    """Read an ONNX file, with the weights that lie beside it.

    Raises
    ------
    BadInputError
        When it is none, or wants an operator that ONNX has not.
    """
    try:
        model = onnx.load(str(path))
    except FileNotFoundError as error:
        raise BadInputError(f"{error.filename or path}: no such file; give the path of an ONNX file") from error
    except (DecodeError, OSError, ValueError, onnx.checker.ValidationError) as error:
        raise BadInputError(f"{path}: not an ONNX file that can be read ({_first_line(error)})") from error
    if not model.graph.node:
        raise BadInputError(f"{path}: not an ONNX file: it has no graph")
    versions = {entry.domain: entry.version for entry in model.opset_import}
    if versions.get("", _OWN_OPSET) < _OLDEST_OPSET:
        raise BadInputError(
            f"{path}: its operators are version {versions['']}, too old; export it with {_OWN_OPSET} or newer"
        )
    own = {(function.domain, function.name) for function in model.functions}
    for node in _all_nodes(model.graph):
        domain = "" if node.domain == "ai.onnx" else node.domain
        known = domain not in ("", "ai.onnx.ml") or onnx.defs.has(node.op_type, domain)
        if not known and (node.domain, node.op_type) not in own:
            raise BadInputError(f"{path}: wants the operator {node.op_type}, which {domain or 'ONNX'} does not have")
    return model


def wrap_classifier(model: onnx.ModelProto, fitting: Fitting, where: str) -> Wrapped:
    """Give a classifier the one interface, and try it.

    Parameters
    ----------
    model
        The classifier.
    fitting
        How images are handed to it.
    where
        Its file, for messages.

    Raises
    ------
    BadInputError
        When its input does not fit the images, its output not the tags, or a run of it gives no such values.
    """
    layout = _layout(model, fitting, where)
    output = _output(model, fitting, where)
    plain = _with_pixels(model, fitting, layout, output)
    values = _try(plain, fitting, where, output)
    kind = fitting.kind or _kind_of(values)
    trees = _sum_of_votes(values, where) if kind == "votes" else PERCENT
    if kind == "probabilities" and not _are_probabilities(values):
        raise BadInputError(
            f"{where}: its output {output} is no probabilities: they do not lie in 0 to 1 and add up to 1"
        )
    finished = _with_votes(plain, kind, fitting.tags)
    return Wrapped(finished.SerializeToString(deterministic=True), trees, kind, layout, output)


def _all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                yield from _all_nodes(inner)


def _only_input(model: onnx.ModelProto, where: str) -> onnx.ValueInfoProto:
    constants = {constant.name for constant in model.graph.initializer}
    inputs = [entry for entry in model.graph.input if entry.name not in constants]
    if len(inputs) != 1 or not inputs[0].type.HasField("tensor_type"):
        names = ", ".join(entry.name for entry in inputs) or "none"
        raise BadInputError(f"{where}: must have one input, a tensor of images; has {names}")
    return inputs[0]


def _shape(entry: onnx.ValueInfoProto) -> list[int | None] | None:
    """Return the sizes that are fixed; None for those that are free, and for a shape that is not told."""
    tensor = entry.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return [axis.dim_value if axis.HasField("dim_value") and axis.dim_value > 0 else None for axis in tensor.shape.dim]


def _layout(model: onnx.ModelProto, fitting: Fitting, where: str) -> Layout:
    """Return the layout of a classifier's input, once its type and shape fit the images."""
    entry = _only_input(model, where)
    kind = entry.type.tensor_type.elem_type
    if kind not in _FLOATS | _INTEGERS:
        raise BadInputError(f"{where}: its input {entry.name} is {_type_name(kind)}; it must be numbers, such as float")
    if kind in _INTEGERS and (fitting.scale == "0-1" or fitting.mean or fitting.std):
        raise BadInputError(f"{where}: its input {entry.name} is {_type_name(kind)}: only the scale 0-255 fits it")
    shape = _shape(entry)
    shown = "x".join("?" if size is None else str(size) for size in shape) if shape is not None else "not told"
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


def _output(model: onnx.ModelProto, fitting: Fitting, where: str) -> str:
    """Return the name of the output that has a value for each tag."""
    outputs = {entry.name: entry for entry in model.graph.output}
    shown = ", ".join(f"{name} ({_output_shape(entry)})" for name, entry in outputs.items())
    if fitting.output:
        if fitting.output not in outputs:
            raise BadInputError(f"{where}: has no output {fitting.output}; it has {shown}")
        candidates = [fitting.output]
    else:
        candidates = [name for name, entry in outputs.items() if entry.type.tensor_type.elem_type in _FLOATS]
    fitting_names = [name for name in candidates if _has_value_for_each(outputs[name], fitting.tags)]
    if not fitting_names:
        raise BadInputError(f"{where}: no output has {fitting.tags} numbers an image, one for each tag; it has {shown}")
    if len(fitting_names) > 1:
        raise BadInputError(f"{where}: has several outputs that fit ({', '.join(fitting_names)}); choose by --output")
    return fitting_names[0]


def _output_shape(entry: onnx.ValueInfoProto) -> str:
    shape = _shape(entry) if entry.type.HasField("tensor_type") else None
    return "x".join("?" if size is None else str(size) for size in shape) if shape else "no tensor of a told shape"


def _has_value_for_each(entry: onnx.ValueInfoProto, tags: int) -> bool:
    if not entry.type.HasField("tensor_type"):
        return False
    shape = _shape(entry)
    return shape is None or (len(shape) == 2 and shape[1] in (None, tags))


def _type_name(kind: int) -> str:
    return str(TensorProto.DataType.Name(kind)).lower()


def _with_pixels(model: onnx.ModelProto, fitting: Fitting, layout: Layout, output: str) -> onnx.ModelProto:
    """Return the classifier with ``pixels`` for its input, and the chosen output alone."""
    entry = _only_input(model, "")
    shape = _shape(entry) or []
    kind = entry.type.tensor_type.elem_type
    wrapped = compose.add_prefix(model, _PREFIX)
    graph = wrapped.graph
    height, width = fitting.height, fitting.width
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

    add("Reshape", np.array([-1, height, width, 3], dtype=np.int64))
    if layout == "chw":
        add("Transpose", perm=[0, 3, 1, 2])
    if kind != TensorProto.UINT8:
        add("Cast", to=TensorProto.FLOAT if kind in _FLOATS else kind)
    by_colour = (3, 1, 1) if layout == "chw" else (3,)
    if fitting.scale == "0-1":
        add("Div", np.array(255, dtype=np.float32))
    if fitting.mean:
        add("Sub", np.array(fitting.mean, dtype=np.float32).reshape(by_colour))
    if fitting.std:
        add("Div", np.array(fitting.std, dtype=np.float32).reshape(by_colour))
    if len(shape) == 2:
        add("Reshape", np.array([-1, height * width * 3], dtype=np.int64))
    if kind in (TensorProto.FLOAT16, TensorProto.DOUBLE):
        add("Cast", to=kind)
    nodes[-1].output[0] = _PREFIX + entry.name

    inner = list(graph.node)
    del graph.node[:], graph.input[:], graph.output[:]
    graph.node.extend([*nodes, *inner, helper.make_node("Cast", [_PREFIX + output], ["values"], to=TensorProto.FLOAT)])
    graph.initializer.extend(constants)
    graph.input.append(helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["images", height * width * 3]))
    graph.output.append(helper.make_tensor_value_info("values", TensorProto.FLOAT, ["images", fitting.tags]))
    if "" not in {opset.domain for opset in wrapped.opset_import}:
        wrapped.opset_import.append(helper.make_opsetid("", _OWN_OPSET))
    wrapped.ir_version = max(wrapped.ir_version, _OLDEST_IR)  # older ones want each constant to be an input
    return wrapped


def _with_votes(plain: onnx.ModelProto, kind: Kind, tags: int) -> onnx.ModelProto:
    """Return the classifier with ``votes`` for its output."""
    model = onnx.ModelProto()
    model.CopyFrom(plain)
    graph, at = model.graph, "values"
    if kind == "scores":
        graph.node.append(helper.make_node("Softmax", [at], ["shares"], axis=1))
        at = "shares"
    if kind == "votes":
        graph.node.append(helper.make_node("Identity", [at], ["votes"]))
    else:
        graph.initializer.append(numpy_helper.from_array(np.array(PERCENT, dtype=np.float32), "percent"))
        graph.node.append(helper.make_node("Mul", [at, "percent"], ["votes"]))
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info("votes", TensorProto.FLOAT, ["images", tags]))
    return model


def _try(model: onnx.ModelProto, fitting: Fitting, where: str, output: str) -> npt.NDArray[np.float32]:
    """Run a classifier on some images, together and one by one; return its values, float32 (images, tags)."""
    values_of_image = fitting.height * fitting.width * 3
    pixels = np.random.default_rng(0).integers(0, 256, (16, values_of_image), dtype=np.uint8)
    pixels[0], pixels[1] = 0, 255
    pixels[2] = np.linspace(0, 255, values_of_image, dtype=np.uint8)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what it would print is raised, too
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        (together,) = session.run(["values"], {"pixels": pixels})
        alone = [session.run(["values"], {"pixels": pixels[at : at + 1]})[0] for at in range(4)]
    except Exception as error:  # onnxruntime's own have no common base
        raise BadInputError(
            f"{where}: cannot be run on images of {fitting.height}x{fitting.width} ({_first_line(error)})"
        ) from error
    if together.shape != (len(pixels), fitting.tags):
        raise BadInputError(
            f"{where}: its output {output} is {'x'.join(map(str, together.shape))} for {len(pixels)} images; "
            f"with {fitting.tags} tags it must be {len(pixels)}x{fitting.tags}"
        )
    if not np.isfinite(together).all():
        raise BadInputError(
            f"{where}: its output {output} has values that are not finite numbers (NaN) on images of noise"
        )
    if not np.allclose(np.concatenate(alone), together[:4], rtol=1e-3, atol=1e-4):
        raise BadInputError(
            f"{where}: an image gets other values alone than among others; export it for inference, not for training"
        )
    found: npt.NDArray[np.float32] = together
    return found


def _are_probabilities(values: npt.NDArray[np.float32]) -> bool:
    return bool((values >= 0).all() and (np.abs(values.sum(axis=1) - 1) < 0.004).all())


def _kind_of(values: npt.NDArray[np.float32]) -> Kind:
    if _are_probabilities(values):
        return "probabilities"
    sums = values.sum(axis=1)
    are_whole = (values >= 0).all() and (values == np.round(values)).all()
    return "votes" if are_whole and (sums == sums[0]).all() and 0 < sums[0] <= _MOST_VOTES else "scores"


def _sum_of_votes(values: npt.NDArray[np.float32], where: str) -> int:
    if _kind_of(values) != "votes":
        raise BadInputError(f"{where}: its output is no votes: whole numbers that add up to the same for every image")
    return int(values[0].sum())


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
