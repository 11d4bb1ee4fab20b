"""What a training is asked for, and the file in which the lab hands its findings on."""

import os
import tomllib
from dataclasses import dataclass
from pathlib import Path

import tomli_w

from tinytags_tasks import layout
from tinytags_tasks.errors import BadInputError

FOREST = ("trees", "depth", "bins", "seed")
"""The parameters of a forest, as a parameters file names them."""

_RANGES = {
    "trees": (1, 1000),
    "depth": (1, 30),
    "bins": (2, 65536),
    "seed": (-(2**63), 2**63 - 1),
    "height": (1, 1024),
    "width": (1, 1024),
    "held_out": (0, 50),
}


@dataclass(frozen=True)
class TrainRequest:
    """What to learn from, and how.

    Attributes
    ----------
    labelled
        Parquet file of the training images.
    test
        Parquet file of images that the card's accuracy is measured on; None measures nothing.
    name
        First part of the model's version.
    tags
        Names of the labels; None takes those that the file carries, else CIFAR-10's.
    trees, depth, bins, seed
        The forest's parameters, as MLlib names them numTrees, maxDepth, maxBins, seed.
    other
        Parquet file of images of other things: label -1 for none of the tags, -2 to leave one out; None measures
        nothing.
    height, width
        Size of the images of the corpora that the model is for, in pixels; all others are made this size.
    held_out
        Percentage of the labelled set that a second forest is measured on, which learns from the rest alone; 0 saves
        its time. The published model learns from all of it.
    licence
        Of the labelled set, for the card.
    """

    labelled: str
    test: str | None = None
    name: str = "forest"
    tags: tuple[str, ...] | None = None
    trees: int = 10
    depth: int = 10
    bins: int = 50
    seed: int = 42
    other: str | None = None
    height: int = 32
    width: int = 32
    held_out: int = 10
    licence: str = ""

    def __post_init__(self) -> None:
        """Refuse parameters that Spark or the index cannot take.

        Raises
        ------
        BadInputError
            When one is out of range.
        """
        layout.checked_name(self.name, "model")
        check_parameters({parameter: getattr(self, parameter) for parameter in _RANGES})

    @property
    def forest(self) -> dict[str, int]:
        """The forest's parameters."""
        return {parameter: getattr(self, parameter) for parameter in FOREST}


def check_parameters(parameters: dict[str, int], where: str = "") -> None:
    """Refuse a parameter that is no whole number or out of range.

    Raises
    ------
    BadInputError
        Naming the first of them, and ``where`` it stands.
    """
    prefix = f"{where}: " if where else ""
    for parameter, value in parameters.items():
        low, high = _RANGES[parameter]
        if isinstance(value, bool) or not isinstance(value, int):
            raise BadInputError(f"{prefix}{parameter} is {value!r}: it must be a whole number")
        if not low <= value <= high:
            raise BadInputError(f"{prefix}{parameter} is {value}: it must be {low} to {high}")


def read_parameters(path: str | Path) -> dict[str, int]:
    """Read a forest's parameters from a TOML file, as ``tinytags lab`` writes one.

    Parameters
    ----------
    path
        The file: any of ``trees``, ``depth``, ``bins`` and ``seed``, whole numbers, and nothing else.

    Returns
    -------
    dict
        Those that it sets, to be handed to :class:`TrainRequest`.

    Raises
    ------
    BadInputError
        When there is no such file, or it cannot be used.
    """
    try:
        parameters = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BadInputError(f"{path}: no such file; `tinytags lab` writes one with --out") from error
    except (OSError, ValueError) as error:
        raise BadInputError(f"{path}: no TOML file that can be read ({error})") from error
    if unknown := [name for name in parameters if name not in FOREST]:
        raise BadInputError(f"{path}: {unknown[0]} is no parameter of a forest; those are {', '.join(FOREST)}")
    check_parameters(parameters, where=str(path))
    return parameters


def write_parameters(path: str | Path, parameters: dict[str, int], remarks: list[str]) -> None:
    """Write a forest's parameters where :func:`read_parameters` reads them; the remarks become comments.

    Raises
    ------
    BadInputError
        When the file cannot be written.
    """
    text = "".join(f"# {line}\n" for remark in remarks for line in remark.splitlines()) + tomli_w.dumps(parameters)
    target = Path(path)
    part = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(target)
    except OSError as error:
        raise BadInputError(f"{path}: cannot be written ({error.strerror}); choose another place") from error
    finally:
        part.unlink(missing_ok=True)
