"""Small hand-written ONNX classifiers, like those that other tools export."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

HEIGHT, WIDTH = 4, 6
VALUES = HEIGHT * WIDTH * 3
TAGS = ("cat", "dog", "emu")

SHAPES = {
    "flat": ["images", VALUES],
    "nhwc": ["images", HEIGHT, WIDTH, 3],
    "nchw": [None, 3, HEIGHT, WIDTH],
    "free": ["n", 3, "h", "w"],
}


def weights(seed: int = 0, tags: int = len(TAGS)) -> tuple[np.ndarray, np.ndarray]:
    """Return weights, float32 (values, tags), and biases, float32 (tags,)."""
    random = np.random.default_rng(seed)
    return random.normal(0, 0.02, (VALUES, tags)).astype(np.float32), random.normal(0, 1, tags).astype(np.float32)


def linear_classifier(
    shape: str | list = "flat",
    *,
    softmax: bool = True,
    input_type: int = TensorProto.FLOAT,
    opset: int = 13,
    tags: int = len(TAGS),
    names: tuple[str, str] = ("input", "probabilities"),
    bias: np.ndarray | None = None,
    extra: tuple[onnx.NodeProto, ...] = (),
    extra_outputs: tuple[onnx.ValueInfoProto, ...] = (),
) -> onnx.ModelProto:
    """Return a linear classifier of the values in the order of its input."""
    factor, constant = weights(tags=tags)
    nodes = []
    at = names[0]
    if input_type != TensorProto.FLOAT:
        nodes.append(helper.make_node("Cast", [at], ["real"], to=TensorProto.FLOAT))
        at = "real"
    nodes.append(helper.make_node("Flatten", [at], ["flat"], axis=1))
    nodes.append(helper.make_node("Gemm", ["flat", "factor", "constant"], ["votes" if softmax else names[1]]))
    if softmax:  # "votes" is also a name of the interface
        nodes.append(helper.make_node("Softmax", ["votes"], [names[1]], axis=1))
    sizes = SHAPES[shape] if isinstance(shape, str) else shape
    graph = helper.make_graph(
        [*nodes, *extra],
        "linear",
        [helper.make_tensor_value_info(names[0], input_type, sizes)],
        [helper.make_tensor_value_info(names[1], TensorProto.FLOAT, ["images", tags]), *extra_outputs],
        [
            numpy_helper.from_array(factor, "factor"),
            numpy_helper.from_array(constant if bias is None else bias, "constant"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def expected_percentages(values: np.ndarray) -> np.ndarray:
    """Return the linear classifier's output for some values, float64 (images, tags), in percent."""
    factor, constant = weights()
    scores = values.reshape(len(values), -1).astype(np.float64) @ factor + constant
    shares = np.exp(scores - scores.max(axis=1, keepdims=True))
    return 100 * shares / shares.sum(axis=1, keepdims=True)
