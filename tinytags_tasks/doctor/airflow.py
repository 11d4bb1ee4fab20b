"""Airflow: its parts, the Dags, the pools, and how many tasks a group may map over."""

import time
from collections.abc import Iterator
from datetime import datetime

from tinytags_tasks.airflow_names import HDFS, SOLR, SPARK
from tinytags_tasks.clients.airflow import AirflowClient
from tinytags_tasks.doctor.finding import Area, Finding
from tinytags_tasks.parts import dag_of_file
from tinytags_tasks.runtime import Runtime

NEEDED_MAP_LENGTH = 1024
"""Airflow's default; a group takes more blocks where fewer tasks are allowed."""

_DAG = "tinytags"

_PARTS = ("metadatabase", "scheduler", "dag_processor", "triggerer")

_area = Area("airflow")


def examine_airflow(runtime: Runtime) -> Iterator[Finding]:
    """Yield what would make a run of a Dag fail or wait for ever."""
    settings = runtime.settings
    client = AirflowClient(
        settings.address("airflow_url"), settings.airflow_user, settings.password("airflow_password")
    )
    server = list(_area.each("server", lambda: _server(client)))
    yield from server
    if [finding.verdict for finding in server] == ["fails"]:  # then it answers nothing else
        return
    yield from _area.each("dags", lambda: _dags(client))
    yield from _area.each("pools", lambda: _pools(client))
    yield from _area.each("map length", lambda: _map_length(client))


def _server(client: AirflowClient) -> Iterator[Finding]:
    began = time.time()
    yield _area.ok("version", f"Airflow {client.version()}")
    health = client.health()
    ill = [part for part in _PARTS if health.get(part, {}).get("status") != "healthy"]
    if ill:
        yield _area.fails(
            "server", f"not healthy: {', '.join(ill)}", "see `tinytags status`, or start these parts of Airflow"
        )
    else:
        yield _area.ok("server", "database, scheduler, Dag processor and triggerer are healthy")
    beat = health.get("scheduler", {}).get("latest_scheduler_heartbeat")
    if beat and (seconds := datetime.fromisoformat(beat).timestamp()) > began:
        yield _area.clock(seconds, began)


def _dags(client: AirflowClient) -> Iterator[Finding]:
    for file, reason in client.import_errors().items():
        text = f"{file} cannot be imported: {reason}"
        if dag_of_file(file):
            yield _area.fails("dags", text, "install what it lacks, or correct it")
        else:
            yield _area.warning("dags", text, "tell its owner; it is no Dag of TinyTags")
    if client.is_paused(_DAG):
        yield _area.warning("dags", f"{_DAG} is paused, so its runs wait", f"`airflow dags unpause {_DAG}`")
    else:
        yield _area.ok("dags", f"{_DAG} is there, and not paused")


def _pools(client: AirflowClient) -> Iterator[Finding]:
    slots = client.pools()
    if missing := [name for name in (SPARK, SOLR, HDFS) if name not in slots]:
        yield _area.warning(
            "pools",
            f"there is no pool {', '.join(missing)}: tasks share default_pool; with TINYTAGS_POOLS=1, they never start",
            "`airflow pools set NAME SLOTS DESCRIPTION` for each, then TINYTAGS_POOLS=1 for Airflow",
        )
    elif empty := [name for name in (SPARK, SOLR, HDFS) if slots[name] == 0]:
        yield _area.fails("pools", f"{', '.join(empty)} has no slot, so its tasks never start", "give it slots")
    else:
        yield _area.ok("pools", ", ".join(f"{name} {slots[name]}" for name in (SPARK, SOLR, HDFS)))


def _map_length(client: AirflowClient) -> Iterator[Finding]:
    length = client.option("core", "max_map_length")
    if length is None:
        yield _area.ok("map length", "Airflow does not show its configuration; groups are capped to what it allows")
    elif int(length) < NEEDED_MAP_LENGTH:
        yield _area.warning(
            "map length",
            f"max_map_length is {length}: groups take more blocks each, so a lost task repeats more",
            f"set AIRFLOW__CORE__MAX_MAP_LENGTH to {NEEDED_MAP_LENGTH} or more",
        )
    else:
        yield _area.ok("map length", f"max_map_length is {length}")
