"""Training: what is published, from what, and what is left unchanged. A stand-in replaces Spark's fit."""

import io
import json
import threading
from pathlib import Path

import fsspec
import numpy as np
import pyarrow.parquet as pq
import pytest
from faulty_storage import MODES, FaultyStorage, Killed, files_under

from tinytags_tasks.corpus.demo.make import write_labelled_parquet
from tinytags_tasks.errors import BadInputError, CorruptError, MissingError, TransientError
from tinytags_tasks.store import layout
from tinytags_tasks.store.local import LocalStorage
from tinytags_tasks.store.model_records import LastTraining, ModelCard, Probe
from tinytags_tasks.store.models import describe_model, load_report
from tinytags_tasks.train import forest_spark, spark_features, step
from tinytags_tasks.train.forest_spark import fit_trees
from tinytags_tasks.train.forest_trees import Tree
from tinytags_tasks.train.parameters import TrainRequest
from tinytags_tasks.train.spark_features import Rows, write_features

TAGS = ("dark", "light")


def stump(threshold: float) -> Tree:
    """A tree that only looks at the first value."""
    return Tree(*map(np.array, ([0, -1, -1], [threshold, 0.0, 0.0], [1, -1, -1], [2, -1, -1], [0, 0, 1])))


class Spark:
    """A session that can only be stopped."""

    stopped = 0

    def __call__(self) -> "Spark":
        return self

    def stop(self) -> None:
        Spark.stopped += 1


@pytest.fixture
def sets(tmp_path) -> dict[str, str]:
    """Images of one shade each; 128 or more is light."""
    paths = {}
    for name, seed in (("labelled", 1), ("test", 2)):
        shades = np.random.default_rng(seed).integers(0, 256, 60, dtype=np.uint8)
        images = np.repeat(shades, 4 * 4 * 3).reshape(60, 4, 4, 3)
        paths[name] = str(tmp_path / f"{name}.parquet")
        write_labelled_parquet(Path(paths[name]), images, (shades >= 128).astype(np.int64), TAGS)
    return paths


@pytest.fixture
def fits(monkeypatch) -> list[bool]:
    """Whether each fit also learned from the held-out images."""
    asked: list[bool] = []

    def fit(chosen, folder, storage, spark, *, with_held_out):
        asked.append(with_held_out)
        return [stump(127.5 if with_held_out else 30.5)] * chosen["trees"]

    monkeypatch.setattr(forest_spark, "fit_trees", fit)
    return asked


def train(storage, request: TrainRequest, spoken: list[str] | None = None) -> step.TrainResult:
    return step.train_model(
        request, storage=storage, connect_spark=Spark(), report=(spoken if spoken is not None else []).append
    )


def request_of(sets: dict[str, str], **changes: object) -> TrainRequest:
    return TrainRequest(
        **{**sets, "height": 4, "width": 4, "trees": 3, "features": "pixels", "head": "forest", **changes}
    )


def test_the_published_model_learns_from_all_and_the_held_out_figures_are_of_one_that_did_not(tmp_path, sets, fits):
    storage = LocalStorage(tmp_path / "store")
    result = train(storage, request_of(sets, held_out=20, licence="CC0"))
    assert fits == [False, True]
    card = ModelCard.load(storage, layout.card_file(result.model))
    assert (card.height, card.width, card.trees, card.output) == (4, 4, 3, "votes")
    assert card.test.accuracy == 100.0
    assert card.test.images == 60
    assert card.held_out.images == 12
    assert card.held_out.accuracy < 100.0  # the shades from 31 to 127
    assert card.metrics["held_out_accuracy"] == card.held_out.accuracy
    assert card.licence == "CC0"
    assert storage.read(layout.report_file(result.model)).startswith(b"<!doctype html>")
    assert set(storage.names(layout.model_folder(result.model))) == {"model.onnx", "model.json", "report.html"}


def test_the_report_shows_pictures_of_the_test_set_or_else_of_what_was_held_out(tmp_path, sets, fits):
    storage = LocalStorage(tmp_path / "store")
    for name, test in (("with", sets["test"]), ("without", None)):
        result = train(storage, request_of(sets, name=name, test=test, held_out=20))
        page = load_report(storage, result.model)
        assert page.count("<img") > 2
        assert ("Test set" in page) == (test is not None)


