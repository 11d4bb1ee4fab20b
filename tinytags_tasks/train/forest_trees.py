"""Converts a forest's trees from Spark's format to an ONNX graph that counts their votes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from tinytags_tasks.errors import CorruptError

OPSETS = {"": 21, "ai.onnx.ml": 3}
"""The operator sets of the graph."""

IR_VERSION = 10


@dataclass(frozen=True)
class Tree:
    """A decision tree as flat arrays, indexed by node; node 0 is the root.

    Attributes
    ----------
    feature
        int64: the feature that a node tests; -1 for a leaf.
    threshold
        float64: values up to this go left.
    left, right
        int64: the child nodes; -1 for a leaf.
    prediction
        int64: the class that a leaf votes for.
    """

    feature: npt.NDArray[np.int64]
    threshold: npt.NDArray[np.float64]
    left: npt.NDArray[np.int64]
    right: npt.NDArray[np.int64]
    prediction: npt.NDArray[np.int64]


def trees_from_spark(rows: Sequence[Mapping[str, Any]]) -> list[Tree]:
    """Read the trees of a saved MLlib forest.

    Parameters
    ----------
    rows
        The rows of the saved model's ``data`` folder: ``treeID`` and ``nodeData``, the latter with ``id``,
        ``prediction``, ``leftChild``, ``rightChild`` and ``split`` (``featureIndex``, ``leftCategoriesOrThreshold``),
        as ``org.apache.spark.ml.tree.DecisionTreeModelReadWrite.NodeData`` writes them.

    Raises
    ------
    CorruptError
        If a node of a tree is missing.
    """
    by_tree: dict[int, list[Mapping[str, Any]]] = {}
    for row in rows:
        by_tree.setdefault(row["treeID"], []).append(row["nodeData"])
    trees = []
    for number in range(len(by_tree)):
        nodes = sorted(by_tree.get(number, []), key=lambda node: int(node["id"]))
        if not nodes or [node["id"] for node in nodes] != list(range(len(nodes))):
            raise CorruptError(f"the saved forest's tree {number} lacks nodes; train again")
        if any(max(node["leftChild"], node["rightChild"]) >= len(nodes) for node in nodes):
            raise CorruptError(f"the saved forest's tree {number} lacks nodes; train again")
        inner = [node["leftChild"] >= 0 for node in nodes]
        trees.append(
            Tree(
                feature=np.array([node["split"]["featureIndex"] for node in nodes], dtype=np.int64),
                threshold=np.array(
                    [
                        node["split"]["leftCategoriesOrThreshold"][0] if is_inner else 0.0
                        for node, is_inner in zip(nodes, inner, strict=True)
                    ],
                    dtype=np.float64,
                ),
                left=np.array([node["leftChild"] for node in nodes], dtype=np.int64),
                right=np.array([node["rightChild"] for node in nodes], dtype=np.int64),
                prediction=np.array([node["prediction"] for node in nodes], dtype=np.int64),
            )
        )
    return trees


def forest_to_onnx(
    trees: Sequence[Tree],
    features: int,
    classes: Sequence[str],
    metadata: Mapping[str, str],
    input_name: str = "pixels",
    input_type: int = TensorProto.UINT8,
) -> bytes:
    """Write a forest as an ONNX model whose output is the number of votes.

    Each leaf gives weight 1 to the one class it votes for, so the ensemble's sum *is* the number of trees for each
    class. Pixels and embeddings are whole numbers, so rounding a threshold down changes no decision, and makes the
    threshold exact in float32, the type in which ``TreeEnsembleClassifier`` compares
    (https://onnx.ai/onnx/operators/onnx_aionnxml_TreeEnsembleClassifier.html).

    Parameters
    ----------
    trees
        The forest.
    features
        Values of one image: height * width * channels of pixels, or a net's dimensions.
    classes
        Names of the classes: the tags, and none of them if that is one more.
    metadata
        Metadata for the file.
    input_name, input_type
        Of the input: ``pixels`` uint8, or ``features`` int8 for a net's embeddings.

    Returns
    -------
    bytes
        The model: the input (images, features) to the output ``votes`` float32 (images, classes). The same forest gives
        the same bytes.
    """
    graph = helper.make_graph(
        [
            helper.make_node("Cast", [input_name], ["values"], to=TensorProto.FLOAT),
            helper.make_node(
                "TreeEnsembleClassifier",
                ["values"],
                ["label", "votes"],
                domain="ai.onnx.ml",
                **_nodes(trees),
                **_leaves(trees, len(classes)),
                classlabels_int64s=list(range(len(classes))),
                post_transform="NONE",
            ),
        ],
        "forest",
        [helper.make_tensor_value_info(input_name, input_type, ["images", features])],
        [helper.make_tensor_value_info("votes", TensorProto.FLOAT, ["images", len(classes)])],
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid(domain, version) for domain, version in OPSETS.items()],
        producer_name="tinytags",
        ir_version=IR_VERSION,
    )
    helper.set_model_props(model, dict(sorted(metadata.items())))
    onnx.checker.check_model(model)
    serialized: bytes = model.SerializeToString(deterministic=True)
    return serialized


def _nodes(trees: Sequence[Tree]) -> dict[str, list[Any]]:
    """Return the attributes of a ``TreeEnsembleClassifier`` that describe the nodes."""
    nodes = [
        (number, node, tree, bool(tree.left[node] < 0))
        for number, tree in enumerate(trees)
        for node in range(len(tree.feature))
    ]
    return {
        "nodes_treeids": [number for number, _, _, _ in nodes],
        "nodes_nodeids": [node for _, node, _, _ in nodes],
        "nodes_featureids": [0 if is_leaf else int(tree.feature[node]) for _, node, tree, is_leaf in nodes],
        "nodes_values": [0.0 if is_leaf else float(np.floor(tree.threshold[node])) for _, node, tree, is_leaf in nodes],
        "nodes_modes": ["LEAF" if is_leaf else "BRANCH_LEQ" for _, _, _, is_leaf in nodes],
        "nodes_truenodeids": [0 if is_leaf else int(tree.left[node]) for _, node, tree, is_leaf in nodes],
        "nodes_falsenodeids": [0 if is_leaf else int(tree.right[node]) for _, node, tree, is_leaf in nodes],
    }


def _leaves(trees: Sequence[Tree], classes: int) -> dict[str, list[Any]]:
    """Return the attributes of a ``TreeEnsembleClassifier`` that say what each leaf votes for."""
    leaves = [
        (number, int(node), int(tree.prediction[node]))
        for number, tree in enumerate(trees)
        for node in np.flatnonzero(tree.left < 0)
    ]
    weights = [1.0] * len(leaves)
    if classes == 2:
        # An image whose leaves name one of two classes would get a score and its complement instead of votes, so each
        # leaf names both: onnxruntime, tree_ensemble_aggregator.h, TreeAggregatorClassifier::FinalizeScores.
        weights += [0.0] * len(leaves)
        leaves += [(number, node, 1 - tag) for number, node, tag in leaves]
    return {
        "class_treeids": [number for number, _, _ in leaves],
        "class_nodeids": [node for _, node, _ in leaves],
        "class_ids": [tag for _, _, tag in leaves],
        "class_weights": weights,
    }
