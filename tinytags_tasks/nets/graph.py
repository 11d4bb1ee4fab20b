"""Makes the graph that the pipeline runs of a net: pixels in, an embedding of whole numbers out.

::

    pixels uint8 (images, height * width * 3), row-major HWC
      -> Reshape, resize      to the net's size, if it differs
      -> the net              float32 (images, dimensions); all names but two begin with ``net/``
      -> Div scale, Round, Clip, Cast
    embedding int8 (images, dimensions)
"""

import numpy as np
import onnx
from onnx import TensorProto, compose, helper, inliner, version_converter

from tinytags_tasks.errors import BadInputError
from tinytags_tasks.nets.chain import Chain
from tinytags_tasks.nets.resize import add_resize
from tinytags_tasks.store import layout
from tinytags_tasks.store.net_records import NetCard

OPSET = 21
"""The oldest version of the operators in a graph that the pipeline runs; a net that has a newer one keeps it."""

IR_VERSION = 10

NET_PREFIX = "net/"
LARGEST = 127
"""Embeddings are whole numbers from its negative to this."""


def embedding_graph(net: bytes, card: NetCard, height: int, width: int) -> bytes:
    """Return the graph that turns pictures of a size into a net's embeddings; the same input gives the same bytes.

    Parameters
    ----------
    net
        The stored net: ``pixels`` uint8 (n, card.height, card.width, 3) to ``embedding`` float32 (n, card.dimensions).
    card
        Its card.
    height, width
        The pictures' size.

    Returns
    -------
    bytes
        An ONNX file: ``pixels`` uint8 (images, height * width * 3) to ``embedding`` int8 (images, card.dimensions).

    Raises
    ------
    BadInputError
        If the net's operators cannot be brought up to the version that the pipeline uses.
    """
    model = with_opset(onnx.load_from_string(net), OPSET, layout.net_file(card.version))
    for node in model.graph.node:
        node.name = node.name or node.output[0]
    model = compose.add_prefix(model, NET_PREFIX)
    graph = model.graph

    before = Chain("pixels", f"{NET_PREFIX}before/")
    before.add("Reshape", np.array([-1, height, width, 3], dtype=np.int64))
    add_resize(before, (height, width), (card.height, card.width))
    before.end(f"{NET_PREFIX}pixels")
    after = Chain(f"{NET_PREFIX}embedding", f"{NET_PREFIX}after/")
    after.add("Div", np.array(card.scale, dtype=np.float32))
    after.add("Round")
    after.add("Clip", np.array(-LARGEST, dtype=np.float32), np.array(LARGEST, dtype=np.float32))
    after.add("Cast", to=TensorProto.INT8)
    after.end("embedding")

    inner = list(graph.node)
    del graph.node[:], graph.input[:], graph.output[:]
    graph.node.extend([*before.nodes, *inner, *after.nodes])
    graph.initializer.extend([*before.constants, *after.constants])
    graph.input.append(helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["images", height * width * 3]))
    graph.output.append(helper.make_tensor_value_info("embedding", TensorProto.INT8, ["images", card.dimensions]))
    serialized: bytes = model.SerializeToString(deterministic=True)
    return serialized


def opset_of(model: onnx.ModelProto) -> int:
    """Return the version of a graph's ONNX operators; 1 if it has none."""
    return max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=1)


def with_opset(model: onnx.ModelProto, version: int, where: str) -> onnx.ModelProto:
    """Return the graph with operators of a version or newer, and without functions of its own.

    Raises
    ------
    BadInputError
        If an operator has no equal in that version: the file (``where``) and the operator.
    """
    if model.functions:
        model = inliner.inline_local_functions(model)
    if opset_of(model) < version:
        try:
            model = version_converter.convert_version(model, version)
        except (RuntimeError, ValueError) as error:
            reason = str(error).rpartition("failed: ")[2].strip()  # what is before that is a line of its source
            raise BadInputError(
                f"{where}: its operators cannot be converted to version {version} ({reason}); "
                f"export the net with opset {version} or newer"
            ) from error
    model.ir_version = max(model.ir_version, IR_VERSION)
    return model
