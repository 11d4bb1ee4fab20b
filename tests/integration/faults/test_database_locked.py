"""Another program writes to Airflow's database for 90 seconds during a run: nobody else can, and the run ends."""

import contextlib
import os
import sqlite3
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import IMAGES, restart, wait_for

from tinytags_tasks.cli.follow import airflow_client
from tinytags_tasks.runtime import Runtime
from tinytags_tasks.settings import Settings
from tinytags_tasks.store import layout
from tinytags_tasks.store.ledger import read_ledger
from tinytags_tasks.store.run_records import BlockState, Run

DAG = "tinytags"
LOCKED_SECONDS = 90

pytestmark = pytest.mark.skipif(os.environ.get("LONG_TESTS") != "1", reason="takes three minutes: set LONG_TESTS=1")


def test_a_run_ends_by_itself_after_airflows_database_was_locked(
    airflow: Settings,
    tinytags_here: Callable[..., subprocess.CompletedProcess[str]],
    pictures: dict[str, Path],
    model: str,
) -> None:
    added = tinytags_here(
        *("corpus", "add", "locked", str(pictures["corpus"]), "--format", "tiny-images"),
        *("--shard-images", "600", "--blocks-per-shard", "6"),
    )
    assert added.returncode == 0, added.stderr
    runtime = Runtime(airflow)
    client = airflow_client(runtime)
    client.wait_for_dag(DAG)
    dag_run = client.trigger(DAG, {"corpus": "locked", "model": model, "blocks_per_task": 1, "publish": "no"})
    wait_for(lambda: {task.state for task in client.task_states(DAG, dag_run) if task.task == "blocks"} & {"success"})
    database = airflow.home / "airflow" / "airflow.db"
    with contextlib.closing(sqlite3.connect(database, timeout=60, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        time.sleep(LOCKED_SECONDS)
        writer.execute("ROLLBACK")
    restart("airflow")  # what ended, as the keeper does
    tasks = client.follow(DAG, dag_run, lambda state, tasks: None)
    print("tries:", {f"{task.task} {task.label}": task.attempt for task in tasks if task.attempt > 1})
    run = Run.load(runtime.storage, layout.run_file(client.result(DAG, dag_run, "reconcile")["run"]))
    records = read_ledger(runtime.storage, run)
    assert {record.state for record in records} == {BlockState.VERIFIED}
    assert sum(record.read for record in records) == IMAGES
    assert sum(record.kept for record in records) == runtime.solr.count(run.collection)
