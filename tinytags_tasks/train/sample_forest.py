"""A forest in scikit-learn whose parameters mean the same as in MLlib, so that the lab's results apply to Spark.

As in MLlib, a pixel's values are first sorted into bins with equally many images; a node considers a random subset of
the values, as many as the square root of their number; a tree learns from images drawn with replacement; and each tree
has one vote.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import RandomForestClassifier

from tinytags_tasks.train.parameters import TrainRequest

_Pixels = npt.NDArray[np.uint8]


class SampleForest:
    """A forest with a training's parameters, in scikit-learn.

    Parameters
    ----------
    training
        The parameters.
    tags
        The number of tags.
    jobs
        How many trees are fitted at the same time.
    """

    def __init__(self, training: TrainRequest, tags: int, jobs: int = 1) -> None:
        self._bins = training.bins
        self._tags = tags
        self._forest = RandomForestClassifier(
            n_estimators=training.trees,
            max_depth=training.depth,
            max_features="sqrt",
            random_state=training.seed % 2**32,
            n_jobs=jobs,
        )

    def fit(self, images: _Pixels, labels: npt.NDArray[np.int64]) -> "SampleForest":
        """Learn from images, uint8 of shape (images, values), and their labels."""
        self._places = bin_places(images, self._bins)
        self._forest.fit(self._binned(images), labels)
        return self

    def votes(self, images: _Pixels) -> npt.NDArray[np.int64]:
        """Return the trees' votes, int64 of shape (images, tags)."""
        binned = self._binned(images)
        votes = np.zeros((len(images), self._tags), dtype=np.int64)
        for tree in self._forest.estimators_:
            chosen = self._forest.classes_[tree.predict(binned, check_input=False).astype(np.int64)]
            votes[np.arange(len(images)), chosen] += 1
        return votes

    def _binned(self, images: _Pixels) -> npt.NDArray[np.float32]:
        """Return the bin of each value, in the type that scikit-learn's trees read."""
        binned = np.empty(images.shape, dtype=np.float32)
        for rows in _chunks(len(images)):
            binned[rows] = self._places[np.arange(images.shape[1]), images[rows]]
        return binned


def bin_places(images: _Pixels, bins: int) -> npt.NDArray[np.uint8]:
    """Return the bins for the values of each pixel and colour, with equally many images in each bin.

    Parameters
    ----------
    images
        uint8, shape (images, values).
    bins
        The maximum number of bins; if there are no more distinct values than that, each value has its own bin.

    Returns
    -------
    numpy.ndarray
        uint8, shape (values, 256): the bin of each of the 256 possible values.
    """
    values = images.shape[1]
    places = np.empty((values, 256), dtype=np.uint8)
    for value in range(values):
        counts = np.bincount(images[:, value], minlength=256)
        if np.count_nonzero(counts) <= bins:
            places[value] = np.maximum(np.cumsum(counts > 0) - 1, 0)
        else:
            below = np.cumsum(counts) - counts
            places[value] = np.minimum(below * bins // len(images), bins - 1)
    return places


def _chunks(images: int, size: int = 1_000) -> Iterator[slice]:
    return (slice(start, start + size) for start in range(0, images, size))
