"""How a model's output is interpreted, both when a model is evaluated and when blocks are scored.

For each image, a model gives every tag some votes. They add up to a total: the number of trees, or 100 if the model
gives percentages. The tag with the most votes wins, and its share of the total is the image's confidence.
"""

import numpy as np
import numpy.typing as npt

Votes = npt.NDArray[np.float32]
"""Shape (images, tags), or (images,) for the winners' votes alone."""


def winners(votes: npt.NDArray[np.number]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.number]]:
    """Return the index of each image's winning tag (the lowest index if there is a tie), and its votes."""
    winner = votes.argmax(axis=1)
    return winner, votes[np.arange(len(votes)), winner]


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
