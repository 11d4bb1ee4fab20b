"""Airflow's workers and its scheduler are killed in a run, and it ends as if nothing had happened."""

import base64
import contextlib
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
from conftest import DEPTH, IMAGES, all_documents, engine_process, restart, wait_for

from tinytags_tasks import layout
from tinytags_tasks.airflow_api import AirflowClient
from tinytags_tasks.follow import airflow_client
from tinytags_tasks.ledger import read_ledger
from tinytags_tasks.records import BlockState, Run
from tinytags_tasks.runtime import Runtime
from tinytags_tasks.settings import Settings

DAG = "tinytags"
Command = Callable[..., subprocess.CompletedProcess[str]]

SEED = 43
"""Another than the other tests', so that there is something to learn."""


class Killer:
    """Kills the process of each task instance in its first try.

    Tasks may take less than a second: each process is stopped on sight, and goes on when it is not to be killed.
    """

    def __init__(self, settings: Settings, client: AirflowClient, dag_run: str) -> None:
        self._scheduler = engine_process(settings, "airflow-scheduler")
        self._dag_run = dag_run
        self._client = client
        self._ended = threading.Event()
        self._thread = ThreadPoolExecutor(1)
        self._seen: set[int] = set()
        self.killed: set[str] = set()

    def __enter__(self) -> "Killer":
        self._watching = self._thread.submit(self._watch)
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.shutdown()
        self._watching.result()

    def _watch(self) -> None:
        """Look at the children of the scheduler's own workers: each runs one task."""
        while not self._ended.wait(0.02):
            for supervisor in self._scheduler.children():
                with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended
                    for worker in supervisor.children():
                        if worker.pid not in self._seen:
                            self._seen.add(worker.pid)
                            self._stop(worker)

    def _stop(self, worker: psutil.Process) -> None:
        """Stop a task's process, and kill it when it is a first try; its supervisor tells Airflow."""
        worker.suspend()
        task, map_index = self._first_try_of(worker.pid)
        worker.resume()
        if task:
            time.sleep(0.1 + 0.7 * max(map_index, 0))  # some way into it, of mapped ones each a different one
            worker.kill()
            self.killed.add(task)

    def _first_try_of(self, pid: int) -> tuple[str, int]:
        """Return the task whose first try a process is, and which of it; empty when it is none within two seconds."""
        deadline = time.monotonic() + 2
        while time.monotonic() < deadline:  # its supervisor tells Airflow of it just after its start
            running = self._client._ask("GET", "/api/v2/dags/~/dagRuns/~/taskInstances", state="running", limit=100)
            for one in running["task_instances"]:
                if one["pid"] == pid:  # of other Dags, too: a new model sets off re-tagging
                    is_ours = one["dag_run_id"] == self._dag_run and one["try_number"] == 1
                    return (str(one["task_id"]) if is_ours else ""), one["map_index"]
            time.sleep(0.02)
        return "", -1


@pytest.fixture(scope="module")
def disturbed(
    airflow: Settings, tinytags_here: Command, pictures: dict[str, Path]
) -> tuple[Runtime, set[str], dict[str, int]]:
    """A run in which each task's worker was killed once: the clients, what was killed, the tries of each task."""
    added = tinytags_here(
        *("corpus", "add", "killed", str(pictures["corpus"]), "--format", "tiny-images"),
        *("--shard-images", "600", "--blocks-per-shard", "2"),
    )
    assert added.returncode == 0, added.stderr
    client = airflow_client(Runtime(airflow))
    client.wait_for_dag(DAG)
    labelled = str(pictures["labelled"])
    parameters = {"corpus": "killed", "labelled": labelled, "depth": DEPTH, "seed": SEED, "blocks_per_task": 1}
    dag_run = client.trigger(DAG, parameters)
    with Killer(airflow, client, dag_run) as killer:
        tasks = client.follow(DAG, dag_run, lambda state, tasks: None)
    tries: dict[str, int] = {}
    for task in tasks:
        tries[task.task] = max(tries.get(task.task, 0), task.attempt)
    return Runtime(airflow), killer.killed, tries


def live_run(runtime: Runtime) -> Run:
    collection = runtime.solr.aliases()[runtime.settings.alias]
    return Run.load(runtime.storage, layout.run_file(layout.run_of_collection(collection)))


def test_each_task_was_killed_once_and_tried_again(disturbed: tuple[Runtime, set[str], dict[str, int]]) -> None:
    _, killed, tries = disturbed
    assert {"ingest.plan", "ingest.shards", "ingest.commit", "train", "plan"} <= killed
    assert {"blocks", "reconcile", "publish"} <= killed
    assert {task for task, attempt in tries.items() if attempt > 1} == killed


def test_the_index_equals_one_that_nothing_disturbed(
    disturbed: tuple[Runtime, set[str], dict[str, int]], tinytags_here: Command
) -> None:
    runtime, _, _ = disturbed
    storage = runtime.storage
    run = live_run(runtime)
    assert run.corpus == "killed"
    # Another run of the same corpus and model: its documents have no images, and nothing of the first one is used.
    scored = tinytags_here("score", "killed", "--model", run.model, TINYTAGS_THUMBNAILS="store")
    clean = Run.load(storage, layout.run_file(scored.stdout.strip()))
    assert tinytags_here("index", clean.name).returncode == 0
    url = runtime.settings.address("solr_url")
    expected, found = all_documents(url, clean.collection), all_documents(url, run.collection)
    pixels = np.frombuffer(
        b"".join(storage.read(layout.shard_file("killed", shard)) for shard in range(2)), dtype=np.uint8
    ).reshape(IMAGES, -1)
    for document in found.values():
        assert base64.b64decode(document.pop("data")) == pixels[document["position"]].tobytes()
    for document in (*found.values(), *expected.values()):
        document.pop("_version_", None)
    assert found == expected
    records = read_ledger(storage, run)
    assert {record.state for record in records} == {BlockState.VERIFIED}
    assert sum(record.kept for record in records) == len(found)


def test_nothing_of_the_killed_is_left(disturbed: tuple[Runtime, set[str], dict[str, int]]) -> None:
    runtime, _, _ = disturbed
    run = live_run(runtime)
    storage = runtime.storage
    for folder in (layout.corpus_folder("killed"), layout.run_folder(run.name)):
        assert storage.leftovers(folder) == []
        for name in (name for name in storage.names(folder) if "." not in name):
            assert not [file for file in storage.names(f"{folder}/{name}") if file.endswith(".lease")]


def test_a_run_whose_scheduler_was_killed_goes_on_when_that_is_started_again(
    disturbed: tuple[Runtime, set[str], dict[str, int]],
) -> None:
    runtime, _, _ = disturbed
    storage, client = runtime.storage, airflow_client(runtime)
    parameters = {"corpus": "killed", "model": live_run(runtime).model, "threshold": 30, "publish": "no"}
    dag_run = client.trigger(DAG, {**parameters, "blocks_per_task": 1})
    wait_for(lambda: {task.state for task in client.task_states(DAG, dag_run) if task.task == "blocks"} & {"success"})
    scheduler = engine_process(runtime.settings, "airflow-scheduler")
    scheduler.kill()  # what it had begun goes on
    scheduler.wait(30)
    restart("airflow")
    client.follow(DAG, dag_run, lambda state, tasks: None)
    run = Run.load(storage, layout.run_file(client.result(DAG, dag_run, "reconcile")["run"]))
    records = read_ledger(storage, run)
    assert {record.state for record in records} == {BlockState.VERIFIED}
    assert sum(record.read for record in records) == IMAGES
    assert sum(record.kept for record in records) == runtime.solr.count(run.collection)