def test_a_corpus_decides_nothing_but_what_the_card_tells_of_its_preparation(tmp_path, sets, fits, monkeypatch):
    seen = Probe(corpus="photos", corpus_digest="d", labelled_images=60, corpus_images=60, auroc=0.97)
    monkeypatch.setattr(step, "probe_training", lambda request, images, storage, report: seen)
    known, unknown = (LocalStorage(tmp_path / name) for name in ("known", "unknown"))
    result = train(known, request_of(sets, corpus="photos"))
    card = ModelCard.load(known, layout.card_file(result.model))
    assert card.probe == seen
    assert "prepared in different ways" in load_report(known, result.model)
    monkeypatch.undo()
    monkeypatch.setattr(forest_spark, "fit_trees", lambda chosen, *_, **__: [stump(127.5)] * chosen["trees"])
    assert train(unknown, request_of(sets)).model == result.model


def test_a_training_says_what_it_learned_and_warns_of_test_images_that_it_learned_from(tmp_path, fits):
    images = np.repeat(np.arange(10, 250, 40, dtype=np.uint8), 4 * 4 * 3).reshape(6, 4, 4, 3)
    labelled, test = tmp_path / "labelled.parquet", tmp_path / "test.parquet"
    write_labelled_parquet(labelled, images, np.array([0, 0, 0, -1, 1, 1]), (*TAGS, "grey"))
    tested = np.concatenate([images[[0, 4]], images[[1, 5]] + 1, images[[3]]])
    write_labelled_parquet(test, tested, np.array([0, 1, 0, 1, -1]), TAGS)
    storage, spoken, again = LocalStorage(tmp_path / "store"), [], []
    request = request_of({"labelled": str(labelled), "test": str(test)}, held_out=0)
    model = train(storage, request, spoken).model
    said = "\n".join(spoken)
    assert "read 5 labelled images of 3 tags" in said
    assert "labelled images of each tag: dark 3, light 2\nno labelled image shows grey\n" in said
    assert "left out because they have no label (-1): 1 images" in said
    assert f"{test}: left out because they have no label (-1): 1 images" in said
    assert "warning: 2 of the 4 test images are also among the labelled images" in said
    card = ModelCard.load(storage, layout.card_file(model))
    assert (card.labelled_of_tags, card.unlabelled_images, card.learned_test_images) == ((3, 2, 0), 1, 2)
    described = describe_model(card)
    assert described["images of each tag"] == "dark 3, light 2, grey 0"
    assert described["test images that it learned from"] == "2"
    train(storage, request, again)
    assert "labelled images of each tag: dark 3, light 2" in again


def test_tags_that_are_given_name_the_labels_and_make_another_model(tmp_path, sets, fits):
    storage = LocalStorage(tmp_path / "store")
    first, second = (train(storage, request_of(sets, tags=tags)).model for tags in (None, ("night", "day")))
    assert ModelCard.load(storage, layout.card_file(second)).tags == ("night", "day")
    assert first != second


def test_a_test_set_of_other_classes_or_a_missing_one_is_refused_before_anything_is_fitted(tmp_path, sets, fits):
    shades = np.arange(4 * 4 * 3 * 4, dtype=np.uint8).reshape(4, 4, 4, 3)
    write_labelled_parquet(tmp_path / "birds.parquet", shades, np.array([0, 1, 0, 1]), ("duck", "gull"))
    for test, message in (("birds", "none of its classes duck, gull is one of the tags"), ("gone", "no such file")):
        with pytest.raises(BadInputError, match=rf"{test}\.parquet: {message}"):
            train(LocalStorage(tmp_path / "store"), request_of(sets, test=str(tmp_path / f"{test}.parquet")))
    assert fits == []


def test_a_corpus_that_does_not_exist_is_refused_before_anything_is_fitted(tmp_path, sets, fits):
    with pytest.raises(MissingError, match="corpus nowhere is not in the store"):
        train(LocalStorage(tmp_path / "store"), request_of(sets, corpus="nowhere"))
    assert fits == []


def test_without_a_held_out_part_there_is_one_fit(tmp_path, sets, fits):
    storage = LocalStorage(tmp_path / "store")
    result = train(storage, request_of(sets, held_out=0))
    assert fits == [True]
    assert ModelCard.load(storage, layout.card_file(result.model)).held_out is None


