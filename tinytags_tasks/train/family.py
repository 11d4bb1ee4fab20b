"""The interface of a model family: its parameters, how it is fitted, and what the result is."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from onnx import TensorProto

from tinytags_tasks.errors import BadInputError
from tinytags_tasks.store.corpus_records import PIXEL_ORDER
from tinytags_tasks.store.model_records import Output
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.train.whitening import Whitening


@dataclass(frozen=True)
class Parameter:
    """An integer parameter that the user can choose.

    Attributes
    ----------
    name
        Its name in the request, the command line, the Dag's form and a parameters file.
    default
        Its value if the user does not give one.
    low, high
        Its range, inclusive.
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
            If it is: the parameter, and the file it is in (``where``).
        """
        prefix = f"{where}: " if where else ""
        if isinstance(value, bool) or not isinstance(value, int):
            raise BadInputError(f"{prefix}{self.name} is {value!r}: it must be a whole number")
        if not self.low <= value <= self.high:
            raise BadInputError(f"{prefix}{self.name} is {value}: it must be {self.low} to {self.high}")


@dataclass(frozen=True)
class Classifier:
    """The result of every family, and of an imported classifier.

    Attributes
    ----------
    onnx_model
        A graph to ``votes`` float32 (images, classes). An imported classifier's input is ``pixels`` uint8 (images,
        height * width * 3); a family's is that of the :class:`Features` that it was fitted on.
    output
        What the votes are: whole numbers of trees, or probabilities in percent.
    total
        The sum of an image's votes: the number of trees, or 100. The confidence is votes / total.
    parameters
        What the card says about how the model was made.
    """

    onnx_model: bytes = field(repr=False)
    output: Output
    total: int
    parameters: dict[str, int | float | str]


@dataclass(frozen=True)
class Features:
    """What a family learns from: rows in the store, as :mod:`tinytags_tasks.train.spark_features` writes them.

    Attributes
    ----------
    folder
        The files' folder.
    tags
        Names of the labels.
    values
        How many values a row has: height * width * 3 of pixels, or a net's dimensions.
    is_embedding
        Whether they are a net's embeddings; else they are pixels.
    has_none
        Whether the last class is "none of the tags".
    labelled, held_out
        How much the images of the tags weigh, and how much of that is held out. A labelled image weighs 1, a reviewed
        one may weigh more.
    background, background_held_out
        How many general pictures there are that show none of the tags, and how many of these are held out.
    none, none_held_out
        How much the pictures weigh that people said show none of the tags, and how much of that is held out.
    whitening
        How the values of the rows were prepared; None if they are the embeddings or pixels themselves.
    """

    folder: str
    tags: tuple[str, ...]
    values: int
    is_embedding: bool = False
    has_none: bool = False
    labelled: float = 0
    held_out: float = 0
    background: int = 0
    background_held_out: int = 0
    none: float = 0
    none_held_out: float = 0
    whitening: Whitening | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the columns of the votes."""
        return (*self.tags, "none") if self.has_none else self.tags

    @property
    def input_name(self) -> str:
        """Name of the input of a graph that is fitted on these: pixels are a model's own input."""
        return "features" if self.is_embedding else "pixels"

    @property
    def input_type(self) -> int:
        """Type of the input, as ONNX numbers types."""
        return int(TensorProto.INT8 if self.is_embedding else TensorProto.UINT8)


class Family(Protocol):
    """A kind of model that Spark can fit; :mod:`tinytags_tasks.train.families` lists them."""

    @property
    def name(self) -> str:
        """The family's name in messages."""

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """The parameters that the user can choose; all of them are part of a training's identity."""

    @property
    def most_partitions(self) -> int:
        """How many Spark tasks learn from embeddings at the most: as many as give the same model in every fit."""

    @property
    def whitens_few(self) -> bool:
        """Whether it learns better from few embeddings if these are prepared: see train/whitening.py."""

    @property
    def most_background(self) -> int | None:
        """How many pictures of the background there may be for each labelled one; None if there may be any number.

        With a limit, they also weigh no more than the labelled ones, all together.
        """

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
            If Spark or the store is unavailable.
        """


def model_metadata(tags: tuple[str, ...]) -> dict[str, str]:
    """Return the metadata of a model's file; it is part of the hash, so different tags make a different model."""
    return {"tags": json.dumps(tags), "pixel_order": PIXEL_ORDER}
