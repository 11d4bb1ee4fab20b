"""Classifiers from elsewhere: each gets the interface of a model, or one line says why it cannot be used."""

import numpy as np
import onnx
import pytest
from classifiers import HEIGHT, TAGS, VALUES, WIDTH, expected_percentages, linear_classifier
from faulty_storage import files_under
from onnx import TensorProto, helper
from small_run import TAGS as FOREST_TAGS
from small_run import VOTES as FOREST_VOTES
from small_run import forest, pictures, quiet

from tinytags_tasks.corpus.demo.make import write_labelled_parquet
from tinytags_tasks.errors import BadInputError
from tinytags_tasks.store import layout
from tinytags_tasks.store.model_records import ModelCard
from tinytags_tasks.train.evaluation import count_votes
from tinytags_tasks.train.forest_trees import forest_to_onnx
from tinytags_tasks.train.import_step import ImportRequest, import_model

IMAGES = np.random.default_rng(7).integers(0, 256, (50, HEIGHT, WIDTH, 3), dtype=np.uint8)


@pytest.fixture
def bring(tmp_path, storage):
    """Import a model; return its card and its votes for the images."""

    def bring_in(model: onnx.ModelProto | bytes, images: np.ndarray = IMAGES, **changes: object):
        path = tmp_path / "given.onnx"
        path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
        fields = {"tags": TAGS, "height": HEIGHT, "width": WIDTH, **changes}
        result = import_model(ImportRequest(str(path), **fields), storage=storage, report=quiet)
        card = ModelCard.load(storage, layout.card_file(result.model))
        return card, count_votes(storage.read(layout.model_file(result.model)), images)

    return bring_in


# The interface of a model


@pytest.mark.parametrize(
    ("shape", "order"), [("flat", (0, 1, 2, 3)), ("nhwc", (0, 1, 2, 3)), ("nchw", (0, 3, 1, 2)), ("free", (0, 3, 1, 2))]
)
def test_pixels_come_in_the_order_that_the_input_takes(bring, shape, order):
    card, votes = bring(linear_classifier(shape))
    np.testing.assert_allclose(votes, expected_percentages(IMAGES.transpose(order)), atol=1e-3)
    assert (card.output, card.trees) == ("probabilities", 100)
    assert card.parameters["layout"] == ("chw" if order[1] == 3 else "hwc")


def test_a_flat_input_may_take_planes(bring):
    card, votes = bring(linear_classifier("flat"), layout="chw")
    np.testing.assert_allclose(votes, expected_percentages(IMAGES.transpose(0, 3, 1, 2)), atol=1e-3)
    assert card.parameters["layout"] == "chw"


@pytest.mark.parametrize("shape", ["nhwc", "nchw", "flat"])
def test_values_are_scaled_and_shifted_by_colour(bring, shape):
    mean, std = (0.5, 0.25, 0.1), (0.2, 0.4, 0.8)
    card, votes = bring(linear_classifier(shape), scale="0-1", mean=mean, std=std)
    values = (IMAGES / 255 - np.array(mean)) / np.array(std)
    order = (0, 3, 1, 2) if shape == "nchw" else (0, 1, 2, 3)
    np.testing.assert_allclose(votes, expected_percentages(values.transpose(order)), atol=1e-3)
    assert (card.parameters["scale"], card.parameters["mean"]) == ("0-1", "0.5, 0.25, 0.1")


@pytest.mark.parametrize("input_type", [TensorProto.UINT8, TensorProto.INT32, TensorProto.DOUBLE, TensorProto.FLOAT16])
def test_the_input_may_be_of_any_numbers(bring, input_type):
    _, votes = bring(linear_classifier("nchw", input_type=input_type))
    np.testing.assert_allclose(votes, expected_percentages(IMAGES.transpose(0, 3, 1, 2)), atol=1e-3)


def test_scores_become_percentages(bring):
    card, votes = bring(linear_classifier(softmax=False))
    np.testing.assert_allclose(votes, expected_percentages(IMAGES), atol=1e-3)
    assert card.parameters["its output"] == "scores"
    assert card.trees == 100


@pytest.mark.parametrize("opset", [7, 12, 13, 18])
def test_operators_of_many_versions_are_taken(bring, opset):
    _, votes = bring(linear_classifier(opset=opset, softmax=False))
    np.testing.assert_allclose(votes, expected_percentages(IMAGES), atol=1e-3)


def test_names_that_the_interface_uses_do_no_harm(bring):
    _, votes = bring(linear_classifier("nchw", names=("pixels", "values")))
    np.testing.assert_allclose(votes, expected_percentages(IMAGES.transpose(0, 3, 1, 2)), atol=1e-3)


