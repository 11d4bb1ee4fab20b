"""The pictures of a report: which ones are shown, and how many."""

import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image

from tinytags_tasks.corpus.labelled import LabelledSet
from tinytags_tasks.train import gallery as gallery_module
from tinytags_tasks.train.gallery import MOST_BYTES, MOST_OF_CELL, Gallery, Picture

TAGS = ("cat", "dog")


def labelled(labels: list[int], side: int = 8) -> LabelledSet:
    """Return images that are as bright as their position says."""
    images = (
        np.zeros((len(labels), side, side, 3), dtype=np.uint8)
        + np.arange(len(labels), dtype=np.uint8)[:, None, None, None] * 10
    )
    return LabelledSet(Path("set.parquet"), images, np.array(labels), TAGS)


def add(shown: Gallery, part: str, votes: np.ndarray, images: LabelledSet, total: int) -> None:
    shown.add(part, votes, images.labels, total, images.images.__getitem__)


def decoded(picture: Picture) -> np.ndarray:
    head, _, encoded = picture.source.partition(",")
    assert head == "data:image/jpeg;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))))


def test_a_cell_shows_the_images_that_the_model_is_surest_of():
    votes = np.array([[6, 4, 0], [9, 1, 0], [2, 1, 7], [3, 7, 0], [9, 1, 0]], dtype=np.float32)
    shown = Gallery()
    add(shown, "test", votes, labelled([0, 0, 0, 1, 0]), 10)
    found = shown.pictures("test")
    assert {cell: [each.confidence for each in pictures] for cell, pictures in found.items()} == {
        (0, 0): [90, 90, 60],
        (0, 2): [70],  # none
        (1, 1): [70],
    }
    brightness = [round(decoded(each).mean() / 10) for each in found[0, 0]]
    assert brightness == [1, 4, 0]
    assert shown.pictures("held_out") == {}


def test_a_cell_shows_a_few_pictures_at_most():
    shown = Gallery()
    add(shown, "test", np.tile(np.array([[10, 0]], dtype=np.float32), (20, 1)), labelled([0] * 20), 10)
    assert len(shown.pictures("test")[0, 0]) == MOST_OF_CELL


def test_large_pictures_are_made_small():
    shown = Gallery()
    add(shown, "test", np.array([[10, 0]], dtype=np.float32), labelled([0], side=300), 10)
    assert decoded(shown.pictures("test")[0, 0][0]).shape == (64, 64, 3)


def test_if_not_all_fit_every_cell_gets_its_first_picture_before_any_gets_a_second(monkeypatch):
    votes = np.array([[9, 1]] * 3 + [[1, 9]] * 2, dtype=np.float32)
    shown = Gallery()
    add(shown, "test", votes, labelled([0, 0, 0, 1, 1]), 10)
    size = len(shown.pictures("test")[0, 0][0].source)
    monkeypatch.setattr(gallery_module, "MOST_BYTES", int(3.5 * size))
    assert {cell: len(pictures) for cell, pictures in shown.pictures("test").items()} == {(0, 0): 2, (1, 1): 1}


def test_the_pictures_of_both_sets_together_are_no_larger_than_the_limit():
    noise = np.random.default_rng(0).integers(0, 256, (2_000, 64, 64, 3), dtype=np.uint8)
    labels = np.arange(2_000) % 40
    votes = np.random.default_rng(1).random((2_000, 41)).astype(np.float32)
    images = LabelledSet(Path("noise.parquet"), noise, labels, tuple(f"tag {number}" for number in range(40)))
    shown = Gallery()
    add(shown, "test", votes, images, 1)
    add(shown, "held_out", votes, images, 1)
    sizes = [
        sum(len(each.source) for cell in shown.pictures(part).values() for each in cell)
        for part in ("test", "held_out")
    ]
    assert sum(sizes) <= MOST_BYTES
    assert min(sizes) > MOST_BYTES / 2 - 10_000
