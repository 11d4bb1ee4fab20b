"""How a net is fine-tuned; the parameters by which a fine-tuning is recognised when it is resumed."""

from dataclasses import dataclass

from tinytags_tasks.nets.recipe.training import Schedule


@dataclass(frozen=True, kw_only=True)
class NetTuning(Schedule):
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

    BOUNDS = (("heads_epochs", 0.01, 1_000), ("tuning_epochs", 0.01, 10_000), *Schedule.BOUNDS)

    base: str
    heads_epochs: float = 2
    tuning_epochs: float = 5
    batch: int = 128
    preparations: int = 8
    seed: int = 0
