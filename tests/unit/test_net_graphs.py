"""Graphs of nets and heads: what the pipeline runs gives what the stored net gives, resized as Pillow does."""

import io
from pathlib import Path

import numpy as np
import onnx
import pyarrow.parquet as pq
import pytest
from onnx import TensorProto, helper
from PIL import Image
from small_nets import linear_head, onnx_file, patches, small_card, small_net

from tinytags_tasks.errors import BadInputError, CorruptError
from tinytags_tasks.nets.chain import Chain
from tinytags_tasks.nets.compose import compose_model, split_head
from tinytags_tasks.nets.graph import embedding_graph
from tinytags_tasks.nets.resize import add_resize
from tinytags_tasks.nets.running import embed, open_session
from tinytags_tasks.nets.shipped import shipped_card, shipped_net
from tinytags_tasks.parts import PROJECT_ROOT

REAL = PROJECT_ROOT.parent / "shared" / "data" / "cifar10-test.parquet"


def real_pictures(path: Path, count: int):
    """Return real pictures of 32x32, or drawn ones where there are none."""
    if not path.exists():
        return patches(count)
    column = next(pq.ParquetFile(path).iter_batches(count, columns=["img"]))["img"]
    pictures = [Image.open(io.BytesIO(entry["bytes"].as_py())).convert("RGB") for entry in column]
    return np.stack([np.asarray(picture) for picture in pictures]).reshape(count, -1)


def run_net(net: bytes, pixels, height: int, width: int):
    session = open_session(net, "net.onnx")
    (embedding,) = session.run(["embedding"], {"pixels": pixels.reshape(-1, height, width, 3)})
    return embedding


@pytest.fixture(scope="module")
def shipped_graph() -> bytes:
    return embedding_graph(shipped_net(), shipped_card(), 32, 32)


# Embeddings


def test_the_graph_of_the_shipped_net_gives_its_embeddings_as_whole_numbers(shipped_graph):
    pixels = real_pictures(REAL, 40)
    found = embed(open_session(shipped_graph, "graph"), pixels)
    assert found.dtype == np.int8
    expected = np.rint(run_net(shipped_net(), pixels, 32, 32) / np.float32(shipped_card().scale))
    np.testing.assert_array_equal(found, expected)
    assert found.any(axis=1).all()


def test_embeddings_of_both_signs_are_rounded_and_cut_at_127():
    net, pixels = small_net(), patches(50, 8, 8)
    card = small_card(net, scale=0.1)
    found = embed(open_session(embedding_graph(net, card, 8, 8), "graph"), pixels)
    expected = np.clip(np.rint(run_net(net, pixels, 8, 8) / np.float32(0.1)), -127, 127)
    np.testing.assert_array_equal(found, expected)
    assert {found.min(), found.max()} == {-127, 127}, "the case must reach both ends"


def test_a_graph_has_the_same_bytes_each_time(shipped_graph):
    assert embedding_graph(shipped_net(), shipped_card(), 32, 32) == shipped_graph
    sizes = [embedding_graph(shipped_net(), shipped_card(), 64, 48) for _ in range(2)]
    assert sizes[0] == sizes[1] != shipped_graph


@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 64), (50, 33), (16, 40)])
def test_a_graph_is_valid_and_takes_any_number_of_pictures_of_its_size(height, width):
    net = small_net()
    graph = embedding_graph(net, small_card(net), height, width)
    onnx.checker.check_model(graph, full_check=True)
    session = open_session(graph, "graph")
    for count in (0, 1, 7):
        assert embed(session, patches(count, height, width)).shape == (count, 4)


@pytest.mark.parametrize("opset", [13, 17, 21, 23])
def test_a_net_of_older_or_newer_operators_gives_the_same(opset):
    net, pixels = small_net(opset=opset), patches(9, 8, 8)
    graph = embedding_graph(net, small_card(net), 8, 8)
    assert onnx.load_from_string(graph).opset_import[0].version == max(opset, 21)
    expected = np.rint(run_net(net, pixels, 8, 8) / np.float32(0.5)).clip(-127, 127)
    np.testing.assert_array_equal(embed(open_session(graph, "graph"), pixels), expected)


def test_operators_that_cannot_be_converted_are_told_with_the_remedy():
    model = onnx.load_from_string(small_net(opset=13))
    model.graph.node[-1].op_type = "GridSample"
    net = model.SerializeToString()
    with pytest.raises(
        BadInputError,
        match=r"nets/small-.*: its operators .* version 21 \(No Adapter .* GridSample\); export the net with opset 21",
    ):
        embedding_graph(net, small_card(net), 8, 8)


