"""Measure what Airflow costs: the Dag's wall time, compared with the same stages called one after another without it.

``python benchmarks/orchestration.py`` starts all engines, and prints Markdown. With ``--single``, it runs 4,000 groups
of one block once instead, which takes more than an hour, and kills the scheduler on the way. With ``--tiny 20,400``,
it runs so many blocks of 20 images each, up to 50,000, in at most 400 groups, or as many as ``--groups`` says; above
4,000 blocks or 400 groups without the comparison, which would take hours. Meanwhile the UI's view of the run and the
block grid are asked again and again. With ``TINYTAGS_AIRFLOW_DATABASE``, Airflow's database is that PostgreSQL.
"""

import argparse
import math
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from urllib.parse import quote

import httpx
import psutil
from index import MODEL, publish_model
from ingest import build_file, definition, timed
from loop import score_group
from machine import describe_machine, print_table, quiet

from tinytags_tasks import services
from tinytags_tasks.cli.follow import airflow_client
from tinytags_tasks.clients.airflow import AirflowClient, TaskState
from tinytags_tasks.corpus.demo.make import make_demo
from tinytags_tasks.corpus.registry import save_definition
from tinytags_tasks.index.step import IndexRequest, index_blocks, prepare_collection
from tinytags_tasks.ingest.step import ingest_corpus
from tinytags_tasks.publish.step import PublishRequest, publish_run
from tinytags_tasks.runtime import Runtime
from tinytags_tasks.score.plan import PlanRequest, plan_run
from tinytags_tasks.settings import load_settings
from tinytags_tasks.store import layout
from tinytags_tasks.store.run_records import Run

DAG = "tinytags"
IMAGE_BYTES = 3_072
CUTS = ((400_000, 20, 1), (400_000, 400, 1), (400_000, 4_000, 10), (2_000_000, 100, 10))
"""Images, blocks, and blocks per group; the last are 10 of the 400 groups of 80 million images."""

SINGLE = (400_000, 4_000, 1)

TINY_IMAGES = 20
"""Images of a tiny block: what is left is the work for each block, not for each image."""

MOST_GROUPS = 400

SHARD_BLOCKS = 4_000
"""More blocks than that are in several shards."""

MOST_COMPARED = 4_000
"""Blocks of a run that is repeated without Airflow."""

CALLED_AT_ONCE = 20
"""Blocks per call without Airflow, as on the command line."""


def call_stages(runtime: Runtime, corpus: str) -> tuple[float, Run]:
    """Score, index and publish without Airflow; return the seconds and the run."""
    storage, solr = runtime.storage, runtime.solr
    started = time.perf_counter()
    name = plan_run(PlanRequest(corpus, MODEL, 0), storage=storage, report=quiet).run
    run = Run.load(storage, layout.run_file(name))
    prepare_collection(name, storage=storage, solr=solr)
    groups = [tuple(range(at, min(at + CALLED_AT_ONCE, run.blocks))) for at in range(0, run.blocks, CALLED_AT_ONCE)]
    for group in groups:
        score_group(runtime, run, group)
    for group in groups:
        index_blocks(IndexRequest(name, group), storage=storage, solr=solr, report=quiet)
    publish_run(PublishRequest(name, runtime.settings.alias), storage=storage, solr=solr, report=quiet)
    return time.perf_counter() - started, run


@dataclass(frozen=True)
class DagRun:
    """The times of a run in Airflow.

    Attributes
    ----------
    seconds
        From its trigger to its end, as Airflow wrote them down.
    tasks
        Its task instances.
    answers
        Seconds of each answer meanwhile: of the UI's view of the run, and of the block grid's cells.
    """

    seconds: float
    tasks: list[TaskState]
    answers: tuple[list[float], list[float]]


@contextmanager
def watched(client: AirflowClient, dag_run: str, run: str) -> Iterator[tuple[list[float], list[float]]]:
    """Request the pages that a user has open, every ten seconds; yield the seconds of each answer so far."""
    client.run_state(DAG, dag_run)  # logs in
    http = httpx.Client(base_url=client.url, headers=client._http.headers, timeout=60, trust_env=False)
    pages = (f"/ui/grid/ti_summaries/{DAG}?run_ids={quote(dag_run)}", f"/tinytags/api/runs/{run}/cells")
    answers: tuple[list[float], list[float]] = ([], [])
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(10):
            for page, seconds in zip(pages, answers, strict=True):
                seconds.append(timed(partial(ask, page)))

    def ask(page: str) -> None:
        if not http.get(page).raise_for_status().content:
            raise ValueError(f"{page} is empty")

    with ThreadPoolExecutor(1) as thread:
        watching = thread.submit(watch)
        try:
            yield answers
        finally:
            ended.set()
    watching.result()


