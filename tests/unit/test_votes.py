"""How votes are interpreted: one rule for evaluating and for scoring."""

import numpy as np
import pytest

from tinytags_tasks.votes import confidence, is_kept, least_votes, winners


def test_the_tag_with_the_most_votes_wins_and_of_equals_the_first():
    winner, won = winners(np.array([[1, 7, 2], [5, 5, 0], [0, 5, 5]], dtype=np.float32))
    assert winner.tolist() == [1, 0, 1]
    assert won.tolist() == [7, 5, 5]


@pytest.mark.parametrize(("total", "votes"), [(10, 4), (7, 3), (3, 2), (1, 1), (100, 40)])
def test_an_image_is_kept_from_the_least_votes_up_and_its_confidence_says_the_same(total, votes):
    assert least_votes(40, total) == votes
    won = np.arange(total + 1, dtype=np.float32)
    assert np.flatnonzero(is_kept(won, 40, total)).tolist() == list(range(votes, total + 1))
    assert (confidence(won, total) >= 40).tolist() == is_kept(won, 40, total).tolist()


def test_confidence_is_rounded_down():
    assert confidence(np.array([59.99, 60.0], dtype=np.float32), 100).tolist() == [59.0, 60.0]
    assert confidence(np.array([2], dtype=np.float32), 3).tolist() == [66.0]
