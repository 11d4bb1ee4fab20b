"""What a family of models is: how it is asked for, how it is fitted, and what it ends in."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from tinytags_tasks.errors import BadInputError
from tinytags_tasks.records import PIXEL_ORDER, Output
from tinytags_tasks.storage import Storage


@dataclass(frozen=True)
class Parameter:
    """A whole number that the user may choose.

    Attributes
    ----------
    name
        As the request, the command line, the Dag's form and a parameters file call it.
    default
        Its value unless the user gives one.
    low, high
        Its range, both ends included.
    """

    name: str
    default: int
    low: int
    high: int

    def check(self, value: object, where: str = "") -> None:
        """Refuse a value that is not a whole number or out of range.

        Raises
        ------
        BadInputError
            Naming the parameter, and the file it is in (``where``).
        """
        prefix = f"{where}: " if where else ""
        if isinstance(value, bool) or not isinstance(value, int):
            raise BadInputError(f"{prefix}{self.name} is {value!r}: it must be a whole number")
        if not self.low <= value <= self.high:
            raise BadInputError(f"{prefix}{self.name} is {value}: it must be {self.low} to {self.high}")


@dataclass(frozen=True)
class Classifier:
    """What every family ends in, imported classifiers included: the one interface that scoring knows.

    Attributes
    ----------
    onnx_model
        Input ``pixels`` uint8 (images, height * width * 3), output ``votes`` float32 (images, tags).
    output
        What the votes are: whole numbers of trees, or probabilities in percent.
    total
        What the votes of an image add up to: the number of trees, or 100. Votes / total is the confidence.
    parameters
        What the card says about how it was made.
    """

    onnx_model: bytes = field(repr=False)
    output: Output
    total: int
    parameters: dict[str, int | float | str]


@dataclass(frozen=True)
class Features:
    """A labelled set in the store, as :mod:`tinytags_tasks.train.spark_features` writes it.

    Attributes
    ----------
    folder
        The files' folder.
    tags
        Names of the labels.
    values
        Values of one image: height * width * 3.
    """

    folder: str
    tags: tuple[str, ...]
    values: int


class Family(Protocol):
    """A kind of model that Spark can fit. See :mod:`tinytags_tasks.train.families` for those that exist."""

    @property
    def name(self) -> str:
        """What the family is called in messages."""

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """What the user may choose. Every one of them is part of what identifies a training."""

    def describe(self, chosen: Mapping[str, int]) -> str:
        """Return the chosen parameters in words, such as "10 trees of depth 10"."""

    def fit(
        self,
        chosen: Mapping[str, int],
        features: Features,
        storage: Storage,
        spark: Any,  # noqa: ANN401 - see tinytags_tasks.clients.spark.connect_spark
        *,
        with_held_out: bool,
    ) -> Classifier:
        """Fit a model in Spark and return it as ONNX; the same input gives the same bytes.

        Parameters
        ----------
        chosen
            A value for each of :attr:`parameters`.
        features
            What to learn from.
        storage
            The store.
        spark
            A session.
        with_held_out
            Whether to learn from the held-out images as well.

        Raises
        ------
        TransientError
            When Spark or the store is not available.
        """


def model_metadata(tags: tuple[str, ...]) -> dict[str, str]:
    """Return what is written into every model's file: it is hashed, so the same model with other tags is another."""
    return {"tags": json.dumps(tags), "pixel_order": PIXEL_ORDER}
