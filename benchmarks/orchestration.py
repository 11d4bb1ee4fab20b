"""What Airflow costs: the Dag's wall time beside the same stages called one after another without it.

``python benchmarks/orchestration.py`` starts all engines, and prints Markdown. The same 400,000 images are cut into few
large blocks and into many small ones.
"""

import os
import statistics
import tempfile
import time
from pathlib import Path

from index import MODEL, publish_model, quiet
from ingest import build_file, definition, timed
from machine import describe_machine, print_table

from tinytags_tasks import layout, services
from tinytags_tasks.airflow_api import AirflowClient, TaskState
from tinytags_tasks.corpus.demo import make_demo
from tinytags_tasks.corpus.registry import save_definition
from tinytags_tasks.index.step import IndexRequest, prepare
from tinytags_tasks.index.step import run as index
from tinytags_tasks.ingest.step import run as ingest
from tinytags_tasks.publish.step import PublishRequest
from tinytags_tasks.publish.step import run as publish
from tinytags_tasks.records import Run
from tinytags_tasks.runtime import Runtime
from tinytags_tasks.score.plan import PlanRequest
from tinytags_tasks.score.plan import run as plan
from tinytags_tasks.score.step import ScoreRequest
from tinytags_tasks.score.step import run as score
from tinytags_tasks.settings import load_settings

DAG = "tinytags"
IMAGE_BYTES = 3_072
IMAGES = 400_000
CUTS = ((20, 1), (400, 1), (4_000, 10))
"""Blocks, and how many of them a group has."""

CALLED_AT_ONCE = 20
"""Blocks a call without Airflow, as the command line has them."""


def call_stages(runtime: Runtime, corpus: str) -> tuple[float, Run]:
    """Score, index and publish without Airflow; return the seconds and the run."""
    storage, solr = runtime.storage, runtime.solr
    started = time.perf_counter()
    name = plan(PlanRequest(corpus, MODEL, 0), storage=storage).run
    run = Run.load(storage, layout.run_file(name))
    prepare(name, storage=storage, solr=solr)
    groups = [tuple(range(at, min(at + CALLED_AT_ONCE, run.blocks))) for at in range(0, run.blocks, CALLED_AT_ONCE)]
    for group in groups:
        score(
            ScoreRequest(name, group),
            storage=storage,
            address=runtime.store_address,
            connect_spark=runtime.connect_spark,
            report=quiet,
        )
    for group in groups:
        index(IndexRequest(name, group), storage=storage, solr=solr, report=quiet)
    publish(PublishRequest(name, runtime.settings.alias), storage=storage, solr=solr, report=quiet)
    return time.perf_counter() - started, run


def run_dag(runtime: Runtime, corpus: str, blocks_per_task: int) -> tuple[float, list[TaskState]]:
    """Do the same by Airflow, as another run of the same images; return the seconds and the tasks."""
    settings = runtime.settings
    client = AirflowClient(
        settings.address("airflow_url"), settings.airflow_user, settings.password("airflow_password")
    )
    client.wait_for_dag(DAG)
    parameters = {"corpus": corpus, "model": MODEL, "threshold": 1, "blocks_per_task": blocks_per_task}
    tasks: list[TaskState] = []

    def go() -> None:
        tasks.extend(client.follow(DAG, client.trigger(DAG, parameters), lambda state, found: None, 3.0))

    return timed(go), tasks


def measure(runtime: Runtime, folder: Path) -> None:
    """Measure every cut."""
    demo = make_demo(folder / "demo", runtime.settings.demo_source, report=quiet)
    publish_model(runtime)
    source = folder / "images.bin"
    build_file(source, demo.corpus_path, IMAGES * IMAGE_BYTES)
    rows = []
    for blocks, blocks_per_task in CUTS:
        corpus = f"cut-{blocks}"
        cut = definition(corpus, source, shard_images=IMAGES, blocks_per_shard=blocks)
        save_definition(runtime.settings.corpora_folder, cut, replace=True)
        ingest(cut, storage=runtime.storage, report=quiet)
        called, run = call_stages(runtime, corpus)
        wall, tasks = run_dag(runtime, corpus, blocks_per_task)
        runtime.solr.delete_collection(run.collection)
        spent = [task.ended - task.started for task in tasks if task.started and task.ended]
        rows.append(
            [
                f"{blocks:,}",
                f"{IMAGES // blocks:,}",
                f"{blocks // blocks_per_task:,}",
                f"{len(tasks):,}",
                f"{called:.0f}",
                f"{wall:.0f}",
                f"{(wall - called) / wall * 100:.0f} %",
                f"{(wall - called) / len(tasks):.2f}",
                f"{statistics.median(spent):.2f}",
            ]
        )
    print_table(
        [
            "blocks",
            "images a block",
            "groups",
            "tasks",
            "seconds of the stages alone",
            "seconds of the Dag",
            "Airflow's share",
            "its seconds a task",
            "a task's own seconds (median)",
        ],
        rows,
    )


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="tinytags-bench-") as name:
        folder = Path(name)
        os.environ["TINYTAGS_HOME"] = str(folder / "home")
        settings = services.up(load_settings(), standard_ports=False, die_with_parent=True)
        try:
            print(f"## Orchestration\n\n{describe_machine()}; {IMAGES:,} images.\n")
            measure(Runtime(settings), folder)
        finally:
            services.down(load_settings())


if __name__ == "__main__":
    main()
