"""Runs over time: what recent Dag runs tagged, how long it took, and how often their tasks failed or waited.

All of it is in Airflow's database, so neither the store nor Solr is asked.
"""

import threading
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.models.taskreschedule import TaskReschedule
from airflow.models.xcom import XComModel
from airflow.sdk.bases.xcom import BaseXCom
from cachetools import TTLCache
from sqlalchemy import and_, func, or_, select
from sqlalchemy.orm import Session

from grid_page.dag_runs import DagRunKey, dag_run_link
from tinytags_tasks.airflow_names import BACKFILL_DAG, RETAG_DAG, TAG_DAG

COUNTERS = {TAG_DAG: "reconcile", BACKFILL_DAG: "reconcile", RETAG_DAG: "publish"}
"""The Dags that are shown, and the task of each whose result has the totals of a run."""

SHOWN = 25
"""How many Dag runs are shown, the latest."""

KEPT_SECONDS = 10.0
"""How long an answer is given to every viewer."""


class History:
    """The latest Dag runs that tag; many viewers get the same answer.

    Parameters
    ----------
    find_run
        Returns the name of the run that a Dag run works on, before it has been counted.
    """

    def __init__(self, find_run: Callable[[str, str, Session], str]) -> None:
        self._find_run = find_run
        self._answers: TTLCache[str, dict[str, Any]] = TTLCache(1, KEPT_SECONDS)
        self._lock = threading.Lock()

    def read(self, session: Session) -> dict[str, Any]:
        """Return the latest Dag runs, newest first, and how many there are."""
        with self._lock:
            if (known := self._answers.get("all")) is None:
                known = self._answers["all"] = self._read(session)
            return known

    def _read(self, session: Session) -> dict[str, Any]:
        dag_runs = session.execute(
            select(DagRun.dag_id, DagRun.run_id, DagRun.state, DagRun.start_date, DagRun.end_date)
            .where(DagRun.dag_id.in_(COUNTERS))
            .order_by(DagRun.id.desc())
            .limit(SHOWN)
        ).all()
        keys = {(row.dag_id, row.run_id) for row in dag_runs}
        counted, retries, waits = _results(session, keys), _retries(session, keys), _waits(session, keys)
        found = []
        for row in dag_runs:
            key = (row.dag_id, row.run_id)
            names, totals = counted.get(key, ([], {}))
            seconds = _seconds(row.start_date, row.end_date)
            found.append(
                {
                    "dag": row.dag_id,
                    "dag_run": row.run_id,
                    "link": dag_run_link(*key),
                    "runs": names or [name for name in [self._find_run(*key, session)] if name],
                    "state": str(row.state),
                    "started": row.start_date.isoformat() if row.start_date else "",
                    "seconds": seconds,
                    "images": totals.get("read"),
                    "kept": totals.get("kept"),
                    "documents": totals.get("documents"),
                    "images_per_second": totals["read"] / max(seconds, 1.0) if totals and seconds else None,
                    "retries": retries.get(key, 0),
                    "waits": waits.get(key, 0),
                }
            )
        known = session.scalar(select(func.count()).select_from(DagRun).where(DagRun.dag_id.in_(COUNTERS)))
        return {"dag_runs": found, "known": known or 0}


def _seconds(began: datetime | None, ended: datetime | None) -> float | None:
    """Return how long a Dag run took, or has taken so far; None before it starts."""
    return ((ended or datetime.now(UTC)) - began).total_seconds() if began else None


def _results(session: Session, keys: Iterable[DagRunKey]) -> dict[DagRunKey, tuple[list[str], dict[str, int]]]:
    """Return the names of the runs that were counted, and the sums of their totals."""
    rows = session.execute(
        select(XComModel.dag_id, XComModel.run_id, XComModel.value).where(
            or_(*(and_(XComModel.dag_id == dag, XComModel.task_id == task) for dag, task in COUNTERS.items())),
            XComModel.run_id.in_({dag_run for _, dag_run in keys}),
            XComModel.key == "return_value",
        )
    )
    found: dict[DagRunKey, tuple[list[str], dict[str, int]]] = {}
    for row in rows:
        result = BaseXCom.deserialize_value(row)
        if isinstance(result, dict) and isinstance(result.get("totals"), dict):
            names, sums = found.setdefault((row.dag_id, row.run_id), ([], {}))
            names.append(str(result.get("run", "")))
            for name in ("read", "kept", "documents"):
                sums[name] = sums.get(name, 0) + int(result["totals"].get(name) or 0)
    return found


def _retries(session: Session, keys: Iterable[DagRunKey]) -> dict[DagRunKey, int]:
    """Return how many tries came after the first of a task."""
    rows = session.execute(
        select(TaskInstance.dag_id, TaskInstance.run_id, func.sum(TaskInstance.try_number - 1))
        .where(*_of(keys), TaskInstance.try_number > 1)
        .group_by(TaskInstance.dag_id, TaskInstance.run_id)
    )
    return {(dag, dag_run): int(count) for dag, dag_run, count in rows}


def _waits(session: Session, keys: Iterable[DagRunKey]) -> dict[DagRunKey, int]:
    """Return how often a task was put off because it had to wait."""
    rows = session.execute(
        select(TaskInstance.dag_id, TaskInstance.run_id, func.count())
        .join(TaskReschedule, TaskReschedule.ti_id == TaskInstance.id)
        .where(*_of(keys))
        .group_by(TaskInstance.dag_id, TaskInstance.run_id)
    )
    return {(dag, dag_run): int(count) for dag, dag_run, count in rows}


def _of(keys: Iterable[DagRunKey]) -> tuple[Any, Any]:
    return TaskInstance.dag_id.in_(COUNTERS), TaskInstance.run_id.in_({dag_run for _, dag_run in keys})
