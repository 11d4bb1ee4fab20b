"""How a model's output is interpreted, both when a model is evaluated and when blocks are scored.

For each image, a model gives every tag some votes. They add up to a total: the number of trees, or 100 if the model
gives percentages. The tag with the most votes wins, and its share of the total is the image's confidence. A model may
have one more column, the last: "none of the tags". If none wins, the image is never kept.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Votes = npt.NDArray[np.float32]
"""Shape (images, tags), or (images,) for the winners' votes alone."""


def winners(votes: npt.NDArray[np.number]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.number]]:
    """Return the index of each image's winning tag (the lowest index if there is a tie), and its votes."""
    winner = votes.argmax(axis=1)
    return winner, votes[np.arange(len(votes)), winner]


@dataclass(frozen=True)
class Decisions:
    """What becomes of images. Each is kept, below the threshold, or none.

    Attributes
    ----------
    winner
        int64, shape (images,): the index of the winning tag; that of "none", the number of tags, for none.
    won
        Shape (images,): the winner's votes.
    is_kept, is_none
        bool, shape (images,).
    """

    winner: npt.NDArray[np.int64]
    won: npt.NDArray[np.number]
    is_kept: npt.NDArray[np.bool_]
    is_none: npt.NDArray[np.bool_]


def decide(votes: npt.NDArray[np.number], tags: int, threshold: int, total: int) -> Decisions:
    """Decide on images by their votes, shape (images, tags) or, with "none", (images, tags + 1).

    "None" must win alone: in a tie with a tag, the tag has the lower index and wins.
    """
    winner, won = winners(votes)
    is_none = winner == tags
    return Decisions(winner, won, is_kept(won, threshold, total) & ~is_none, is_none)


def is_kept(won: npt.NDArray[np.number], threshold: int, total: int) -> npt.NDArray[np.bool_]:
    """Return for each image whether the winner's confidence reaches the threshold, in percent."""
    kept: npt.NDArray[np.bool_] = won * 100 >= threshold * total
    return kept


def confidence(won: npt.NDArray[np.number], total: int) -> npt.NDArray[np.number]:
    """Return the winners' confidence in whole percent, rounded down."""
    percent: npt.NDArray[np.number] = won * 100 // total
    return percent


def least_votes(threshold: int, total: int) -> int:
    """Return the smallest number of votes that reaches a threshold of confidence, in percent."""
    return -(-threshold * total // 100)