def test_a_net_with_functions_of_its_own_gives_the_same():
    net, pixels = small_net(opset=18), patches(5, 8, 8)
    model = onnx.load_from_string(net)
    twice = helper.make_function(
        "own", "Twice", ["x"], ["y"], [helper.make_node("Add", ["x", "x"], ["y"])], [helper.make_opsetid("", 18)]
    )
    model.functions.append(twice)
    model.opset_import.append(helper.make_opsetid("own", 1))
    model.graph.node[-1].output[0] = "half"
    model.graph.node.append(helper.make_node("Twice", ["half"], ["embedding"], domain="own"))
    graph = embedding_graph(model.SerializeToString(), small_card(net), 8, 8)
    expected = np.rint(2 * run_net(net, pixels, 8, 8) / np.float32(0.5)).clip(-127, 127)
    np.testing.assert_array_equal(embed(open_session(graph, "graph"), pixels), expected)


# Other sizes


def by_pillow(picture, height: int, width: int):
    image = Image.fromarray(picture)
    for wanted in ((width, image.height), (width, height)):
        shrinks = wanted[0] < image.width or wanted[1] < image.height
        image = image.resize(wanted, Image.Resampling.BOX if shrinks else Image.Resampling.BILINEAR)
    return np.asarray(image).astype(int)


def resize(pictures, height: int, width: int):
    """Resize pictures, uint8 (n, height, width, 3), by the nodes that go into a graph."""
    chain = Chain("pixels", "resize/")
    add_resize(chain, pictures.shape[1:3], (height, width))
    chain.end("resized")
    graph = helper.make_graph(
        chain.nodes,
        "resize",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["n", *pictures.shape[1:]])],
        [helper.make_tensor_value_info("resized", TensorProto.UINT8, ["n", height, width, 3])],
        chain.constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return open_session(model.SerializeToString(), "resize").run(["resized"], {"pixels": pictures})[0]


@pytest.mark.parametrize("factors", [(2, 2), (3, 3), (7, 7), (12, 12), (1, 4), (6, 1), (5, 2)])
def test_a_whole_number_of_pixels_becomes_one_as_in_pillow(factors):
    pictures = np.random.default_rng(0).integers(0, 256, (3, 32 * factors[0], 32 * factors[1], 3), dtype=np.uint8)
    expected = np.stack([by_pillow(picture, 32, 32) for picture in pictures])
    np.testing.assert_array_equal(resize(pictures, 32, 32), expected)


@pytest.mark.parametrize(
    ("size", "wanted"),
    [
        ((50, 33), (32, 32)),
        ((75, 100), (32, 32)),
        ((500, 333), (32, 32)),
        ((48, 40), (32, 24)),
        ((64, 64), (56, 56)),
        ((32, 32), (224, 224)),
        ((32, 32), (518, 518)),
        ((20, 17), (32, 32)),
        ((20, 64), (32, 32)),
        ((64, 20), (32, 32)),
    ],
)
def test_other_sizes_differ_from_pillow_by_one_level_at_most(size, wanted):
    pictures = np.random.default_rng(0).integers(0, 256, (2, *size, 3), dtype=np.uint8)
    expected = np.stack([by_pillow(picture, *wanted) for picture in pictures])
    difference = np.abs(resize(pictures, *wanted) - expected)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.01


@pytest.mark.parametrize("level", [0, 1, 127, 255])
@pytest.mark.parametrize("size", [(50, 33), (64, 64), (20, 17)])
def test_one_colour_stays_that_colour(level, size):
    assert (resize(np.full((1, *size, 3), level, np.uint8), 32, 32) == level).all()


@pytest.mark.parametrize(("height", "width"), [(64, 64), (96, 64), (16, 16)])
def test_an_embedding_of_a_larger_or_smaller_picture_is_that_of_the_picture_resized_before(
    shipped_graph, height, width
):
    pixels = patches(6, height, width)
    found = embed(open_session(embedding_graph(shipped_net(), shipped_card(), height, width), "graph"), pixels)
    resized = np.stack([by_pillow(picture, 32, 32) for picture in pixels.reshape(-1, height, width, 3)])
    expected = embed(open_session(shipped_graph, "graph"), resized.astype(np.uint8).reshape(6, -1))
    np.testing.assert_array_equal(found, expected)


