"""Fits a forest in Spark, and reads its trees."""

from collections.abc import Mapping
from typing import Any

from pyspark.ml.classification import RandomForestClassifier

from tinytags_tasks.clients.spark import spark_errors
from tinytags_tasks.errors import CorruptError
from tinytags_tasks.store.protocol import Storage, temporary_name
from tinytags_tasks.train.forest_trees import Tree, trees_from_spark
from tinytags_tasks.train.spark_features import WEIGHT, read_features


def fit_trees(
    chosen: Mapping[str, int],
    folder: str,
    storage: Storage,
    spark: Any,  # noqa: ANN401 - see tinytags_tasks.clients.spark.connect_spark
    *,
    with_held_out: bool,
) -> list[Tree]:
    """Fit a forest in Spark and return its trees.

    Parameters
    ----------
    chosen
        ``trees``, ``depth``, ``bins`` and ``seed``: numTrees, maxDepth, maxBins and seed in MLlib.
    folder
        What :func:`tinytags_tasks.train.spark_features.write_features` wrote.
    storage
        The store.
    spark
        A session.
    with_held_out
        Whether to learn from the held-out images as well.

    Raises
    ------
    TransientError
        If Spark or the store is unavailable.
    CorruptError
        If trees are missing.
    """
    saved = temporary_name(folder)
    try:
        with spark_errors("training the forest"):
            frame = read_features(spark, storage.url(folder), with_held_out=with_held_out)
            weighted = {"weightCol": WEIGHT} if WEIGHT in frame.columns else {}
            forest = RandomForestClassifier(
                numTrees=chosen["trees"],
                maxDepth=chosen["depth"],
                maxBins=chosen["bins"],
                seed=chosen["seed"],
                **weighted,
            ).fit(frame)
            forest.write().overwrite().save(storage.url(saved))
            trees = trees_from_spark(spark.read.parquet(storage.url(f"{saved}/data")).toArrow().to_pylist())
        if len(trees) != chosen["trees"]:
            raise CorruptError(f"Spark saved {len(trees)} of {chosen['trees']} trees; train again")
        return trees
    finally:
        storage.delete(saved)
