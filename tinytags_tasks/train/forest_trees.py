"""A random forest as Spark reports it, and as an ONNX graph that counts votes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from tinytags_tasks.errors import CorruptError

OPSETS = {"": 21, "ai.onnx.ml": 3}
"""Operator sets of the graphs that we write."""

IR_VERSION = 10


@dataclass(frozen=True)
class Tree:
    """A decision tree as flat arrays, indexed by node; node 0 is the root.

    Attributes
    ----------
    feature
        int64: the feature that a node looks at; -1 in a leaf.
    threshold
        float64: a value of at most this goes left.
    left, right
        int64: the children's nodes; -1 in a leaf.
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
        When a tree lacks a node.
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


def forest_to_onnx(trees: Sequence[Tree], features: int, tags: Sequence[str], metadata: Mapping[str, str]) -> bytes:
    """Write a forest as an ONNX model whose output is the vote count.

    Each leaf gives weight 1 to the one class it votes for, so the ensemble's sum *is* the number of trees for each tag.
    Pixels are whole numbers, so a threshold may be rounded down without changing a decision: that makes it exact in
    the float32 that ``TreeEnsembleClassifier`` compares in
    (https://onnx.ai/onnx/operators/onnx_aionnxml_TreeEnsembleClassifier.html).

    Parameters
    ----------
    trees
        The forest.
    features
        Values of one image: height * width * channels.
    tags
        Names of the classes.
    metadata
        Kept in the file as it is.

    Returns
    -------
    bytes
        The model: input ``pixels`` uint8 (images, features), output ``votes`` float32 (images, tags). The same forest
        gives the same bytes.
    """
    tree_ids: list[int] = []
    node_ids: list[int] = []
    feature_ids: list[int] = []
    values: list[float] = []
    modes: list[str] = []
    lefts: list[int] = []
    rights: list[int] = []
    leaf_trees: list[int] = []
    leaf_nodes: list[int] = []
    leaf_classes: list[int] = []
    for number, tree in enumerate(trees):
        for node in range(len(tree.feature)):
            is_leaf = tree.left[node] < 0
            tree_ids.append(number)
            node_ids.append(node)
            feature_ids.append(0 if is_leaf else int(tree.feature[node]))
            values.append(0.0 if is_leaf else float(np.floor(tree.threshold[node])))
            modes.append("LEAF" if is_leaf else "BRANCH_LEQ")
            lefts.append(0 if is_leaf else int(tree.left[node]))
            rights.append(0 if is_leaf else int(tree.right[node]))
            if is_leaf:
                leaf_trees.append(number)
                leaf_nodes.append(node)
                leaf_classes.append(int(tree.prediction[node]))
    leaf_weights = [1.0] * len(leaf_classes)
    if len(tags) == 2:
        # An image whose leaves name one of two classes would get a score and its complement instead of votes, so each
        # leaf names both: onnxruntime, tree_ensemble_aggregator.h, TreeAggregatorClassifier::FinalizeScores.
        leaf_trees += leaf_trees
        leaf_nodes += leaf_nodes
        leaf_weights += [0.0] * len(leaf_classes)
        leaf_classes += [1 - tag for tag in leaf_classes]
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["pixels"], ["values"], to=TensorProto.FLOAT),
            helper.make_node(
                "TreeEnsembleClassifier",
                ["values"],
                ["label", "votes"],
                domain="ai.onnx.ml",
                nodes_treeids=tree_ids,
                nodes_nodeids=node_ids,
                nodes_featureids=feature_ids,
                nodes_values=values,
                nodes_modes=modes,
                nodes_truenodeids=lefts,
                nodes_falsenodeids=rights,
                class_treeids=leaf_trees,
                class_nodeids=leaf_nodes,
                class_ids=leaf_classes,
                class_weights=leaf_weights,
                classlabels_int64s=list(range(len(tags))),
                post_transform="NONE",
            ),
        ],
        "forest",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["images", features])],
        [helper.make_tensor_value_info("votes", TensorProto.FLOAT, ["images", len(tags)])],
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
