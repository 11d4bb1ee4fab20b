"""Heads that learn from few pictures: their embeddings are prepared by how pictures of one thing differ elsewhere."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tinytags_tasks.corpus.demo.make import write_labelled_parquet
from tinytags_tasks.nets.background import Background
from tinytags_tasks.nets.catalogue import net_for
from tinytags_tasks.nets.compose import split_head
from tinytags_tasks.store import layout
from tinytags_tasks.store.local import LocalStorage
from tinytags_tasks.store.model_records import ModelCard
from tinytags_tasks.train import logistic_spark, whitening
from tinytags_tasks.train.evaluation import count_votes
from tinytags_tasks.train.features import head_votes, see, sight_of
from tinytags_tasks.train.parameters import TrainRequest
from tinytags_tasks.train.step import train_model
from tinytags_tasks.train.whitening import whitening_by

IMAGES = 40
WEIGHTS = np.random.default_rng(0).normal(0, 0.1, (2, 256))
INTERCEPTS = np.array([0.5, -0.5])


def made_background(pictures: int = 400) -> Background:
    """Return classes that differ in the first value, while pictures of one class differ in the second and third."""
    random = np.random.default_rng(0)
    common = random.normal(0, 20, pictures)
    centre = np.repeat([20, 60], pictures // 2)
    columns = [centre, 60 + common, 60 + common + random.normal(0, 5, pictures), np.zeros(pictures)]
    values = np.clip(np.stack(columns, axis=1), 0, 127).astype(np.int8)
    return Background(values, tuple(np.repeat(["a", "b"], pictures // 2)), ((),) * pictures)


def shades_of(images: int) -> np.ndarray:
    """Return images of one shade each."""
    shades = np.random.default_rng(1).integers(0, 256, images, dtype=np.uint8)
    return np.repeat(shades, 8 * 8 * 3).reshape(images, 8, 8, 3)


@pytest.fixture
def labelled(tmp_path) -> Path:
    """Such images; 128 or more is light."""
    images = shades_of(IMAGES)
    labels = (images[:, 0, 0, 0] >= 128).astype(np.int64)
    write_labelled_parquet(tmp_path / "labelled.parquet", images, labels, ("dark", "light"))
    return tmp_path / "labelled.parquet"


@pytest.fixture
def asked(monkeypatch) -> list[dict]:
    """What each fit was asked, and the values that it read; a stand-in gives it weights by chance."""
    calls: list[dict] = []

    def fit(folder, storage, spark, **asked):
        (part,) = storage.names(folder)
        rows = pq.read_table(storage.root / folder / part)["features"].to_pylist()
        calls.append({**asked, "values": np.array([row["values"] for row in rows])})
        weights = np.zeros((3, 256)), np.zeros(3)  # of a head with none
        return (WEIGHTS, INTERCEPTS) if not asked["standardization"] else weights

    monkeypatch.setattr(logistic_spark, "fit_weights", fit)
    return calls


class Spark:
    """A session that can only be stopped."""

    def stop(self) -> None:
        pass


def train(labelled: Path, storage: LocalStorage, **changes) -> tuple[ModelCard, list[str]]:
    spoken: list[str] = []
    request = TrainRequest(str(labelled), height=8, width=8, held_out=0, **{"none": False, **changes})
    model = train_model(request, storage=storage, connect_spark=Spark, report=spoken.append).model
    return ModelCard.load(storage, layout.card_file(model)), spoken


def test_what_differs_among_pictures_of_one_thing_counts_less_than_what_tells_things_apart():
    background = made_background()
    prepared = whitening_by(background).apply(background.embeddings)
    first, second = prepared[:200], prepared[200:]
    within = np.cov(np.concatenate([first - first.mean(axis=0), second - second.mean(axis=0)]).T)
    apart = np.abs(first.mean(axis=0) - second.mean(axis=0))
    assert np.isfinite(prepared).all()
    assert apart[0] > 5 * max(apart[1:])
    assert within.diagonal().max() < 2
    roots = np.sqrt(background.embeddings.astype(float))
    before = np.corrcoef(roots[:, 1], roots[:, 2])[0, 1]
    assert abs(within[1, 2]) / np.sqrt(within[1, 1] * within[2, 2]) < before


def test_a_value_that_never_varies_and_values_below_zero_are_prepared_too():
    background = made_background()
    both_signs = Background(background.embeddings - 50, background.classes, background.kinds)
    prepared = whitening_by(both_signs).apply(np.array([[-100, 100, -1, 5]], dtype=np.int8))
    assert np.isfinite(prepared).all()


def test_a_model_gives_the_same_from_pixels_and_from_embeddings_as_its_weights_from_what_was_fitted(
    labelled, tmp_path, asked
):
    storage = LocalStorage(tmp_path / "store")
    card, spoken = train(labelled, storage)
    (call,) = asked
    scores = call["values"] @ WEIGHTS.T + INTERCEPTS
    expected = 100 / (1 + np.exp(scores[:, ::-1] - scores))
    model = storage.read(layout.model_file(card.version))
    votes = count_votes(model, shades_of(IMAGES))
    np.testing.assert_allclose(votes, expected, atol=0.01)
    sight = sight_of(net_for("general32", storage), 8, 8, storage)
    np.testing.assert_array_equal(head_votes(split_head(model), see(sight, shades_of(IMAGES))), votes)
    assert not call["standardization"]
    assert card.parameters["embeddings"] == "square roots, whitened by the background"
    assert any(f"{IMAGES} labelled images are few" in line for line in spoken)


def test_the_same_pictures_give_the_same_model_in_another_store(labelled, tmp_path, asked):
    first, second = (train(labelled, LocalStorage(tmp_path / name))[0] for name in ("one", "two"))
    assert first.version == second.version


@pytest.mark.parametrize("changes", [{}, {"none": True}])
def test_from_many_pictures_or_with_none_a_head_learns_from_embeddings_as_they_are(
    labelled, tmp_path, asked, monkeypatch, changes
):
    if not changes:
        monkeypatch.setattr(whitening, "MOST_LABELLED", IMAGES - 1)
    card, spoken = train(labelled, LocalStorage(tmp_path / "store"), **changes)
    (call,) = asked
    assert call["standardization"]
    np.testing.assert_array_equal(call["values"], np.rint(call["values"]))
    assert "embeddings" not in card.parameters
    assert not any("whitening" in line for line in spoken)
