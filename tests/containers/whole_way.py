"""The containers, for real: the whole way, then again with an engine killed in the middle; the counts must not change.

Needs a Docker engine with Compose. Run by `make test-containers`, and by name only. What ``.env`` says counts, such as
mirrors. ``CONTAINERS_PROFILE=cluster`` kills one of two instead of the only one. ``CONTAINERS_PROJECT=tinytags`` takes
containers that run already, and leaves them.
"""

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROFILE = os.environ.get("CONTAINERS_PROFILE", "small")
RUNNING = os.environ.get("CONTAINERS_PROJECT")
PROJECT = RUNNING or "tinytags-test"
CLUSTER = dict(re.findall(r"^(\w+)=(.*)$", (ROOT / "cluster.env").read_text(), re.MULTILINE))
PORTS = {} if RUNNING else {"AIRFLOW_PORT": "18080", "SEARCH_PORT": "18765"}
VARIABLES = (CLUSTER if PROFILE == "cluster" else {}) | os.environ | PORTS
KILLED = {
    "small": ("namenode", "datanode1", "zookeeper", "solr1", "spark", "postgres", "airflow-scheduler"),
    "cluster": ("spark-worker2", "datanode2", "solr2", "postgres", "airflow-worker2"),
}[PROFILE]
HOLDS_TASKS = ("airflow-worker2", "airflow-scheduler")
"""These are killed while they hold a task; the others as soon as the run is planned."""

TASK_RUNS = 'until pgrep -f "^airflow worker -- "; do sleep 0.1; done'
AWAY_SECONDS = 30
IMAGES = 20_000

COUNTS = re.compile(r"│ (images read|kept|below[^│]*|none of the tags|unreadable|documents in Solr) +│ +([\d,]+) │")


def compose(*arguments: str) -> str:
    """Run a command of Compose to its end, and return what it printed."""
    with started(*arguments) as process:
        output = "".join(shown(line) for line in process.stdout)
    assert process.returncode == 0, f"docker compose {' '.join(arguments)} ended with {process.returncode}"
    return output


def started(*arguments: str) -> subprocess.Popen[str]:
    command = ("docker", "compose", "--project-name", PROJECT, "--progress", "quiet", *arguments)
    return subprocess.Popen(
        command, cwd=ROOT, env=VARIABLES, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def shown(line: str) -> str:
    print(time.strftime("%H:%M:%S"), line, end="", flush=True)
    return line


def tinytags(*arguments: str) -> str:
    return compose("run", "--rm", "-T", "tinytags", *arguments)


def counts_of(output: str) -> dict[str, int]:
    return {what.strip(): int(count.replace(",", "")) for what, count in COUNTS.findall(output)}


@pytest.fixture(scope="module")
def first_run() -> Iterator[str]:
    """What the run printed that is the first on containers that were started from nothing."""
    if RUNNING:
        yield tinytags("run")
        return
    compose("down", "--volumes", "--remove-orphans")
    try:
        compose("up", "--build", "--wait")
        yield tinytags("run")
    finally:
        compose("logs", "--tail", "10")
        compose("down", "--volumes", "--remove-orphans")


def test_from_nothing_to_a_searchable_index(first_run: str) -> None:
    counts = counts_of(first_run)
    assert counts["images read"] == IMAGES
    assert 0 < counts["kept"] == counts["documents in Solr"]
    assert json.loads(tinytags("search", "confidence:40-100", "--rows", "3", "--json"))


def test_what_people_follow_is_open_on_the_host(first_run: str) -> None:
    airflow = f"http://127.0.0.1:{VARIABLES.get('AIRFLOW_PORT', '8080')}"
    assert f"{airflow}/dags/tinytags/runs/" in first_run
    assert airflow in tinytags("passwords")
    assert "airflow-api-server" not in first_run


def test_every_engine_answers_the_command_line(first_run: str) -> None:
    engines = json.loads(tinytags("status", "--json"))
    assert "search" in {engine["name"] for engine in engines}
    assert {engine["name"]: engine["detail"] for engine in engines if engine["detail"] != "answers"} == {}


def test_a_source_is_inspected_and_its_sheet_written(first_run: str) -> None:
    assert re.search(r"^sheet +\S+\.png: images", tinytags("corpus", "inspect", "demo"), re.MULTILINE)


@pytest.mark.parametrize("engine", KILLED)
def test_an_engine_killed_in_mid_run_changes_no_count(first_run: str, engine: str) -> None:
    # Another threshold is another run, of which nothing is done yet but the model and the embeddings.
    threshold = 50 + KILLED.index(engine)
    arguments = ("run", "--threshold", str(threshold), "--no-publish")
    output = ""
    holds_tasks = engine in HOLDS_TASKS
    with started("run", "--rm", "-T", "tinytags", *arguments) as run:
        killed = False
        for line in run.stdout:
            output += shown(line)
            if not killed and ("blocks 0/" if holds_tasks else "plan 1/1") in line:
                if holds_tasks:
                    compose("exec", "-T", engine, "timeout", "60", "sh", "-c", TASK_RUNS)
                compose("kill", engine)
                killed = True
                time.sleep(AWAY_SECONDS)
                compose("start", engine)
    assert killed, "the run ended before an engine was killed"
    if run.returncode != 0:  # Airflow was away, too; its run goes on, and the same command joins it
        output = tinytags(*arguments)
    counts = counts_of(output)
    assert counts["images read"] == IMAGES
    # The live run has every image that was kept from 40 % on, each with its confidence.
    expected = json.loads(tinytags("search", f"confidence:{threshold}-100", "--rows", "1", "--json"))["total"]
    assert counts["kept"] == counts["documents in Solr"] == expected
