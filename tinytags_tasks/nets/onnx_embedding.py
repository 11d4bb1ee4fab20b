"""Gives an ONNX network from elsewhere the interface of a net: ``pixels`` in, ``embedding`` out.

::

    pixels uint8 (images, height, width, 3), row-major RGB
      -> the network            as :mod:`.onnx_input` passes pixels to it
      -> Cast, pooling          to one row of numbers for each image
    embedding float32 (images, dimensions)
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import TensorProto, helper

from tinytags_tasks.errors import BadInputError
from tinytags_tasks.nets.graph import OPSET, with_opset
from tinytags_tasks.nets.onnx_batch import fixed_images, take_any_number
from tinytags_tasks.nets.onnx_file import first_line, prune
from tinytags_tasks.nets.onnx_input import (
    FLOATS,
    PREFIX,
    Layout,
    PixelFitting,
    find_layout,
    only_input,
    shape_of,
    shown_shape,
    take_pixels,
)
from tinytags_tasks.nets.onnx_pooling import Tokens, add_pooling, choose_pooling

OWN_PREFIX = "tinytags/"
"""Prefix of the names of the nodes that were added to a network."""

_TRIED_TOGETHER, _TRIED_ALONE = 8, 3
_RELATIVE, _ABSOLUTE = 1e-3, 1e-4  # how far two runs of the same network in float32 may differ

Values = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class NetFitting(PixelFitting):
    """How images are passed to a net, and which of its outputs is the embedding.

    Attributes
    ----------
    output
        The name of its output; empty takes the only one that fits.
    tokens
        For an output of (images, tokens, dimensions); None asks.
    """

    output: str = ""
    tokens: Tokens | None = None


@dataclass(frozen=True)
class WrappedNet:
    """A network with that interface.

    Attributes
    ----------
    model
        The ONNX graph.
    dimensions
        How many numbers an embedding has.
    layout, output, pooled
        How images enter it, which output is the embedding, and how that became one row; empty if it was one.
    exported_for
        How many images it took at a time before; 0 if any number.
    """

    model: onnx.ModelProto
    dimensions: int
    layout: Layout
    output: str
    pooled: str
    exported_for: int


def find_size(
    model: onnx.ModelProto, height: int | None, width: int | None, layout: Layout | None, where: str
) -> tuple[int, int]:
    """Return the height and width that a network takes; those that are not given come from its input's shape.

    Raises
    ------
    BadInputError
        If it takes pictures of any size and none is given.
    """
    entry = only_input(model, where)
    shape = shape_of(entry) or []
    declared: list[int | None] = [None, None]
    if len(shape) == 4:
        chw = layout == "chw" or (layout is None and shape[1] == 3)
        declared = shape[2:] if chw else shape[1:3]
    found = height or declared[0], width or declared[1]
    if found[0] is None or found[1] is None:
        raise BadInputError(
            f"{where}: its input {entry.name} ({shown_shape(entry)}) takes pictures of any size; give the --height and "
            "--width of those that it learned from"
        )
    return found[0], found[1]


def wrap_net(model: onnx.ModelProto, fitting: NetFitting, where: str) -> WrappedNet:
    """Give a network that interface, and try it out.

    Parameters
    ----------
    model
        The network.
    fitting
        How images are passed to it, and which output is the embedding.
    where
        Its file, for messages.

    Raises
    ------
    BadInputError
        If its input does not fit the images, its output is ambiguous or no embedding, or it fails on trial images.
    """
    images = fixed_images(model, where)
    free = with_opset(take_any_number(model, where), OPSET, where)
    layout = find_layout(free, fitting, where)
    output = _find_output(free, fitting, where)
    pixels = trial_pixels(fitting.height, fitting.width, max(_TRIED_TOGETHER, images or 0))
    given = _with_values(model, fitting, layout, output)
    raw = _with_values(free, fitting, layout, output)
    values = _changed_values(given, raw, pixels, images, where)
    pooling = choose_pooling(values.shape[1:], fitting.tokens, layout, f"{where}: its output {output}")
    whole = add_pooling(raw, pooling, OWN_PREFIX)
    _check_embeddings(whole, pixels, pooling.dimensions, where, output)
    return WrappedNet(whole, pooling.dimensions, layout, output, pooling.words, images or 0)


def _find_output(model: onnx.ModelProto, fitting: NetFitting, where: str) -> str:
    outputs = {entry.name: entry for entry in model.graph.output}
    shown = ", ".join(f"{name} ({shown_shape(entry)})" for name, entry in outputs.items())
    if fitting.output:
        if fitting.output not in outputs:
            raise BadInputError(f"{where}: has no output {fitting.output}; its outputs are {shown}")
        return fitting.output
    fits: list[str] = [
        name
        for name, entry in outputs.items()
        if entry.type.HasField("tensor_type")
        and entry.type.tensor_type.elem_type in FLOATS
        and len(shape_of(entry) or [0, 0]) in (2, 3, 4)
    ]
    if not fits:
        raise BadInputError(f"{where}: no output is a row of numbers for each image; its outputs are {shown}")
    if len(fits) > 1:
        raise BadInputError(f"{where}: several outputs could be the embedding: {shown}; choose one by --output")
    return fits[0]


def _with_values(model: onnx.ModelProto, fitting: NetFitting, layout: Layout, output: str) -> onnx.ModelProto:
    """Return a network with the input ``pixels`` and the chosen output as float32, under the name ``values``."""
    wrapped, inner = take_pixels(model, fitting, layout, flat=False)
    graph = wrapped.graph
    for number, node in enumerate(graph.node):
        prefix = OWN_PREFIX if number < len(graph.node) - len(inner) else PREFIX
        node.name = f"{prefix}{node.op_type}{number}"  # exporters leave names out, and quantising needs them
        node.doc_string = ""  # and write where their source code lay: the same network would be another net
        del node.metadata_props[:]
    graph.node.append(helper.make_node("Cast", [PREFIX + output], ["values"], f"{OWN_PREFIX}values", to=1))
    graph.output.append(helper.make_tensor_value_info("values", TensorProto.FLOAT, None))
    prune(graph, "values")
    return wrapped


def _changed_values(
    given: onnx.ModelProto, changed: onnx.ModelProto, pixels: Pixels, images: int | None, where: str
) -> Values:
    """Return what a network gives in new operators and for any number of images, after comparing with what it gave."""
    before = _run(given, "values", pixels[:images], where)
    if images is None:
        values, reason = _run(changed, "values", pixels, where), ""
    else:
        try:
            values, reason = _run(changed, "values", pixels, where), "it then gives other values"
        except BadInputError as error:
            values, reason = before, str(error).removeprefix(f"{where}: ")
    if len(values) == len(pixels) and _are_equal(values[:images], before):
        return values
    if images is None:
        raise BadInputError(
            f"{where}: gives other values once its operators are converted to version {OPSET}; export it with opset "
            f"{OPSET} or newer"
        )
    raise BadInputError(
        f"{where}: takes {images} images at a time, and cannot be changed to take any number ({reason}); export it "
        "with a free first dimension"
    )


def _are_equal(values: Values, others: Values) -> bool:
    return values.shape == others.shape and np.allclose(values, others, _RELATIVE, _ABSOLUTE, equal_nan=True)


def _check_embeddings(model: onnx.ModelProto, pixels: Pixels, dimensions: int, where: str, output: str) -> None:
    together = _run(model, "embedding", pixels, where)
    if together.shape != (len(pixels), dimensions):
        raise BadInputError(
            f"{where}: its output {output} has {len(together)} rows for {len(pixels)} images; choose another by "
            "--output, or export it for inference"
        )
    if not np.isfinite(together).all():
        raise BadInputError(
            f"{where}: its output {output} has values that are not finite numbers (NaN) on images of noise"
        )
    alone = np.concatenate([_run(model, "embedding", pixels[at : at + 1], where) for at in range(_TRIED_ALONE)])
    if not _are_equal(alone, together[:_TRIED_ALONE]):
        raise BadInputError(
            f"{where}: an image gets other values alone than in a batch; export it for inference, not for training"
        )
    if not np.ptp(together, axis=0).any():
        raise BadInputError(f"{where}: its output {output} is the same for every image; choose another by --output")


def trial_pixels(height: int, width: int, images: int) -> Pixels:
    """Return images of noise, a black one, a white one and a gradient: uint8 (images, height, width, 3)."""
    pixels = np.random.default_rng(0).integers(0, 256, (images, height, width, 3), dtype=np.uint8)
    pixels[0], pixels[1] = 0, 255
    pixels[2] = np.linspace(0, 255, pixels[2].size, dtype=np.uint8).reshape(height, width, 3)
    return pixels


def _run(model: onnx.ModelProto, output: str, pixels: Pixels, where: str) -> Values:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what it would print is raised as well
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        found: Values = session.run([output], {"pixels": pixels})[0]
    except Exception as error:  # ONNX Runtime's exceptions have no common base class
        size = f"{pixels.shape[1]}x{pixels.shape[2]}"
        raise BadInputError(f"{where}: fails on images of {size} ({first_line(error)})") from error
    return found
