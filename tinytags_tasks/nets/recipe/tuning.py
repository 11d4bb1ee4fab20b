"""How a net is fine-tuned; the parameters by which a fine-tuning is recognised when it is resumed."""

from dataclasses import dataclass, fields

from tinytags_tasks.errors import BadInputError
from tinytags_tasks.nets.recipe.training import Hashed, identity_of
from tinytags_tasks.store import layout


@dataclass(frozen=True, kw_only=True)
class NetTuning:
    """How a net is fine-tuned.

    Attributes
    ----------
    name
        First part of the net's version.
    base
        The version of the net that it begins with.
    heads_epochs
        How often new heads look at as many pictures as are drawn in turn, before the net itself learns.
    tuning_epochs
        The same for the net with its heads.
    batch, preparations, seed
        As in :class:`~.training.NetTraining`.
    """

    name: str
    base: str
    heads_epochs: float = 2
    tuning_epochs: float = 5
    batch: int = 128
    preparations: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse parameters that nothing can be learned with.

        Raises
        ------
        BadInputError
            If there is one: which, and what it may be.
        """
        layout.given_name(self.name, "net")
        for name, low, high in (
            ("heads_epochs", 0.01, 1_000),
            ("tuning_epochs", 0.01, 10_000),
            ("batch", 8, 65_536),
            ("preparations", 2, 64),
            ("seed", 0, 2**31 - 1),
        ):
            if not low <= getattr(self, name) <= high:
                raise BadInputError(f"{name} is {getattr(self, name)}: it must be from {low} to {high:,}")

    def steps(self, phase: str, pictures: int) -> int:
        """Return the number of batches of a phase: ``heads`` or ``tuning``."""
        epochs: float = getattr(self, f"{phase}_epochs")
        return max(1, round(epochs * pictures / self.batch))

    def parameters(self) -> dict[str, int | float | str]:
        """Return the parameters by name, for the net's card."""
        return {one.name.replace("_", " "): getattr(self, one.name) for one in fields(self) if one.name != "name"}

    def identity(self, *learned_from: Hashed | None) -> str:
        """Return what tells this fine-tuning from any other: its name, and a hash of its parameters and pictures."""
        return identity_of(self, learned_from)
