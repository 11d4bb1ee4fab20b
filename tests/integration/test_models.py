"""Models on the real engines: the same training gives the same votes; other classifiers than forests tag a corpus."""

import json
import re
import subprocess
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import DEPTH, IMAGES, assert_one_error_line
from onnx import TensorProto, helper, numpy_helper
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from tinytags_tasks.corpus.definition import make_definition
from tinytags_tasks.corpus.demo.drawn import SHAPES, draw_pictures
from tinytags_tasks.ingest.step import ingest_corpus
from tinytags_tasks.nets.running import open_session
from tinytags_tasks.runtime import Runtime
from tinytags_tasks.store import layout
from tinytags_tasks.store.block_files import read_scored
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.ledger import Totals, add_up, read_ledger
from tinytags_tasks.store.model_records import ModelCard
from tinytags_tasks.store.models import read_model
from tinytags_tasks.store.review_log import append_words
from tinytags_tasks.store.review_records import Verdict, Word
from tinytags_tasks.store.run_records import Run
from tinytags_tasks.train.evaluation import count_votes
from tinytags_tasks.train.step import TrainRequest, train_model
from tinytags_tasks.votes import decide

Command = Callable[..., subprocess.CompletedProcess[str]]


def card_of(runtime: Runtime, model: str) -> ModelCard:
    return ModelCard.load(runtime.storage, layout.card_file(model))


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, LogisticRegression]:
    """A logistic regression that was fitted in scikit-learn, and its ONNX file."""
    ((images, labels),) = draw_pictures(900, seed=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # it need not be good
        regression = LogisticRegression(max_iter=25).fit(images.reshape(len(images), -1) / 255, labels)
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["x", "weights", "biases"], ["scores"]),
            helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1),
        ],
        "logistic",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["images", 3_072])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["images", len(SHAPES)])],
        [
            numpy_helper.from_array(regression.coef_.T.astype(np.float32), "weights"),
            numpy_helper.from_array(regression.intercept_.astype(np.float32), "biases"),
        ],
    )
    path = tmp_path_factory.mktemp("net") / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path, regression


def test_the_same_images_parameters_and_seed_give_the_same_votes(runtime, model, pictures):
    again = train_model(
        TrainRequest(
            str(pictures["labelled"]), features="pixels", head="forest", depth=DEPTH, name="again", held_out=0
        ),
        storage=runtime.storage,
        connect_spark=runtime.connect_spark,
    )
    assert again.trained
    assert again.model.removeprefix("again-") == model.removeprefix("forest-")  # the hash of its bytes
    assert card_of(runtime, again.model).held_out is None


@pytest.mark.parametrize("head", ["logistic", "forest"])
def test_a_head_on_embeddings_is_the_same_in_every_fit_and_its_images_are_embedded_once(runtime, pictures, head):
    spoken: list[str] = []
    models = [
        train_model(
            TrainRequest(str(pictures["labelled"]), head=head, name=f"{head}-{number}", held_out=held_out),
            storage=runtime.storage,
            connect_spark=runtime.connect_spark,
            report=spoken.append,
        ).model
        for number, held_out in (("one", 10), ("two", 0))  # what is held out changes the figures, not the model
    ]
    assert len({model.rpartition("-")[2] for model in models}) == 1  # the hash of their bytes
    assert len([line for line in spoken if line.startswith("embedding 900 images")]) <= 1
    cards = [card_of(runtime, model) for model in models]
    assert "embed" not in cards[1].seconds
    assert cards[0].held_out.accuracy > 50.0  # of six shapes
    general = cards[0].background.images
    assert general == 4 * cards[0].labelled_images if head == "forest" else general > 10_000
    assert (cards[0].features, cards[0].head, cards[0].none) == ("general32-e278f193f89b", head, True)


