"""The families that a model can be trained in. A new one is a file beside this one, and a line here."""

from tinytags_tasks.train.family import Family
from tinytags_tasks.train.forest import FOREST

FAMILIES: dict[str, Family] = {family.name: family for family in (FOREST,)}
