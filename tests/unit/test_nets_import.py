"""Nets from elsewhere: each gets the interface of a net, or one line says why it cannot be used."""

import re
import sys
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
from faulty_storage import files_under
from foreign_nets import DIMENSIONS, HEIGHT, WIDTH, conv_net, token_net
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from small_run import quiet

from tinytags_tasks import cli
from tinytags_tasks.cli import net_import
from tinytags_tasks.corpus.definition import make_definition
from tinytags_tasks.corpus.demo.make import write_labelled_parquet
from tinytags_tasks.corpus.sources.files import SourceFiles
from tinytags_tasks.errors import BadInputError
from tinytags_tasks.ingest.step import ingest_corpus
from tinytags_tasks.nets import arithmetic
from tinytags_tasks.nets.calibration import corpus_pictures, resized
from tinytags_tasks.nets.catalogue import load_net_card, read_net
from tinytags_tasks.nets.graph import embedding_graph
from tinytags_tasks.nets.importing import NetImport, import_net
from tinytags_tasks.nets.ranking import Ranking, compare_rankings
from tinytags_tasks.nets.running import embed, open_session

MEAN, STD = (0.5, 0.25, 0.1), (0.2, 0.4, 0.8)


def patches(count: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Return smooth pictures: noise alone looks all alike to a net that averages."""
    rng = np.random.default_rng(3)
    coarse = rng.integers(0, 256, (count, 3, 3, 3)).astype(float)
    rows, columns = np.linspace(0, 2, height), np.linspace(0, 2, width)
    pictures = coarse[:, np.rint(rows).astype(int)][:, :, np.rint(columns).astype(int)]
    return np.clip(pictures + rng.normal(0, 12, pictures.shape), 0, 255).astype(np.uint8)


PICTURES = patches(128)


@pytest.fixture
def bring(tmp_path, storage):
    """Import a network; return its card, its float embeddings of the pictures, and what was reported."""

    def bring_in(model: onnx.ModelProto | bytes, pictures: np.ndarray = PICTURES, **changes: object):
        path = tmp_path / "given.onnx"
        path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
        request = NetImport(str(path), **{"name": "given", "arithmetic": "float32", **changes})
        said: list[str] = []
        result = import_net(request, lambda height, width: pictures, "a test", storage=storage, report=said.append)
        seen = resized(pictures, result.card.height, result.card.width)
        return result.card, run(read_net(storage, result.card.version), seen), said

    return bring_in


def run(net: bytes, pictures: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(net, providers=["CPUExecutionProvider"])
    return session.run(["embedding"], {"pixels": pictures})[0]


def expected(model: onnx.ModelProto, images: np.ndarray, output: str = "features") -> np.ndarray:
    """Return what a network gives as it is, in batches as large as it takes."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    at_once = session.get_inputs()[0].shape[0]
    step = at_once if isinstance(at_once, int) else len(images)
    parts = [session.run([output], {"images": images[at : at + step]})[0] for at in range(0, len(images), step)]
    return np.concatenate(parts)


def scaled(pictures: np.ndarray = PICTURES) -> np.ndarray:
    values = (pictures / 255 - np.array(MEAN)) / np.array(STD)
    return values.transpose(0, 3, 1, 2).astype(np.float32)


SCALED = {"scale": "0-1", "mean": MEAN, "std": STD}


# The interface of a net


def test_planes_of_floats_get_the_mean_and_deviation_that_they_learned_with(bring):
    card, embeddings, _ = bring(conv_net(), **SCALED)
    np.testing.assert_allclose(embeddings, expected(conv_net(), scaled()), rtol=1e-3, atol=1e-4)
    assert (card.height, card.width, card.dimensions, card.arithmetic) == (HEIGHT, WIDTH, DIMENSIONS, "float32")
    assert (card.parameters["layout"], card.parameters["mean"]) == ("chw", "0.5, 0.25, 0.1")


def test_a_net_may_take_bytes_with_colours_last(bring):
    model = conv_net(sizes=("n", HEIGHT, WIDTH, 3), colours_last=True, input_type=TensorProto.UINT8)
    card, embeddings, _ = bring(model)
    np.testing.assert_allclose(embeddings, expected(model, PICTURES), rtol=1e-3, atol=1e-4)
    assert card.parameters["layout"] == "hwc"


def test_a_net_of_any_size_takes_the_size_that_is_given(bring):
    model = conv_net(sizes=("n", 3, "h", "w"))
    with pytest.raises(BadInputError, match=r"takes pictures of any size; give the --height and --width"):
        bring(model)
    card, embeddings, _ = bring(model, height=HEIGHT, width=WIDTH, **SCALED)
    np.testing.assert_allclose(embeddings, expected(model, scaled()), rtol=1e-3, atol=1e-4)
    assert (card.height, card.width) == (HEIGHT, WIDTH)


@pytest.mark.parametrize("opset", [9, 13, 21])
def test_operators_of_many_versions_are_taken(bring, opset):
    model = conv_net(opset=opset)
    _, embeddings, _ = bring(model, **SCALED)
    np.testing.assert_allclose(embeddings, expected(model, scaled()), rtol=1e-3, atol=1e-4)


def test_a_map_of_places_is_averaged(bring):
    model = conv_net(pooled=False, outputs=("map",))
    card, embeddings, _ = bring(model, **SCALED)
    np.testing.assert_allclose(embeddings, expected(model, scaled(), "map").mean((2, 3)), rtol=1e-3, atol=1e-4)
    assert card.parameters["pooled"] == "mean of 6x5 places"


def test_a_map_with_values_last_is_averaged_too(bring):
    last = helper.make_node("Transpose", ["map"], ["map_last"], perm=[0, 2, 3, 1])
    sizes = ("n", HEIGHT, WIDTH, 3)
    model = conv_net(sizes=sizes, colours_last=True, pooled=False, outputs=("map_last",), extra=(last,))
    card, embeddings, _ = bring(model, **SCALED)
    images = scaled().transpose(0, 2, 3, 1).copy()
    np.testing.assert_allclose(embeddings, expected(model, images, "map_last").mean((1, 2)), rtol=1e-3, atol=1e-4)
    assert card.dimensions == DIMENSIONS


@pytest.mark.parametrize(("tokens", "pick"), [("first", lambda rows: rows[:, 0]), ("mean", lambda rows: rows.mean(1))])
def test_a_token_is_chosen_or_all_are_averaged(bring, tokens, pick):
    with pytest.raises(
        BadInputError, match=r"31x16 for each image: 31 tokens; choose by --tokens first .* or --tokens"
    ):
        bring(token_net())
    card, embeddings, _ = bring(token_net(), tokens=tokens, **SCALED)
    rows = expected(token_net(), scaled(), "last_hidden_state")
    np.testing.assert_allclose(embeddings, pick(rows), rtol=1e-3, atol=1e-4)
    assert "31 tokens" in card.parameters["pooled"]


def test_one_of_several_outputs_is_chosen(bring):
    model = conv_net(outputs=("features", "map"))
    message = r"several outputs could be the embedding: features \(.*\), map \(.*\); choose one by --output"
    with pytest.raises(BadInputError, match=message):
        bring(model)
    card, embeddings, _ = bring(model, output="features", **SCALED)
    np.testing.assert_allclose(embeddings, expected(model, scaled()), rtol=1e-3, atol=1e-4)
    assert card.parameters["output"] == "features"
    with pytest.raises(BadInputError, match=r"has no output logits; its outputs are features"):
        bring(model, output="logits")


@pytest.mark.parametrize("images", [1, 4])
@pytest.mark.parametrize("folded", [True, False])
def test_a_fixed_number_of_images_becomes_any_number(bring, images, folded):
    model = token_net(images, folded=folded)
    card, embeddings, _ = bring(model, tokens="first", **SCALED)
    rows = expected(model, scaled(), "last_hidden_state")
    np.testing.assert_allclose(embeddings, rows[:, 0], rtol=1e-3, atol=1e-4)
    assert card.parameters["exported for images"] == images


def test_a_number_of_images_that_cannot_be_freed_says_what_to_export(bring, storage):
    mean = helper.make_node("Slice", ["features", "begin", "end"], ["first_two"])
    again = helper.make_node("Concat", ["first_two", "first_two"], ["doubled"], axis=0)
    bounds = (numpy_helper.from_array(np.array([0]), "begin"), numpy_helper.from_array(np.array([2]), "end"))
    model = conv_net(sizes=(4, 3, HEIGHT, WIDTH), outputs=("doubled",), extra=(mean, again), constants=bounds)
    message = r"takes 4 images at a time, and cannot be changed to take any number .*; export it with a free first dim"
    with pytest.raises(BadInputError, match=message):
        bring(model)
    assert files_under(storage.root) == {}


# Whole numbers


def test_one_whole_number_of_an_embedding_is_127th_of_the_quantile_of_calibration(bring):
    card, embeddings, _ = bring(conv_net(), **SCALED)
    assert card.scale == pytest.approx(np.quantile(np.abs(embeddings[::2]), 0.9995) / 127, rel=1e-4)
    assert (embeddings < 0).any()
    assert card.figures["neighbours shared once rounded"] > 0.9


def test_the_pipeline_sees_the_net_in_any_size_of_picture(bring, storage):
    larger = patches(80, 30, 20)
    card, _, _ = bring(conv_net(), larger, **SCALED)
    graph = embedding_graph(read_net(storage, card.version), card, 30, 20)
    whole = embed(open_session(graph, "a test"), larger.reshape(80, -1))
    assert (whole.dtype, whole.shape) == (np.int8, (80, DIMENSIONS))
    assert whole.min() < 0


def test_int8_is_taken_where_it_keeps_the_ranking_and_the_card_says_how_well(bring):
    card, _, said = bring(conv_net(), arithmetic="auto", **SCALED)
    assert card.arithmetic == "int8"
    assert card.figures["neighbours shared by int8"] >= 0.8
    assert card.figures["rank correlation of int8"] >= 0.98
    assert card.parameters["in int8"] == "all operators"
    assert any("% of neighbours shared" in line for line in said)


def test_int8_that_ranks_worse_stays_in_float32_or_is_refused(bring, storage, monkeypatch):
    monkeypatch.setattr(arithmetic, "compare_rankings", lambda one, other: Ranking(0.7, 0.99))
    with pytest.raises(BadInputError, match=r"int8 ranks pictures worse than float32 .*70\.0 %.*--arithmetic float32"):
        bring(conv_net(), arithmetic="int8", **SCALED)
    assert files_under(storage.root) == {}
    card, _, said = bring(conv_net(), arithmetic="auto", **SCALED)
    assert card.arithmetic == "float32"
    assert said[-1].startswith("stays in float32: int8 ranks pictures worse")


def test_a_ranking_is_kept_by_the_same_embeddings_and_lost_by_others():
    embeddings = np.random.default_rng(0).normal(size=(60, 8))
    same = compare_rankings(embeddings, embeddings * 3)
    assert (same.shared, same.correlation, same.is_kept) == (1.0, pytest.approx(1.0), True)
    other = compare_rankings(embeddings, np.random.default_rng(1).normal(size=(60, 8)))
    assert other.shared < 0.4
    assert abs(other.correlation) < 0.2
    assert not other.is_kept


# The store


def test_the_same_file_is_the_same_net_and_another_calibration_another(bring, storage):
    card, _, _ = bring(conv_net(), **SCALED)
    before = files_under(storage.root)
    again, _, said = bring(conv_net(), licence="another word", **SCALED)
    assert files_under(storage.root) == before
    assert again.version == card.version
    assert said[-1] == f"net {card.version} is published already: its card is not changed"
    darker, _, _ = bring(conv_net(), PICTURES // 2, **SCALED)
    assert darker.version != card.version
    assert load_net_card(storage, card.version).scale != darker.scale


def test_the_card_says_where_it_came_from(bring):
    card, _, _ = bring(conv_net(), licence="MIT", preparation="cut by hand", **SCALED)
    assert (card.licence, card.preparation) == ("MIT", "cut by hand")
    assert card.origin.startswith("given.onnx, sha256 ")
    assert card.parameters["calibrated on"] == "128 pictures from a test"


# What cannot be used


def with_bias(value: float) -> onnx.ModelProto:
    model = conv_net()
    bias = next(tensor for tensor in model.graph.initializer if tensor.name == "bias")
    bias.CopyFrom(numpy_helper.from_array(np.full(8, value, dtype=np.float32), "bias"))
    return model


def with_second_input() -> onnx.ModelProto:
    model = conv_net()
    model.graph.input.append(helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["n", 77]))
    return model


def with_second_conv_of_zeros() -> onnx.ModelProto:
    model = conv_net()
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "second")
    weight.CopyFrom(numpy_helper.from_array(np.zeros((DIMENSIONS, 8, 3, 3), dtype=np.float32), "second"))
    return model


