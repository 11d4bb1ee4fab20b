"""Small nets and heads for tests: quick to run, of the same interfaces as real ones."""

import hashlib

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from tinytags_tasks.store.net_records import NetCard


def onnx_file(nodes, inputs, outputs, constants, opset: int = 21) -> bytes:
    """Return an ONNX file; ``constants`` are arrays by name."""
    graph = helper.make_graph(
        nodes,
        "small",
        inputs,
        outputs,
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", 3)], ir_version=9
    )
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)


def small_net(height: int = 8, width: int = 8, dimensions: int = 4, seed: int = 0, opset: int = 17) -> bytes:
    """Return a net with the interface of a stored one; its embeddings have both signs."""
    weights = np.random.default_rng(seed).normal(0, 0.02, (height * width * 3, dimensions)).astype(np.float32)
    return onnx_file(
        [
            helper.make_node("Flatten", ["pixels"], ["flat"]),
            helper.make_node("Cast", ["flat"], ["values"], to=TensorProto.FLOAT),
            helper.make_node("MatMul", ["values", "weights"], ["embedding"]),
        ],
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["n", height, width, 3])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", dimensions])],
        {"weights": weights},
        opset,
    )


def small_card(net: bytes, name: str = "small", **changes: object) -> NetCard:
    """Return the card of such a net."""
    fields: dict[str, object] = {
        "version": f"{name}-{hashlib.sha256(net).hexdigest()[:12]}",
        "height": 8,
        "width": 8,
        "dimensions": 4,
        "scale": 0.5,
        "arithmetic": "float32",
        "origin": "small.onnx",
        "parameters": {},
        "figures": {},
        "created": "2026-01-01T00:00:00+00:00",
    }
    return NetCard(**{**fields, **changes})


def linear_head(dimensions: int, columns: int, seed: int = 0) -> bytes:
    """Return a head: percentages from a linear layer; its inner names are those of a net, to be told apart."""
    weights = np.random.default_rng(seed).normal(0, 0.01, (dimensions, columns)).astype(np.float32)
    return onnx_file(
        [
            helper.make_node("Cast", ["features"], ["pixels"], to=TensorProto.FLOAT),
            helper.make_node("MatMul", ["pixels", "weights"], ["embedding"]),
            helper.make_node("Softmax", ["embedding"], ["shares"], axis=1),
            helper.make_node("Mul", ["shares", "percent"], ["votes"]),
        ],
        [helper.make_tensor_value_info("features", TensorProto.INT8, ["images", dimensions])],
        [helper.make_tensor_value_info("votes", TensorProto.FLOAT, ["images", columns])],
        {"weights": weights, "percent": np.array(100, dtype=np.float32)},
    )


def patches(count: int, height: int = 32, width: int = 32, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Return pictures of smooth patches of colour, uint8 (count, height * width * 3)."""
    draw = np.random.default_rng(seed)
    tall, wide = -(-height // 4), -(-width // 4)
    smooth = draw.integers(0, 256, (count, 4, 4, 3)).repeat(tall, axis=1).repeat(wide, axis=2)[:, :height, :width]
    noisy = smooth + draw.integers(-20, 21, (count, height, width, 3))
    return noisy.clip(0, 255).astype(np.uint8).reshape(count, height * width * 3)
