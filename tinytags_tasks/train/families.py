"""The families that a model can be trained in.

To add one:

1. Write its file beside ``forest.py``: an object that keeps :class:`tinytags_tasks.train.family.Family`.
2. Name it here.
3. Add its parameters to :class:`tinytags_tasks.train.parameters.TrainRequest` (whose ``family`` then chooses), to
   ``tinytags train`` in ``cli/stages.py`` and to the form of ``dags/tinytags.py``.
4. Let its parameters enter what identifies a training: ``_training_id`` in ``step.py``.

``tests/unit/test_families.py`` runs over all families, and fails if 1 or 3 is incomplete.
"""

from tinytags_tasks.train.family import Family
from tinytags_tasks.train.forest import FOREST

FAMILIES: dict[str, Family] = {family.name: family for family in (FOREST,)}