@pytest.mark.parametrize("head", ["logistic", "forest"])
def test_reviews_of_scribbles_teach_none_and_the_same_reviews_give_the_same_model(runtime, pictures, head):
    fields = {"source": str(pictures["corpus"]), "format": "tiny-images", "shard_images": 600, "blocks_per_shard": 3}
    ingest_corpus(make_definition("reviewed", fields), storage=runtime.storage)
    corpus = Corpus.load(runtime.storage, layout.corpus_file("reviewed"))
    ((images, labels),) = draw_pictures(
        IMAGES, seed=1, batch=IMAGES, scribbles=0.25
    )  # the content of the fixture's file
    reviewed, others = np.arange(IMAGES // 2), np.arange(IMAGES // 2, IMAGES)
    words = [
        Word(position, Verdict.NONE) if labels[position] < 0 else Word(position, Verdict.TAG, SHAPES[labels[position]])
        for position in reviewed.tolist()
    ]
    append_words(corpus, words, by="ada", storage=runtime.storage)

    def train(name: str, **changes: str) -> ModelCard:
        request = TrainRequest(str(pictures["labelled"]), head=head, name=name, held_out=0, **changes)
        trained = train_model(request, storage=runtime.storage, connect_spark=runtime.connect_spark)
        return card_of(runtime, trained.model)

    def wrong(card: ModelCard) -> float:
        votes = count_votes(runtime.storage.read(layout.model_file(card.version)), images[others])
        expected = np.where(labels[others] < 0, len(SHAPES), labels[others])
        return float((votes.argmax(axis=1) != expected).mean())

    before, after = train(f"{head}-plain"), train(f"{head}-reviewed", reviews="reviewed")
    assert after.reviews.words == len(reviewed)
    assert after.reviews.none == (labels[reviewed] < 0).sum()
    assert wrong(after) < wrong(before) / 2
    again = train(f"{head}-again", reviews="reviewed")
    assert again.version.rpartition("-")[2] == after.version.rpartition("-")[2]  # the hash of their bytes


def test_a_trained_model_knows_how_it_does_on_what_it_never_saw(runtime, model):
    card = card_of(runtime, model)
    assert card.held_out.images == 90
    assert sum(map(sum, card.held_out.confusion)) == 90
    assert 100 / len(SHAPES) < card.held_out.accuracy < card.metrics["training_accuracy"]


def test_a_model_may_be_for_images_of_another_size(runtime, pictures):
    labelled = str(pictures["labelled"])
    request = TrainRequest(
        labelled, labelled, "small", features="pixels", head="forest", trees=3, depth=4, height=12, width=20
    )
    card = card_of(runtime, train_model(request, storage=runtime.storage, connect_spark=runtime.connect_spark).model)
    assert (card.height, card.width) == (12, 20)
    stored = onnx.load_from_string(runtime.storage.read(layout.model_file(card.version)))
    assert stored.graph.input[0].type.tensor_type.shape.dim[1].dim_value == 12 * 20 * 3
    assert card.test.accuracy == card.metrics["training_accuracy"]


def test_models_are_shown_with_a_report_and_set_side_by_side(runtime, model, tinytags_here: Command, tmp_path):
    shown = tinytags_here("models", "show", model[:-3], "--report", str(tmp_path / "report.html"), "--json")
    assert shown.returncode == 0, shown.stderr
    assert json.loads(shown.stdout)["version"] == model
    assert model in (tmp_path / "report.html").read_text()
    assert model in tinytags_here("models", "list").stdout
    listed = json.loads(tinytags_here("models", "list", "--json").stdout)
    assert model in [card["version"] for card in listed]
    compared = tinytags_here("models", "compare", model, listed[0]["version"])
    assert compared.returncode == 0, compared.stderr
    assert "held out: accuracy" in re.sub(r"\s+", " ", compared.stdout)


def test_parameters_that_the_lab_chose_are_those_that_spark_learns_with(runtime, pictures, tinytags_here, tmp_path):
    chosen = tmp_path / "chosen.toml"
    tried = tinytags_here(
        *("lab", str(pictures["labelled"]), "--sample", "300", "--trees", "2,3", "--depth", "3", "--cv", "2"),
        *("--seed", "7", "--out", str(chosen), "--json"),
    )
    assert tried.returncode == 0, tried.stderr
    best = json.loads(tried.stdout)[0]
    trained = tinytags_here(
        *("train", str(pictures["labelled"]), "--features", "pixels", "--head", "forest"),
        *("--parameters", str(chosen), "--bins", "20", "--held-out", "0"),
    )
    assert trained.returncode == 0, trained.stderr
    card = card_of(runtime, trained.stdout.strip())
    found = {name: card.parameters[name] for name in ("trees", "depth", "bins", "seed")}
    assert found == {"trees": best["trees"], "depth": 3, "bins": 20, "seed": 7}


def test_a_classifier_that_is_no_forest_tags_a_corpus(runtime, pictures, net, tinytags_here: Command):
    path, regression = net
    fields = {"source": str(pictures["corpus"]), "format": "tiny-images", "shard_images": 600, "blocks_per_shard": 3}
    ingest_corpus(make_definition("netted", fields), storage=runtime.storage)
    brought = tinytags_here(
        *("models", "import", str(path), "--tags", ", ".join(SHAPES), "--name", "logistic", "--scale", "0-1"),
        *("--test", str(pictures["labelled"]), "--licence", "CC0"),
    )
    assert brought.returncode == 0, brought.stderr
    model = brought.stdout.strip()
    scored = tinytags_here("score", "netted", "--model", model, "--threshold", "40")
    assert scored.returncode == 0, scored.stderr
    run = Run.load(runtime.storage, layout.run_file(scored.stdout.strip()))

    ((images, _),) = draw_pictures(IMAGES, seed=1, batch=IMAGES, scribbles=0.25)  # the content of the fixture's file
    percent = 100 * regression.predict_proba(images.reshape(IMAGES, -1) / 255)
    rows = [row for block in range(run.blocks) for row in read_scored(runtime.storage, run.name, block)[0].to_pylist()]
    unsure = {at for at, of_image in enumerate(percent) if abs(of_image.max() - round(of_image.max())) < 1e-3}
    found = {row["position"]: (row["tag"], row["accuracy"]) for row in rows if row["position"] not in unsure}
    assert found == {
        at: (SHAPES[of_image.argmax()], int(of_image.max()))
        for at, of_image in enumerate(percent)
        if of_image.max() >= 40 and at not in unsure
    }
    assert len(found) > IMAGES // 4
    totals = add_up(read_ledger(runtime.storage, run))
    assert (totals.read, totals.kept, totals.kept + totals.below) == (IMAGES, len(rows), IMAGES)
    card = card_of(runtime, model)
    assert (card.output, card.trees, card.licence) == ("probabilities", 100, "CC0")
    assert card.test.images == 900


def test_a_model_that_sees_embeddings_tags_a_corpus_from_what_is_stored(runtime, pictures, tinytags_here: Command):
    """Lost and damaged embeddings are made again, and the tags are those of the whole graph on the pixels."""
    fields = {"source": str(pictures["corpus"]), "format": "tiny-images", "shard_images": 600, "blocks_per_shard": 3}
    ingest_corpus(make_definition("embedded", fields), storage=runtime.storage)
    trained = tinytags_here("train", str(pictures["labelled"]), "--held-out", "0")
    assert trained.returncode == 0, trained.stderr
    model = trained.stdout.strip()
    card = card_of(runtime, model)
    assert (card.head, card.none, card.output) == ("logistic", True, "probabilities")
    scored = tinytags_here("score", "embedded", "--model", model, "--threshold", "40")
    assert scored.returncode == 0, scored.stderr
    run = Run.load(runtime.storage, layout.run_file(scored.stdout.strip()))

    def outcome() -> tuple[dict[int, tuple[str, int]], Totals]:
        tables = [read_scored(runtime.storage, run.name, block)[0] for block in range(run.blocks)]
        rows = [row for table in tables for row in table.to_pylist()]
        found = {row["position"]: (row["tag"], row["accuracy"]) for row in rows}
        return found, add_up(read_ledger(runtime.storage, run))

    found, totals = outcome()
    ((images, _),) = draw_pictures(IMAGES, seed=1, batch=IMAGES, scribbles=0.25)  # the content of the fixture's file
    whole = open_session(read_model(runtime.storage, model), model)
    pixels = images.reshape(IMAGES, -1)
    batches = [whole.run(["votes"], {"pixels": pixels[at : at + 300]})[0] for at in range(0, IMAGES, 300)]
    decided = decide(np.concatenate(batches), len(card.tags), 40, 100)
    assert found == {
        int(at): (card.tags[decided.winner[at]], int(decided.won[at])) for at in np.flatnonzero(decided.is_kept)
    }
    assert totals.read == IMAGES == totals.kept + totals.below + totals.none + totals.unreadable
    assert (totals.kept, totals.none) == (len(found), decided.is_none.sum())
    assert totals.embed_seconds > 0

    lost, damaged = (layout.embeddings_file("embedded", card.features, block) for block in (0, 1))
    runtime.storage.delete(lost)
    stored = runtime.storage.read(damaged)
    at = stored.index(b"\x28\xb5\x2f\xfd") + 20  # in the page, which begins with zstd's magic number
    runtime.storage.write(damaged, stored[:at] + bytes([stored[at] ^ 1]) + stored[at + 1 :])
    again = ("score", run.name, "--blocks", "0,1", "--redo")
    failed = tinytags_here(*again)  # block 0 is embedded first; the damage in block 1 shows when it is read
    assert_one_error_line(failed, f"failed for blocks 1: {damaged}: damaged ")
    assert f"`tinytags embed embedded --net {card.features} --blocks 1` makes it" in failed.stderr
    tried_again = tinytags_here(*again)
    assert tried_again.returncode == 0, tried_again.stderr
    assert outcome()[0] == found
    assert tinytags_here("corpus", "verify", "embedded").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("models show none-1", "none-1: no such model; `tinytags models list` lists the models"),
        ("models compare none-1 none-2", "none-1: no such model"),
        ("models import none.onnx --tags a,b", "none.onnx: no such file"),
        ("models import {labelled} --tags a,b", "not an ONNX file"),
        ("models import {net} --tags a,b", "no output has 2 numbers, one for each tag"),
        ("models import {net} --tags a", "tags are 'a': give two or more names with commas between"),
        ("models import {net} --tags {tags} --height 64", "no image of 64x32 in colour fits"),
        ("models import {net} --tags {tags} --scale 0-2", "scale is '0-2': it must be 0-255 or 0-1"),
        ("models import {net} --tags {tags} --mean 1,x", "--mean is '1,x': write numbers with commas between"),
        ("models import {net} --tags {tags} --test {net}", "net.onnx: not a readable Parquet file"),
        ("lab none.parquet", "none.parquet: no such file"),
        ("lab {labelled} --trees five", "--trees is 'five': write whole numbers with commas between"),
        ("lab {labelled} --cv 1", "folds are 1: at least two are needed"),
        ("train {labelled} --parameters none.toml", "none.toml: no such file; `tinytags lab` writes one"),
        ("train {labelled} --held-out 60", "held_out is 60: it must be 0 to 50"),
        ("train {labelled} --name unmeasured --other {net}", "net.onnx: not a readable Parquet file"),
    ],
)
def test_what_cannot_be_used_is_one_line(runtime, pictures, net, tinytags_here: Command, arguments, message):
    given = {"labelled": str(pictures["labelled"]), "net": str(net[0]), "tags": ",".join(SHAPES)}
    assert_one_error_line(tinytags_here(*(part.format(**given) for part in arguments.split())), message)
