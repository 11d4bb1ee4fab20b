"""HDFS and Solr are away: tasks ask again and again, and the run ends by itself in the first try."""

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import IMAGES, kill_engine, restart, wait_for

from tinytags_tasks.cli.follow import airflow_client
from tinytags_tasks.clients.airflow import AirflowClient, TaskState
from tinytags_tasks.errors import MissingError
from tinytags_tasks.runtime import Runtime
from tinytags_tasks.settings import Settings
from tinytags_tasks.store import layout
from tinytags_tasks.store.ledger import read_ledger
from tinytags_tasks.store.run_records import BlockState, Run

DAG = "tinytags"


@pytest.fixture
def client(airflow: Settings) -> AirflowClient:
    return airflow_client(Runtime(airflow))


def blocks(client: AirflowClient, dag_run: str) -> list[TaskState]:
    return [task for task in client.task_states(DAG, dag_run) if task.task == "blocks"]


def waits(client: AirflowClient, dag_run: str) -> list[dict[str, Any]]:
    """Return what the run's tasks wait for."""
    found = []
    for task in blocks(client, dag_run):
        path = f"/api/v2/dags/{DAG}/dagRuns/{dag_run}/taskInstances/blocks/state-store/waiting"
        try:
            found.append(client._ask("GET", path, map_index=task.map_index)["value"])
        except MissingError:  # it does not wait
            continue
    return found


def test_a_run_whose_engines_are_away_for_long_ends_by_itself_without_using_up_tries(
    airflow: Settings,
    client: AirflowClient,
    tinytags_here: Callable[..., subprocess.CompletedProcess[str]],
    pictures: dict[str, Path],
    model: str,
) -> None:
    added = tinytags_here(
        *("corpus", "add", "away", str(pictures["corpus"]), "--format", "tiny-images"),
        *("--shard-images", "600", "--blocks-per-shard", "3"),
    )
    assert added.returncode == 0, added.stderr
    client.wait_for_dag(DAG)
    dag_run = client.trigger(DAG, {"corpus": "away", "model": model, "blocks_per_task": 1, "publish": "no"})
    wait_for(lambda: {task.state for task in blocks(client, dag_run)} & {"running", "success"})
    for engine in ("namenode", "solr"):
        kill_engine(airflow, engine)
    asked = wait_for(lambda: waits(client, dag_run), lambda found: any(wait["asked"] > 1 for wait in found))
    assert {wait["for"] for wait in asked} <= {"HDFS", "Solr"}
    names = [task.label for task in blocks(client, dag_run) if task.state == "up_for_reschedule"]
    assert all("(waiting for " in name and " UTC)" in name for name in names)
    restart("hdfs")
    wait_for(lambda: waits(client, dag_run), lambda found: any(wait["for"] == "Solr" for wait in found))
    restart("solr")
    tasks = client.follow(DAG, dag_run, lambda state, tasks: None)
    again = {task.label: task for task in tasks if task.attempt > 1}
    assert again == {}, [client.failure(DAG, dag_run, replace(task, attempt=1)) for task in again.values()]
    assert not [task.label for task in tasks if "waiting" in task.label]
    runtime = Runtime(airflow)
    run = Run.load(runtime.storage, layout.run_file(client.result(DAG, dag_run, "reconcile")["run"]))
    records = read_ledger(runtime.storage, run)
    assert {record.state for record in records} == {BlockState.VERIFIED}
    assert sum(record.read for record in records) == IMAGES
    assert sum(record.kept for record in records) == runtime.solr.count(run.collection)
