"""A card's figures, checked with votes that can be counted by hand."""

from pathlib import Path

import numpy as np
import pytest
from small_run import TAGS, TREES, VOTES, forest, pictures

from tinytags_tasks.corpus.labelled import LabelledSet
from tinytags_tasks.train.evaluation import THRESHOLDS, count_votes, evaluate, evaluate_background, evaluate_other
from tinytags_tasks.train.forest_trees import forest_to_onnx
from tinytags_tasks.votes import least_votes


def labelled(labels: list[int], tags=("cat", "dog")) -> LabelledSet:
    images = np.zeros((len(labels), 1, 1, 3), dtype=np.uint8)
    return LabelledSet(Path("/somewhere/set.parquet"), images, np.array(labels), tags)


VOTES_OF_TWO = np.array([[10, 0], [6, 4], [5, 5], [4, 6], [1, 9], [0, 10]], dtype=np.float32)


def test_accuracy_and_confusion_count_the_winner_whatever_its_votes():
    found = evaluate(VOTES_OF_TWO, labelled([0, 1, 1, 1, 0, 1]), 10, "hash")
    assert found.confusion == ((1, 1), (2, 2))  # the tie counts for the lower tag
    assert found.accuracy == 50.0
    assert (found.images, found.labelled_set, found.sha256) == (6, "set.parquet", "hash")


def test_each_threshold_tells_what_is_kept_and_what_of_it_is_right():
    found = {each.threshold: each for each in evaluate(VOTES_OF_TWO, labelled([0, 1, 1, 1, 0, 1]), 10, "").thresholds}
    assert list(found) == [40, 50, 60, 70, 80, 90, 100]
    assert [each.votes for each in found.values()] == [4, 5, 6, 7, 8, 9, 10]
    assert [each.kept for each in found.values()] == [6, 6, 5, 3, 3, 3, 2]
    assert [each.right for each in found.values()] == [3, 3, 3, 2, 2, 2, 2]
    assert found[60].precision == (50.0, 66.67)
    assert found[60].recall == (50.0, 50.0)  # of all images with the tag, kept or not
    assert found[100].precision == (100.0, 100.0)


def test_a_tag_without_images_has_no_share():
    found = evaluate(np.array([[0, 10, 0]], dtype=np.float32), labelled([1], ("a", "b", "c")), 10, "").thresholds[-1]
    assert found.precision == (None, 100.0, None)
    assert found.recall == (None, 100.0, None)


def test_percentages_are_kept_as_they_are_when_blocks_are_scored():
    votes = np.array([[39.99, 60.01], [40.0, 30.0]], dtype=np.float32)
    found = {each.threshold: each.kept for each in evaluate(votes, labelled([1, 0]), 100, "").thresholds}
    assert found == {40: 2, 50: 1, 60: 1, 70: 0, 80: 0, 90: 0, 100: 0}


@pytest.mark.parametrize(
    ("threshold", "trees", "votes"), [(40, 10, 4), (40, 7, 3), (50, 3, 2), (100, 9, 9), (40, 1, 1)]
)
def test_the_least_votes_are_the_threshold_or_more(threshold, trees, votes):
    assert least_votes(threshold, trees) == votes


def test_other_things_are_counted_by_whether_they_have_a_tag_and_those_left_out_nowhere():
    found = evaluate_other(VOTES_OF_TWO, labelled([-1, 1, 0, -2, -1, 1]), 10, "hash")
    assert (found.without_tag, found.with_tag, found.left_out) == (2, 3, 1)
    figures = {each.threshold: each for each in found.thresholds}
    assert [each.tagged_without_tag for each in figures.values()] == [2, 2, 2, 2, 2, 2, 1]
    assert [each.tagged_with_tag for each in figures.values()] == [3, 3, 2, 1, 1, 1, 1]
    assert [each.right for each in figures.values()] == [2, 2, 1, 1, 1, 1, 1]
    assert figures[60].tagged == 4
    assert list(figures) == list(THRESHOLDS)


VOTES_WITH_NONE = np.array(
    [[70, 10, 20], [20, 20, 60], [5, 5, 90], [40, 20, 40], [0, 95, 5], [10, 45, 45]], dtype=np.float32
)
"""Six images: cat, none, none, cat (a tie with none), dog, dog (a tie)."""


