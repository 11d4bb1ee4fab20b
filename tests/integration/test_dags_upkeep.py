"""In the real Airflow: a publication that is asked for, corpora that grow, two that are tagged again, and cleaning."""

import contextlib
import json
import os
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from conftest import wait_for
from PIL import Image

from tinytags_tasks.cli.follow import airflow_client
from tinytags_tasks.clients.airflow import AirflowClient
from tinytags_tasks.corpus.demo.drawn import draw_pictures
from tinytags_tasks.errors import MissingError, TinyTagsError
from tinytags_tasks.publish.live import live_runs
from tinytags_tasks.runtime import Runtime
from tinytags_tasks.settings import Settings
from tinytags_tasks.store import layout
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.ledger import read_ledger
from tinytags_tasks.store.model_records import ModelCard
from tinytags_tasks.store.models import model_version, publish_model
from tinytags_tasks.store.run_records import Run

ALIAS = "upkeep"
ONE, TWO = "upkeep-one", "upkeep-two"
DAGS = ("tinytags", "tinytags_grow", "tinytags_retag", "tinytags_clean")

OLD, NEW = 12, 3
"""Pictures of each corpus at first, and those that are added to its folder."""

Command = Callable[..., subprocess.CompletedProcess[str]]


class Webhook(BaseHTTPRequestHandler):
    """Keeps what is posted."""

    def do_POST(self) -> None:
        posted = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.texts.append(posted["text"])  # type: ignore[attr-defined]
        self.send_response(204)
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        """Print nothing."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: tmp_path_factory.mktemp(name) for name in (ONE, TWO)}


def add_pictures(folder: Path, prefix: str, pictures: int) -> None:
    ((images, _),) = draw_pictures(pictures, seed=len(folder.name) + pictures)
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{prefix}{number:02}.png")


@pytest.fixture(scope="module")
def client(airflow: Settings, tinytags_here: Command, folders: dict[str, Path]) -> AirflowClient:
    for name, folder in folders.items():
        add_pictures(folder, "m", OLD)
        added = tinytags_here(
            *("corpus", "add", name, str(folder), "--format", "folder", "--height", "32", "--width", "32"),
            *("--shard-images", "6", "--blocks-per-shard", "2"),
        )
        assert added.returncode == 0, added.stderr
    client = airflow_client(Runtime(airflow))
    for dag in DAGS:
        client.wait_for_dag(dag)
    # Its runs would tag what other tests have published.
    client._ask("PATCH", "/api/v2/dags/tinytags_retag", {"is_paused": True})
    return client


@pytest.fixture(scope="module")
def texts(client: AirflowClient) -> Iterator[list[str]]:
    """The messages that an operator gets."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Webhook) as server:
        server.texts = []  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        connection = {"conn_type": "http", "schema": "http", "host": "127.0.0.1", "port": server.server_port}
        client._ask("POST", "/api/v2/connections", {"connection_id": "tinytags_notify", **connection})
        yield server.texts  # type: ignore[attr-defined]
        client._ask("DELETE", "/api/v2/connections/tinytags_notify")
        server.shutdown()


def start(client: AirflowClient, corpus: str, model: str, **parameters: object) -> str:
    common = {"corpus": corpus, "model": model, "alias": ALIAS, "threshold": 10, "blocks_per_task": 0}
    return client.trigger("tinytags", {**common, **parameters})


def end(client: AirflowClient, dag: str, dag_run: str) -> dict[str, str | None]:
    return {task.task: task.state for task in client.follow(dag, dag_run, lambda state, tasks: None)}


def answer(client: AirflowClient, dag_run: str, option: str) -> dict[str, str | None]:
    """Wait until a run asks, answer, and return the states of its tasks once it has ended."""
    wait_for(lambda: states(client, dag_run).get("ask"), lambda state: state == "awaiting_input")
    path = f"/api/v2/dags/tinytags/dagRuns/{dag_run}/taskInstances/ask/-1/hitlDetails"

    def has_ended() -> bool:
        # Airflow takes a task that goes on before its first process has ended for a lost one, and asks again.
        if states(client, dag_run).get("ask") == "awaiting_input":
            time.sleep(5)
            with contextlib.suppress(TinyTagsError):  # it has the answer, but has not gone on yet
                client._ask("PATCH", path, {"chosen_options": [option]})
        return client.run_state("tinytags", dag_run) in ("success", "failed")

    wait_for(has_ended)
    return states(client, dag_run)


def states(client: AirflowClient, dag_run: str) -> dict[str, str | None]:
    return {task.task: task.state for task in client.task_states("tinytags", dag_run)}


def live(runtime: Runtime) -> dict[str, Run]:
    """Return the live run of each corpus under the alias."""
    return {run.corpus: run for run in live_runs(ALIAS, runtime.storage, runtime.solr)}


def images_of(runtime: Runtime, corpus: str) -> int:
    return Corpus.load(runtime.storage, layout.corpus_file(corpus)).images


@pytest.fixture(scope="module")
def tagged(client: AirflowClient, texts: list[str], runtime: Runtime, model: str) -> dict[str, str]:
    """The Dag run of each corpus: one that waits for a person, and one that has published."""
    dag_runs = {ONE: start(client, ONE, model, publish="ask"), TWO: start(client, TWO, model)}
    end(client, "tinytags", dag_runs[TWO])
    return dag_runs


