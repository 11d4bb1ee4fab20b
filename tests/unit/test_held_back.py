"""What the second head is measured on: images and background that it did not learn from."""

from pathlib import Path

import numpy as np
import pytest

from tinytags_tasks.corpus.demo.make import write_labelled_parquet
from tinytags_tasks.errors import BadInputError
from tinytags_tasks.store.model_records import BackgroundUse
from tinytags_tasks.train import held_back
from tinytags_tasks.train.family import Classifier
from tinytags_tasks.train.features import LabelledFeatures
from tinytags_tasks.train.fitting import Fitted, make_lesson
from tinytags_tasks.train.gallery import Gallery
from tinytags_tasks.train.held_back import measure_background, measure_held_out
from tinytags_tasks.train.images import read_rows
from tinytags_tasks.train.none import Chosen
from tinytags_tasks.train.parameters import TrainRequest

TAGS = ("dark", "light")
IMAGES = 60
USE = BackgroundUse(net="general32-1", sha256="hash", images=50)


@pytest.fixture
def labelled(tmp_path: Path) -> LabelledFeatures:
    """Images of one shade each; the only value that a head sees is half the shade."""
    shades = np.arange(IMAGES, dtype=np.uint8) * 4
    images = np.repeat(shades, 16 * 16 * 3).reshape(IMAGES, 16, 16, 3)
    labels = (shades >= 128).astype(np.int64)
    write_labelled_parquet(tmp_path / "set.parquet", images, labels, TAGS)
    return LabelledFeatures(tmp_path / "set.parquet", "sha", TAGS, labels, (shades // 2).astype(np.int8)[:, None])


@pytest.fixture
def background() -> Chosen:
    return Chosen(np.full((50, 1), -100, dtype=np.int8), (), ())


@pytest.fixture(autouse=True)
def seen(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """What heads are asked about. They call negative values none, and decide on others as the labels do."""
    asked: list[np.ndarray] = []

    def head_votes(head: bytes, values: np.ndarray) -> np.ndarray:
        asked.append(values)
        winner = np.where(values[:, 0] < 0, 2, values[:, 0] >= 64)
        return np.eye(3, dtype=np.float32)[winner] * 100

    monkeypatch.setattr(held_back, "head_votes", head_votes)
    return asked


def request_of(labelled: LabelledFeatures, **changes: object) -> TrainRequest:
    return TrainRequest(**{"labelled": str(labelled.path), "height": 16, "width": 16, "held_out": 20, **changes})


def fitted(partial: bool = True) -> Fitted:
    head = Classifier(b"", "probabilities", total=100, parameters={})
    return Fitted(head, head if partial else None, {})


def test_a_share_of_the_background_is_held_back_from_the_second_head_alone(labelled, background):
    lesson = make_lesson(request_of(labelled), labelled, background)
    assert len(lesson.rows.labels) == IMAGES + 50
    assert lesson.rows.held_out[:IMAGES].sum() == 12
    assert lesson.rows.held_out[IMAGES:].sum() == 10
    assert lesson.background_held_back.tolist() == [[-100]] * 10


def test_nothing_is_held_back_where_nothing_is_held_out(labelled, background):
    lesson = make_lesson(request_of(labelled, held_out=0), labelled, background)
    assert not lesson.rows.held_out.any()
    assert measure_background(fitted(), lesson, USE) is None
    assert measure_held_out(fitted(partial=False), lesson, labelled, request_of(labelled), Gallery()) is None


def test_the_background_held_back_is_measured(labelled, background, seen):
    lesson = make_lesson(request_of(labelled), labelled, background)
    found = measure_background(fitted(), lesson, USE)
    assert (found.labelled_set, found.sha256) == ("background of general32-1", "hash")
    assert (found.without_tag, found.none_without_tag) == (10, 10)
    assert np.array_equal(seen[0], lesson.background_held_back)
    assert measure_background(fitted(partial=False), lesson, USE) is None
    assert measure_background(fitted(), lesson, None) is None


def test_held_out_images_are_measured_and_shown_if_there_is_no_test_set(labelled, background):
    lesson = make_lesson(request_of(labelled), labelled, background)
    shown = Gallery()
    found = measure_held_out(fitted(), lesson, labelled, request_of(labelled), shown)
    assert (found.images, found.accuracy, found.none) == (12, 100.0, 0)
    assert set(shown.pictures("held_out")) == {(0, 0), (1, 1)}
    with_test = Gallery()
    measure_held_out(fitted(), lesson, labelled, request_of(labelled, test="test.parquet"), with_test)
    assert with_test.pictures("held_out") == {}


def test_some_rows_are_read_as_they_are_in_the_set(labelled):
    rows = np.array([0, 7, 31, 59])
    images = read_rows(labelled.path, rows, 16, 16)
    assert images.shape == (4, 16, 16, 3)
    assert images.mean(axis=(1, 2, 3)).round().tolist() == (rows * 4).tolist()
    assert read_rows(labelled.path, rows, 8, 8).shape == (4, 8, 8, 3)
    assert read_rows(labelled.path, rows[:0], 16, 16).shape == (0, 16, 16, 3)


def test_a_row_that_is_no_picture_is_named(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    images = [{"bytes": b"no picture", "path": None}] * 3
    path = tmp_path / "broken.parquet"
    pq.write_table(pa.table({"img": images, "label": [0, 1, 0]}), path)
    with pytest.raises(BadInputError, match=r"broken.parquet: row 1: .*repair the picture or remove it"):
        read_rows(path, np.array([1, 2]), 16, 16)
