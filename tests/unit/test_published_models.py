"""Published models: stored once, found by name, compared, and used by scoring whatever their kind."""

import json
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from faulty_storage import MODES, FaultyStorage, Killed, files_under
from onnx import TensorProto, helper, numpy_helper
from small_run import CORPUS, MODEL, SparkHere, address_of, card, make_corpus, pictures, publish_model, quiet

from tinytags_tasks.cli import models as models_commands
from tinytags_tasks.errors import BadInputError, CorruptError, FinalError, MissingError
from tinytags_tasks.score import step as score_step
from tinytags_tasks.score.plan import PlanRequest, plan_run
from tinytags_tasks.store import layout
from tinytags_tasks.store.block_files import read_scored
from tinytags_tasks.store.model_figures import share
from tinytags_tasks.store.model_records import (
    ConfidenceBand,
    Evaluation,
    ModelCard,
    OtherEvaluation,
    OtherFigures,
    Probe,
    ThresholdFigures,
)
from tinytags_tasks.store.models import (
    compare_models,
    describe_model,
    list_models,
    load_card,
    load_report,
    misfit,
    model_version,
)
from tinytags_tasks.store.models import publish_model as publish
from tinytags_tasks.store.run_records import Run
from tinytags_tasks.train.import_step import ImportRequest, import_model

TAGS = ("ant", "bee", "cat", "dog")


def evaluation(accuracy: float = 50.0, sha256: str = "1") -> Evaluation:
    figures = ThresholdFigures(threshold=40, votes=4, kept=8, right=6, precision=(75.0,), recall=(50.0,))
    return Evaluation(
        labelled_set="test.parquet", sha256=sha256, images=10, accuracy=accuracy, confusion=(), thresholds=(figures,)
    )


def others(sha256: str = "2") -> OtherEvaluation:
    figures = OtherFigures(threshold=40, votes=4, tagged_without_tag=3, tagged_with_tag=2, right=1)
    return OtherEvaluation(
        labelled_set="other.parquet", sha256=sha256, without_tag=6, with_tag=4, left_out=1, thresholds=(figures,)
    )


def put(storage, version: str, **changes: object) -> ModelCard:
    published = card(**{"version": version, **changes})
    assert publish(published, version.encode(), f"<p>{version}</p>", storage)
    return published


# The store


def test_a_model_is_whole_when_it_appears(storage):
    published = put(storage, "forest-1")
    assert files_under(storage.root) == {
        "models/forest-1/model.onnx": b"forest-1",
        "models/forest-1/report.html": b"<p>forest-1</p>",
        "models/forest-1/model.json": published.stored(),
    }


def test_a_model_that_stands_is_never_changed(storage):
    put(storage, "forest-1")
    before = files_under(storage.root)
    assert not publish(card(version="forest-1", licence="changed"), b"other", "other", storage)
    assert files_under(storage.root) == before


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("fail_at", range(1, 7))  # a lease, three files, the folder, and giving the lease back
def test_publishing_that_dies_leaves_all_or_nothing_and_the_next_tidies_up(storage, mode, fail_at):
    with pytest.raises(Killed):
        publish(card(version="forest-1"), b"model", "report", FaultyStorage(storage, fail_at, mode, Killed))
    assert len(storage.names("models/forest-1")) in (0, 3)
    publish(card(version="forest-1"), b"model", "report", storage)
    assert sorted(files_under(storage.root)) == [
        f"models/forest-1/{name}" for name in ("model.json", "model.onnx", "report.html")
    ]


def test_a_version_is_the_hash_of_the_models_bytes():
    assert model_version("a", b"x") == model_version("a", b"x") != model_version("a", b"y")
    assert model_version("a", b"x").startswith("a-")
    with pytest.raises(BadInputError, match="cannot be the name of a model"):
        model_version("../a", b"x")


def test_models_are_listed_in_the_order_they_were_made(storage):
    assert list_models(storage) == []
    late = put(storage, "a-1", created="2024-03-01T00:00:00+00:00")
    early = put(storage, "b-1", created="2024-01-01T00:00:00+00:00")
    assert list_models(storage) == [early, late]


def test_the_beginning_of_a_version_is_enough_if_only_one_model_begins_with_it(storage):
    one, two, longer = put(storage, "forest-1a"), put(storage, "forest-2"), put(storage, "forest-22")
    assert load_card(storage, "forest-1") == one
    assert load_card(storage, "forest-2") == two
    assert load_card(storage, "forest-22") == longer
    with pytest.raises(BadInputError, match=r"forest: 3 models begin with it \(forest-1a, forest-2, forest-22\)"):
        load_card(storage, "forest")
    with pytest.raises(MissingError, match="net: no such model; `tinytags models list` lists the models"):
        load_card(storage, "net")


def test_a_report_is_read_as_it_was_published_and_a_model_may_have_none(storage):
    put(storage, "forest-1")
    assert load_report(storage, "forest-1") == "<p>forest-1</p>"
    publish_model(storage)
    with pytest.raises(
        MissingError, match=f"model {MODEL} has no report: a version of TinyTags without reports published it"
    ):
        load_report(storage, MODEL)


