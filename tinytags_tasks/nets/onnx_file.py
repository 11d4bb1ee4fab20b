"""Reads ONNX files from elsewhere, and says in one line why a file cannot be used."""

from collections.abc import Iterator
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import TensorProto, external_data_helper

from tinytags_tasks.errors import BadInputError

OWN_OPSET = 13
"""The version of the operators that are added before and after an imported network."""

_OLDEST_OPSET = 7


def read_onnx(path: Path) -> onnx.ModelProto:
    """Read an ONNX file, including weights that are stored in separate files next to it.

    Raises
    ------
    BadInputError
        If it is not an ONNX file, lacks a file of its weights, or uses an operator that ONNX does not have.
    """
    try:
        model = onnx.load(str(path), load_external_data=False)
        _check_weights_are_there(model, path)
        external_data_helper.load_external_data_for_model(model, str(path.absolute().parent))
    except FileNotFoundError as error:
        raise BadInputError(f"{error.filename or path}: no such file; give the path of an ONNX file") from error
    except (DecodeError, OSError, ValueError, onnx.checker.ValidationError) as error:
        raise BadInputError(f"{path}: not an ONNX file that can be read ({first_line(error)})") from error
    if not model.graph.node:
        raise BadInputError(f"{path}: not an ONNX file: it has no graph")
    versions = {entry.domain: entry.version for entry in model.opset_import}
    if versions.get("", OWN_OPSET) < _OLDEST_OPSET:
        raise BadInputError(
            f"{path}: its operators are version {versions['']}, too old; export it with {OWN_OPSET} or newer"
        )
    own = {(function.domain, function.name) for function in model.functions}
    for node in all_nodes(model.graph):
        domain = "" if node.domain == "ai.onnx" else node.domain
        known = domain not in ("", "ai.onnx.ml") or onnx.defs.has(node.op_type, domain)
        if not known and (node.domain, node.op_type) not in own:
            raise BadInputError(f"{path}: uses the operator {node.op_type}, which {domain or 'ONNX'} does not have")
    return model


def _check_weights_are_there(model: onnx.ModelProto, path: Path) -> None:
    """Refuse a file whose weights are in other files that were not copied with it."""
    places = {
        entry.value
        for tensor in _all_tensors(model)
        if tensor.data_location == TensorProto.EXTERNAL
        for entry in tensor.external_data
        if entry.key == "location"
    }
    missing = sorted(place for place in places if not (path.parent / place).is_file())
    if missing:
        raise BadInputError(
            f"{path}: keeps its weights in {', '.join(missing[:3])}, which is not beside it; put both into one "
            "folder of this machine, or export the network as one file"
        )


def _all_tensors(model: onnx.ModelProto) -> Iterator[TensorProto]:
    yield from model.graph.initializer
    for node in all_nodes(model.graph):
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t


def all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Yield a graph's nodes, and those of the graphs inside them."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                yield from all_nodes(inner)


def prune(graph: onnx.GraphProto, output: str) -> None:
    """Remove the nodes and constants that an output does not depend on."""
    needed = {output}
    kept: list[onnx.NodeProto] = []
    for node in reversed(graph.node):
        if needed.isdisjoint(node.output):
            continue
        kept.append(node)
        needed.update(node.input)
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                needed.update(name for each in all_nodes(inner) for name in each.input)
    constants = [constant for constant in graph.initializer if constant.name in needed]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(reversed(kept))
    graph.initializer.extend(constants)


def first_line(error: Exception) -> str:
    """Return the first line of an error's message."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