# Net and head


def votes(model: bytes, **inputs):
    return open_session(model, "model").run(["votes"], inputs)[0]


@pytest.mark.parametrize("columns", [2, 11])
def test_votes_from_pixels_equal_votes_from_stored_embeddings_image_by_image(shipped_graph, columns):
    pixels, head = real_pictures(REAL, 60), linear_head(256, columns)
    model = compose_model(shipped_graph, head, {"tags": "[]"})
    embeddings = embed(open_session(shipped_graph, "graph"), pixels)
    from_pixels = votes(model, pixels=pixels)
    assert from_pixels.shape == (60, columns)
    assert from_pixels.std(axis=0).min() > 0, "heads that give all pictures the same votes show nothing"
    np.testing.assert_array_equal(from_pixels, votes(split_head(model), embedding=embeddings))
    np.testing.assert_array_equal(from_pixels, votes(head, features=embeddings))


def test_a_model_says_what_it_is_made_of_and_is_the_same_bytes_each_time(shipped_graph):
    made = [compose_model(shipped_graph, linear_head(256, 3), {"tags": '["a"]', "pixel_order": "x"}) for _ in range(2)]
    assert made[0] == made[1]
    assert compose_model(shipped_graph, linear_head(256, 3), {"pixel_order": "x", "tags": '["a"]'}) == made[0]
    onnx.checker.check_model(made[0], full_check=True)
    model = onnx.load_from_string(made[0])
    assert [entry.name for entry in (*model.graph.input, *model.graph.output)] == ["pixels", "votes"]
    assert {node.name.partition("/")[0] for node in model.graph.node} == {"net", "head"}
    (between,) = [entry for entry in model.graph.value_info if entry.name == "embedding"]
    assert between.type.tensor_type.elem_type == TensorProto.INT8
    assert [axis.dim_value for axis in between.type.tensor_type.shape.dim] == [0, 256]
    assert {entry.key: entry.value for entry in model.metadata_props} == {"tags": '["a"]', "pixel_order": "x"}


def test_a_head_that_is_split_off_is_small_valid_and_keeps_the_metadata(shipped_graph):
    model = compose_model(shipped_graph, linear_head(256, 3), {"tags": '["a"]'})
    head = split_head(model)
    onnx.checker.check_model(head, full_check=True)
    assert len(head) < 10_000
    assert split_head(model) == head
    assert {entry.key: entry.value for entry in onnx.load_from_string(head).metadata_props} == {"tags": '["a"]'}


def test_a_model_on_pixels_has_no_head_to_split_off():
    with pytest.raises(CorruptError, match="not made of a net and a head, as its card says; train it again"):
        split_head(small_net())


def test_a_head_of_older_operators_or_of_trees_fits_a_net_of_newer_ones():
    net, pixels = small_net(opset=23), patches(20, 8, 8)
    graph = embedding_graph(net, small_card(net), 8, 8)
    head = onnx_file(
        [
            helper.make_node("Cast", ["features"], ["values"], to=TensorProto.FLOAT),
            helper.make_node(
                "TreeEnsembleClassifier",
                ["values"],
                ["label", "votes"],
                domain="ai.onnx.ml",
                nodes_treeids=[0, 0, 0],
                nodes_nodeids=[0, 1, 2],
                nodes_featureids=[1, 0, 0],
                nodes_values=[3.0, 0.0, 0.0],
                nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"],
                nodes_truenodeids=[1, 0, 0],
                nodes_falsenodeids=[2, 0, 0],
                class_treeids=[0, 0],
                class_nodeids=[1, 2],
                class_ids=[0, 2],
                class_weights=[1.0, 1.0],
                classlabels_int64s=[0, 1, 2],
                post_transform="NONE",
            ),
        ],
        [helper.make_tensor_value_info("features", TensorProto.INT8, ["images", 4])],
        [helper.make_tensor_value_info("votes", TensorProto.FLOAT, ["images", 3])],
        {},
        opset=17,
    )
    model = compose_model(graph, head, {})
    embeddings = embed(open_session(graph, "graph"), pixels)
    from_pixels = votes(model, pixels=pixels)
    assert (from_pixels.argmax(axis=1) == np.where(embeddings[:, 1] <= 3, 0, 2)).all()
    assert 0 < from_pixels[:, 0].sum() < 20, "both leaves must be reached"
    np.testing.assert_array_equal(from_pixels, votes(split_head(model), embedding=embeddings))
