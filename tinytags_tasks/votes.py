"""How a model's output is read, the same when it is measured and when blocks are scored.

A model gives an image votes for each tag, which add up to a total: its number of trees, or 100 where it gives
percentages. The tag with the most votes wins, and its share of the total is the image's confidence.
"""

import numpy as np
import numpy.typing as npt

Votes = npt.NDArray[np.float32]
"""Shape (images, tags), or (images,) where they are the winner's."""


def winners(votes: npt.NDArray[np.number]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.number]]:
    """Return each image's winning tag (of equals, the lowest index) and its votes."""
    winner = votes.argmax(axis=1)
    return winner, votes[np.arange(len(votes)), winner]


def is_kept(won: npt.NDArray[np.number], threshold: int, total: int) -> npt.NDArray[np.bool_]:
    """Tell of each image whether the winner's votes reach a threshold of confidence, in percent."""
    kept: npt.NDArray[np.bool_] = won * 100 >= threshold * total
    return kept


def confidence(won: npt.NDArray[np.number], total: int) -> npt.NDArray[np.number]:
    """Return the winners' confidence in whole percent, rounded down."""
    percent: npt.NDArray[np.number] = won * 100 // total
    return percent


def least_votes(threshold: int, total: int) -> int:
    """Return the fewest votes that reach a threshold of confidence, in percent."""
    return -(-threshold * total // 100)