def test_a_forest_keeps_its_votes(bring):
    model = forest_to_onnx(forest(), 3_072, FOREST_TAGS, {"made": "elsewhere"})
    card, votes = bring(model, pictures(), tags=FOREST_TAGS, height=32, width=32)
    assert votes.tolist() == [list(map(float, expected)) for expected in FOREST_VOTES]
    assert (card.output, card.trees) == ("votes", 10)


def test_a_second_output_of_another_kind_is_passed_over(bring):
    label = helper.make_node("ArgMax", ["probabilities"], ["label"], axis=1, keepdims=0)
    output = helper.make_tensor_value_info("label", TensorProto.INT64, ["images"])
    _, votes = bring(linear_classifier(extra=(label,), extra_outputs=(output,)))
    np.testing.assert_allclose(votes, expected_percentages(IMAGES), atol=1e-3)


def test_the_same_file_is_the_same_model_and_other_tags_another(bring, storage):
    card, _ = bring(linear_classifier())
    before = files_under(storage.root)
    again, _ = bring(linear_classifier(), licence="another word")
    assert again == card
    assert files_under(storage.root) == before
    other, _ = bring(linear_classifier(), tags=("a", "b", "c"))
    assert other.version != card.version


def test_it_is_measured_as_a_trained_model_is(bring, tmp_path):
    labels = expected_percentages(IMAGES).argmax(axis=1)
    labels[:10] = (labels[:10] + 1) % 3
    path = tmp_path / "test.parquet"
    write_labelled_parquet(path, IMAGES, labels, TAGS)
    card, _ = bring(linear_classifier(), test=str(path), other=str(path), licence="MIT", preparation="cut by hand")
    assert card.test.accuracy == 80.0
    assert card.other.thresholds[0].tagged_with_tag == card.test.thresholds[0].kept
    assert (card.licence, card.preparation) == ("MIT", "cut by hand")
    assert card.origin.startswith("given.onnx, sha256 ")


def test_a_file_at_an_address_is_the_same_model_measured_on_a_set_at_an_address(bring, storage, tmp_path, put):
    path = tmp_path / "test.parquet"
    write_labelled_parquet(path, IMAGES, expected_percentages(IMAGES).argmax(axis=1), TAGS)
    put("/nets/given.onnx", linear_classifier().SerializeToString())
    put("/sets/test.parquet", path.read_bytes())
    request = ImportRequest(
        "memory://nets/given.onnx", TAGS, height=HEIGHT, width=WIDTH, test="memory://sets/test.parquet"
    )
    told: list[str] = []
    there = import_model(request, storage=storage, report=told.append)
    card = ModelCard.load(storage, layout.card_file(there.model))
    assert card.test.accuracy == 100.0
    assert card.origin.startswith("given.onnx, sha256 ")
    assert any(line.startswith("memory://nets/given.onnx: gives probabilities") for line in told)
    assert bring(linear_classifier())[0].version == there.model


# What cannot be used


@pytest.mark.parametrize("content", [b"", b"not a model", b"PK\x03\x04" + bytes(200), bytes(range(256))])
def test_another_kind_of_file_is_refused(bring, storage, content):
    with pytest.raises(BadInputError, match=r"given\.onnx: not an ONNX file"):
        bring(content)
    assert files_under(storage.root) == {}


def test_a_cut_file_is_refused_wherever_it_is_cut(bring):
    whole = linear_classifier().SerializeToString()
    for length in range(0, len(whole), 97):
        with pytest.raises(BadInputError, match=r"given\.onnx: "):
            bring(whole[:length])


def test_a_missing_file_is_named(storage):
    with pytest.raises(BadInputError, match=r"none\.onnx: no such file; give the path of an ONNX file"):
        import_model(ImportRequest("none.onnx", TAGS), storage=storage, report=quiet)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"onnx": "memory://nets/none.onnx"}, "^memory://nets/none.onnx: no such file or folder; correct the address"),
        ({"onnx": "memory://nets/cut.onnx"}, r"^memory://nets/cut\.onnx: not an ONNX file"),
        ({"test": "memory://sets/none.parquet"}, "^memory://sets/none.parquet: no such file or folder"),
    ],
)
def test_what_cannot_be_used_at_an_address_is_named_by_it(storage, put, changes, message):
    put("/nets/cut.onnx", linear_classifier().SerializeToString()[:50])
    with pytest.raises(BadInputError, match=message):
        import_model(ImportRequest(**{"onnx": "memory://nets/cut.onnx", "tags": TAGS, **changes}), storage=storage)
    assert files_under(storage.root) == {}


def with_operator(name: str, domain: str = "") -> onnx.ModelProto:
    model = linear_classifier()
    model.graph.node[-1].op_type = name
    model.graph.node[-1].domain = domain
    if domain:
        model.opset_import.append(helper.make_opsetid(domain, 1))
    return model


