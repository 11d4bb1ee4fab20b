"""What every model family must provide, so that training, the lab and the Dag's form can offer it."""

import dataclasses
import importlib
import json

import numpy as np
import onnx
import onnxruntime
import pytest

from tinytags_tasks.errors import BadInputError
from tinytags_tasks.parts import PROJECT_ROOT
from tinytags_tasks.store.local import LocalStorage
from tinytags_tasks.train import forest_spark, logistic_spark
from tinytags_tasks.train.families import FAMILIES
from tinytags_tasks.train.family import Features, Parameter
from tinytags_tasks.train.forest_trees import Tree
from tinytags_tasks.train.parameters import TrainRequest

REQUEST = {field.name: field for field in dataclasses.fields(TrainRequest)}
TAGS = ("cat", "dog", "emu")


def defaults(family) -> dict[str, int]:
    return {parameter.name: parameter.default for parameter in family.parameters}


@pytest.fixture
def fitted(monkeypatch):
    """Stand-ins for what Spark fits."""
    leaf = Tree(*(np.array([value]) for value in (-1, 0.0, -1, -1, 1)))
    monkeypatch.setattr(forest_spark, "fit_trees", lambda chosen, *_, **__: [leaf] * chosen["trees"])
    weights = np.random.default_rng(0).normal(size=(len(TAGS) + 1, 13))
    monkeypatch.setattr(logistic_spark, "fit_weights", lambda *_, **__: (weights[:, :12], weights[:, 12]))


@pytest.fixture
def form(monkeypatch, tmp_path):
    """The fields of the form of the Dag `tinytags`."""
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
    monkeypatch.syspath_prepend(str(PROJECT_ROOT / "dags"))
    return importlib.import_module("tinytags").tinytags().params


def test_the_form_of_the_dag_offers_every_family(form):
    assert set(form.get_param("head").schema["enum"]) == set(FAMILIES)


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_a_request_has_every_parameter_of_a_family_with_its_default(family):
    for parameter in family.parameters:
        assert REQUEST[parameter.name].default == parameter.default
        parameter.check(parameter.default)


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_the_form_of_the_dag_has_every_parameter_of_a_family_with_its_default_and_range(family, form):
    for parameter in family.parameters:
        asked = form.get_param(parameter.name)
        assert asked.value == parameter.default
        low, high = asked.schema.get("minimum", parameter.low), asked.schema.get("maximum", parameter.high)
        assert (low, high) == (parameter.low, parameter.high)


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_a_family_ends_in_the_one_interface_and_says_on_its_card_what_was_chosen(family, fitted, tmp_path):
    features = Features("labelled/x", TAGS, 12, is_embedding=True, has_none=True, labelled=5, background=9)
    classifier = family.fit(defaults(family), features, LocalStorage(tmp_path), None, with_held_out=True)
    session = onnxruntime.InferenceSession(classifier.onnx_model, providers=["CPUExecutionProvider"])
    (votes,) = session.run(["votes"], {"features": np.zeros((5, 12), dtype=np.int8)})
    assert votes.shape == (5, len(TAGS) + 1)  # and none of them
    assert np.abs(votes.sum(axis=1) - classifier.total).max() < 0.5
    assert classifier.output == "votes" or classifier.total == 100
    assert defaults(family).items() <= classifier.parameters.items()
    metadata = {entry.key: entry.value for entry in onnx.load_from_string(classifier.onnx_model).metadata_props}
    assert json.loads(metadata["tags"]) == list(TAGS)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (1, "leaves is 1: it must be 2 to 5"),
        (6, "leaves is 6"),
        (True, "leaves is True: it must be a whole number"),
        ("3", "leaves is '3': it must be a whole number"),
    ],
)
def test_a_parameter_refuses_what_is_out_of_its_range(value, message):
    with pytest.raises(BadInputError, match=f"^chosen: {message}"):
        Parameter("leaves", default=3, low=2, high=5).check(value, where="chosen")
