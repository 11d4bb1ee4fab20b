"""Prepares embeddings for a head that learns from few pictures, by how pictures of one thing differ in the background.

A handful of pictures does not tell which values vary by chance. The net's background does: it has a hundred pictures
of each of its classes. Square roots, because a few values of a net are often much larger than the others. See
docs/adr/0032-few-pictures.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from tinytags_tasks.nets.background import Background
from tinytags_tasks.store.embedding_files import Embeddings

MOST_LABELLED = 5_000
"""From more labelled pictures, a head learns as much from the embeddings as they are."""

SHRINKAGE = 0.8
"""The share of the variances alone in the covariances."""

LEAST_VARIANCE = 0.001
"""The least variance of a value, in those of all values on average, or in ones if that is more."""

RULE = [1, MOST_LABELLED, SHRINKAGE, LEAST_VARIANCE]
"""What decides the preparation besides the background; the first number changes with the code."""

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Whitening:
    """Square roots of embeddings, less their mean, times a matrix: pictures of one thing then differ alike everywhere.

    Attributes
    ----------
    mean
        Shape (values,).
    matrix
        Shape (values, values).
    """

    mean: Numbers = field(repr=False)
    matrix: Numbers = field(repr=False)

    def apply(self, embeddings: Embeddings) -> Numbers:
        """Return prepared embeddings, shape (pictures, values)."""
        with threadpool_limits(1):  # the same numbers on any number of cores
            prepared: Numbers = (_roots(embeddings) - self.mean) @ self.matrix
        return prepared

    def folded(self, coefficients: Numbers, intercepts: Numbers) -> tuple[Numbers, Numbers]:
        """Return the weights for square roots of embeddings that give what these weights give for prepared ones."""
        with threadpool_limits(1):
            of_roots: Numbers = coefficients @ self.matrix.T
            return of_roots, intercepts - of_roots @ self.mean


def whitening_by(background: Background) -> Whitening:
    """Return the preparation by a net's background."""
    roots = _roots(background.embeddings)
    with threadpool_limits(1):
        covariance = _within_classes(roots, background.classes)
        variances = np.diag(covariance)
        # A value that hardly ever varies says little about its scale.
        least = LEAST_VARIANCE * max(variances.mean(), 1.0)
        shrunk = (1 - SHRINKAGE) * covariance + SHRINKAGE * np.diag(np.maximum(variances, least))
        matrix = np.linalg.inv(np.linalg.cholesky(shrunk)).T
    return Whitening(roots.mean(axis=0), matrix)


def _roots(embeddings: Embeddings) -> Numbers:
    """Return square roots that keep the sign."""
    values = embeddings.astype(np.float64)
    roots: Numbers = np.sign(values) * np.sqrt(np.abs(values))
    return roots


def _within_classes(values: Numbers, classes: Sequence[str]) -> Numbers:
    """Return the covariance of pictures of the same class, averaged over the classes."""
    _, numbers, counts = np.unique(np.array(classes), return_inverse=True, return_counts=True)
    order = np.argsort(numbers, kind="stable")
    means = np.add.reduceat(values[order], np.cumsum(counts) - counts) / counts[:, None]
    differences = values - means[numbers]
    covariance: Numbers = differences.T @ differences / max(1, len(values) - len(counts))
    return covariance