BAD_MODELS = {
    "unknown operator": (with_operator("Softmaxx"), "uses the operator Softmaxx, which ONNX does not have"),
    "unknown domain": (with_operator("Think", "org.example"), "fails on images of 4x6 .*Think"),
    "old operators": (linear_classifier(opset=6), "its operators are version 6, too old; export it with 13 or newer"),
    "other size": (linear_classifier(["n", 3, 8, 8]), "input is .x3x8x8, which no image of 4x6 in colour fits"),
    "other values": (linear_classifier(["n", 71]), "its input input is .x71, which no image of 4x6 in colour fits"),
    "grey": (linear_classifier(["n", 1, 4, 6]), "which no image of 4x6 in colour fits"),
    "rank 3": (linear_classifier(["n", 24, 3]), "it must be images x values, images x 3 x height x width, or"),
    "one at a time": (linear_classifier([1, VALUES]), "takes 1 images at a time; export it with a free first dim"),
    "words": (linear_classifier(input_type=TensorProto.STRING), "is string; it must be numbers, such as float"),
    "other tags": (linear_classifier(tags=5), r"no output has 3 numbers, .*; its outputs are probabilities \(.x5\)"),
    "NaN": (
        linear_classifier(softmax=False, bias=np.array([0, np.nan, 0], dtype=np.float32)),
        r"has values that are not finite numbers \(NaN\)",
    ),
    "infinite": (
        linear_classifier(softmax=False, bias=np.array([0, np.inf, 0], dtype=np.float32)),
        "has values that are not finite numbers",
    ),
}


@pytest.mark.parametrize("what", BAD_MODELS)
def test_a_model_that_cannot_be_used_says_why_in_one_line(bring, storage, what):
    model, message = BAD_MODELS[what]
    with pytest.raises(BadInputError, match=rf"given\.onnx: .*{message}") as caught:
        bring(model)
    assert "\n" not in str(caught.value)
    assert files_under(storage.root) == {}


def test_an_image_must_get_the_same_alone_as_in_a_batch(bring):
    mean = helper.make_node("ReduceMean", ["probabilities"], ["shifted"], axes=[0], keepdims=1)
    add = helper.make_node("Sub", ["probabilities", "shifted"], ["relative"])
    output = helper.make_tensor_value_info("relative", TensorProto.FLOAT, ["images", 3])
    model = linear_classifier(extra=(mean, add), extra_outputs=(output,))
    with pytest.raises(BadInputError, match="an image gets other values alone than in a batch; export it for infer"):
        bring(model, output="relative")


def test_one_of_several_outputs_must_be_chosen(bring):
    double = helper.make_node("Identity", ["votes"], ["scores"])
    output = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["images", 3])
    model = linear_classifier(extra=(double,), extra_outputs=(output,))
    with pytest.raises(BadInputError, match=r"has several outputs that fit \(probabilities, scores\); choose by --out"):
        bring(model)
    assert bring(model, output="scores")[0].parameters["its output"] == "scores"
    with pytest.raises(BadInputError, match=r"has no output odds; its outputs are probabilities \(\?x3\), scores"):
        bring(model, output="odds")


def test_an_output_that_is_not_what_it_is_said_to_be_is_refused(bring):
    with pytest.raises(BadInputError, match="its output is not votes: whole numbers that add up to the same"):
        bring(linear_classifier(), kind="votes")
    with pytest.raises(BadInputError, match="is not probabilities: from 0 to 1, and adding up to 1"):
        bring(linear_classifier(softmax=False), kind="probabilities")


def test_an_input_of_whole_numbers_takes_no_scale(bring):
    with pytest.raises(BadInputError, match="its input input is uint8: only the scale 0-255 fits it"):
        bring(linear_classifier(input_type=TensorProto.UINT8), scale="0-1")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tags": ("cat",)}, "tags are cat: give two or more, each once"),
        ({"tags": ("cat", "cat", "dog")}, "tags are cat, cat, dog: give two or more"),
        ({"tags": ("cat", "", "dog")}, "give two or more"),
        ({"name": "No Name"}, "cannot be the name of a model"),
        ({"height": 0}, "height is 0: it must be 1 to 1024"),
        ({"scale": "0-2"}, "scale is '0-2': it must be 0-255 or 0-1"),
        ({"layout": "cwh"}, "layout is 'cwh': it must be hwc or chw"),
        ({"kind": "odds"}, "kind is 'odds': it must be votes or scores or probabilities"),
        ({"mean": (0.5,)}, "mean is .*: it must be three numbers, for red, green and blue"),
        ({"std": (0.5, 0.0, 1.0)}, "std is .*: it must be three numbers"),
        ({"mean": (0.5, float("nan"), 1.0)}, "mean is .*: it must be three numbers"),
    ],
)
def test_a_request_that_no_classifier_can_meet_is_refused(changes, message):
    with pytest.raises(BadInputError, match=message):
        ImportRequest("given.onnx", **{"tags": TAGS, **changes})
