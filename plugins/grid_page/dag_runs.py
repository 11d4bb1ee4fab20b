"""What Airflow knows of a run: the Dag runs that work on it, and their tasks by the blocks that these name."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote, urlencode

from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from sqlalchemy import ColumnElement, or_, select
from sqlalchemy.orm import Session

from tinytags_tasks.blocks import parse_block_numbers
from tinytags_tasks.errors import BadInputError
from tinytags_tasks.grid import BlockTask
from tinytags_tasks.records import Run

DAG = "tinytags"
BACKFILL_DAG = "tinytags_backfill"
DAGS = (DAG, BACKFILL_DAG)

RECENT_DAG_RUNS = 100
"""How far back Dag runs are looked at."""

LONGEST_NAME = 250
"""Characters that Airflow keeps of a mapped task's name."""

DagRunKey = tuple[str, str]
"""A Dag's id and its run's."""


@dataclass(frozen=True)
class Plan:
    """What the task ``plan`` of a Dag run made.

    Attributes
    ----------
    run
        The name of the run that the Dag run works on.
    groups
        The blocks of each mapped task, by map index; none while that is not known.
    """

    run: str
    groups: tuple[tuple[int, ...], ...] = ()


class DagRuns:
    """Finds the Dag runs of TinyTags' runs, and reads each one's plan only once."""

    def __init__(self) -> None:
        self._plans: dict[tuple[DagRunKey, datetime], Plan] = {}

    def find_run(self, dag: str, dag_run: str, session: Session) -> str:
        """Return the name of the run that a Dag run works on; empty while it has none."""
        plan = self._find_plans(session, DagRun.dag_id == dag, DagRun.run_id == dag_run).get((dag, dag_run))
        return plan.run if plan else ""

    def tasks(self, run: Run, session: Session) -> list[BlockTask]:
        """Return the tasks that score or index blocks of a run and have begun, of its recent Dag runs."""
        plans = {key: plan for key, plan in self._find_plans(session).items() if plan.run == run.name}
        found = session.execute(
            select(
                TaskInstance.dag_id,
                TaskInstance.run_id,
                TaskInstance.task_id,
                TaskInstance.map_index,
                TaskInstance.state,
                TaskInstance.try_number,
                TaskInstance.start_date,
                TaskInstance.rendered_map_index,
            ).where(
                TaskInstance.dag_id.in_({dag for dag, _ in plans}),
                TaskInstance.run_id.in_({dag_run for _, dag_run in plans}),
                TaskInstance.try_number > 0,  # those that others fail never begin, though they have a start
                TaskInstance.start_date.is_not(None),
                or_(TaskInstance.task_id.endswith("score"), TaskInstance.task_id.endswith("index")),
            )
        )
        return [
            BlockTask(
                dag=dag,
                dag_run=dag_run,
                task=task,
                map_index=map_index,
                state=str(state or ""),
                attempt=attempt,
                started=started.isoformat(),
                blocks=_blocks(plans[dag, dag_run], map_index, name or "", run.blocks),
            )
            for dag, dag_run, task, map_index, state, attempt, started, name in found
            if (dag, dag_run) in plans
        ]

    def _find_plans(self, session: Session, *which: ColumnElement[bool]) -> dict[DagRunKey, Plan]:
        """Return the plans of recent Dag runs, of those that have one."""
        dag_runs = session.execute(
            select(DagRun.dag_id, DagRun.run_id, DagRun.conf)
            .where(DagRun.dag_id.in_(DAGS), *which)
            .order_by(DagRun.id.desc())
            .limit(RECENT_DAG_RUNS)
        ).all()
        is_plan = (
            XComModel.dag_id.in_(DAGS),
            XComModel.run_id.in_({dag_run for _, dag_run, _ in dag_runs}),
            XComModel.task_id == "plan",
            XComModel.key == "return_value",
        )
        made = session.execute(select(XComModel.dag_id, XComModel.run_id, XComModel.timestamp).where(*is_plan)).all()
        known = {key: self._plans[key] for dag, dag_run, at in made if (key := ((dag, dag_run), at)) in self._plans}
        if unknown := {dag_run for dag, dag_run, at in made if ((dag, dag_run), at) not in known}:
            rows = session.execute(
                select(XComModel.dag_id, XComModel.run_id, XComModel.timestamp, XComModel.value).where(
                    *is_plan, XComModel.run_id.in_(unknown)
                )
            )
            known |= {((row.dag_id, row.run_id), row.timestamp): _plan(row) for row in rows}
        self._plans |= known
        told = {(dag, dag_run): conf for dag, dag_run, conf in dag_runs}
        plans = {
            key: Plan(str(conf["run"])) for key, conf in told.items() if isinstance(conf, dict) and conf.get("run")
        }
        plans |= {key: plan for (key, _), plan in known.items() if key in told and plan.groups}
        return plans


def _plan(row: Any) -> Plan:  # noqa: ANN401 - a row of a database
    groups = XComModel.deserialize_value(row) or []
    return Plan(groups[0]["run"] if groups else "", tuple(tuple(group["blocks"]) for group in groups))


def _blocks(plan: Plan, map_index: int, name: str, blocks: int) -> tuple[int, ...]:
    """Return the blocks of a task: as planned, since Airflow tells a task's name only when it has ended."""
    return plan.groups[map_index] if 0 <= map_index < len(plan.groups) else named_blocks(name, blocks)


def named_blocks(name: str, blocks: int) -> tuple[int, ...]:
    """Return the blocks that a mapped task's name tells, such as ``"blocks 3, 17-20"``; none of another name.

    Parameters
    ----------
    name
        The name; one that Airflow cut short tells the blocks before the cut.
    blocks
        How many blocks the run has.
    """
    match = re.fullmatch(r"blocks (.+)", name)
    if not match:
        return ()
    numbers = match[1].rpartition(",")[0] if len(name) >= LONGEST_NAME else match[1]
    try:
        return parse_block_numbers(numbers, blocks) if numbers else ()
    except BadInputError:  # of a task that another version of the Dag named
        return ()


def log_link(task: BlockTask) -> str:
    """Return the address of a task's log in Airflow's UI, as seen from the grid's page."""
    dag, dag_run, name = (quote(part, safe="") for part in (task.dag, task.dag_run, task.task))
    mapped = f"/mapped/{task.map_index}" if task.map_index >= 0 else ""
    return f"../dags/{dag}/runs/{dag_run}/tasks/{name}{mapped}?{urlencode({'try_number': task.attempt})}"


def dag_run_link(dag: str, dag_run: str) -> str:
    """Return the address of a Dag run in Airflow's UI, as seen from the grid's page."""
    return f"../dags/{quote(dag, safe='')}/runs/{quote(dag_run, safe='')}"


def first_of_last_dag_run(tasks: Iterable[BlockTask]) -> BlockTask | None:
    """Return the task that a block's clearing starts from: scoring where the last Dag run did it, else indexing."""
    tasks = list(tasks)
    if not tasks:
        return None
    last = max(tasks, key=lambda task: task.started)
    same = [task for task in tasks if (task.dag, task.dag_run) == (last.dag, last.dag_run)]
    return next((task for task in same if task.stage == "score"), last)
