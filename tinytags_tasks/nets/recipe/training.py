"""What a net is learned from, and how; the parameters by which it is recognised when it is resumed."""

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields
from typing import ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from tinytags_tasks.errors import BadInputError
from tinytags_tasks.nets.recipe.shape import SIZES
from tinytags_tasks.store import layout


class Hashed(Protocol):
    """Pictures with a hash of them."""

    @property
    def sha256(self) -> str:
        """The hash."""


@dataclass(frozen=True)
class NamedPictures:
    """Encoded pictures with the number of their class, and the classes' names.

    Attributes
    ----------
    source, sha256
        The file or folder that they come from, and a hash of it.
    encoded
        JPEG or another format that Pillow reads.
    labels
        int64, shape (pictures,).
    names
        Of the classes.
    """

    source: str
    sha256: str
    encoded: list[bytes] = field(repr=False)
    labels: npt.NDArray[np.int64] = field(repr=False)
    names: tuple[str, ...] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """What learning a net and fine-tuning one have in common.

    Attributes
    ----------
    name
        First part of the net's version.
    BOUNDS
        The least and the most that each number may be.
    """

    BOUNDS: ClassVar[tuple[tuple[str, float, float], ...]] = (
        ("batch", 8, 65_536),
        ("preparations", 2, 64),
        ("seed", 0, 2**31 - 1),
    )

    name: str

    def __post_init__(self) -> None:
        """Refuse parameters that nothing can be learned with.

        Raises
        ------
        BadInputError
            If there is one: which, and what it may be.
        """
        layout.given_name(self.name, "net")
        for name, low, high in self.BOUNDS:
            if not low <= getattr(self, name) <= high:
                raise BadInputError(f"{name} is {getattr(self, name)}: it must be from {low} to {high:,}")

    def steps(self, phase: str, pictures: int) -> int:
        """Return the number of batches of a phase, by the name of its ``_epochs``: ``student``, for example."""
        epochs: float = getattr(self, f"{phase}_epochs")
        batch: int = getattr(self, "batch")  # noqa: B009 - each kind has its own default
        return max(1, round(epochs * pictures / batch)) if epochs else 0

    def parameters(self) -> dict[str, int | float | str]:
        """Return the parameters by name, for the net's card."""
        return {one.name.replace("_", " "): getattr(self, one.name) for one in fields(self) if one.name != "name"}

    def identity(self, *learned_from: Hashed | None) -> str:
        """Return what tells this learning from any other: its name, and a hash of its parameters and pictures."""
        known = json.dumps([asdict(self), [pictures and pictures.sha256 for pictures in learned_from]])
        return f"{self.name}-{hashlib.sha256(known.encode()).hexdigest()[:12]}"


@dataclass(frozen=True, kw_only=True)
class NetTraining(Schedule):
    """How a net is learned; the defaults made ``general32``.

    Attributes
    ----------
    name
        First part of the net's version.
    size
        The widths of student and teacher: see :data:`tinytags_tasks.nets.recipe.shape.SIZES`.
    teacher_epochs, student_epochs, rounding_epochs
        How often each looks at as many pictures as there are; without a teacher (0) the student learns from labels.
    batch
        Pictures at a time; the learning rate grows with it.
    preparations
        How many differently prepared copies of each picture are made beforehand; 2 or more.
    seed
        Of all randomness.
    """

    BOUNDS = (
        ("teacher_epochs", 0, 100_000),
        ("student_epochs", 0.01, 100_000),
        ("rounding_epochs", 0.01, 10_000),
        *Schedule.BOUNDS,
    )

    size: str = "general32"
    teacher_epochs: float = 90
    student_epochs: float = 271
    rounding_epochs: float = 9
    batch: int = 1536
    preparations: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse parameters that nothing can be learned with.

        Raises
        ------
        BadInputError
            If there is one: which, and what it may be.
        """
        super().__post_init__()
        if self.size not in SIZES:
            raise BadInputError(f"size is {self.size!r}: it must be {', '.join(SIZES)}")
