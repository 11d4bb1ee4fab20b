"""Pictures of a corpus that are also in the labelled set: a model learned from them, so they say nothing of it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from made_frames import NONE, look, make_frame
from test_train_step import TAGS, fits, request_of, sets, train

from tinytags_tasks.corpus.demo.make import write_labelled_parquet
from tinytags_tasks.errors import CorruptError
from tinytags_tasks.review.draw import next_pictures
from tinytags_tasks.review.frame import Frame
from tinytags_tasks.review.precision import measure
from tinytags_tasks.store import layout
from tinytags_tasks.store.labelled_pictures import labelled_pictures, pictures_file
from tinytags_tasks.store.local import LocalStorage
from tinytags_tasks.store.model_records import ModelCard
from tinytags_tasks.store.review_records import SCHEMA, picture_hash

__all__ = ["fits", "sets"]


def shades(seed: int) -> np.ndarray:
    """Return the shades of the labelled pictures, as the fixture draws them."""
    return np.random.default_rng(seed).integers(0, 256, 60, dtype=np.uint8)


def hash_of(shade: int) -> bytes:
    return picture_hash(bytes([shade]) * (4 * 4 * 3))


def card_of(storage: LocalStorage, model: str) -> ModelCard:
    return ModelCard.load(storage, layout.card_file(model))


def test_a_training_keeps_which_pictures_its_labelled_set_has(
    storage: LocalStorage, sets: dict[str, str], fits: list[bool]
) -> None:
    card = card_of(storage, train(storage, request_of(sets)).model)
    assert labelled_pictures(card, storage) == {hash_of(int(shade)) for shade in shades(1)}


def test_the_same_training_keeps_them_again(storage: LocalStorage, sets: dict[str, str], fits: list[bool]) -> None:
    card = card_of(storage, train(storage, request_of(sets)).model)
    path = pictures_file(card.labelled_sha256, card.height, card.width, card.preparation)
    kept = storage.read(path)
    one = min(labelled_pictures(card, storage))
    for damaged in (kept[:-20], kept.replace(one, one[::-1])):
        assert damaged != kept
        storage.write(path, damaged)
        with pytest.raises(CorruptError, match=f"{path}: damaged .*train model {card.version} again"):
            labelled_pictures(card, storage)
    storage.delete(path)
    assert labelled_pictures(card, storage) == frozenset()
    assert not train(storage, request_of(sets)).trained
    assert storage.read(path) == kept


def test_a_model_that_was_imported_has_none(storage: LocalStorage, sets: dict[str, str], fits: list[bool]) -> None:
    card = card_of(storage, train(storage, request_of(sets)).model)
    assert labelled_pictures(card.replaced(labelled_sha256=""), storage) == frozenset()


def test_another_set_has_other_pictures(
    storage: LocalStorage, sets: dict[str, str], fits: list[bool], tmp_path: Path
) -> None:
    train(storage, request_of(sets))
    other = shades(5)
    images = np.repeat(other, 4 * 4 * 3).reshape(60, 4, 4, 3)
    write_labelled_parquet(tmp_path / "other.parquet", images, (other >= 128).astype(np.int64), TAGS)
    card = card_of(
        storage, train(storage, request_of(sets | {"labelled": str(tmp_path / "other.parquet")}, name="b")).model
    )
    assert labelled_pictures(card, storage) == {hash_of(int(shade)) for shade in other}


def cats(right: int, wrong: int) -> tuple[Frame, np.ndarray]:
    number = right + wrong
    return make_frame(np.zeros(number, dtype=np.int64), np.full(number, 95)), np.repeat([0, NONE], [right, wrong])


def looked_at(frame: Frame, truth: np.ndarray, looks: int, **changes: str) -> pa.Table:
    drawn = next_pictures(frame, SCHEMA.empty_table(), count=looks, purpose_share=1.0)
    words = look(drawn, truth, 1, **changes)
    pictures = pa.array([name_of(position) for position in words.column("position").to_pylist()])
    return words.set_column(words.schema.get_field_index("picture"), "picture", pictures)


def name_of(position: int) -> bytes:
    return picture_hash(position.to_bytes(4, "big"))


def test_what_is_in_the_labelled_set_is_in_no_figure() -> None:
    """Half of the cats are labelled and right; of the others, half are right."""
    frame, truth = cats(right=300, wrong=100)
    words = looked_at(frame, truth, 200)
    before = measure(frame, words)
    after = measure(replace(frame, labelled=frozenset(map(name_of, range(200)))), words)

    assert before.overall.low < 75 < before.overall.high
    assert after.overall.low < 50 < after.overall.high < 70
    assert after.precision_of("cat", 95).percent < 60
    assert after.looks + after.labelled == before.looks == 200
    assert (after.unclear, before.labelled) == (0, 0)
    assert after.as_json()["labelled"] == after.labelled


@pytest.mark.parametrize("why", ["teach", "correction", "import"])
def test_what_is_known_of_labelled_pictures_is_in_no_figure_either(why: str) -> None:
    frame, truth = cats(right=10, wrong=10)
    words = pa.concat_tables([looked_at(frame, truth, 20, why=why)])
    measuring = pa.array(["measure" if position >= 8 else why for position in words.column("position").to_pylist()])
    words = words.set_column(words.schema.get_field_index("why"), "why", measuring)

    table = measure(replace(frame, labelled=frozenset(map(name_of, range(8)))), words)

    assert (table.overall.percent, table.labelled) == (pytest.approx(100 * 2 / 12, abs=0.01), 0)
