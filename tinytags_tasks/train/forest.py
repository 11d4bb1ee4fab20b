"""The forest family: Spark MLlib's random forest. Each tree has one vote; confidence is the share of votes."""

from collections.abc import Mapping
from typing import Any

from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.train.family import Classifier, Features, Parameter, model_metadata
from tinytags_tasks.train.forest_trees import forest_to_onnx


class Forest:
    """See :class:`tinytags_tasks.train.family.Family`."""

    name = "forest"
    parameters = (
        Parameter("trees", default=10, low=1, high=1000),
        Parameter("depth", default=10, low=1, high=30),
        Parameter("bins", default=50, low=2, high=65536),
        Parameter("seed", default=42, low=-(2**63), high=2**63 - 1),
    )

    # Bagging is seeded by partition, and statistics are sums, so two partitions give the same trees in every fit.
    most_partitions = 2

    whitens_few = False  # it splits on one value at a time

    # Among thousands of general pictures, a tree finds leaves for none around every labelled one: see ADR 22.
    most_background = 4

    def describe(self, chosen: Mapping[str, int]) -> str:
        """See the protocol."""
        return f"{chosen['trees']} trees of depth {chosen['depth']}"

    def fit(
        self,
        chosen: Mapping[str, int],
        features: Features,
        storage: Storage,
        spark: Any,  # noqa: ANN401 - see tinytags_tasks.clients.spark.connect_spark
        *,
        with_held_out: bool,
    ) -> Classifier:
        """See the protocol."""
        # Imported here because importing PySpark takes seconds, and `tinytags lab` needs only the parameters.
        from tinytags_tasks.train import forest_spark

        trees = forest_spark.fit_trees(chosen, features.folder, storage, spark, with_held_out=with_held_out)
        metadata = model_metadata(features.tags)
        onnx_model = forest_to_onnx(
            trees, features.values, features.classes, metadata, features.input_name, features.input_type
        )
        return Classifier(onnx_model, "votes", total=len(trees), parameters=dict(chosen))


FOREST = Forest()
