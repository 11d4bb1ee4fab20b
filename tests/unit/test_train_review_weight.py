"""The way to learn from reviews: chosen by cross-validation on them, from the data alone."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tinytags_tasks.train.features import LabelledFeatures
from tinytags_tasks.train.none import Chosen
from tinytags_tasks.train.parameters import TrainRequest
from tinytags_tasks.train.review_weight import CAUTIONS, KNOWN_WEIGHT, MOST_REGULARIZATION, WEIGHTS, Way, choose_way
from tinytags_tasks.train.reviews import ENOUGH, Reviewed

TAGS = ("cat", "dog")
CAT, DOG, OTHER = np.array([60, 0, 0, 0]), np.array([0, 60, 0, 0]), np.array([0, 0, 60, 0])
STYLE = np.array([0, 0, 0, 60])
"""What all pictures of the corpus have, and no labelled one."""


def like(*centres: np.ndarray, each: int, seed: int) -> np.ndarray:
    """Return embeddings around centres, as many around each."""
    noise = np.random.default_rng(seed).normal(0, 12, (len(centres) * each, 4))
    return np.clip(np.repeat(centres, each, axis=0) + noise, 0, 127).astype(np.int8)


@pytest.fixture
def labelled() -> LabelledFeatures:
    return LabelledFeatures(Path("pets"), "", TAGS, np.repeat([0, 1], 300), like(CAT, DOG, each=300, seed=1))


@pytest.fixture
def reviewed() -> Reviewed:
    centres = (CAT + STYLE, DOG + STYLE, OTHER + STYLE)
    return Reviewed(like(*centres, each=60, seed=2), np.repeat([0, 1, 2], 60))


def background(*centres: np.ndarray) -> Chosen:
    return Chosen(like(*centres, each=400, seed=3), (), ())


def choose(labelled: LabelledFeatures, others: Chosen | None, reviewed: Reviewed, **changes: int) -> Way:
    return choose_way(TrainRequest("pets", **changes), labelled, others, reviewed, lambda line: None)


def test_the_same_reviews_choose_the_same_way(labelled, reviewed):
    spoken: list[str] = []
    ways = {choose_way(TrainRequest("pets"), labelled, background(OTHER), reviewed, spoken.append) for _ in range(2)}
    assert len(ways) == 1
    (way,) = ways
    assert way.weight in WEIGHTS
    assert way.regularization in [100 * caution for caution in CAUTIONS]
    assert spoken[0].startswith(f"reviewed images count {way}: the best of 7 ways in 4-fold cross-validation on 180 ")


def test_a_background_that_shows_what_reviews_call_a_tag_is_left_out(labelled, reviewed):
    assert not choose(labelled, background(CAT + STYLE, DOG + STYLE), reviewed).with_background


def test_a_few_reviews_choose_nothing(labelled, reviewed):
    few = Reviewed(reviewed.embeddings[: ENOUGH - 1], reviewed.labels[: ENOUGH - 1])
    assert choose(labelled, background(CAT + STYLE), few) == Way(20.0, with_background=True, regularization=100)


def test_reviews_that_the_net_knows_by_heart_do_not_choose(labelled, reviewed):
    spoken: list[str] = []
    options = {"report": spoken.append, "net_knows": True}
    for others in (background(CAT + STYLE, DOG + STYLE), None):
        way = choose_way(TrainRequest("pets"), labelled, others, reviewed, **options)
        assert way == Way(KNOWN_WEIGHT, with_background=others is not None, regularization=100 * max(CAUTIONS))
        assert spoken.pop() == (
            f"reviewed images count {way}: the net was fine-tuned with reviews, so they cannot choose"
        )
    most = choose_way(TrainRequest("pets", regularization=MOST_REGULARIZATION), labelled, None, reviewed, **options)
    assert most.regularization == MOST_REGULARIZATION


def test_the_background_stays_where_hardly_any_review_says_none(labelled, reviewed):
    without_none = replace(reviewed, embeddings=reviewed.embeddings[:125], labels=reviewed.labels[:125])  # five of none
    assert choose(labelled, background(CAT + STYLE, DOG + STYLE), without_none).with_background
    assert not choose(labelled, None, without_none).with_background


def test_regularization_stays_in_its_range(labelled, reviewed):
    assert choose(labelled, None, reviewed, regularization=MOST_REGULARIZATION).regularization == MOST_REGULARIZATION
    assert choose(labelled, None, reviewed, regularization=0).regularization == 0


def test_what_is_chosen_is_applied_to_what_a_head_learns(reviewed):
    others = background(OTHER)
    request, lesson, kept = Way(50.0, with_background=False, regularization=7).applied(
        TrainRequest("pets"), reviewed, others
    )
    assert (request.regularization, lesson.weight, kept) == (7, 50.0, None)
    assert Way(5.0, with_background=True, regularization=7).applied(TrainRequest("pets"), reviewed, others)[2] is others
