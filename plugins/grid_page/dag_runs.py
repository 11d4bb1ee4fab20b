"""What Airflow knows of a run: the Dag runs that work on it, and their tasks by the blocks that these name."""

import re
from collections.abc import Iterable
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


class DagRuns:
    """Finds the Dag runs of TinyTags' runs, and asks the database for each Dag run's plan only once."""

    def __init__(self) -> None:
        self._run_of: dict[DagRunKey, str] = {}

    def find_run(self, dag: str, dag_run: str, session: Session) -> str:
        """Return the name of the run that a Dag run works on; empty while it has none."""
        return self._names(session, DagRun.dag_id == dag, DagRun.run_id == dag_run).get((dag, dag_run), "")

    def tasks(self, run: Run, session: Session) -> list[BlockTask]:
        """Return the tasks that score or index blocks of a run and have begun, of its recent Dag runs."""
        keys = [key for key, name in self._names(session).items() if name == run.name]
        found = session.execute(
            select(
                TaskInstance.dag_id,
                TaskInstance.run_id,
                TaskInstance.task_id,
                TaskInstance.map_index,
                TaskInstance.state,
                TaskInstance.try_number,
                TaskInstance.start_date,
                TaskInstance._rendered_map_index,  # the public one computes it of all columns
            ).where(
                TaskInstance.dag_id.in_({dag for dag, _ in keys}),
                TaskInstance.run_id.in_({dag_run for _, dag_run in keys}),
                TaskInstance.start_date.is_not(None),
                or_(TaskInstance.task_id.endswith("score"), TaskInstance.task_id.endswith("index")),
            )
        )
        return [
            BlockTask(
                dag=row.dag_id,
                dag_run=row.run_id,
                task=row.task_id,
                map_index=row.map_index,
                state=str(row.state or ""),
                attempt=row.try_number,
                started=row.start_date.isoformat(),
                blocks=named_blocks(row[-1] or "", run.blocks),
            )
            for row in found
            if (row.dag_id, row.run_id) in keys
        ]

    def _names(self, session: Session, *which: ColumnElement[bool]) -> dict[DagRunKey, str]:
        """Return the names of the runs that recent Dag runs work on."""
        dag_runs = session.execute(
            select(DagRun.dag_id, DagRun.run_id, DagRun.conf)
            .where(DagRun.dag_id.in_(DAGS), *which)
            .order_by(DagRun.id.desc())
            .limit(RECENT_DAG_RUNS)
        ).all()
        unknown = [(dag, dag_run) for dag, dag_run, _ in dag_runs if (dag, dag_run) not in self._run_of]
        for dag, dag_run, conf in dag_runs:
            if (dag, dag_run) in unknown and dag == BACKFILL_DAG and isinstance(conf, dict) and conf.get("run"):
                self._run_of[dag, dag_run] = str(conf["run"])
        self._run_of |= _planned_runs([dag_run for dag, dag_run in unknown if dag == DAG], session)
        return {key: self._run_of[key] for dag, dag_run, _ in dag_runs if (key := (dag, dag_run)) in self._run_of}


def _planned_runs(dag_runs: list[str], session: Session) -> dict[DagRunKey, str]:
    """Return what the task ``plan`` of Dag runs made, of those where it has ended."""
    if not dag_runs:
        return {}
    plans = session.execute(
        select(XComModel.run_id, XComModel.value).where(
            XComModel.dag_id == DAG,
            XComModel.run_id.in_(dag_runs),
            XComModel.task_id == "plan",
            XComModel.key == "return_value",
        )
    )
    groups = {dag_run: XComModel.deserialize_value(row) for row in plans for dag_run in [row.run_id]}
    return {(DAG, dag_run): str(planned[0]["run"]) for dag_run, planned in groups.items() if planned}


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
