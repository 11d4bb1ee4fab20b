"""Joins a net and a head to one graph from pixels to votes, and gives the head back."""

from collections.abc import Mapping

import onnx
from onnx import compose, helper

from tinytags_tasks.errors import CorruptError
from tinytags_tasks.nets.graph import IR_VERSION, OPSET, opset_of, with_opset

EMBEDDING = "embedding"
"""The tensor between the net and the head."""

VOTES = "votes"
_HEAD_PREFIX = "head/"


def compose_model(embedder: bytes, head: bytes, metadata: Mapping[str, str]) -> bytes:
    """Return one graph from pixels to votes; the same input gives the same bytes.

    Parameters
    ----------
    embedder
        A graph of :func:`~tinytags_tasks.nets.graph.embedding_graph`.
    head
        A graph from ``features`` int8 (images, dimensions) to ``votes`` float32 (images, tags).
    metadata
        Metadata for the file.

    Returns
    -------
    bytes
        An ONNX file: ``pixels`` to ``votes``. The tensor between them is ``embedding``; names of the net begin with
        ``net/``, those of the head with ``head/``.
    """
    lower, upper = onnx.load_from_string(embedder), onnx.load_from_string(head)
    version = max(opset_of(lower), opset_of(upper), OPSET)
    lower, upper = with_opset(lower, version, "the net"), with_opset(upper, version, "the head")
    for node in upper.graph.node:
        node.name = node.name or node.op_type
    upper = compose.add_prefix(upper, _HEAD_PREFIX)
    joints = {f"{_HEAD_PREFIX}features": EMBEDDING, f"{_HEAD_PREFIX}{VOTES}": VOTES}
    for node in upper.graph.node:
        node.input[:] = [joints.get(name, name) for name in node.input]
        node.output[:] = [joints.get(name, name) for name in node.output]

    graph, between = lower.graph, lower.graph.output[0]
    graph.name = "tinytags"
    graph.node.extend(upper.graph.node)
    graph.initializer.extend(upper.graph.initializer)
    graph.value_info.extend([between, *upper.graph.value_info])
    votes = upper.graph.output[0]
    votes.name = VOTES
    del graph.output[:]
    graph.output.append(votes)
    return _finished(lower, upper, metadata)


def split_head(model: bytes) -> bytes:
    """Return the head of a graph that :func:`compose_model` made: ``embedding`` int8 to ``votes`` float32.

    Raises
    ------
    CorruptError
        If it is a graph of another kind, such as a forest on pixels.
    """
    whole = onnx.load_from_string(model)
    graph = whole.graph
    between = next((entry for entry in graph.value_info if entry.name == EMBEDDING), None)
    if between is None:
        raise CorruptError("the model is not made of a net and a head, as its card says; train it again")
    head = helper.make_graph(
        [node for node in graph.node if node.name.startswith(_HEAD_PREFIX)],
        "head",
        [between],
        list(graph.output),
        [constant for constant in graph.initializer if constant.name.startswith(_HEAD_PREFIX)],
        value_info=[entry for entry in graph.value_info if entry.name.startswith(_HEAD_PREFIX)],
    )
    metadata = {entry.key: entry.value for entry in whole.metadata_props}
    return _finished(helper.make_model(head, opset_imports=whole.opset_import), None, metadata)


def _finished(model: onnx.ModelProto, other: onnx.ModelProto | None, metadata: Mapping[str, str]) -> bytes:
    """Return a graph's bytes, with the operators of both models and only this metadata."""
    versions: dict[str, int] = {}
    for entry in (*model.opset_import, *(other.opset_import if other else ())):
        versions[entry.domain] = max(entry.version, versions.get(entry.domain, 0))
    del model.opset_import[:], model.metadata_props[:]
    model.opset_import.extend(helper.make_opsetid(domain, versions[domain]) for domain in sorted(versions))
    helper.set_model_props(model, dict(sorted(metadata.items())))
    model.producer_name, model.producer_version = "tinytags", ""
    model.ir_version = max(IR_VERSION, model.ir_version if other else 0)
    serialized: bytes = model.SerializeToString(deterministic=True)
    return serialized