@pytest.fixture(scope="module")
def approved(client: AirflowClient, texts: list[str], runtime: Runtime, tagged: dict[str, str]) -> list[str]:
    """What the operator was told before the answer; then everything is live."""
    wait_for(lambda: states(client, tagged[ONE]).get("ask"), lambda state: state == "awaiting_input")
    assert set(live(runtime)) == {TWO}
    told = [text for text in texts if "Publish run" in text]
    assert answer(client, tagged[ONE], "Approve")["publish"] == "success"
    assert set(live(runtime)) == {ONE, TWO}
    return told


def test_whoever_may_approve_is_told_what_would_change_and_where_to_answer(
    client: AirflowClient, approved: list[str], tagged: dict[str, str]
) -> None:
    (text,) = approved
    assert text.startswith(f"TinyTags: Publish run {ONE}-")
    assert f"tags {OLD} images of corpus {ONE}" in text
    address = f"{client.url}/dags/tinytags/runs/{tagged[ONE]}/tasks/ask/required_actions"
    assert unquote(text.splitlines()[-1]) == address


@pytest.fixture(scope="module")
def grown(client: AirflowClient, runtime: Runtime, approved: list[str], folders: dict[str, Path], model: str) -> str:
    """Both corpora with three more pictures, one by its own Dag, the other by the form; return the latter's Dag run."""
    for folder in folders.values():
        add_pictures(folder, "a", NEW)  # before the others in the source's order
    grow = client.trigger("tinytags_grow", {"corpus": ONE, "least_new": NEW})
    dag_run = start(client, TWO, model, publish="ask", new_files="append")
    end(client, "tinytags_grow", grow)
    assert answer(client, dag_run, "Reject")["publish"] == "skipped"
    return dag_run


def test_new_files_are_appended_and_a_no_leaves_readers_what_they_had(
    client: AirflowClient, runtime: Runtime, grown: str
) -> None:
    assert images_of(runtime, ONE) == images_of(runtime, TWO) == OLD + NEW
    rejected = client.result("tinytags", grown, "reconcile")
    assert rejected["totals"]["read"] == OLD + NEW
    assert live(runtime)[TWO].name != rejected["run"]
    assert {run.images for run in live(runtime).values()} == {OLD}


def test_two_corpora_that_are_due_are_tagged_again_one_after_the_other(
    client: AirflowClient, runtime: Runtime, grown: str, model: str
) -> None:
    storage = runtime.storage
    onnx = storage.read(layout.model_file(model))
    newer = ModelCard.load(storage, layout.card_file(model)).replaced(version=model_version("upkeep", onnx))
    publish_model(newer, onnx, "", storage)
    with contextlib.suppress(MissingError):  # what has grown waits to start it
        client._ask("DELETE", "/api/v2/dags/tinytags_retag/assets/queuedEvents")
    client.unpause("tinytags_retag")
    first = client.trigger("tinytags_retag", {"alias": ALIAS, "model": newer.version})
    assert end(client, "tinytags_retag", first)["publish"] == "skipped"
    runs = client._ask("GET", "/api/v2/dags/tinytags_retag/dagRuns", limit=100)["dag_runs"]
    each = [run["dag_run_id"] for run in runs if run["dag_run_id"].startswith(f"{first}__")]
    assert len(each) == 2
    for dag_run in each:
        assert end(client, "tinytags_retag", dag_run)["publish"] == "success"
    now = live(runtime)
    assert {corpus: (run.model, run.images) for corpus, run in now.items()} == dict.fromkeys(
        (ONE, TWO), (newer.version, OLD + NEW)
    )
    for run in now.values():
        assert sum(record.kept for record in read_ledger(storage, run)) == runtime.solr.count(run.collection) > 0


def test_old_records_and_logs_are_deleted_and_others_kept(
    airflow: Settings, client: AirflowClient, approved: list[str], tagged: dict[str, str]
) -> None:
    old, kept = tagged[TWO], tagged[ONE]
    make_old(airflow.home / "airflow" / "airflow.db", old)
    logs = airflow.home / "airflow" / "logs" / "dag_id=tinytags"
    long_ago = time.time() - 40 * 86_400
    for file in [*(logs / f"run_id={old}").rglob("*"), logs / f"run_id={old}"]:
        os.utime(file, (long_ago, long_ago))
    end(client, "tinytags_clean", client.trigger("tinytags_clean", {"days": 30}))
    with pytest.raises(MissingError):
        client.run_state("tinytags", old)
    assert client.run_state("tinytags", kept) == "success"
    assert client.result("tinytags", kept, "reconcile")["totals"]["read"] == OLD
    assert not (logs / f"run_id={old}").exists()
    assert list((logs / f"run_id={kept}").rglob("*.log"))


def make_old(database: Path, dag_run: str) -> None:
    """Let a Dag run have taken place 40 days ago."""
    times: dict[str, Any] = {
        "dag_run": ("queued_at", "start_date", "end_date", "run_after", "created_at"),
        "task_instance": ("queued_dttm", "start_date", "end_date"),
        "xcom": ("timestamp",),
        "log": ("dttm",),
    }
    with contextlib.closing(sqlite3.connect(database, timeout=60)) as connection, connection:
        for table, columns in times.items():
            changes = ", ".join(f"{name} = strftime('%Y-%m-%d %H:%M:%f', {name}, '-40 days')" for name in columns)
            connection.execute(f"UPDATE {table} SET {changes} WHERE run_id = ?", (dag_run,))