def test_an_image_that_is_none_is_wrong_never_kept_and_in_the_last_column():
    found = evaluate(VOTES_WITH_NONE, labelled([0, 0, 1, 0, 1, 0]), 100, "")
    assert found.confusion == ((2, 1, 1), (0, 1, 1))
    assert found.none == 2
    assert found.accuracy == 50.0
    first = found.thresholds[0]
    assert (first.kept, first.right) == (4, 3)
    assert first.precision == (100.0, 50.0)
    assert first.recall == (50.0, 50.0)


def test_a_model_without_none_calls_nothing_none():
    found = evaluate(VOTES_OF_TWO, labelled([0, 1, 1, 1, 0, 1]), 10, "")
    assert found.none == 0
    others = evaluate_other(VOTES_OF_TWO, labelled([-1, 1, 0, -2, -1, 1]), 10, "")
    assert (others.none_without_tag, others.none_with_tag) == (None, None)


def test_bands_of_confidence_tell_how_often_it_is_right():
    found = evaluate(VOTES_OF_TWO, labelled([0, 1, 1, 1, 0, 1]), 10, "").reliability
    assert [band.confidence for band in found] == list(range(0, 100, 10))
    assert [band.images for band in found] == [0, 0, 0, 0, 0, 1, 2, 0, 0, 3]  # 100 % is in the last band
    assert [band.right for band in found] == [0, 0, 0, 0, 0, 0, 1, 0, 0, 2]
    assert found[9].mean_confidence == 96.67


def test_images_of_none_are_in_no_band():
    found = evaluate(VOTES_WITH_NONE, labelled([0, 0, 1, 0, 1, 0]), 100, "").reliability
    assert sum(band.images for band in found) == 4
    assert [band.confidence for band in found if band.images] == [40, 70, 90]


def test_the_calibration_error_is_the_mean_distance_of_confidence_and_right():
    found = evaluate(VOTES_OF_TWO, labelled([0, 1, 1, 1, 0, 1]), 10, "")
    assert found.calibration_error == pytest.approx((50 + 2 * 10 + 3 * 30) / 6, abs=0.01)
    assert found.replaced(reliability=()).calibration_error is None


def test_a_model_that_is_as_often_right_as_it_is_sure_has_no_calibration_error():
    votes = np.tile(np.array([[75, 25]], dtype=np.float32), (4, 1))
    assert evaluate(votes, labelled([0, 0, 0, 1]), 100, "").calibration_error == 0.0


def test_other_things_are_none_below_or_tagged():
    found = evaluate_other(VOTES_WITH_NONE, labelled([-1, -1, 1, -1, 1, -2]), 100, "")
    assert (found.without_tag, found.with_tag, found.left_out) == (3, 2, 1)
    assert (found.none_without_tag, found.none_with_tag) == (1, 1)
    at_40, at_50 = found.thresholds[:2]
    assert (at_40.tagged_without_tag, found.below_without_tag(at_40)) == (2, 0)
    assert (at_50.tagged_without_tag, found.below_without_tag(at_50)) == (1, 1)


def test_auroc_ranks_images_by_their_best_tag_whatever_none_gets():
    found = evaluate_other(VOTES_WITH_NONE, labelled([-1, -1, 1, -1, 1, -2]), 100, "")
    assert found.auroc == 0.5  # best tags of a tag: 5 and 95; of none: 70, 20 and 40
    tied = np.array([[60, 40], [60, 40], [30, 70]], dtype=np.float32)
    assert evaluate_other(tied, labelled([0, -1, -1]), 100, "").auroc == 0.25  # a tie counts half
    assert evaluate_other(tied, labelled([-1, -1, -1]), 100, "").auroc is None


def test_background_shows_no_tag():
    found = evaluate_background(VOTES_WITH_NONE, 2, 100, "general32-1", "hash")
    assert (found.labelled_set, found.sha256) == ("background of general32-1", "hash")
    assert (found.without_tag, found.with_tag, found.none_without_tag, found.auroc) == (6, 0, 2, None)
    assert [each.tagged_without_tag for each in found.thresholds] == [4, 2, 2, 2, 1, 1, 0]


def test_votes_of_images_are_those_of_the_model():
    onnx_model = forest_to_onnx(forest(), 3_072, TAGS, {})
    assert count_votes(onnx_model, pictures()).tolist() == [list(map(float, votes)) for votes in VOTES]
    assert all(sum(votes) == TREES for votes in VOTES)
