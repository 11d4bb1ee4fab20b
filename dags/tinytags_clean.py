"""### TinyTags: delete old records and logs of Dag runs.

`database >> logs`

| task | once it has succeeded |
| --- | --- |
| `database` | Airflow's database has no older tasks, results and events of TinyTags' Dags |
| `logs` | the log files of these tasks, and those of reading the Dags' files, are deleted |

What a Dag run that has not ended may need is kept, however old it is. Other Dags of the same Airflow are left alone.
What readers search, scored files and embeddings are nothing to this Dag: see `tinytags_prune`.

**When**: every night if `TINYTAGS_KEEP_LOG_DAYS` is set, as `tinytags up` does (30 days); and manually. The tasks need
Airflow's database and its folder of logs: where workers have neither, use `airflow db clean` beside the scheduler.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import task
from tinytags_airflow import errors_for_airflow, nightly_schedule, report, tinytags_dag
from tinytags_forms import clean_form, read_form


@task(execution_timeout=timedelta(hours=2))
@errors_for_airflow
def database() -> dict[str, str]:
    """Delete old rows of TinyTags' Dags; return for each Dag the time before which nothing is needed."""
    from tinytags_database import clean_in_process

    return clean_in_process(read_form()["days"], report)


@task
@errors_for_airflow
def logs(before: dict[str, str]) -> dict[str, int]:
    """Delete the log files from before that time."""
    from pathlib import Path

    from airflow.sdk.configuration import conf

    from tinytags_tasks.upkeep.old_logs import delete_old_logs

    folder = Path(conf.get("logging", "base_log_folder"))
    deleted = delete_old_logs(folder, before, report=report)
    return {"files": deleted.files, "bytes": deleted.size_bytes}


@tinytags_dag(clean_form(), __doc__, schedule=nightly_schedule("TINYTAGS_KEEP_LOG_DAYS"))
def tinytags_clean() -> None:
    """Delete old records and logs of Dag runs."""
    logs(database())


tinytags_clean()
