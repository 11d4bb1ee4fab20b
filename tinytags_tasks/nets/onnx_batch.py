"""Lets a network that was exported for one number of images take any number.

Exporters write the number of images of their example into the graph: into the input's shape, and as a constant into
the nodes that rearrange or join tensors. Here these constants are replaced. Whether that was right is found by running
both networks (:mod:`.onnx_embedding`).
"""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from tinytags_tasks.nets.onnx_input import only_input, shape_of

_ANY = "images"
_PREFIX = "any_images/"


def fixed_images(model: onnx.ModelProto, where: str) -> int | None:
    """Return how many images a network takes at a time; None if any number."""
    shape = shape_of(only_input(model, where))
    return shape[0] if shape else None


def take_any_number(model: onnx.ModelProto, where: str) -> onnx.ModelProto:
    """Return a copy of a network with its fixed number of images replaced by any number, as far as that can be seen."""
    images = fixed_images(model, where)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    if images is not None:
        _Rewriting(copy, images, where).rewrite()
    return copy


class _Rewriting:
    def __init__(self, model: onnx.ModelProto, images: int, where: str) -> None:
        self.graph, self.images = model.graph, images
        self.input = only_input(model, where)
        self.constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        for node in model.graph.node:
            for attribute in node.attribute:
                if node.op_type == "Constant" and attribute.name == "value":
                    self.constants[node.output[0]] = numpy_helper.to_array(attribute.t)
        self.nodes: list[onnx.NodeProto] = []
        self.counted = ""

    def rewrite(self) -> None:
        for entry in (self.input, *self.graph.output):
            if entry.type.tensor_type.HasField("shape") and entry.type.tensor_type.shape.dim:
                entry.type.tensor_type.shape.dim[0].dim_param = _ANY
        del self.graph.value_info[:]  # the shapes in between, which say the old number
        nodes = list(self.graph.node)
        for node in nodes:
            if node.op_type == "Reshape" and self._begins_with_images(node.input[1]):
                node.input[1] = self._free_shape(self.constants[node.input[1]])
            elif node.op_type == "Expand" and self._begins_with_images(node.input[1]):
                node.input[1] = self._counted_shape(self.constants[node.input[1]][1:])
            elif node.op_type == "Concat" and helper.get_node_attr_value(node, "axis") != 0:
                for place, name in enumerate(node.input):
                    if self._is_one_for_each(name):
                        node.input[place] = self._repeat(name)
            self.nodes.append(node)
        del self.graph.node[:]
        self.graph.node.extend(self.nodes)

    def _begins_with_images(self, name: str) -> bool:
        shape = self.constants.get(name)
        return shape is not None and shape.ndim == 1 and len(shape) > 0 and int(shape[0]) == self.images

    def _is_one_for_each(self, name: str) -> bool:
        """Return whether a constant repeats the same values for each image, such as a transformer's class token."""
        value = self.constants.get(name)
        if value is None or value.ndim < 2 or len(value) != self.images:
            return False
        return bool((value == value[:1]).all())

    def _free_shape(self, shape: npt.NDArray[np.int64]) -> str:
        rest = shape[1:]
        return self._constant(np.array([0 if -1 in rest else -1, *rest], dtype=np.int64))

    def _counted_shape(self, rest: Iterable[int]) -> str:
        """Return the name of a shape: the number of images that came in, and fixed sizes."""
        if not self.counted:
            whole = self._add("Shape", self.input.name)
            self.counted = self._add("Gather", whole, self._constant(np.array([0], dtype=np.int64)), axis=0)
        return self._add("Concat", self.counted, self._constant(np.array(list(rest), dtype=np.int64)), axis=0)

    def _repeat(self, name: str) -> str:
        value = self.constants[name]
        return self._add("Expand", self._constant(value[:1]), self._counted_shape(value.shape[1:]))

    def _constant(self, value: npt.NDArray[np.generic]) -> str:
        name = f"{_PREFIX}constant{len(self.graph.initializer)}"
        self.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def _add(self, operator: str, *inputs: str, **attributes: object) -> str:
        output = f"{_PREFIX}step{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [output], **attributes))
        return output