def test_nothing_is_held_out_where_one_tag_alone_would_be_left(tmp_path, fits):
    images = np.zeros((2, 4, 4, 3), dtype=np.uint8)
    write_labelled_parquet(tmp_path / "two.parquet", images, np.array([0, 1]), TAGS)
    train(LocalStorage(tmp_path / "store"), request_of({"labelled": str(tmp_path / "two.parquet")}, held_out=50))
    assert fits == [True]


def test_the_same_again_does_nothing_wherever_the_files_lie(tmp_path, sets, fits):
    storage = LocalStorage(tmp_path / "store")
    first = train(storage, request_of(sets))
    before = files_under(storage.root)
    moved = tmp_path / "elsewhere.parquet"
    Path(sets["labelled"]).rename(moved)
    again = train(storage, request_of({**sets, "labelled": str(moved)}))
    assert (again.model, again.trained) == (first.model, False)
    assert files_under(storage.root) == before
    assert len(fits) == 2


def test_a_set_at_an_address_is_the_same_training_and_stays_one_at_an_address(tmp_path, sets, fits, monkeypatch):
    monkeypatch.setattr(step, "probe_training", lambda *_: None)
    monkeypatch.setattr(step, "warn_again", lambda *_: None)
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/sets/labelled.parquet", Path(sets["labelled"]).read_bytes())
    storage = LocalStorage(tmp_path / "store")
    here = train(storage, request_of(sets))
    there = train(storage, request_of(sets, labelled="memory://sets/labelled.parquet", corpus="photos"))
    assert (there.model, there.trained) == (here.model, False)
    last = LastTraining.load(storage, layout.last_training_file("photos"))
    assert last.request["labelled"] == "memory://sets/labelled.parquet"


def test_figures_that_a_standing_card_lacks_are_told(tmp_path, sets, fits):
    storage = LocalStorage(tmp_path / "store")
    train(storage, request_of({"labelled": sets["labelled"]}))
    spoken: list[str] = []
    train(storage, request_of(sets), spoken)
    assert "has no figures on " + sets["test"] in spoken[-1]
    assert "train under another name" in spoken[-1]
    spoken.clear()
    train(storage, request_of(sets, name="measured"))
    train(storage, request_of(sets, name="measured"), spoken)
    assert [line for line in spoken if "no figures" in line] == []


@pytest.mark.parametrize(
    "changes", [{"seed": 5}, {"depth": 3}, {"bins": 9}, {"name": "other"}, {"height": 2, "width": 2}]
)
def test_what_decides_the_votes_is_another_training(tmp_path, sets, fits, changes):
    storage = LocalStorage(tmp_path / "store")
    train(storage, request_of(sets))
    train(storage, request_of(sets, **changes))
    assert len(fits) == 4
    assert len(storage.names("trainings")) == 2


def test_a_test_set_that_cannot_be_used_is_told_before_anything_is_written(tmp_path, sets, fits):
    storage = LocalStorage(tmp_path / "store")
    with pytest.raises(BadInputError, match=r"none\.parquet: no such file"):
        train(storage, request_of({**sets, "test": str(tmp_path / "none.parquet")}))
    assert fits == []
    assert files_under(storage.root) == {}


def test_the_session_ends_when_a_fit_fails(tmp_path, sets, monkeypatch):
    def fail(*arguments, **options):
        raise TransientError("Spark is away")

    monkeypatch.setattr(forest_spark, "fit_trees", fail)
    before = Spark.stopped
    with pytest.raises(TransientError, match="Spark is away"):
        train(LocalStorage(tmp_path / "store"), request_of(sets))
    assert Spark.stopped == before + 1


@pytest.mark.parametrize("mode", MODES)
def test_a_model_is_whole_or_not_there_wherever_a_training_dies(tmp_path, sets, fits, mode):
    whole = LocalStorage(tmp_path / "whole")
    model = train(whole, request_of(sets)).model
    fail_at = 0
    while True:
        fail_at += 1
        storage = LocalStorage(tmp_path / f"store-{fail_at}")
        faulty = FaultyStorage(storage, fail_at, mode, Killed)
        try:
            train(faulty, request_of(sets))
        except Killed:
            if storage.exists(layout.model_folder(model)):
                assert set(storage.names(layout.model_folder(model))) == {"model.onnx", "model.json", "report.html"}
        again = train(storage, request_of(sets))
        assert again.model == model
        assert sorted(files_under(storage.root)) == sorted(files_under(whole.root))
        if faulty.calls < fail_at:
            break
    assert fail_at > 5


