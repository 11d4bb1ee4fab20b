"""Deletes old rows of TinyTags' Dags from Airflow's database, as ``airflow db clean`` does.

Airflow keeps its database away from tasks, so the task ``database`` of ``tinytags_clean`` runs this file as a process
of its own, which reads the database's address from Airflow's configuration.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

_TABLES = ["dag_run", "dag_version", "log", "task_instance", "task_instance_history", "xcom"]
"""The tables whose rows belong to a Dag; the rest of a run's rows goes with it. Others may share the database, and only
their Dags' history and what belongs to no Dag is theirs to delete."""

_EMPTIED = {"log": "dttm", "task_instance": "start_date", "task_instance_history": "start_date", "xcom": "timestamp"}
"""The tables that have no older row of a Dag afterwards, and the column with the time. Of Dag runs, Airflow keeps the
last scheduled one."""

_ROWS_AT_ONCE = 1_000
"""SQLite lets nobody else write meanwhile."""

_LINES_OF_FAILURE = 20

_BLOCKED = ("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "AIRFLOW__CORE__SQL_ALCHEMY_CONN", "_AIRFLOW_PROCESS_CONTEXT")
"""The variables by which Airflow keeps its database away from a task."""

_UNREACHABLE = 3
"""The exit code if the database cannot be reached."""


def clean_in_process(days: int, report: Callable[[str], None]) -> dict[str, str]:
    """Delete old rows in a process that may use the database; return for each Dag the time before which they went.

    Raises
    ------
    FinalError
        If the database cannot be reached from here.
    TransientError
        If rows could not be deleted.
    """
    from tinytags_tasks.errors import FinalError, TransientError

    done = subprocess.run(
        (sys.executable, __file__, str(days)),
        env={name: value for name, value in os.environ.items() if name not in _BLOCKED},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == _UNREACHABLE:
        raise FinalError(done.stdout.splitlines()[-1])
    if done.returncode != 0:
        for line in done.stderr.splitlines()[-_LINES_OF_FAILURE:]:
            report(line)
        raise TransientError("Airflow's database was not cleaned; the lines above say why")
    cleaned: dict[str, dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    for dag, found in cleaned.items():
        held = f"; Dag run {found['held_by']} has not ended" if found["held_by"] else ""
        report(f"{dag}: deleted {found['rows']:,} rows from before {found['before']}{held}")
    return {dag: found["before"] for dag, found in cleaned.items()}


def clean(days: int, session: Session) -> dict[str, dict[str, Any]]:
    """Delete the rows of TinyTags' Dags that are older than some days, and than any of their runs that has not ended.

    Returns
    -------
    dict
        For each Dag, ``before`` when the deleted rows were written, how many ``rows`` there were, and ``held_by`` which
        unfinished run older rows were kept for, if any.

    Raises
    ------
    RuntimeError
        If old rows are left.
    """
    from airflow.models.dag import DagTag
    from airflow.utils.db_cleanup import run_cleanup
    from sqlalchemy import select

    cleaned = {}
    for dag in session.scalars(select(DagTag.dag_id).where(DagTag.name == "tinytags").order_by(DagTag.dag_id)).all():
        before, held_by = _before(dag, datetime.now(UTC) - timedelta(days=days), session)
        rows = _rows(dag, before, session)
        with contextlib.redirect_stdout(sys.stderr):
            run_cleanup(
                clean_before_timestamp=before,
                table_names=_TABLES,
                dag_ids=[dag],
                confirm=False,
                skip_archive=True,
                batch_size=_ROWS_AT_ONCE,
                session=session,
            )
        # It only warns if it cannot delete.
        if left := _rows(dag, before, session):
            raise RuntimeError(f"{left:,} rows of {dag} from before {before} are left")
        cleaned[dag] = {"before": before.isoformat(), "rows": rows, "held_by": held_by}
    return cleaned


def _before(dag: str, before: datetime, session: Session) -> tuple[datetime, str]:
    """Return the time before which nothing is needed, and the unfinished run that needs what was written since."""
    from airflow.models.dagrun import DagRun
    from airflow.models.taskinstance import TaskInstance
    from sqlalchemy import func, select

    held_by = ""
    unfinished = select(DagRun).where(DagRun.dag_id == dag, DagRun.state.in_(["queued", "running"]))
    for run in session.scalars(unfinished):
        # A run that was cleared has a new start, but the tasks and results that it had before.
        first = session.scalar(
            select(func.min(TaskInstance.start_date)).where(
                TaskInstance.dag_id == dag, TaskInstance.run_id == run.run_id
            )
        )
        begun = min(time for time in (run.run_after, run.queued_at, run.start_date, run.created_at, first) if time)
        if begun < before:
            before, held_by = begun - timedelta(seconds=1), run.run_id  # SQLite compares times as texts
    return before, held_by


def _rows(dag: str, before: datetime, session: Session) -> int:
    """Return how many old rows a Dag has."""
    from airflow.utils.db import reflect_tables
    from sqlalchemy import func, select

    tables = reflect_tables(list(_EMPTIED), session).tables
    return sum(
        session.scalar(select(func.count()).where(tables[name].c.dag_id == dag, tables[name].c[time] < before)) or 0
        for name, time in _EMPTIED.items()
    )


def main() -> int:
    """Delete old rows, and print what was deleted as one line of JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("days", type=int)
    days = parser.parse_args().days
    from airflow import settings
    from airflow.utils.session import create_session
    from sqlalchemy import inspect
    from sqlalchemy.engine import make_url

    url = make_url(settings.SQL_ALCHEMY_CONN)
    file = url.database if url.drivername.startswith("sqlite") else None
    if (file and not Path(file).exists()) or "dag_run" not in inspect(settings.engine).get_table_names():
        print(
            f"there is no Airflow database at {url.render_as_string()}, which is what airflow.cfg names here: clean it "
            "with `airflow db clean` where Airflow's scheduler runs, and pause this Dag"
        )
        return _UNREACHABLE
    with create_session() as session:
        print(json.dumps(clean(days, session)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
