"""A forest's ONNX graph: its output is the number of trees that voted, and nothing else."""

import copy

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinytags_tasks.errors import CorruptError
from tinytags_tasks.train.forest_trees import Tree, forest_to_onnx, trees_from_spark

FEATURES = 6
THRESHOLDS = (-0.5, 0.0, 0.5, 1.0, 83.9999999999, 127.5, 184.5, 254.5, 254.9999999999, 255.0)

thresholds = st.one_of(st.sampled_from(THRESHOLDS), st.floats(-1, 256, allow_nan=False))


def random_tree(draw, tags: int, depth: int) -> list[dict]:
    """Draw a tree as Spark writes one: node data in depth-first order, ids by position."""
    nodes: list[dict] = []

    def grow(level: int) -> int:
        node = {
            "id": len(nodes),
            "prediction": float(draw(st.integers(0, tags - 1))),
            "impurity": 0.5,
            "impurityStats": [1.0, 2.0],
            "rawCount": 3,
            "gain": -1.0,
            "leftChild": -1,
            "rightChild": -1,
            "split": {"featureIndex": -1, "leftCategoriesOrThreshold": [], "numCategories": -1},
        }
        nodes.append(node)
        if level < depth and draw(st.booleans()):
            node["split"] = {
                "featureIndex": draw(st.integers(0, FEATURES - 1)),
                "leftCategoriesOrThreshold": [draw(thresholds)],
                "numCategories": -1,
            }
            node["leftChild"] = grow(level + 1)
            node["rightChild"] = grow(level + 1)
        return node["id"]

    grow(0)
    return nodes


@st.composite
def forests(draw):
    tags = draw(st.integers(2, 5))
    trees = [random_tree(draw, tags, depth=4) for _ in range(draw(st.integers(1, 6)))]
    return tags, trees


def vote(nodes: list[dict], pixels: list[int], at: int = 0) -> int:
    """Walk a tree as Spark does: a value of at most the threshold goes left."""
    node = nodes[at]
    if node["leftChild"] < 0:
        return int(node["prediction"])
    goes_left = pixels[node["split"]["featureIndex"]] <= node["split"]["leftCategoriesOrThreshold"][0]
    return vote(nodes, pixels, node["leftChild"] if goes_left else node["rightChild"])


def spark_rows(trees: list[list[dict]]) -> list[dict]:
    return [{"treeID": number, "nodeData": node} for number, nodes in enumerate(trees) for node in nodes]