def test_two_that_train_the_same_wait_for_each_other_and_the_second_has_nothing_to_do(
    tmp_path, sets, fits, monkeypatch
):
    monkeypatch.setattr("tinytags_tasks.store.lease._POLL_SECONDS", 0.02)
    storage, results = LocalStorage(tmp_path / "store"), []
    threads = [threading.Thread(target=lambda: results.append(train(storage, request_of(sets)))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert sorted(result.trained for result in results) == [False, True]
    assert len({result.model for result in results}) == 1
    assert list(storage.root.rglob("*.lease")) == []


def test_a_training_whose_model_file_was_replaced_is_done_again_and_restores_it(tmp_path, sets, fits):
    storage = LocalStorage(tmp_path / "store")
    model = train(storage, request_of(sets)).model
    right = storage.read(layout.model_file(model))
    storage.write(layout.model_file(model), b"another model")
    again = train(storage, request_of(sets))
    assert (again.model, again.trained) == (model, True)
    assert storage.read(layout.model_file(model)) == right


# What Spark reads


def rows_of(images: int, tags: int = 3, kind: type = np.uint8) -> Rows:
    random = np.random.default_rng(images)
    values = random.integers(0, 256, (images, 12), dtype=np.uint8).view(kind)
    return Rows(values, random.integers(0, tags, images), tags, np.arange(images) % 3 == 0)


def read_parts(storage: LocalStorage, folder: str):
    return [pq.read_table(io.BytesIO(storage.read(f"{folder}/{name}"))) for name in storage.names(folder)]


@pytest.mark.parametrize("kind", [np.uint8, np.int8])
def test_features_are_cut_into_parts_of_a_fixed_size(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(spark_features, "_GROUP_VALUES", 12 * 7)
    storage, rows = LocalStorage(tmp_path), rows_of(100, kind=kind)
    write_features(rows, "labelled/features", storage, partition_rows=40)
    parts = read_parts(storage, "labelled/features")
    assert [part.num_rows for part in parts] == [40, 40, 20]
    values = [row["features"]["values"] for part in parts for row in part.to_pylist()]
    np.testing.assert_array_equal(values, rows.values)
    assert [label for part in parts for label in part["label"].to_pylist()] == rows.labels.tolist()
    assert [flag for part in parts for flag in part["held_out"].to_pylist()] == rows.held_out.tolist()
    assert {(row["features"]["type"], row["features"]["size"]) for part in parts for row in part.to_pylist()} == {
        (1, None)
    }


def test_features_tell_spark_how_many_tags_there_are(tmp_path):
    storage = LocalStorage(tmp_path)
    write_features(rows_of(5, tags=7), "labelled/features", storage, partition_rows=10)
    (part,) = read_parts(storage, "labelled/features")
    schema = json.loads(part.schema.metadata[b"org.apache.spark.sql.parquet.row.metadata"])
    assert schema["fields"][0]["metadata"]["ml_attr"] == {"type": "nominal", "num_vals": 7}
    assert schema["fields"][1]["type"]["class"] == "org.apache.spark.ml.linalg.VectorUDT"


def test_features_that_stand_are_left(tmp_path):
    storage = LocalStorage(tmp_path)
    write_features(rows_of(5), "labelled/features", storage, partition_rows=10)
    before = files_under(tmp_path)
    write_features(rows_of(6), "labelled/features", storage, partition_rows=10)
    assert files_under(tmp_path) == before


def test_a_forest_of_fewer_trees_than_asked_for_is_corrupt_and_what_spark_saved_is_deleted(tmp_path, monkeypatch):
    monkeypatch.setattr(forest_spark, "RandomForestClassifier", lambda **parameters: _Saves())
    storage = LocalStorage(tmp_path)
    with pytest.raises(CorruptError, match="Spark saved 0 of 3 trees; train again"):
        fit_trees(
            request_of({"labelled": "x"}).parameters, "labelled/features", storage, _Session(), with_held_out=True
        )
    assert files_under(tmp_path) == {}


class _Saves:
    """A fit that saves an empty model."""

    def fit(self, frame):
        return self

    def write(self):
        return self

    overwrite = write

    def save(self, url):
        pass


class _Session:
    """A session whose frames are empty."""

    columns = ("label", "features")

    def __init__(self):
        self.conf, self.read = self, self

    def set(self, name, setting):
        pass

    def parquet(self, url):
        return self

    toArrow = lambda self: self  # noqa: E731

    def to_pylist(self):
        return []
