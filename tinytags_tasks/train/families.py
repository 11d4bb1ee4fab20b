"""The families that a model can be trained in; ``docs/extending.md`` says how to add one."""

from tinytags_tasks.train.family import Family
from tinytags_tasks.train.forest import FOREST
from tinytags_tasks.train.logistic import LOGISTIC

FAMILIES: dict[str, Family] = {family.name: family for family in (FOREST, LOGISTIC)}
