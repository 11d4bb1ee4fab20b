"""Airflow's local settings: share the pools between runs, and import what tasks need before the scheduler forks them.

Airflow finds them by the entry point ``airflow.policy`` of the installed package. For a checkout that is not installed,
`tinytags up` copies this file to ``config/airflow_local_settings.py`` in Airflow's home.

See ``docs/adr/0013-imports-before-the-fork.md`` and ``docs/adr/0016-runs-share-the-pools.md``.
"""

# ruff: noqa: F401 - imported only so that forked tasks find the modules loaded

import sys
from typing import Any

from airflow import settings
from airflow.policies import hookimpl

__all__ = ["task_instance_mutation_hook"]


# Airflow 3.3 clears this for local settings only: with a policy of an entry point alone, it would not call the hook.
settings.task_instance_mutation_hook.is_noop = False


@hookimpl  # type: ignore[untyped-decorator]
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
    import airflow.sdk

    import tinytags_tasks.embed.step
    import tinytags_tasks.index.step
    import tinytags_tasks.publish.step
    import tinytags_tasks.runtime
    import tinytags_tasks.score.step
    import tinytags_tasks.store.hdfs
