"""Which general pictures teach "none of the tags": those of classes that neither name a tag nor look like one."""

import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tinytags_tasks.errors import BadInputError
from tinytags_tasks.nets.background import Background, parse_background
from tinytags_tasks.nets.recipe.classes import NONE, tag_of
from tinytags_tasks.nets.shipped import read_packaged, shipped_background
from tinytags_tasks.train.features import LabelledFeatures
from tinytags_tasks.train.none import choose_background, names_a_tag

DIMENSIONS = 16
IMAGES = 400
CLASSES = {
    "tabby, tabby cat": ("cat", "animal"),
    "teapot": (),
    "spotted one": (),  # looks like a dog, and nothing in its name says so
    "kettle": (),
    "acorn": (),
}


def cloud(centre: int, images: int = IMAGES) -> np.ndarray:
    """Return embeddings that have three values in common."""
    values = np.random.default_rng(centre).integers(-5, 6, (images, DIMENSIONS))
    values[:, [centre, (centre + 2) % DIMENSIONS, (centre + 4) % DIMENSIONS]] += 80
    return values.astype(np.int8)


def labelled(tags=("cats", "dog")) -> LabelledFeatures:
    """Return a set of two clouds."""
    values = np.concatenate([cloud(0), cloud(1)])
    return LabelledFeatures(Path("set.parquet"), "0" * 64, tags, np.repeat([0, 1], IMAGES), values)


def background() -> Background:
    """Return a background in which each class has the look of a cloud."""
    looks = {"tabby, tabby cat": 0, "teapot": 8, "spotted one": 1, "kettle": 8, "acorn": 8}
    names = [name for name in CLASSES for _ in range(IMAGES)]
    values = np.concatenate([cloud(looks[name]) for name in CLASSES])
    return Background(values, tuple(names), tuple(CLASSES[name] for name in names))


def test_classes_that_name_a_tag_or_look_like_one_are_left_out():
    chosen = choose_background(background(), labelled(), "a net")
    assert chosen.left_out_by_name == ("tabby, tabby cat",)
    assert chosen.left_out_by_look == ("spotted one",)
    np.testing.assert_array_equal(chosen.embeddings, np.concatenate([cloud(8)] * 3))


def test_at_most_so_many_pictures_are_drawn_the_same_ones_in_every_training():
    chosen = choose_background(background(), labelled(), "a net")
    assert chosen.sample(3 * IMAGES, 1) is chosen
    some = chosen.sample(5, 1)
    assert (len(some.embeddings), some.left_out_by_name) == (5, chosen.left_out_by_name)
    np.testing.assert_array_equal(some.embeddings, chosen.sample(5, 1).embeddings)
    assert (some.embeddings != chosen.sample(5, 2).embeddings).any()


def test_a_head_that_is_sure_of_nearly_everything_leaves_nothing_out_by_look(monkeypatch):
    monkeypatch.setitem(CLASSES, "tabby, tabby cat", ())
    flat = background()
    everything = Background(np.concatenate([cloud(1)] * len(CLASSES)), flat.classes, flat.kinds)
    chosen = choose_background(everything, labelled(("Katze", "Hund")), "a net")
    assert (chosen.left_out_by_name, chosen.left_out_by_look) == ((), ())
    assert len(chosen.embeddings) == len(flat.classes)


def test_a_background_that_is_all_tags_is_refused_with_a_remedy():
    with pytest.raises(BadInputError, match=r"every class of the background of half-1 names one .*--no-none"):
        choose_background(background(), labelled(("animal", "teapot", "spotted", "kettle", "acorn")), "half-1")


@pytest.mark.parametrize(
    ("names", "tag"),
    [
        (("tabby, tabby cat",), "cat"),
        (("Egyptian Cat",), "cats"),
        (("sulphur butterfly",), "Butterflies"),
        (("school bus",), "buses"),
        (("sports car, sport car",), "sports_car"),
        (("Chihuahua", "dog"), "DOG"),
    ],
)
def test_a_class_names_a_tag_whatever_its_case_and_number(names, tag):
    assert names_a_tag(names, ("emu", tag))


@pytest.mark.parametrize(
    ("names", "tag"),
    [(("catamaran",), "cat"), (("freight car",), "sports car"), (("hotdog",), "dog"), (("teapot",), ""), ((), "cat")],
)
def test_a_part_of_a_word_or_half_of_a_tag_is_no_name(names, tag):
    assert not names_a_tag(names, (tag,))


def test_of_the_background_that_ships_no_class_that_names_one_of_cifars_tags_teaches_none():
    """The truth is that of the recipe, which says which classes show a tag."""
    table = pq.read_table(io.BytesIO(read_packaged("background.parquet")), columns=["wnid", "class"])
    shown = {name: tag_of(wnid) for wnid, name in zip(*(column.to_pylist() for column in table.columns), strict=True)}
    found = parse_background(shipped_background(), 256, "background.parquet", "")
    kinds = dict(zip(found.classes, found.kinds, strict=True))
    tags = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    named = {name for name in kinds if names_a_tag((name, *kinds[name]), tags)}
    assert {name for name, tag in shown.items() if 0 <= tag < NONE} <= named
    # What shows none and is left out all the same: the "bear cat".
    assert [name for name in named if shown[name] == NONE] == [name for name in kinds if "bear cat" in name]
