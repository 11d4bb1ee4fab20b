"""The parameters of a training, and the file in which the lab saves the parameters it chose."""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from tinytags_tasks.errors import BadInputError
from tinytags_tasks.nets.shipped import DEFAULT_NET
from tinytags_tasks.store import layout
from tinytags_tasks.store.model_records import PIXELS
from tinytags_tasks.tags import check_tags
from tinytags_tasks.train.families import FAMILIES
from tinytags_tasks.train.family import Family, Parameter
from tinytags_tasks.train.forest import FOREST
from tinytags_tasks.train.logistic import LOGISTIC

HEIGHT = Parameter("height", default=32, low=1, high=1024)
WIDTH = Parameter("width", default=32, low=1, high=1024)
HELD_OUT = Parameter("held_out", default=10, low=0, high=50)

_DEFAULTS = {parameter.name: parameter.default for family in FAMILIES.values() for parameter in family.parameters}


@dataclass(frozen=True)
class TrainRequest:
    """What to learn from, and how.

    Attributes
    ----------
    labelled
        The training images: Parquet files, a folder with a folder for each tag, or WebDataset's tars.
    test
        A labelled set of images on which the model is evaluated, for its card; None skips that.
    name
        First part of the model's version; empty means the head's name.
    tags
        The names of the labels, in the order of the labels if these are numbers; None takes those of the labelled set,
        and refuses numbers without names.
    trees, depth, bins, seed
        The forest's parameters: see :mod:`tinytags_tasks.train.forest`.
    other
        A labelled set of images of other things; label -1 means none of the tags, -2 excludes an image. None skips
        that.
    height, width
        The size of the images, in pixels, of the corpora that the model is for; labelled images are resized to it.
    held_out
        The percentage of the labelled set that is held out from a second model and used to evaluate it; 0 skips that
        to save time. The published model always learns from the whole set.
    licence
        The licence of the labelled set, for the card.
    corpus
        The name of a stored corpus that the model is for: the card tells how differently its images were prepared.
        None skips that.
    features
        What the model sees: a net's name or version, or ``pixels``, which is what the original system saw.
    head
        What is trained on the features, one of :data:`~tinytags_tasks.train.families.FAMILIES`.
    none
        Whether the model can say "none of the tags", which the net's background teaches it. None: if it has one.
    regularization, iterations
        The logistic head's parameters: see :mod:`tinytags_tasks.train.logistic`.
    reviews
        The name of a stored corpus: what people said of its pictures joins the labelled set, see
        :mod:`tinytags_tasks.train.reviews`. None learns from the labelled set alone.
    new_tags
        Whether tags of reviews that the labelled set lacks are learned, too.
    least_reviews
        If fewer reviews teach, the model learns from the labelled set alone; 0 refuses a corpus of which none does.
    """

    labelled: str
    test: str | None = None
    name: str = ""
    tags: tuple[str, ...] | None = None
    trees: int = _DEFAULTS["trees"]
    depth: int = _DEFAULTS["depth"]
    bins: int = _DEFAULTS["bins"]
    seed: int = _DEFAULTS["seed"]
    other: str | None = None
    height: int = HEIGHT.default
    width: int = WIDTH.default
    held_out: int = HELD_OUT.default
    licence: str = ""
    features: str = DEFAULT_NET
    head: str = LOGISTIC.name
    none: bool | None = None
    regularization: int = _DEFAULTS["regularization"]
    iterations: int = _DEFAULTS["iterations"]
    corpus: str | None = None
    reviews: str | None = None
    new_tags: bool = False
    least_reviews: int = 0

    def __post_init__(self) -> None:
        """Refuse parameters that Spark or the index cannot handle.

        Raises
        ------
        BadInputError
            If a parameter is out of range, or two contradict each other.
        """
        if self.head not in FAMILIES:
            raise BadInputError(f"head is {self.head!r}: it must be one of {', '.join(FAMILIES)}")
        layout.given_name(self.model_name, "model")
        layout.checked_name(self.features, "net")
        check_tags(self.tags or (), "tags")
        if self.none and self.features == PIXELS:
            raise BadInputError("pixels have no background that could teach none of the tags: choose a net, or no none")
        for parameter in (*self.family.parameters, HEIGHT, WIDTH, HELD_OUT):
            parameter.check(getattr(self, parameter.name))

    @property
    def family(self) -> Family:
        """The family of the head."""
        return FAMILIES[self.head]

    @property
    def model_name(self) -> str:
        """First part of the model's version."""
        return self.name or self.head

    @property
    def parameters(self) -> dict[str, int]:
        """The value of each of the family's parameters."""
        return {parameter.name: getattr(self, parameter.name) for parameter in self.family.parameters}


def chosen_parameters(head: str, path: str | Path | None, options: Mapping[str, int | None]) -> dict[str, Any]:
    """Return the parameters of a head that a command line sets, for :class:`TrainRequest`.

    Parameters
    ----------
    head
        The head's family.
    path
        A file of a forest's parameters; None if there is none.
    options
        Each option's value; None if it was not given. It takes precedence over the file.

    Raises
    ------
    BadInputError
        If the file cannot be used, or a parameter is one of another head.
    """
    given = {name: value for name, value in options.items() if value is not None}
    if path:
        given = {**read_parameters(path), **given}
    for family in FAMILIES.values():
        others = {parameter.name for parameter in family.parameters} - {"seed"}  # it also chooses what is held out
        if family.name != head and (wrong := others.intersection(given)):
            raise BadInputError(
                f"{', '.join(sorted(wrong))}: of a {family.name} head; train with --head {family.name}, or leave it out"
            )
    return given


def read_parameters(path: str | Path) -> dict[str, int]:
    """Read a forest's parameters from a TOML file, such as one that ``tinytags lab`` wrote.

    Parameters
    ----------
    path
        The file: any of ``trees``, ``depth``, ``bins`` and ``seed``, whole numbers, and nothing else.

    Returns
    -------
    dict
        The parameters that the file sets, for :class:`TrainRequest`.

    Raises
    ------
    BadInputError
        If the file does not exist, or cannot be used.
    """
    try:
        values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BadInputError(f"{path}: no such file; `tinytags lab` writes one with --out") from error
    except (OSError, ValueError) as error:
        raise BadInputError(f"{path}: not a readable TOML file ({error})") from error
    known = {parameter.name: parameter for parameter in FOREST.parameters}
    for name, value in values.items():
        if name not in known:
            raise BadInputError(f"{path}: {name} is not a parameter of a forest; those are {', '.join(known)}")
        known[name].check(value, where=str(path))
    return values


def write_parameters(path: str | Path, parameters: dict[str, int], remarks: list[str]) -> None:
    """Write a forest's parameters to a file for :func:`read_parameters`; the remarks become comments.

    Raises
    ------
    BadInputError
        If the file cannot be written.
    """
    text = "".join(f"# {line}\n" for remark in remarks for line in remark.splitlines()) + tomli_w.dumps(parameters)
    target = Path(path)
    part = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(target)
    except OSError as error:
        raise BadInputError(f"{path}: cannot be written ({error.strerror}); choose another path") from error
    finally:
        part.unlink(missing_ok=True)