def test_a_card_from_before_there_were_figures_is_read():
    old = card().model_dump(exclude={"output", "origin", "licence", "held_out", "test", "other"})
    read = ModelCard.model_validate(old)
    assert (read.output, read.licence, read.test, read.held_out, read.other) == ("votes", "", None, None, None)


# For people


def test_a_description_holds_the_figures_and_nothing_that_is_not_known():
    described = describe_model(card(test=evaluation(), other=others(), licence="CC0", parameters={"depth": 6}))
    assert described["test set: accuracy"] == "50.00 % of 10"
    assert described["test set: confidence from 40 %"] == "80.0 % kept, 75.0 % of these right"
    assert described["other things: confidence from 40 %"] == "50.0 % tagged, 20.0 % of these right"
    assert (described["licence"], described["depth"], described["output"]) == ("CC0", "6", "votes of 10 trees")
    assert not {"held out: accuracy", "imported from", "learned from"} & described.keys()
    assert describe_model(card(output="probabilities", trees=100))["output"] == "probabilities"


def test_a_stored_card_from_before_none_and_reliability_is_read_and_described(storage):
    before = card(version="forest-1", test=evaluation(), other=others()).model_dump(
        exclude={"none": True, "background_held_back": True, "probe": True, "test": {"reliability"}}
        | {"other": {"none_without_tag", "none_with_tag", "auroc"}}
    )
    storage.write("models/forest-1/model.json", json.dumps(before).encode())
    read = load_card(storage, "forest-1")
    assert (read.test.reliability, read.test.calibration_error, read.test.none) == ((), None, 0)
    assert (read.other.auroc, read.other.none_without_tag, read.probe) == (None, None, None)
    described = describe_model(read)
    assert described["test set: confidence from 40 %"] == "80.0 % kept, 75.0 % of these right"
    assert not [heading for heading in described if "none" in heading or "calibration" in heading]


def test_a_description_tells_of_none_calibration_and_preparation():
    band = ConfidenceBand(confidence=70, images=9, right=6, mean_confidence=76.67)
    test = evaluation().replaced(confusion=((4, 1, 1), (2, 2, 0)), reliability=(band,))
    other = others().replaced(none_without_tag=2, none_with_tag=1, auroc=0.8765)
    background = others().replaced(with_tag=0, none_without_tag=5)
    probe = Probe(corpus="photos", corpus_digest="d", labelled_images=50, corpus_images=60, auroc=0.97)
    known = card(none=True, test=test, other=other, background_held_back=background, probe=probe)
    described = describe_model(known)
    assert described["test set: none"] == "10.0 % called none of the tags"
    assert described["test set: calibration error"] == "10.00 %"
    assert described["other things: tag against none"] == "AUROC 0.876"
    assert described["other things: none"] == "33.3 % of the 6 images of no tag"
    assert described["background held back: none"] == "83.3 % of the 6 images of no tag"
    assert "in different ways" in described["preparation of corpus photos"]
    alike = describe_model(known.replaced(probe=probe.replaced(auroc=0.5)))
    assert alike["preparation of corpus photos"] == "like that of the labelled images (AUROC 0.50)"


def test_the_list_shows_how_much_is_kept_and_how_much_of_it_is_right(storage, monkeypatch, capsys):
    monkeypatch.setattr(models_commands, "clients", lambda: SimpleNamespace(storage=storage))
    monkeypatch.setenv("COLUMNS", "150")
    put(storage, "forest-1", test=evaluation(), other=others().replaced(auroc=0.8765))
    put(storage, "forest-2")
    models_commands.list_models()
    shown = capsys.readouterr().out
    (line,) = [line for line in shown.splitlines() if "forest-1" in line]
    assert [each.strip() for each in line.split("│")[6:10]] == ["50.00 %", "80.0 %", "75.0 %", "0.876"]
    assert "right: of these" in shown


def test_a_share_of_nothing_is_a_dash():
    assert (share(1, 3), share(0, 5), share(0, 0)) == ("33.3 %", "0.0 %", "-")


def test_models_are_set_side_by_side_with_what_one_lacks_left_empty():
    one, two = card(version="a", test=evaluation(40.0), parameters={"depth": 6}), card(version="b", other=others())
    rows, remarks = compare_models(one, two)
    found = {heading: texts for heading, *texts in rows}
    assert found["test set: accuracy"] == ["40.00 % of 10", ""]
    assert found["other things: confidence from 40 %"] == ["", "50.0 % tagged, 20.0 % of these right"]
    assert found["depth"] == ["6", ""]
    assert remarks == []


def test_what_keeps_models_from_being_compared_is_said():
    one = card(test=evaluation(), other=others())
    two = card(test=evaluation(sha256="9"), other=others(sha256="9"), tags=("x", "y"), height=64)
    _, remarks = compare_models(one, two)
    assert [remark.partition(" differ")[0] for remark in remarks] == [
        "their tags",
        "their image sizes",
        "their test sets",
        "their images of other things",
    ]


# A classifier that is not a forest tags a corpus


