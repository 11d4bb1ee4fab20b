"""The containers, for real: the whole way, then again with an engine killed in the middle; the counts must not change.

Needs a Docker engine with Compose. Run by `make test-containers`, and by name only: it takes a quarter of an hour.
``CONTAINERS_PROFILE=cluster`` kills one of two instead of the only one.
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
PROJECT = "tinytags-test"
SETTINGS = {"AIRFLOW_PORT": "18080", "SEARCH_PORT": "18765"}
KILLED = {
    "small": ("namenode", "datanode1", "zookeeper", "solr1", "spark", "postgres", "airflow-scheduler"),
    "cluster": ("datanode2", "solr2", "spark-worker2", "airflow-worker2", "postgres"),
}[PROFILE]
AWAY_SECONDS = 30
IMAGES = 20_000
OF_TEST = ("run", "--threshold", "55", "--no-publish")

COUNTS = re.compile(r"│ (images read|kept|below[^│]*|none of the tags|unreadable|documents in Solr) +│ +([\d,]+) │")


def compose(*arguments: str) -> str:
    """Run a command of Compose to its end, and return what it printed."""
    with started(*arguments) as process:
        output = "".join(shown(line) for line in process.stdout)
    assert process.returncode == 0, f"docker compose {' '.join(arguments)} ended with {process.returncode}"
    return output


def started(*arguments: str) -> subprocess.Popen[str]:
    settings = ("--env-file", "cluster.env") if PROFILE == "cluster" else ()
    command = ("docker", "compose", "--project-name", PROJECT, "--progress", "quiet", *settings, *arguments)
    return subprocess.Popen(
        command, cwd=ROOT, env=os.environ | SETTINGS, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def shown(line: str) -> str:
    print(time.strftime("%H:%M:%S"), line, end="")
    return line


def tinytags(*arguments: str) -> str:
    return compose("run", "--rm", "-T", "tinytags", *arguments)


def counts_of(output: str) -> dict[str, int]:
    return {what.strip(): int(count.replace(",", "")) for what, count in COUNTS.findall(output)}


def name_of(output: str) -> str:
    return re.search(r"^run ([a-z0-9-]+-[0-9a-f]{12}) *$", output, re.MULTILINE)[1]


@pytest.fixture(scope="module")
def first_run() -> Iterator[str]:
    """What the run printed that is the first on containers that were started from nothing."""
    compose("down", "--volumes", "--remove-orphans")
    try:
        compose("up", "--build", "--wait")
        yield tinytags("run")
    finally:
        compose("logs", "--tail", "10")
        compose("down", "--volumes", "--remove-orphans")


@pytest.fixture(scope="module")
def undisturbed(first_run: str) -> str:
    """What a run printed that nobody reads, with a threshold of its own."""
    return tinytags(*OF_TEST)


def test_from_nothing_to_a_searchable_index(first_run: str) -> None:
    counts = counts_of(first_run)
    assert counts["images read"] == IMAGES
    assert 0 < counts["kept"] == counts["documents in Solr"]
    assert json.loads(tinytags("search", "confidence:40-100", "--rows", "3", "--json"))


@pytest.mark.parametrize("engine", KILLED)
def test_an_engine_killed_in_mid_run_changes_no_count(undisturbed: str, engine: str) -> None:
    tinytags("runs", "remove", name_of(undisturbed), "--yes")
    output = ""
    with started("run", "--rm", "-T", "tinytags", *OF_TEST) as run:
        killed = False
        for line in run.stdout:
            output += shown(line)
            if not killed and "plan 1/1" in line:
                compose("kill", engine)
                killed = True
                time.sleep(AWAY_SECONDS)
                compose("up", "--no-build", "--wait", engine)
    assert killed, "the run ended before an engine was killed"
    if run.returncode != 0:  # Airflow itself was away; the run goes on, and the command joins it
        output = tinytags(*OF_TEST)
    assert counts_of(output) == counts_of(undisturbed)