def run_dag(runtime: Runtime, corpus: str, blocks_per_task: int, *, kill_scheduler: bool = False) -> DagRun:
    """Do the same in Airflow, as another run over the same images."""
    settings = runtime.settings
    client = airflow_client(runtime)
    client.wait_for_dag(DAG)
    run = plan_run(PlanRequest(corpus, MODEL, 1), storage=runtime.storage, report=quiet).run
    parameters = {"corpus": corpus, "model": MODEL, "threshold": 1, "blocks_per_task": blocks_per_task}
    dag_run = client.trigger(DAG, parameters)
    killed = not kill_scheduler
    told = started = time.monotonic()

    def look(state: str, tasks: list[TaskState]) -> None:
        nonlocal killed, told
        ended = sum(task.has_ended for task in tasks)
        if time.monotonic() > told + 60:
            told = time.monotonic()
            print(f"{corpus}: {ended} of {len(tasks)} tasks after {told - started:.0f} s", file=sys.stderr)
        if not killed and ended > len(tasks) / 3 > 100:
            (scheduler,) = [status for status in services.status(settings) if status.name == "airflow-scheduler"]
            process = psutil.Process(scheduler.pid)
            process.kill()
            process.wait(30)
            services.up(load_settings(), engines=["airflow"], standard_ports=False, die_with_parent=True)
            killed = True
            print(f"The scheduler was killed after {ended:,} tasks.\n")

    with watched(client, dag_run, run) as answers:
        tasks = client.follow(DAG, dag_run, look, 3.0)
    record = client._ask("GET", f"/api/v2/dags/{DAG}/dagRuns/{dag_run}")
    begun, ended = (datetime.fromisoformat(record[name]) for name in ("queued_at", "end_date"))
    return DagRun((ended - begun).total_seconds(), tasks, answers)


def measure(runtime: Runtime, folder: Path, cuts: Sequence[tuple[int, int, int]], *, once: bool) -> None:
    """Measure every cut; once: by Airflow alone, with the scheduler killed."""
    demo = make_demo(folder / "demo", runtime.settings.demo_source, report=quiet)
    publish_model(runtime)
    source = folder / "images.bin"
    rows = []
    for images, blocks, blocks_per_task in cuts:
        build_file(source, demo.corpus_path, images * IMAGE_BYTES)
        corpus = f"cut-{blocks}-{blocks_per_task}"
        shards = math.ceil(blocks / SHARD_BLOCKS)
        cut = definition(corpus, source, shard_images=math.ceil(images / shards), blocks_per_shard=blocks // shards)
        save_definition(runtime.settings.corpora_folder, cut, replace=True)
        ingest_corpus(cut, storage=runtime.storage, report=quiet)
        called = 0.0
        compared = not once and blocks <= MOST_COMPARED and math.ceil(blocks / blocks_per_task) <= MOST_GROUPS
        if compared:
            called, run = call_stages(runtime, corpus)
        by_dag = run_dag(runtime, corpus, blocks_per_task, kill_scheduler=once)
        if compared:
            runtime.solr.delete_collection(run.collection)
        wall, tasks = by_dag.seconds, len(by_dag.tasks)
        spent = [task.ended - task.started for task in by_dag.tasks if task.started and task.ended]
        rows.append(
            [
                f"{blocks:,}",
                f"{images // blocks:,}",
                f"{math.ceil(blocks / blocks_per_task):,}",
                f"{tasks:,}",
                f"{called:.0f}" if compared else "",
                f"{wall:.0f}",
                f"{(wall - called) / wall * 100:.0f} %" if compared else "",
                f"{(wall - called) / tasks:.2f}" if compared else "",
                f"{statistics.median(spent):.2f}",
                *(f"{statistics.median(seconds):.2f}, {max(seconds):.2f}" for seconds in by_dag.answers if seconds),
            ]
        )
        print(f"{corpus}: {called:.0f} s, {wall:.0f} s", file=sys.stderr)
    print_table(
        [
            "blocks",
            "images per block",
            "groups",
            "tasks",
            "stages alone, s",
            "Dag, s",
            "Airflow's share",
            "Airflow, s per task",
            "a task itself, s (median)",
            "run view in the UI, s (median, longest)",
            "cells of the block grid, s",
        ],
        rows,
    )


def tiny_cut(blocks: int, groups: int) -> tuple[int, int, int]:
    """Return the cut for a number of tiny blocks."""
    return blocks * TINY_IMAGES, blocks, math.ceil(blocks / groups)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--single", action="store_true", help="4,000 groups of one block, once")
    which.add_argument("--tiny", metavar="BLOCKS,...", help="blocks of 20 images each")
    parser.add_argument("--groups", type=int, default=MOST_GROUPS, help="into how many groups --tiny divides them")
    chosen = parser.parse_args()
    tiny = [tiny_cut(int(blocks), chosen.groups) for blocks in chosen.tiny.split(",")] if chosen.tiny else None
    with tempfile.TemporaryDirectory(prefix="tinytags-bench-") as name:
        folder = Path(name)
        os.environ["TINYTAGS_HOME"] = str(folder / "home")
        settings = services.up(load_settings(), standard_ports=False, die_with_parent=True)
        try:
            database = "PostgreSQL" if settings.airflow_database else "SQLite"
            print(f"## Orchestration\n\n{describe_machine()}; Airflow's records are in {database}.\n")
            measure(Runtime(settings), folder, [SINGLE] if chosen.single else tiny or CUTS, once=chosen.single)
        finally:
            services.down(load_settings())


if __name__ == "__main__":
    main()