BAD_NETS = {
    "text as well": (with_second_input(), {}, "must have one input, a tensor of images; it has images, input_ids"),
    "NaN": (with_bias(np.nan), {}, r"has values that are not finite numbers \(NaN\)"),
    "other size": (conv_net(), {"height": 8, "width": 8}, "which no image of 8x8 in colour fits"),
    "bytes with a mean": (
        conv_net(sizes=("n", HEIGHT, WIDTH, 3), colours_last=True, input_type=TensorProto.UINT8),
        SCALED,
        "is uint8: only the scale 0-255 fits it",
    ),
    "always the same": (with_second_conv_of_zeros(), {}, "is the same for every image; choose another by --output"),
}


@pytest.mark.parametrize("what", BAD_NETS)
def test_a_net_that_cannot_be_used_says_why_in_one_line(bring, storage, what):
    model, changes, message = BAD_NETS[what]
    with pytest.raises(BadInputError, match=rf"given\.onnx: .*{message}") as caught:
        bring(model, **changes)
    assert "\n" not in str(caught.value)
    assert files_under(storage.root) == {}


def test_weights_in_another_file_must_be_beside_it(bring, tmp_path, storage):
    path = tmp_path / "split.onnx"
    onnx.save(conv_net(), path, save_as_external_data=True, location="split.onnx.data", size_threshold=0)
    read = dict(read_pictures=lambda height, width: PICTURES, pictures_from="a test", storage=storage, report=quiet)
    request = NetImport(str(path), "split", arithmetic="float32", **SCALED)
    whole, _, _ = bring(conv_net(), name="split", **SCALED)
    assert import_net(request, **read).card.scale == whole.scale
    (tmp_path / "split.onnx.data").unlink()
    message = r"split\.onnx: keeps its weights in split\.onnx\.data, which is not beside it; put both into one folder"
    with pytest.raises(BadInputError, match=message):
        import_net(request, **read)


