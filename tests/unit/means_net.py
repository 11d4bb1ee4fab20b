"""A net that a test can follow in its head: an embedding is the mean of each colour, halved."""

import numpy as np
import numpy.typing as npt
from onnx import TensorProto, helper

from tinytags_tasks.nets.catalogue import net_version, publish_net
from tinytags_tasks.store.net_records import NetCard
from tinytags_tasks.store.protocol import Storage

SIDE = 32
DIMENSIONS = 3
SCALE = 2.0


def means_net(side: int = SIDE) -> bytes:
    """Return the net: pixels uint8 (n, side, side, 3) to embedding float32 (n, 3)."""
    nodes = [
        helper.make_node("Cast", ["pixels"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["real", "axes"], ["embedding"], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "means",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["n", side, side, 3])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", DIMENSIONS])],
        initializer=[helper.make_tensor("axes", TensorProto.INT64, [2], [1, 2])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return model.SerializeToString(deterministic=True)


NET_BYTES = means_net()
NET = net_version("means", NET_BYTES)


def net_card(**changes: object) -> NetCard:
    """Return the net's card."""
    return NetCard(
        version=NET,
        height=SIDE,
        width=SIDE,
        dimensions=DIMENSIONS,
        scale=SCALE,
        arithmetic="float32",
        origin="a test",
        parameters={},
        figures={},
        created="2024-01-01T00:00:00+00:00",
    ).replaced(**changes)


def publish_means_net(storage: Storage) -> None:
    """Publish the net, as importing it does."""
    publish_net(net_card(), NET_BYTES, None, storage)


def embeddings_of(pictures: npt.NDArray[np.uint8]) -> npt.NDArray[np.int8]:
    """Return what the net makes of pictures, shape (images, height, width, 3), by its definition alone."""
    means = pictures.reshape(len(pictures), -1, 3).mean(axis=1, dtype=np.float64)
    return np.rint(means / SCALE).clip(-127, 127).astype(np.int8)
