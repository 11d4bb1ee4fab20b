"""What Airflow knows about a run: the Dag runs that work on it, and which task works on which blocks."""

import json
from datetime import datetime
from typing import Any
from urllib.parse import quote, urlencode

from airflow.models.dagrun import DagRun
from airflow.models.task_state_store import TaskStateStoreModel
from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from airflow.sdk.bases.xcom import BaseXCom
from sqlalchemy import ColumnElement, and_, or_, select
from sqlalchemy.orm import Session

from grid_page.cells import BlockTask
from tinytags_tasks.airflow_names import BACKFILL_DAG, RETAG_DAG, TAG_DAG
from tinytags_tasks.store.run_records import Run

PLANNERS = {TAG_DAG: "plan", BACKFILL_DAG: "plan", RETAG_DAG: "groups"}
"""The Dags that score and index blocks, and the task of each that returns the groups of blocks."""

RECENT_DAG_RUNS = 100
"""How many of the latest Dag runs are considered."""

WAITING = "waiting"
"""The key in Airflow's task state store under which a task says what it waits for."""

DagRunKey = tuple[str, str]
"""The id of a Dag, and that of its run."""

Group = tuple[str, tuple[int, ...]]
"""The name of a run, and those of its blocks that one mapped task works on."""


class DagRuns:
    """Finds the Dag runs that work on TinyTags' runs, and reads the plan of each only once."""

    def __init__(self) -> None:
        self._planned: dict[tuple[DagRunKey, datetime], list[Group]] = {}

    def find_run(self, dag: str, dag_run: str, session: Session) -> str:
        """Return the name of the run that a Dag run works on, the first of several; empty if there is none yet."""
        groups = self._find_groups(session, DagRun.dag_id == dag, DagRun.run_id == dag_run).get((dag, dag_run))
        if groups:
            return groups[0][0]
        conf = session.scalar(select(DagRun.conf).where(DagRun.dag_id == dag, DagRun.run_id == dag_run))
        return str(conf.get("run", "")) if dag == BACKFILL_DAG and isinstance(conf, dict) else ""

    def tasks(self, run: Run, session: Session) -> list[BlockTask]:
        """Return the tasks of recent Dag runs that score or index blocks of a run and have started."""
        planned = {
            key: groups
            for key, groups in self._find_groups(session).items()
            if any(name == run.name for name, _ in groups)
        }
        found = session.execute(
            select(
                TaskInstance.dag_id,
                TaskInstance.run_id,
                TaskInstance.task_id,
                TaskInstance.map_index,
                TaskInstance.state,
                TaskInstance.try_number,
                TaskInstance.start_date,
            ).where(
                TaskInstance.dag_id.in_({dag for dag, _ in planned}),
                TaskInstance.run_id.in_({dag_run for _, dag_run in planned}),
                TaskInstance.map_index >= 0,
                TaskInstance.try_number > 0,  # tasks that fail because of others never start, but have a start date
                TaskInstance.start_date.is_not(None),
                TaskInstance.task_id == "blocks",
            )
        )
        # By the plan, not by the tasks' names: Airflow knows a mapped task's name only once it has ended.
        return [
            BlockTask(dag, dag_run, task, map_index, str(state or ""), attempt, started.isoformat(), blocks)
            for dag, dag_run, task, map_index, state, attempt, started in found
            for name, blocks in planned.get((dag, dag_run), [])[map_index : map_index + 1]
            if name == run.name
        ]

    def waits(self, run: Run, session: Session) -> list[str]:
        """Return what tasks of recent Dag runs that work on a run wait for, one sentence for each kind of task."""
        keys = {
            key for key, groups in self._find_groups(session).items() if any(name == run.name for name, _ in groups)
        }
        found = session.execute(
            select(TaskInstance.dag_id, TaskInstance.run_id, TaskInstance.task_id, TaskStateStoreModel.value)
            .join(
                TaskStateStoreModel,
                and_(
                    TaskStateStoreModel.dag_id == TaskInstance.dag_id,
                    TaskStateStoreModel.run_id == TaskInstance.run_id,
                    TaskStateStoreModel.task_id == TaskInstance.task_id,
                    TaskStateStoreModel.map_index == TaskInstance.map_index,
                ),
            )
            .where(
                TaskInstance.dag_id.in_({dag for dag, _ in keys}),
                TaskInstance.run_id.in_({dag_run for _, dag_run in keys}),
                TaskInstance.state == "up_for_reschedule",
                TaskStateStoreModel.key == WAITING,
            )
        )
        since: dict[tuple[str, str], list[str]] = {}
        for dag, dag_run, task, value in found:
            if (dag, dag_run) in keys:
                record = json.loads(value)
                since.setdefault((task, record["for"]), []).append(record["since"])
        return [_sentence(task, awaited, began) for (task, awaited), began in sorted(since.items())]

    def _find_groups(self, session: Session, *which: ColumnElement[bool]) -> dict[DagRunKey, list[Group]]:
        """Return the groups of blocks, by map index, of recent Dag runs that have planned some."""
        recent = session.execute(
            select(DagRun.dag_id, DagRun.run_id)
            .where(DagRun.dag_id.in_(PLANNERS), *which)
            .order_by(DagRun.id.desc())
            .limit(RECENT_DAG_RUNS)
        ).all()
        keys = {(dag, dag_run) for dag, dag_run in recent}
        is_plan = (
            or_(*(and_(XComModel.dag_id == dag, XComModel.task_id == task) for dag, task in PLANNERS.items())),
            XComModel.run_id.in_({dag_run for _, dag_run in keys}),
            XComModel.key == "return_value",
        )
        made = session.execute(select(XComModel.dag_id, XComModel.run_id, XComModel.timestamp).where(*is_plan)).all()
        plans = {((dag, dag_run), at) for dag, dag_run, at in made if (dag, dag_run) in keys}
        known = self._planned  # read once: another thread may replace it
        if unread := plans - set(known):
            rows = session.execute(
                select(XComModel.dag_id, XComModel.run_id, XComModel.timestamp, XComModel.value).where(
                    *is_plan, XComModel.run_id.in_({dag_run for (_, dag_run), _ in unread})
                )
            )
            known = known | {((row.dag_id, row.run_id), row.timestamp): _groups(row) for row in rows}
            plans &= set(known)  # one may have been cleared between the two queries
        if not which:
            known = {plan: known[plan] for plan in plans}  # otherwise memory would grow with every Dag run
        self._planned = known
        return {plan[0]: known[plan] for plan in plans if known[plan]}


def _sentence(task: str, awaited: str, began: list[str]) -> str:
    subject = f"{len(began)} of the tasks {task} are" if len(began) > 1 else f"The task {task} is"
    return f"{subject} waiting for {awaited} since {datetime.fromisoformat(min(began)):%H:%M} UTC."


def _groups(row: Any) -> list[Group]:  # noqa: ANN401 - a row of a database
    # As a task would read it: the database's own decoding leaves tuples in their serialized form.
    return [(group["run"], tuple(group["blocks"])) for group in BaseXCom.deserialize_value(row) or []]


def log_link(task: BlockTask) -> str:
    """Return the address of a task's log in Airflow's UI, relative to the grid's page."""
    dag, dag_run, name = (quote(part, safe="") for part in (task.dag, task.dag_run, task.task))
    mapped = f"/mapped/{task.map_index}" if task.map_index >= 0 else ""
    return f"../dags/{dag}/runs/{dag_run}/tasks/{name}{mapped}?{urlencode({'try_number': task.attempt})}"


def dag_run_link(dag: str, dag_run: str) -> str:
    """Return the address of a Dag run in Airflow's UI, relative to the grid's page."""
    return f"../dags/{quote(dag, safe='')}/runs/{quote(dag_run, safe='')}"
