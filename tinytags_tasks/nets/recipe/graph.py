"""Write the learned net as ONNX: in int8, with the scales that it was taught with."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from tinytags_tasks.nets.recipe.shape import (
    EMBEDDING_LEVELS,
    PIXEL_MIDDLE,
    PIXEL_RANGE,
    SIDE,
    WEIGHT_LEVELS,
    Shape,
)

Arrays = Mapping[str, npt.NDArray[np.float32]]


class _Int8:
    """Adds nodes; a tensor is its name, and the scale of what it holds is kept beside it.

    Between any two operations are a QuantizeLinear and a DequantizeLinear, which ONNX Runtime fuses into int8 kernels.
    A ReLU needs no node of its own: with a zero point of 0 uint8 cuts off what is negative.
    """

    def __init__(self, arrays: Arrays, shape: Shape, name: str) -> None:
        self.arrays, self.shape, self.name = arrays, shape, name
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.scales: dict[str, np.float32] = {}

    def add(self, kind: str, *inputs: str, **attributes: object) -> str:
        output = f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    def constant(self, value: npt.NDArray[np.generic] | np.generic) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def model(self) -> onnx.ModelProto:
        pixels = self.enter()
        for number, (_, stride) in enumerate(self.shape.stem):
            pixels = self.convolution(pixels, f"layers.{number}", stride, relu=True)
        layer = len(self.shape.stem)
        for _, blocks, stride in self.shape.stages:
            for block in range(blocks):
                pixels = self.block(pixels, f"layers.{layer}", stride if block == 0 else 1)
                layer += 1
        self.leave(pixels)
        graph = helper.make_graph(
            self.nodes,
            self.name,
            [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["n", SIDE, SIDE, 3])],
            [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", self.shape.stages[-1][0]])],
            self.constants,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        onnx.checker.check_model(model, full_check=True)
        return model

    def block(self, images: str, name: str, stride: int) -> str:
        branch = self.convolution(images, f"{name}.first", stride, relu=True)
        branch = self.convolution(branch, f"{name}.second", 1, relu=False)
        if f"{name}.shortcut.weight" in self.arrays:
            images = self.convolution(images, f"{name}.shortcut", stride, relu=False)
        return self.round(self.add("Add", branch, images), f"{name}.out", 0)

    def convolve(self, images: str, weight: str, bias: str, name: str, stride: int) -> str:
        size = self.arrays[f"{name}.weight"].shape[2]
        return self.add(
            "Conv", images, weight, bias, kernel_shape=[size] * 2, strides=[stride] * 2, pads=[size // 2] * 4
        )

    def enter(self) -> str:
        pixels = self.add("Transpose", "pixels", perm=[0, 3, 1, 2])
        return self.restore(pixels, np.float32(1 / PIXEL_RANGE), PIXEL_MIDDLE)

    def convolution(self, images: str, name: str, stride: int, *, relu: bool) -> str:
        weight = self.arrays[f"{name}.weight"]
        scale = np.maximum(np.abs(weight).max((1, 2, 3)) / WEIGHT_LEVELS, 1e-8).astype(np.float32)
        whole = np.rint(weight / scale[:, None, None, None]).astype(np.int8)
        bias_scale = scale * self.scales[images]
        whole_bias = np.rint(self.arrays[f"{name}.bias"] / bias_scale).astype(np.int32)
        weights, biases = (
            self.add(
                "DequantizeLinear",
                self.constant(values),
                self.constant(scales),
                self.constant(np.zeros(len(scales), values.dtype)),
                axis=0,
            )
            for values, scales in ((whole, scale), (whole_bias, bias_scale))
        )
        outputs = self.convolve(images, weights, biases, name, stride)
        return self.round(outputs, f"{name}.out", 0 if relu else PIXEL_MIDDLE)

    def leave(self, images: str) -> None:
        pooled = self.round(self.add("GlobalAveragePool", images), "out", 0)
        most = self.constant(np.float32(EMBEDDING_LEVELS) * self.scales[pooled])
        self.nodes.append(helper.make_node("Min", [self.add("Flatten", pooled), most], ["embedding"]))

    def round(self, values: str, name: str, zero: int) -> str:
        scale = np.float32(self.arrays[f"{name}.scale"])
        whole = self.add("QuantizeLinear", values, self.constant(scale), self.constant(np.uint8(zero)))
        return self.restore(whole, scale, zero)

    def restore(self, whole: str, scale: np.float32, zero: int) -> str:
        values = self.add("DequantizeLinear", whole, self.constant(scale), self.constant(np.uint8(zero)))
        self.scales[values] = scale
        return values


def int8_model(arrays: Arrays, shape: Shape, name: str) -> onnx.ModelProto:
    """Return the net: uint8 pixels (n, 32, 32, 3) to float32 embeddings (n, width of the last stage).

    Embeddings are 0 to 127 times ``out.scale``.
    """
    return _Int8(arrays, shape, name).model()
