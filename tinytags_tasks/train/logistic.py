"""The logistic family: Spark MLlib's multinomial regression on a net's embeddings. Its votes are percentages."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.train.family import Classifier, Features, Parameter, model_metadata
from tinytags_tasks.train.forest_trees import IR_VERSION

PERCENT = 100


class Logistic:
    """See :class:`tinytags_tasks.train.family.Family`."""

    name = "logistic"
    parameters = (
        # Relative to the number of pictures: MLlib's regParam is this, divided by it.
        Parameter("regularization", default=100, low=0, high=1_000_000),
        Parameter("iterations", default=20, low=1, high=1_000),
    )
    # The mean and the deviation of each value are merged in the order in which partitions end.
    most_partitions = 1
    whitens_few = True
    most_background = None  # with_fair_none corrects for their number

    def describe(self, chosen: Mapping[str, int]) -> str:
        """See the protocol."""
        return f"a logistic regression of up to {chosen['iterations']} iterations"

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
        from tinytags_tasks.train import logistic_spark

        labelled, background, none = features.labelled, features.background, features.none
        if not with_held_out:
            labelled, background = labelled - features.held_out, background - features.background_held_out
            none -= features.none_held_out
        coefficients, intercepts = logistic_spark.fit_weights(
            features.folder,
            storage,
            spark,
            regularization=chosen["regularization"] / (labelled + background + none),
            iterations=chosen["iterations"],
            standardization=features.whitening is None,
            with_held_out=with_held_out,
        )
        if features.has_none:
            intercepts = with_fair_none(intercepts, labelled, background, none)
        parameters: dict[str, int | float | str] = dict(chosen)
        if features.whitening:
            coefficients, intercepts = features.whitening.folded(coefficients, intercepts)
            parameters["embeddings"] = "square roots, whitened by the background"
        onnx_model = logistic_to_onnx(coefficients, intercepts, features)
        return Classifier(onnx_model, "probabilities", total=PERCENT, parameters=parameters)


def with_fair_none(
    intercepts: npt.NDArray[np.float64], labelled: float, background: int, none: float = 0
) -> npt.NDArray[np.float64]:
    """Return intercepts as if the background had at most as many pictures as all the tags together.

    Thousands of general pictures teach what a handful of labelled ones cannot: which values vary at all, and where none
    of the tags begins. But then nearly everything would be none. Only the intercept knows how many there were: see King
    and Zeng, "Logistic Regression in Rare Events Data", 2001, section 4.1. Reviewed pictures are of the corpus, so how
    many of them show none stands as it is.

    Parameters
    ----------
    intercepts
        Shape (classes,); the last one is that of "none".
    labelled, background, none
        How much the pictures weigh that the regression was fitted on: those of the tags, the general ones, and those
        that people said show none.
    """
    fair = intercepts.copy()
    if background + none:
        fair[-1] += np.log((min(background, labelled) + none) / (background + none))
    return fair


def logistic_to_onnx(
    coefficients: npt.NDArray[np.float64], intercepts: npt.NDArray[np.float64], features: Features
) -> bytes:
    """Write a regression as an ONNX graph whose output is the percentage of each class.

    Parameters
    ----------
    coefficients, intercepts
        Shapes (classes, values) and (classes,); for square roots of the embeddings, if these were whitened.
    features
        What it was fitted on.

    Returns
    -------
    bytes
        The graph: the features' input (images, values) to ``votes`` float32 (images, classes). The same weights give
        the same bytes.
    """
    graph = helper.make_graph(
        [
            *_values(features),
            helper.make_node("Gemm", ["values", "coefficients", "intercepts"], ["scores"], transB=1),
            helper.make_node("Softmax", ["scores"], ["shares"], axis=1),
            helper.make_node("Mul", ["shares", "percent"], ["votes"]),
        ],
        "logistic",
        [helper.make_tensor_value_info(features.input_name, features.input_type, ["images", features.values])],
        [helper.make_tensor_value_info("votes", TensorProto.FLOAT, ["images", len(features.classes)])],
        [
            numpy_helper.from_array(coefficients.astype(np.float32), "coefficients"),
            numpy_helper.from_array(intercepts.astype(np.float32), "intercepts"),
            numpy_helper.from_array(np.array(PERCENT, dtype=np.float32), "percent"),
        ],
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", 21)],
        producer_name="tinytags",
        ir_version=IR_VERSION,
    )
    helper.set_model_props(model, dict(sorted(model_metadata(features.tags).items())))
    onnx.checker.check_model(model)
    serialized: bytes = model.SerializeToString(deterministic=True)
    return serialized


def _values(features: Features) -> list[onnx.NodeProto]:
    """Return the nodes from the input to what the weights are for."""
    if features.whitening is None:
        return [helper.make_node("Cast", [features.input_name], ["values"], to=TensorProto.FLOAT)]
    steps: tuple[tuple[str, list[str], str, dict[str, int]], ...] = (
        ("Cast", [features.input_name], "embedding", {"to": TensorProto.FLOAT}),
        ("Abs", ["embedding"], "sizes", {}),
        ("Sqrt", ["sizes"], "roots", {}),
        ("Sign", ["embedding"], "signs", {}),
        ("Mul", ["roots", "signs"], "values", {}),
    )
    # Named, because two products in one graph must not have the same name.
    return [helper.make_node(operator, inputs, [to], name=to, **more) for operator, inputs, to, more in steps]


LOGISTIC = Logistic()
