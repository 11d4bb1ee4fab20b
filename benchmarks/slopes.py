"""Measure how each stage grows with the images: ``python benchmarks/slopes.py [IMAGES ...]``.

Starts its own HDFS, Solr and Spark, except where the environment has the address of another one, and goes the whole way
by a net's embeddings once for each number of images, without Airflow. Prints Markdown: seconds and rates of each stage,
and the most memory that this process, with Spark's and the engines', took meanwhile. Pictures stay in the store, as
they do in a large index; above a million images they repeat.
"""

import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from ingest import definition, timed
from loop import embed_corpus, score_group, write_moved
from machine import describe_machine, print_table, quiet
from memory import used_bytes
from mending import train

from tinytags_tasks import services
from tinytags_tasks.corpus.demo.make import Demo, make_demo
from tinytags_tasks.index.step import IndexRequest, index_blocks, prepare_collection
from tinytags_tasks.ingest.step import ingest_corpus
from tinytags_tasks.publish.step import PublishRequest, publish_run
from tinytags_tasks.runtime import Runtime
from tinytags_tasks.score.plan import PlanRequest, plan_run
from tinytags_tasks.search.query import search_images
from tinytags_tasks.search.request import SearchRequest
from tinytags_tasks.settings import load_settings
from tinytags_tasks.store import layout
from tinytags_tasks.store.ledger import add_up, read_ledger
from tinytags_tasks.store.run_records import Run
from tinytags_tasks.upkeep.audit import AuditRequest, audit_run

SIZES = (100_000, 300_000, 1_000_000)
DISTINCT = 1_000_000
NET = "general32"
SEARCHES = 50


class Stages:
    """Takes the time of each stage, and the most memory that it needed."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.megabytes: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure one; memory is asked for every second."""
        ended = threading.Event()
        most = [0]

        def watch() -> None:
            while True:
                most[0] = max(most[0], used_bytes(os.getpid()))  # the engines are its children
                if ended.wait(1):
                    return

        watching = threading.Thread(target=watch)
        watching.start()
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = time.perf_counter() - began
            ended.set()
            watching.join()
        self.megabytes[name] = most[0] / 1e6
        print(f"{name}: {self.seconds[name]:.1f} s", file=sys.stderr, flush=True)


def write_source(folder: Path, demo: Demo, images: int) -> Path:
    """Return a folder of files with so many images; those above a million are the same file by further names."""
    source = folder / f"source-{images}"
    source.mkdir()
    for number, first in enumerate(range(0, images, DISTINCT)):
        path = source / f"{number:03d}.bin"
        count = min(DISTINCT, images - first)
        if number and count == DISTINCT:
            path.hardlink_to(source / "000.bin")
        else:
            write_moved(path, demo.corpus_path, count)
    return source


def go_the_whole_way(runtime: Runtime, folder: Path, demo: Demo, model: str, images: int) -> Stages:
    """Take one number of images from files to a live index, and look at it."""
    storage, solr = runtime.storage, runtime.solr
    source = write_source(folder, demo, images)
    corpus = f"of-{images}"
    stages = Stages()
    with stages.stage("ingest"):
        ingest_corpus(definition(corpus, source), storage=storage, report=quiet)
    for path in source.iterdir():
        path.unlink()
    with stages.stage("embed"):
        embed_corpus(runtime, corpus, NET)
    with stages.stage("plan"):
        planned = plan_run(PlanRequest(corpus, model, 0, thumbnails="store"), storage=storage, report=quiet)
        run = Run.load(storage, layout.run_file(planned.run))
        shards, replicas = runtime.settings.solr_shards, runtime.settings.solr_replicas
        prepare_collection(run.name, storage=storage, solr=solr, shards=shards, replicas=replicas)
    with stages.stage("score"):
        for group in planned.groups:
            score_group(runtime, run, group)
    with stages.stage("index and verify"):
        for group in planned.groups:
            index_blocks(IndexRequest(run.name, tuple(group)), storage=storage, solr=solr, report=quiet)
    with stages.stage("reconcile and publish"):
        publish_run(PublishRequest(run.name, runtime.settings.alias), storage=storage, solr=solr, report=quiet)
    with stages.stage("audit, a thirtieth of the pictures"):
        problems = audit_run(AuditRequest(run.name), storage=storage, solr=solr, report=quiet).problems
    with stages.stage("read the ledger"):
        totals = add_up(read_ledger(storage, run))
    if problems or not solr.count(run.collection) == totals.kept == totals.documents:
        raise SystemExit(f"{run.name} is not whole: {problems} {totals} {solr.count(run.collection):,} documents")
    with stages.stage("search"):
        milliseconds = search(runtime)
    print(f"{images:,} images, {totals.kept:,} documents: a search took {milliseconds:.0f} ms.\n", flush=True)
    return stages


def search(runtime: Runtime) -> float:
    """Return the median of the milliseconds of a page of results, each with another confidence."""
    seconds = [
        timed(partial(search_images, runtime.settings, SearchRequest(min_confidence=least, rows=60)))
        for least in range(SEARCHES)
    ]
    return statistics.median(seconds) * 1_000


def main() -> None:
    sizes = tuple(int(each.replace(",", "")) for each in sys.argv[1:]) or SIZES
    with tempfile.TemporaryDirectory(prefix="tinytags-bench-") as name:
        folder = Path(name)
        os.environ.setdefault("TINYTAGS_HOME", str(folder / "home"))
        engines = ["hdfs", "solr", "spark"]
        settings = services.up(load_settings(), engines=engines, standard_ports=False, die_with_parent=True)
        try:
            runtime = Runtime(settings)
            print(f"## Slopes\n\n{describe_machine()}.\n")
            demo = make_demo(folder / "demo", settings.demo_source, report=quiet)
            model = train(runtime, demo)
            rows = []
            for images in sizes:
                stages = go_the_whole_way(runtime, folder, demo, model, images)
                for stage, seconds in stages.seconds.items():
                    most = f"{stages.megabytes[stage]:,.0f}"
                    rows.append([stage, f"{images:,}", f"{seconds:.1f}", f"{images / seconds:,.0f}", most])
            print_table(["stage", "images", "seconds", "images/s", "most memory, MB"], rows)
        finally:
            services.down(load_settings())


if __name__ == "__main__":
    main()
