"""Fits a logistic regression in Spark, and reads its weights."""

from typing import Any

import numpy as np
import numpy.typing as npt
from pyspark.ml.classification import LogisticRegression

from tinytags_tasks.clients.spark import spark_errors
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.train.spark_features import WEIGHT, read_features

Weights = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]
"""Coefficients, shape (classes, values), and intercepts, shape (classes,)."""


def fit_weights(
    folder: str,
    storage: Storage,
    spark: Any,  # noqa: ANN401 - see tinytags_tasks.clients.spark.connect_spark
    *,
    regularization: float,
    iterations: int,
    standardization: bool,
    with_held_out: bool,
) -> Weights:
    """Fit a multinomial logistic regression in Spark and return its weights.

    Parameters
    ----------
    folder
        What :func:`tinytags_tasks.train.spark_features.write_features` wrote.
    storage
        The store.
    spark
        A session.
    regularization, iterations, standardization
        regParam, maxIter and standardization in MLlib. The penalty is on the squares of the weights: of standardised
        values, or of the values as they are.
    with_held_out
        Whether to learn from the held-out rows as well.

    Raises
    ------
    TransientError
        If Spark or the store is unavailable.
    """
    with spark_errors("training the logistic regression"):
        frame = read_features(spark, storage.url(folder), with_held_out=with_held_out)
        weighted = {"weightCol": WEIGHT} if WEIGHT in frame.columns else {}
        model = LogisticRegression(
            family="multinomial",
            regParam=regularization,
            maxIter=iterations,
            standardization=standardization,
            **weighted,
        ).fit(frame)
        return np.asarray(model.coefficientMatrix.toArray()), np.asarray(model.interceptVector.toArray())
