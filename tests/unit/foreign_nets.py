"""Small ONNX networks that describe pictures, like those that other tools export; 12x10 pictures unless said."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

HEIGHT, WIDTH, DIMENSIONS = 12, 10, 16


def _constant(rng: np.random.Generator, name: str, *shape: int, spread: float = 0.3) -> TensorProto:
    return numpy_helper.from_array(rng.normal(0, spread, shape).astype(np.float32), name)


def conv_net(
    *,
    sizes: tuple[object, ...] = ("n", 3, HEIGHT, WIDTH),
    colours_last: bool = False,
    input_type: int = TensorProto.FLOAT,
    pooled: bool = True,
    outputs: tuple[str, ...] = ("features",),
    extra: tuple[onnx.NodeProto, ...] = (),
    constants: tuple[TensorProto, ...] = (),
    opset: int = 17,
) -> onnx.ModelProto:
    """Return two convolutions, averaged over all places if ``pooled``."""
    rng = np.random.default_rng(0)
    nodes, at = [], "images"
    if input_type != TensorProto.FLOAT:
        nodes.append(helper.make_node("Cast", [at], ["real"], to=TensorProto.FLOAT))
        nodes.append(helper.make_node("Div", ["real", "sixty"], ["small"]))
        at = "small"
    if colours_last:
        nodes.append(helper.make_node("Transpose", [at], ["planes"], perm=[0, 3, 1, 2]))
        at = "planes"
    nodes += [
        helper.make_node("Conv", [at, "first", "bias"], ["seen"], kernel_shape=[3, 3], pads=[1] * 4),
        helper.make_node("Relu", ["seen"], ["kept"]),
        helper.make_node("Conv", ["kept", "second"], ["map"], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4),
    ]
    if pooled:
        nodes += [
            helper.make_node("GlobalAveragePool", ["map"], ["mean"]),
            helper.make_node("Flatten", ["mean"], ["features"]),
        ]
    graph = helper.make_graph(
        [*nodes, *extra],
        "conv",
        [helper.make_tensor_value_info("images", input_type, list(sizes))],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [
            _constant(rng, "first", 8, 3, 3, 3),
            _constant(rng, "bias", 8),
            _constant(rng, "second", DIMENSIONS, 8, 3, 3),
            numpy_helper.from_array(np.float32(60), "sixty"),
            *constants,
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def token_net(images: int | None = None, *, folded: bool = True) -> onnx.ModelProto:
    """Return a net with a class token before one token for each of 6x5 places: output (images, 31, 16).

    Parameters
    ----------
    images
        How many images it was exported for; None for any number.
    folded
        Whether the class token was repeated for these images when it was exported, or is repeated by an Expand.
    """
    rng = np.random.default_rng(1)
    count = images or 1
    token = rng.normal(0, 1, (1, 1, DIMENSIONS)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["images", "patches"], ["map"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Reshape", ["map", "flat"], ["columns"]),
        helper.make_node("Transpose", ["columns"], ["places"], perm=[0, 2, 1]),
    ]
    constants = [
        _constant(rng, "patches", DIMENSIONS, 3, 2, 2),
        numpy_helper.from_array(np.array([images or 0, DIMENSIONS, -1]), "flat"),
        numpy_helper.from_array(rng.normal(0, 1, (DIMENSIONS, DIMENSIONS)).astype(np.float32), "mix"),
    ]
    if images is None:
        nodes += [
            helper.make_node("Shape", ["images"], ["all"], start=0, end=1),
            helper.make_node("Concat", ["all", "row"], ["tokens_shape"], axis=0),
            helper.make_node("Expand", ["token", "tokens_shape"], ["tokens"]),
        ]
        constants += [
            numpy_helper.from_array(token, "token"),
            numpy_helper.from_array(np.array([1, DIMENSIONS]), "row"),
        ]
    elif folded:
        constants.append(numpy_helper.from_array(np.repeat(token, count, axis=0), "tokens"))
    else:
        nodes.append(helper.make_node("Expand", ["token", "tokens_shape"], ["tokens"]))
        constants.append(numpy_helper.from_array(token, "token"))
        constants.append(numpy_helper.from_array(np.array([count, 1, DIMENSIONS]), "tokens_shape"))
    nodes += [
        helper.make_node("Concat", ["tokens", "places"], ["rows"], axis=1),
        helper.make_node("Softmax", ["rows"], ["weights"], axis=1),
        helper.make_node("Mul", ["rows", "weights"], ["weighed"]),
        helper.make_node("ReduceSum", ["weighed", "tokens_axis"], ["summary"], keepdims=1),
        helper.make_node("Add", ["rows", "summary"], ["aware"]),
        helper.make_node("MatMul", ["aware", "mix"], ["last_hidden_state"]),
    ]
    constants.append(numpy_helper.from_array(np.array([1]), "tokens_axis"))
    graph = helper.make_graph(
        nodes,
        "tokens",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [images or "n", 3, HEIGHT, WIDTH])],
        [helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, [images or "n", 31, DIMENSIONS])],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
