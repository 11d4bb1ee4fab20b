"""Airflow's workers and its scheduler are killed during a run, and it ends as if nothing had happened."""

import base64
import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from conftest import DEPTH, IMAGES, all_documents, engine_process, restart, wait_for

from tinytags_tasks import services
from tinytags_tasks.cli.follow import airflow_client
from tinytags_tasks.clients.airflow import AirflowClient
from tinytags_tasks.parts import PROJECT_ROOT
from tinytags_tasks.runtime import Runtime
from tinytags_tasks.settings import Settings
from tinytags_tasks.store import layout
from tinytags_tasks.store.ledger import read_ledger
from tinytags_tasks.store.run_records import BlockState, Run

DAG = "tinytags"
Command = Callable[..., subprocess.CompletedProcess[str]]


class Killer:
    """Kills the process of each task instance once, in its first attempt.

    A task may take less than a second, and Airflow longer than that to report which process belongs to it. So one
    thread pauses each process it sees, and another resumes or kills it once Airflow has reported that.

    Attributes
    ----------
    dag_run
        The run whose tasks are killed; until it is known, processes wait.
    killed
        The ids of the tasks that were killed.
    """

    def __init__(self, settings: Settings, client: AirflowClient) -> None:
        self._scheduler = engine_process(settings, "airflow-scheduler")
        self._client = client
        self._ended = threading.Event()
        self._threads = ThreadPoolExecutor(2)
        self._stopped: dict[int, psutil.Process] = {}
        self.dag_run = ""
        self.killed: set[str] = set()

    def __enter__(self) -> "Killer":
        seen = {worker.pid for worker in self._workers()}
        self._working = [self._threads.submit(self._stop_on_sight, seen), self._threads.submit(self._kill_or_resume)]
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._threads.shutdown()
        for thread in self._working:
            thread.result()

    def _workers(self) -> list[psutil.Process]:
        """Return the children of the scheduler's own workers: each runs one task."""
        parents = {}
        for process in self._scheduler.children(recursive=True):  # one look at all processes, because it must be quick
            with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended
                parents[process] = process.ppid()
        supervisors = {process.pid for process, parent in parents.items() if parent == self._scheduler.pid}
        return [process for process, parent in parents.items() if parent in supervisors]

    def _stop_on_sight(self, seen: set[int]) -> None:
        while not self._ended.wait(0.02):
            for worker in self._workers():
                if worker.pid not in seen:
                    seen.add(worker.pid)
                    with contextlib.suppress(psutil.NoSuchProcess):
                        worker.suspend()
                        self._stopped[worker.pid] = worker
        for worker in list(self._stopped.values()):
            with contextlib.suppress(psutil.NoSuchProcess):
                worker.resume()

    def _kill_or_resume(self) -> None:
        try:
            while not self._ended.wait(0.02):
                if self._stopped and self.dag_run:
                    self._ask_airflow()
        finally:
            self._ended.set()  # no process stays paused if Airflow does not answer

    def _running(self) -> dict[int, dict[str, Any]]:
        """Return the running task instances by the ids of their processes."""
        # Tasks of other Dags too: a new model triggers re-tagging.
        running = self._client._ask("GET", "/api/v2/dags/~/dagRuns/~/taskInstances", state="running", limit=100)
        return {one["pid"]: one for one in running["task_instances"]}

    def _ask_airflow(self) -> None:
        for pid, instance in self._running().items():
            if worker := self._stopped.pop(pid, None):
                with contextlib.suppress(psutil.NoSuchProcess):
                    self._judge(worker, instance)

    def _judge(self, worker: psutil.Process, instance: dict[str, Any]) -> None:
        worker.resume()
        if instance["dag_run_id"] == self.dag_run and instance["try_number"] == 1:
            time.sleep(0.1 + 0.7 * max(instance["map_index"], 0))  # mapped tasks are killed at different times
            worker.suspend()
            try:
                time.sleep(0.5)  # its supervisor may be about to pass on that it has ended
                if worker.pid in self._running():  # what has reported its end is not tried again
                    worker.kill()
                    self.killed.add(instance["task_id"])
            finally:
                worker.resume()


