"""A card's figures, checked with votes that can be counted by hand."""

from pathlib import Path

import numpy as np
import pytest
from small_run import TAGS, TREES, VOTES, forest, pictures

from tinytags_tasks.corpus.labelled import LabelledSet
from tinytags_tasks.train.evaluation import THRESHOLDS, count_votes, evaluate, evaluate_other
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


def test_votes_of_images_are_those_of_the_model():
    onnx_model = forest_to_onnx(forest(), 3_072, TAGS, {})
    assert count_votes(onnx_model, pictures()).tolist() == [list(map(float, votes)) for votes in VOTES]
    assert all(sum(votes) == TREES for votes in VOTES)
