"""Airflow's local settings: share the pools between runs, and import what tasks need before the scheduler forks them.

Airflow reads them from ``airflow_local_settings.py`` in the folder ``config`` of its home, where `tinytags up` copies
this file. An Airflow of your own does the same with a copy of it, or imports :func:`task_instance_mutation_hook` into
the ``airflow_local_settings.py`` that it already has.

See ``docs/adr/0013-imports-before-the-fork.md`` and ``docs/adr/0016-runs-share-the-pools.md``.
"""

# ruff: noqa: F401 - imported only so that forked tasks find the modules loaded

import sys
from typing import Any

__all__ = ["task_instance_mutation_hook"]


def task_instance_mutation_hook(task_instance: Any) -> None:  # noqa: ANN401 - Airflow's task instance
    """Run the first groups of one run before the last groups of another.

    Parameters
    ----------
    task_instance
        A task instance whose priority Airflow computes. Stored ones come without their task, and keep their priority.
    """
    task = task_instance.task
    if task is not None and task_instance.dag_id.startswith("tinytags") and task_instance.map_index > 0:
        task_instance.priority_weight = task.priority_weight - task_instance.map_index


if "scheduler" in sys.argv:
    import airflow.providers.apache.spark.hooks.spark_connect
    import airflow.sdk

    import tinytags_tasks.embed.step
    import tinytags_tasks.index.step
    import tinytags_tasks.publish.step
    import tinytags_tasks.runtime
    import tinytags_tasks.score.step
    import tinytags_tasks.store.hdfs