def votes_of(model: bytes, pixels: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(["votes"], {"pixels": pixels})[0]


def names(tags: int) -> list[str]:
    return [f"tag {index}" for index in range(tags)]


def random_pixels(seed: int, images: int = 40) -> np.ndarray:
    pixels = np.random.default_rng(seed).integers(0, 256, (images, FEATURES), dtype=np.uint8)
    pixels[: len(pixels) // 2] = np.random.default_rng(seed).choice(
        np.array([0, 1, 83, 84, 127, 128, 184, 185, 254, 255], dtype=np.uint8), (images // 2, FEATURES)
    )
    return pixels


@settings(max_examples=60, deadline=None)
@given(forests(), st.integers(0, 2**32 - 1), st.randoms(use_true_random=False))
def test_votes_are_those_of_a_walk_through_each_tree(forest, seed, random):
    tags, trees = forest
    rows = spark_rows(trees)
    random.shuffle(rows)  # Spark guarantees no order
    pixels = random_pixels(seed)
    found = votes_of(forest_to_onnx(trees_from_spark(rows), FEATURES, names(tags), {}), pixels)
    expected = np.zeros((len(pixels), tags))
    for image, values in enumerate(pixels.tolist()):
        for nodes in trees:
            expected[image, vote(nodes, values)] += 1
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_every_pixel_value_goes_the_way_the_threshold_says(threshold):
    tree = Tree(
        feature=np.array([0, -1, -1]),
        threshold=np.array([threshold, 0.0, 0.0]),
        left=np.array([1, -1, -1]),
        right=np.array([2, -1, -1]),
        prediction=np.array([0, 1, 2]),
    )
    found = votes_of(forest_to_onnx([tree], 1, names(3), {}), np.arange(256, dtype=np.uint8)[:, None])
    assert found.argmax(axis=1).tolist() == [1 if value <= threshold else 2 for value in range(256)]


@pytest.mark.parametrize("prediction", [0, 1])
def test_a_forest_of_two_tags_that_always_votes_for_one_still_counts_votes(prediction):
    leaf = Tree(*(np.array([value]) for value in (-1, 0.0, -1, -1, prediction)))
    found = votes_of(forest_to_onnx([leaf] * 3, FEATURES, names(2), {}), random_pixels(0, images=4))
    assert found.tolist() == [[3 * (prediction == 0), 3 * (prediction == 1)]] * 4


@pytest.mark.parametrize("trees", [1, 3, 10, 100])
@pytest.mark.parametrize("images", [1, 60])
def test_two_tags_get_their_votes_where_all_trees_agree(trees, images):
    tree = Tree(
        feature=np.array([0, -1, -1]),
        threshold=np.array([99.5, 0.0, 0.0]),
        left=np.array([1, -1, -1]),
        right=np.array([2, -1, -1]),
        prediction=np.array([0, 0, 1]),
    )
    model = forest_to_onnx([tree] * trees, 1, names(2), {})
    pixels = np.tile(np.array([[99], [100]], dtype=np.uint8), (images, 1))
    assert votes_of(model, pixels).tolist() == [[trees, 0], [0, trees]] * images


@settings(max_examples=10, deadline=None)
@given(forests())
def test_the_same_forest_gives_the_same_bytes(forest):
    tags, trees = forest
    one = forest_to_onnx(trees_from_spark(spark_rows(trees)), FEATURES, names(tags), {"b": "2", "a": "1"})
    two = forest_to_onnx(trees_from_spark(spark_rows(trees)[::-1]), FEATURES, names(tags), {"a": "1", "b": "2"})
    assert one == two


def test_metadata_travels_in_the_file():
    leaf = Tree(*(np.array([value]) for value in (-1, 0.0, -1, -1, 0)))
    model = onnx.load_from_string(forest_to_onnx([leaf], FEATURES, names(2), {"tags": '["a"]'}))
    assert {entry.key: entry.value for entry in model.metadata_props} == {"tags": '["a"]'}


TREE = [
    {"id": 0, "prediction": 0.0, "leftChild": 1, "rightChild": 2, "split": {"featureIndex": 3}},
    {"id": 1, "prediction": 0.0, "leftChild": -1, "rightChild": -1, "split": {"featureIndex": -1}},
    {"id": 2, "prediction": 1.0, "leftChild": -1, "rightChild": -1, "split": {"featureIndex": -1}},
]
TREE[0]["split"]["leftCategoriesOrThreshold"] = [1.5]


def test_a_saved_forest_is_read_tree_by_tree():
    (tree,) = trees_from_spark(spark_rows([TREE]))
    assert tree.feature.tolist() == [3, -1, -1]
    assert tree.threshold.tolist() == [1.5, 0.0, 0.0]
    assert (tree.left.tolist(), tree.right.tolist()) == ([1, -1, -1], [2, -1, -1])
    assert tree.prediction.tolist() == [0, 0, 1]


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_a_tree_without_one_of_its_nodes_is_corrupt(lost):
    rows = spark_rows([TREE, copy.deepcopy(TREE)])
    del rows[3 + lost]
    with pytest.raises(CorruptError, match="tree 1 lacks nodes; train again"):
        trees_from_spark(rows)


def test_a_forest_without_one_of_its_trees_is_corrupt():
    rows = [row for row in spark_rows([TREE, TREE, TREE]) if row["treeID"] != 1]
    with pytest.raises(CorruptError, match="tree 1 lacks nodes"):
        trees_from_spark(rows)
