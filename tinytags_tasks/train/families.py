"""The model families that can be trained.

To add one:

1. Write its file next to ``forest.py``: an object that implements :class:`tinytags_tasks.train.family.Family`.
2. Add it here.
3. Add its parameters to :class:`tinytags_tasks.train.parameters.TrainRequest` (whose ``family`` then chooses), to
   ``tinytags train`` in ``cli/stages.py`` and to the form of ``dags/tinytags.py``.
4. Include its parameters in a training's identity: ``_training_id`` in ``step.py``.

``tests/unit/test_families.py`` checks all families, and fails if step 1 or 3 is incomplete.
"""

from tinytags_tasks.train.family import Family
from tinytags_tasks.train.forest import FOREST

FAMILIES: dict[str, Family] = {family.name: family for family in (FOREST,)}