@pytest.fixture(scope="module")
def disturbed(
    airflow: Settings, tinytags_here: Command, pictures: dict[str, Path]
) -> Iterator[tuple[Runtime, set[str], dict[str, int]]]:
    """A run in which each task's worker was killed once: the clients, what was killed, and each task's attempts."""
    added = tinytags_here(
        *("corpus", "add", "killed", str(pictures["corpus"]), "--format", "tiny-images"),
        *("--shard-images", "600", "--blocks-per-shard", "2"),
    )
    assert added.returncode == 0, added.stderr
    client = airflow_client(Runtime(airflow))
    client.wait_for_dag(DAG)
    labelled = str(pictures["labelled"])
    # A forest on a net's embeddings: no other test trains one.
    parameters = {"corpus": "killed", "labelled": labelled, "head": "forest", "depth": DEPTH, "blocks_per_task": 1}
    with Killer(airflow, client) as killer:
        killer.dag_run = client.trigger(DAG, parameters)
        tasks = client.follow(DAG, killer.dag_run, lambda state, tasks: None)
    tries: dict[str, int] = {}
    for task in tasks:
        tries[task.task] = max(tries.get(task.task, 0), task.attempt)
    yield Runtime(airflow), killer.killed, tries
    # Readers search every published corpus, and other tests count what they find.
    withdrawn = tinytags_here("unpublish", "killed", "--yes")
    assert withdrawn.returncode == 0, withdrawn.stderr


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
    scheduler.kill()  # what it had started continues
    scheduler.wait(30)
    restart("airflow")
    client.follow(DAG, dag_run, lambda state, tasks: None)
    run = Run.load(storage, layout.run_file(client.result(DAG, dag_run, "reconcile")["run"]))
    records = read_ledger(storage, run)
    assert {record.state for record in records} == {BlockState.VERIFIED}
    assert sum(record.read for record in records) == IMAGES
    assert sum(record.kept for record in records) == runtime.solr.count(run.collection)


def test_after_a_power_cut_the_same_command_joins_the_run_and_follows_it_to_its_end(
    disturbed: tuple[Runtime, set[str], dict[str, int]], tinytags_here: Command
) -> None:
    """Everything is killed at once while blocks are scored: engines, Airflow, its tasks, and the command itself."""
    runtime, _, _ = disturbed
    storage, client = runtime.storage, airflow_client(runtime)
    command = ("run", "killed", "--model", live_run(runtime).model, "--threshold", "20", "--blocks-per-task", "1")
    command += ("--no-publish",)

    def states_of_blocks() -> set[str | None]:
        return {task.state for task in client.task_states(DAG, dag_run) if task.task == "blocks"}

    with subprocess.Popen([sys.executable, "-m", "tinytags_tasks.cli", *command], cwd=PROJECT_ROOT) as given:
        (dag_run,) = wait_for(lambda: list(client.unfinished_runs(DAG)))
        wait_for(states_of_blocks, {"success", "running"}.issubset)
        victims = [*everything(runtime.settings), psutil.Process(given.pid)]
        for process in victims:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
    assert psutil.wait_procs(victims, 30)[1] == []
    restart("hdfs", "solr", "spark", "airflow", "search")
    joined = tinytags_here(*command)
    assert joined.returncode == 0, joined.stderr
    assert f"run {dag_run} has the same parameters and has not ended: joining it" in joined.stderr
    run = Run.load(storage, layout.run_file(client.result(DAG, dag_run, "reconcile")["run"]))
    assert sum(record.read for record in read_ledger(storage, run)) == IMAGES
    audited = tinytags_here("audit", run.name, "--deep")
    assert audited.returncode == 0, audited.stderr
    assert "everything is as it was scored" in audited.stderr


def everything(settings: Settings) -> list[psutil.Process]:
    """Return the processes of all engines, with all that these have started."""
    engines = [psutil.Process(status.pid) for status in services.status(settings) if status.pid is not None]
    return [process for engine in engines for process in (engine, *engine.children(recursive=True))]