def logistic_classifier(tmp_path, bias: float = 0.0) -> tuple[str, np.ndarray]:
    """Write a linear classifier of 32x32 images; return its path and its probabilities for the pictures."""
    factor = np.random.default_rng(3).normal(0, 0.01, (3_072, len(TAGS))).astype(np.float32)
    constant = np.full(len(TAGS), bias, dtype=np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["x", "factor", "constant"], ["scores"]),
            helper.make_node("Softmax", ["scores"], ["y"], axis=1),
        ],
        "logistic",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3_072])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", len(TAGS)])],
        [numpy_helper.from_array(factor, "factor"), numpy_helper.from_array(constant, "constant")],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), tmp_path / "net.onnx"
    )
    scores = (pictures().reshape(-1, 3_072) / 255) @ factor.astype(np.float64)
    shares = np.exp(scores - scores.max(axis=1, keepdims=True))
    return str(tmp_path / "net.onnx"), shares / shares.sum(axis=1, keepdims=True)


def scored_rows(storage, model: str, threshold: int) -> tuple[Run, dict[int, tuple]]:
    planned = plan_run(PlanRequest(CORPUS, model, threshold), storage=storage)
    run = Run.load(storage, layout.run_file(planned.run))
    blocks = tuple(range(run.blocks))
    request = score_step.ScoreRequest(run.name, blocks)
    score_step.score_blocks(
        request, storage=storage, address=address_of(storage), connect_spark=SparkHere(), report=quiet
    )
    rows = [row for block in blocks for row in read_scored(storage, run.name, block)[0].to_pylist()]
    return run, {row["position"]: (row["tag"], row["votes"], row["accuracy"]) for row in rows}


@pytest.mark.parametrize(("threshold", "kept"), [(0, 11), (30, 8), (33, 6), (90, 0)])
def test_blocks_are_scored_by_an_imported_classifier_in_percent(tmp_path, storage, threshold, kept):
    make_corpus(storage)
    path, probabilities = logistic_classifier(tmp_path)
    model = import_model(ImportRequest(path, TAGS, scale="0-1"), storage=storage, report=quiet).model
    run, found = scored_rows(storage, model, threshold)
    percent = np.floor(100 * probabilities.max(axis=1)).astype(int)
    assert found == {
        position: (TAGS[probabilities[position].argmax()], accuracy, accuracy)
        for position, accuracy in enumerate(percent.tolist())
        if accuracy >= threshold
    }
    assert run.model == model
    assert len(found) == kept


def test_values_that_are_no_number_in_a_block_are_never_committed(tmp_path, storage):
    make_corpus(storage)
    path, _ = logistic_classifier(tmp_path)
    good = import_model(ImportRequest(path, TAGS), storage=storage, report=quiet).model
    stored = onnx.load_from_string(storage.read(layout.model_file(good)))
    for constant in stored.graph.initializer:
        if constant.name == "imported/constant":
            constant.CopyFrom(numpy_helper.from_array(np.full(4, np.nan, dtype=np.float32), constant.name))
    content = stored.SerializeToString()
    model = model_version("bad", content)
    publish(load_card(storage, good).replaced(version=model), content, "", storage)
    with pytest.raises(FinalError, match="its votes do not add up to 100"):
        scored_rows(storage, model, 40)
    assert [path for path in files_under(storage.root) if "/scored/" in path] == []


@pytest.mark.parametrize("damage", [b"another network", None])
def test_an_imported_model_whose_file_was_replaced_or_lost_is_restored_by_importing_it_again(tmp_path, storage, damage):
    make_corpus(storage)
    path, _ = logistic_classifier(tmp_path)
    told = []
    model = import_model(ImportRequest(path, TAGS), storage=storage, report=quiet).model
    before = files_under(storage.root)
    storage.delete(layout.model_file(model))
    if damage:
        storage.write(layout.model_file(model), damage)
    with pytest.raises(FinalError, match=rf"models/{model}/model\.onnx: .* train or import the same model again"):
        scored_rows(storage, model, 40)
    assert import_model(ImportRequest(path, TAGS), storage=storage, report=told.append).imported is False
    assert any("its file was missing or damaged, and is written again" in line for line in told)
    after = files_under(storage.root)
    assert {path: after[path] for path in after if path in before or "models/" in path} == before
    scored_rows(storage, model, 30)


def test_a_damaged_card_is_told_by_its_path(storage):
    put(storage, "forest-1")
    storage.write(layout.card_file("forest-1"), b"{")
    with pytest.raises(CorruptError, match=r"models/forest-1/model\.json: no usable ModelCard"):
        list_models(storage)


# Whether a model fits


def test_a_model_fits_a_corpus_of_the_same_images_and_says_why_it_fits_no_other(storage):
    corpus = make_corpus(storage)
    assert misfit(card(), corpus) == ""
    assert misfit(card(height=64), corpus) == "its image size is (64, 32, 3), but that of the corpus is (32, 32, 3)"
    assert "its pixel order is planes, but that of the corpus is row-major HWC" in misfit(
        card(pixel_order="planes"), corpus
    )