def test_too_few_pictures_are_refused(bring):
    with pytest.raises(BadInputError, match="63 pictures are too few to calibrate a net on; give 64 or more"):
        bring(conv_net(), PICTURES[:63])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "No Name"}, "cannot be the name of a net"),
        ({"scale": "0-2"}, "scale is '0-2': it must be 0-255 or 0-1"),
        ({"std": (1, 0, 1)}, "std is .*: it must be three numbers"),
        ({"tokens": "last"}, "tokens is 'last': it must be first or mean"),
        ({"arithmetic": "int4"}, "arithmetic is 'int4': it must be auto or int8 or float32"),
        ({"height": 4096}, "height is 4096: it must be from 1 to 1,024"),
    ],
)
def test_options_that_fit_no_net_are_named(changes, message):
    with pytest.raises(BadInputError, match=message):
        NetImport("given.onnx", **{"name": "given", **changes})


# The command


@pytest.fixture
def command(storage, tmp_path, monkeypatch, capsys):
    """Return a function that imports the small net by the command line, and returns its code, output and errors."""
    (tmp_path / "given.onnx").write_bytes(conv_net().SerializeToString())
    monkeypatch.setattr(net_import, "clients", lambda: SimpleNamespace(storage=storage, files_at=SourceFiles))
    scaled_by = ("--scale", "0-1", "--mean", "0.5,0.25,0.1", "--std", "0.2,0.4,0.8")

    def run_command(*words: str, file: str = str(tmp_path / "given.onnx")) -> tuple[int, str, str]:
        words = (file, "--name", "given", *scaled_by, *words)
        monkeypatch.setattr(sys, "argv", ["tinytags", "nets", "import", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    return run_command


def test_the_command_calibrates_on_a_labelled_set(command, storage, tmp_path):
    path = tmp_path / "pets.parquet"
    write_labelled_parquet(path, patches(100, 32, 32), np.arange(100) % 2, ("cat", "dog"))
    code, printed, errors = command("--labelled", str(path))
    card = load_net_card(storage, "given")
    assert (code, printed) == (0, f"{card.version}\n"), errors
    assert card.parameters["calibrated on"] == "100 pictures from pets.parquet"
    assert "rank correlation" in errors


def test_the_command_takes_a_net_and_a_labelled_set_at_addresses(command, storage, tmp_path, put):
    path = tmp_path / "pets.parquet"
    write_labelled_parquet(path, patches(100, 32, 32), np.arange(100) % 2, ("cat", "dog"))
    put("/sets/pets.parquet", path.read_bytes())
    put("/nets/given.onnx", (tmp_path / "given.onnx").read_bytes())
    code, printed, errors = command("--labelled", "memory://sets/pets.parquet", file="memory://nets/given.onnx")
    card = load_net_card(storage, "given")
    assert (code, printed) == (0, f"{card.version}\n"), errors
    assert card.parameters["calibrated on"] == "100 pictures from pets.parquet"
    assert card.origin.startswith("given.onnx, sha256 ")
    assert "memory://nets/given.onnx: takes chw pictures of" in errors
    assert command("--labelled", str(path))[1] == printed


def test_the_command_calibrates_on_a_corpus_and_leaves_out_what_is_unreadable(command, storage, tmp_path):
    folder = tmp_path / "photos" / "things"
    folder.mkdir(parents=True)
    for number, picture in enumerate(patches(90, 32, 32)):
        Image.fromarray(picture).save(folder / f"{number:03}.png")
    (folder / "050.png").write_bytes(b"broken")
    source = {"source": str(tmp_path / "photos"), "format": "folder", "most_unreadable_percent": 50}
    ingest_corpus(make_definition("photos", source), storage=storage, report=quiet)
    assert corpus_pictures(storage, "photos").shape == (89, 32, 32, 3)
    assert corpus_pictures(storage, "photos").reshape(89, -1).any(axis=1).all()
    code, printed, errors = command("--corpus", "photos")
    assert code == 0, errors
    assert load_net_card(storage, printed.strip()).parameters["calibrated on"] == "89 pictures from corpus photos"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "give pictures to calibrate the net on: --corpus .* or --labelled"),
        (("--corpus", "photos", "--labelled", "pets.parquet"), "give pictures to calibrate the net on"),
        (("--corpus", "photos"), "photos"),
        (("--labelled", "missing.parquet"), "missing.parquet: no such file"),
        (("--labelled", "memory://sets/missing"), "memory://sets/missing: no such file or folder; correct the address"),
        (("--labelled", "pets.parquet", "--mean", "a,b"), "--mean is 'a,b': write numbers with commas between"),
    ],
)
def test_what_the_command_cannot_use_is_one_line(command, storage, words, message):
    code, _, errors = command(*words)
    assert code == 2
    assert re.search(message, errors.splitlines()[-1])
    assert "Traceback" not in errors
    assert files_under(storage.root) == {}
