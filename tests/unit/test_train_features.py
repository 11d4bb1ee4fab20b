"""Heads on a net's embeddings: embedded once, kept in the store, and published as one graph from pixels to votes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from faulty_storage import files_under

from tinytags_tasks.corpus.demo.make import write_labelled_parquet
from tinytags_tasks.corpus.labelled import file_sha256
from tinytags_tasks.errors import BadInputError
from tinytags_tasks.nets.catalogue import net_for
from tinytags_tasks.nets.compose import split_head
from tinytags_tasks.nets.running import CPU, CUDA
from tinytags_tasks.store import layout
from tinytags_tasks.store.local import LocalStorage
from tinytags_tasks.store.model_records import ModelCard
from tinytags_tasks.store.models import load_report
from tinytags_tasks.train import features as features_module
from tinytags_tasks.train import logistic_spark, step
from tinytags_tasks.train.evaluation import count_votes, evaluate, evaluate_other
from tinytags_tasks.train.features import head_votes, read_features, sight_of
from tinytags_tasks.train.fitting import make_lesson
from tinytags_tasks.train.images import read_labelled, read_other
from tinytags_tasks.train.logistic import with_fair_none
from tinytags_tasks.train.none import Chosen
from tinytags_tasks.train.parameters import TrainRequest, chosen_parameters
from tinytags_tasks.train.step import train_model

TAGS = ("dark", "light")
IMAGES = 40


def write_shades(path: Path, seed: int, none_below: int = 0) -> np.ndarray:
    """Write images of one shade each, and return them; 128 or more is light, and what is below a shade is none."""
    shades = np.random.default_rng(seed).integers(0, 256, IMAGES, dtype=np.uint8)
    images = np.repeat(shades, 8 * 8 * 3).reshape(IMAGES, 8, 8, 3)
    labels = np.where(shades < none_below, -1, shades >= 128).astype(np.int64)
    write_labelled_parquet(path, images, labels, TAGS)
    return images


@pytest.fixture
def labelled(tmp_path) -> Path:
    write_shades(tmp_path / "labelled.parquet", 1)
    return tmp_path / "labelled.parquet"


class Spark:
    """A session that can only be stopped."""

    def stop(self) -> None:
        pass


@pytest.fixture
def asked(monkeypatch) -> list[dict]:
    """What each fit was asked; a stand-in fits that all images are light or none, whatever they show."""
    calls: list[dict] = []

    def fit(folder, storage, spark, **asked):
        calls.append(asked)
        return np.zeros((3, 256)), np.array([0.0, 1.0, 1.0])

    monkeypatch.setattr(logistic_spark, "fit_weights", fit)
    return calls


def read(path: Path, storage: LocalStorage, spoken: list[str], tags=None):
    sight = sight_of(net_for("general32", storage), 8, 8, storage)
    return read_features(path, file_sha256(path), tags, sight, storage, spoken.append)


def train(request: TrainRequest, storage: LocalStorage) -> ModelCard:
    model = train_model(request, storage=storage, connect_spark=Spark, report=lambda line: None).model
    return ModelCard.load(storage, layout.card_file(model))


def test_a_labelled_set_is_decoded_and_embedded_once(labelled, storage, monkeypatch):
    spoken: list[str] = []
    first = read(labelled, storage, spoken)
    assert (first.values.shape, first.values.dtype, first.tags) == ((IMAGES, 256), np.int8, TAGS)
    assert first.embed_seconds > 0
    monkeypatch.setattr(features_module, "read_labelled", lambda *_: pytest.fail("decoded again"))
    again = read(labelled, storage, spoken, tags=("light", "dark"))  # which only names them
    np.testing.assert_array_equal(again.values, first.values)
    assert again.embed_seconds == 0
    assert [line for line in spoken if "embedding" in line] == [
        f"embedding {IMAGES} images of labelled.parquet with general32-e278f193f89b"
    ]


@pytest.mark.parametrize("damage", [b"", b"PAR1 is not enough", None])
def test_damaged_embeddings_of_a_labelled_set_are_made_again(labelled, storage, damage):
    first = read(labelled, storage, [])
    (path,) = [path for path in files_under(storage.root) if "embeddings" in str(path)]
    stored = (storage.root / path).read_bytes()
    middle = len(stored) // 3
    flipped = stored[:middle] + bytes([stored[middle] ^ 1]) + stored[middle + 1 :]
    (storage.root / path).write_bytes(flipped if damage is None else damage)
    spoken: list[str] = []
    np.testing.assert_array_equal(read(labelled, storage, spoken).values, first.values)
    assert any("damaged" in line and "embedding the labelled images again" in line for line in spoken)
    assert (storage.root / path).read_bytes() == stored


def test_a_model_is_one_graph_from_pixels_to_percentages_of_the_tags_and_none(labelled, storage, asked):
    card = train(TrainRequest(str(labelled), height=8, width=8), storage)
    assert (card.features, card.head, card.none) == ("general32-e278f193f89b", "logistic", True)
    assert (card.output, card.trees, card.tags) == ("probabilities", 100, TAGS)
    assert card.version.startswith("logistic-")
    assert card.background.images > 10_000
    model = storage.read(layout.model_file(card.version))
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (votes,) = session.run(["votes"], {"pixels": np.zeros((4, 8 * 8 * 3), dtype=np.uint8)})
    assert votes.shape == (4, 3)
    np.testing.assert_allclose(votes.sum(axis=1), 100, atol=1e-3)
    assert (votes.argmax(axis=1) == 1).all()  # of as many as there are labelled images, none is no longer likely
    np.testing.assert_array_equal(head_votes(split_head(model), np.zeros((4, 256), dtype=np.int8)), votes)


def test_images_to_measure_on_are_embedded_once_and_the_figures_are_those_of_the_published_file(
    labelled, tmp_path, storage, monkeypatch
):
    random = np.random.default_rng(0)
    weights = random.normal(0, 0.05, (3, 256)), np.zeros(3)
    monkeypatch.setattr(logistic_spark, "fit_weights", lambda *_, **__: weights)
    test, other = tmp_path / "test.parquet", tmp_path / "other.parquet"
    images, others = write_shades(test, 2), write_shades(other, 3, none_below=100)
    request = TrainRequest(str(labelled), str(test), other=str(other), height=8, width=8)
    card = train(request, storage)
    model = storage.read(layout.model_file(card.version))
    sets = read_labelled(test, TAGS, 8, 8), read_other(other, TAGS, 8, 8)
    expected = (
        evaluate(count_votes(model, images), sets[0], 100, file_sha256(test)),
        evaluate_other(count_votes(model, others), sets[1], 100, file_sha256(other)),
    )
    assert (card.test, card.other) == expected
    assert 0 < card.other.without_tag < IMAGES
    for reader in ("read_labelled", "read_other"):
        monkeypatch.setattr(features_module, reader, lambda *_: pytest.fail("decoded again"))
    again = train(replace(request, name="again"), storage)
    assert (again.test, again.other) == expected
    assert "embed" not in again.seconds
    assert load_report(storage, again.version).count("<img") == load_report(storage, card.version).count("<img") > 0


def test_a_driver_without_the_gpu_of_the_workers_embeds_the_labelled_set_on_its_processor(labelled, storage, asked):
    spoken: list[str] = []
    trained = train_model(
        TrainRequest(str(labelled), height=8, width=8),
        storage=storage,
        connect_spark=Spark,
        report=spoken.append,
        providers=(CUDA, CPU),
    )
    assert trained.trained
    assert f"ONNX Runtime offers no {CUDA} on this machine, which runs nets on {CPU}" in spoken


def test_the_second_head_is_asked_for_what_the_first_is_of_fewer_images(labelled, storage, asked):
    train(TrainRequest(str(labelled), height=8, width=8, none=False, regularization=36), storage)
    assert sorted((call["with_held_out"], call["regularization"]) for call in asked) == [(False, 1.0), (True, 0.9)]


def test_of_a_handful_nothing_is_held_out(tmp_path, storage, asked):
    images = np.arange(10, dtype=np.uint8).repeat(8 * 8 * 3).reshape(10, 8, 8, 3)
    write_labelled_parquet(tmp_path / "few.parquet", images, np.arange(10) % 2, TAGS)
    card = train(TrainRequest(str(tmp_path / "few.parquet"), height=8, width=8), storage)
    assert [call["with_held_out"] for call in asked] == [True]
    assert card.held_out is None


def test_other_features_heads_and_none_are_other_trainings_and_what_is_published_is_found_again(
    labelled, storage, asked
):
    requests = [
        TrainRequest(str(labelled), height=8, width=8, **changes)
        for changes in ({}, {"none": False}, {"iterations": 9}, {"features": "pixels"})
    ]
    for request in requests[:3]:
        train(request, storage)
    assert len([name for name in storage.names("trainings") if name.endswith(".json")]) == 3
    before = len(asked)
    assert not train_model(requests[0], storage=storage, connect_spark=Spark, report=lambda line: None).trained
    assert len(asked) == before


@pytest.mark.parametrize(("head", "count", "weight"), [("forest", 4 * IMAGES, 0.25), ("logistic", None, None)])
def test_general_pictures_do_not_outweigh_a_handful_that_a_forest_learns_from(
    labelled, storage, monkeypatch, head, count, weight
):
    lessons = []
    monkeypatch.setattr(step, "fit_heads", lambda request, lesson, *_: lessons.append(lesson) or pytest.fail("seen"))
    with pytest.raises(pytest.fail.Exception, match="seen"):
        train(TrainRequest(str(labelled), height=8, width=8, head=head), storage)
    rows = lessons[0].rows
    is_background = rows.labels == len(TAGS)
    if head == "logistic":
        assert (rows.weights, is_background.sum() > 10_000) == (None, True)
    else:
        assert is_background.sum() == count
        assert set(rows.weights[is_background]) == {weight}
        assert set(rows.weights[~is_background]) == {1.0}


def test_a_forest_that_learns_from_more_labelled_than_general_pictures_reads_no_weights(labelled, storage):
    features = read(labelled, storage, [])
    few = Chosen(features.values[:10], (), ())
    request = TrainRequest(str(labelled), head="forest")
    assert make_lesson(request, features, few).rows.weights is None
    assert set(make_lesson(request, features.part(np.arange(IMAGES) < 8), few).rows.weights) == {1.0, 0.8}


def test_none_counts_at_most_as_often_as_all_tags_together():
    intercepts = np.array([0.5, -0.5, 2.0])
    np.testing.assert_allclose(with_fair_none(intercepts, 50, 20_000), [0.5, -0.5, 2.0 + np.log(50 / 20_000)])
    np.testing.assert_array_equal(with_fair_none(intercepts, 50_000, 20_000), intercepts)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head": "svm"}, "head is 'svm': it must be one of forest, logistic"),
        ({"features": "pixels", "none": True}, "pixels have no background"),
        ({"features": "No net"}, "'No net' cannot be the name of a net"),
        ({"iterations": 0}, "iterations is 0: it must be 1 to 1000"),
    ],
)
def test_a_request_that_contradicts_itself_is_refused(changes, message):
    with pytest.raises(BadInputError, match=message):
        TrainRequest("l.parquet", **changes)


def test_a_parameter_of_another_head_is_refused_with_the_head_that_has_it(tmp_path):
    assert chosen_parameters("logistic", None, {"trees": None, "iterations": 3, "seed": 1}) == {
        "iterations": 3,
        "seed": 1,
    }
    with pytest.raises(BadInputError, match="depth, trees: of a forest head; train with --head forest"):
        chosen_parameters("logistic", None, {"trees": 3, "depth": 4})
    (tmp_path / "lab.toml").write_text("trees = 5")
    with pytest.raises(BadInputError, match="trees: of a forest head"):
        chosen_parameters("logistic", tmp_path / "lab.toml", {})
    assert chosen_parameters("forest", tmp_path / "lab.toml", {"trees": 7}) == {"trees": 7}
