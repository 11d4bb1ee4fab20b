"""What a user may do to blocks. Airflow does it, as if the user had asked it directly, and writes its audit log."""

import json
from collections.abc import Mapping
from typing import Literal

from airflow.api_fastapi.common.dagbag import DagBagDep
from airflow.api_fastapi.common.db.common import SessionDep
from airflow.api_fastapi.core_api.datamodels.dag_run import TriggerDAGRunPostBody
from airflow.api_fastapi.core_api.datamodels.task_instances import ClearTaskInstancesBody
from airflow.api_fastapi.core_api.routes.public.dag_run import trigger_dag_run
from airflow.api_fastapi.core_api.routes.public.task_instances import post_clear_task_instances
from airflow.api_fastapi.core_api.security import GetUserDep
from airflow.models.dag import DagModel
from airflow.models.log import Log
from fastapi import APIRouter, HTTPException, Request
from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from grid_page.access import TO_ACT, may_clear, may_trigger
from grid_page.dag_runs import dag_run_link
from grid_page.watch import Watches
from tinytags_tasks.airflow_names import BACKFILL_DAG
from tinytags_tasks.blocks import format_block_numbers, parse_block_numbers
from tinytags_tasks.records import Run


class BlocksAction(BaseModel):
    """What to do with which blocks, such as ``"3, 17-20"``."""

    action: Literal["backfill", "delete"]
    blocks: str = Field(min_length=1, max_length=20_000)


class Done(BaseModel):
    """What was started, and a link to it in Airflow."""

    message: str
    link: str


def action_routes(watches: Watches) -> APIRouter:
    """Return the routes that change something.

    Parameters
    ----------
    watches
        The runs that are being watched.
    """
    router = APIRouter(dependencies=TO_ACT)

    @router.post("/api/runs/{name}/blocks/{block}/clear")
    def clear(name: str, block: int, user: GetUserDep, session: SessionDep, dag_bag: DagBagDep) -> Done:
        watch = watches.watch(name)
        watch.run.check_blocks([block])
        watch.refresh(lambda run: watches.dag_runs.tasks(run, session))
        task = watch.task(block)
        if task is None:
            raise HTTPException(409, f"No task has worked on block {block} yet: backfill it instead")
        if not may_clear(user, task.dag):
            raise HTTPException(403, f"You may not clear tasks of {task.dag}")
        body = ClearTaskInstancesBody(
            dry_run=False,
            only_failed=False,
            dag_run_id=task.dag_run,
            task_ids=[(task.task, task.map_index)],
            include_downstream=True,
            prevent_running_task=True,
        )
        post_clear_task_instances(dag_id=task.dag, dag_bag=dag_bag, body=body, session=session, user=user)
        entry = _audit_entry("clear", user, task.dag, task.dag_run, {"run": name, "block": block})
        entry.task_id, entry.map_index = task.task, task.map_index
        session.add(entry)
        blocks = format_block_numbers(task.blocks)
        message = f"The task of blocks {blocks} is cleared, and everything after it"
        return Done(message=message, link=dag_run_link(task.dag, task.dag_run))

    @router.post("/api/runs/{name}/actions")
    def act(
        name: str, asked: BlocksAction, user: GetUserDep, session: SessionDep, dag_bag: DagBagDep, request: Request
    ) -> Done:
        if not may_trigger(user, BACKFILL_DAG):
            raise HTTPException(403, f"You may not start runs of {BACKFILL_DAG}")
        blocks = _checked_blocks(asked.blocks, watches.watch(name).run)
        _refuse_paused(session)
        conf = {"run": name, "blocks": blocks, "action": asked.action}
        body = TriggerDAGRunPostBody(logical_date=None, conf=conf)
        started = trigger_dag_run(BACKFILL_DAG, body, dag_bag, user, session, request)
        session.add(_audit_entry(asked.action, user, BACKFILL_DAG, started.run_id, conf))
        done = "are being redone" if asked.action == "backfill" else "are being deleted from the index"
        return Done(message=f"Blocks {blocks} {done}", link=dag_run_link(BACKFILL_DAG, started.run_id))

    return router


def _audit_entry(action: str, user: GetUserDep, dag: str, dag_run: str, extra: Mapping[str, object]) -> Log:
    """Return an entry of Airflow's audit log."""
    return Log(
        event=f"tinytags_grid.{action}",
        owner=user.get_name(),
        owner_display_name=user.get_name(),
        dag_id=dag,
        run_id=dag_run,
        extra=json.dumps(extra),
    )


def _checked_blocks(text: str, run: Run) -> str:
    """Return the block numbers in their usual notation; refuse an empty list, which would mean all blocks."""
    if not text.strip():
        raise HTTPException(400, "Name at least one block")
    return format_block_numbers(parse_block_numbers(text, run.blocks))


def _refuse_paused(session: Session) -> None:
    """Refuse to queue a run that would not start; whoever paused the Dag did so on purpose."""
    dag = session.get(DagModel, BACKFILL_DAG)
    if dag is not None and dag.is_paused:
        raise HTTPException(409, f"The Dag {BACKFILL_DAG} is paused: unpause it in Airflow first")
