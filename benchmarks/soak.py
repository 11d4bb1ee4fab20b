"""Soak the whole way: a run of hours in which something is killed, stopped or taken away every minute or so.

``python benchmarks/soak.py [IMAGES] [FAULTS]`` starts all engines with their keeper and adds a corpus of 100 blocks.
Airflow ingests, trains, embeds, scores, indexes and publishes it, and nobody helps. Meanwhile one fault after the other
comes over an engine, a process of Spark's or that of a task; a seed fixes their order. Two outages last for
ten minutes. If a run ends before the last fault, another one over the same images follows. In the end, each run's index
is compared with that of a clean run over a corpus of its own, document by document. Prints Markdown, and exits with 1
if anything differs.
"""

import itertools
import os
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import psutil
from ingest import definition
from loop import embed_corpus, tag_corpus, write_moved
from machine import describe_machine, print_table, quiet

from tinytags_tasks import services
from tinytags_tasks.cli.follow import airflow_client
from tinytags_tasks.clients.airflow import AirflowClient
from tinytags_tasks.corpus.definition import CorpusDefinition
from tinytags_tasks.corpus.demo.make import make_demo
from tinytags_tasks.corpus.registry import save_definition
from tinytags_tasks.document_fields import FIELDS
from tinytags_tasks.errors import TinyTagsError
from tinytags_tasks.ingest.step import ingest_corpus
from tinytags_tasks.runtime import Runtime
from tinytags_tasks.settings import Settings, load_settings
from tinytags_tasks.store.ledger import list_runs
from tinytags_tasks.store.run_records import Run

IMAGES, FAULTS, BLOCKS = 2_000_000, 40, 100
SEED = 21
PAUSE_SECONDS = (30, 90)
STOPPED_SECONDS = (5, 60)
OUTAGE_SECONDS = 600
OUTAGES = {10: "solr", 25: "hdfs"}
"""By the number of the fault: the engine that is down for ten minutes."""

DAG = "tinytags"
NET = "general32"
DISTURBED, CLEAN = "soak", "soak-clean"
COMPARED = [field.solr_name for field in FIELDS if field.is_countable and not field.is_multivalued]
OWN_NAME = {"id", "corpus", "shuffle"}
"""They hold the corpus' name or come from it, and so differ between the two."""


@dataclass(frozen=True)
class Fault:
    """What was done to what, and when."""

    at: str
    kind: str
    victim: str


class Faults:
    """Brings one fault after the other over the engines, in a thread of its own.

    Parameters
    ----------
    settings
        Of the engines' home.
    count
        How many there are to be.
    """

    def __init__(self, settings: Settings, count: int) -> None:
        self._settings = settings
        self._count = count
        self._random = random.Random(SEED)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._bring, daemon=True)
        self.done: list[Fault] = []

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def end(self) -> None:
        """Bring no more."""
        self._ended.set()
        self._thread.join()

    @property
    def are_done(self) -> bool:
        """Whether the last one is over."""
        return not self._thread.is_alive()

    def _bring(self) -> None:
        kinds = self._kinds()
        for number in itertools.count(1):
            if number > self._count or self._ended.wait(self._random.uniform(*PAUSE_SECONDS)):
                return
            if number in OUTAGES:
                self._outage(OUTAGES[number])
                continue
            # A kind whose victim is not there at the moment has its turn later.
            while not next(kinds)():
                if self._ended.wait(1):
                    return

    def _kinds(self) -> Iterator[Callable[[], bool]]:
        """Yield all kinds in a new order, again and again."""
        # Not the keeper: where there is no systemd, nobody starts it again.
        names = [status.name for status in services.status(self._settings) if status.name != "keeper"]
        kinds: list[Callable[[], bool]] = [
            *(partial(self._hit, how, name) for how in ("kill", "stop") for name in names),
            *(partial(self._kill_task, part) for part in ("task", "supervisor") for _ in range(3)),
            *(self._kill_spark_worker for _ in range(3)),
        ]
        while True:
            yield from self._random.sample(kinds, len(kinds))

    def _told(self, kind: str, victim: str) -> bool:
        self.done.append(Fault(datetime.now(UTC).strftime("%H:%M:%S"), kind, victim))
        print(f"fault {len(self.done)}: {kind} {victim}", file=sys.stderr, flush=True)
        return True

    def _process(self, name: str) -> psutil.Process | None:
        for status in services.status(self._settings):
            if status.name == name and status.pid:
                with suppress(psutil.NoSuchProcess):
                    return psutil.Process(status.pid)
        return None

    def _hit(self, how: str, name: str) -> bool:
        process = self._process(name)
        if process is None:
            return False
        try:
            if how == "kill":
                process.kill()
                return self._told("killed", name)
            seconds = self._random.uniform(*STOPPED_SECONDS)
            process.suspend()
            self._told(f"stopped for {seconds:.0f} s:", name)
            self._ended.wait(seconds)
            with suppress(psutil.NoSuchProcess):  # the keeper may have replaced it
                process.resume()
        except psutil.NoSuchProcess:
            return False
        return True

    def _kill_task(self, part: str) -> bool:
        """Kill the process of a task, or the one that watches over it."""
        scheduler = self._process("airflow-scheduler")
        with suppress(psutil.NoSuchProcess):
            workers = scheduler.children() if scheduler else []
            supervisors = [child for worker in workers for child in (worker, *worker.children()) if child.children()]
            found = supervisors if part == "supervisor" else [c for s in supervisors for c in s.children()]
            if found:
                self._random.choice(found).kill()
                return self._told("killed", f"the {part} of a task" if part == "supervisor" else "a task's process")
        return False

    def _kill_spark_worker(self) -> bool:
        spark = self._process("spark")
        with suppress(psutil.NoSuchProcess):
            found = [child for child in spark.children(recursive=True) if "python" in child.name()] if spark else []
            if found:
                self._random.choice(found).kill()
                return self._told("killed", "a Python worker of Spark")
        return False

    def _outage(self, engine: str) -> None:
        self._told(f"away for {OUTAGE_SECONDS} s:", engine)
        services.down(self._settings, engines=[engine], report=quiet)
        self._ended.wait(OUTAGE_SECONDS)
        services.up(load_settings(), engines=[engine], report=quiet, standard_ports=False, die_with_parent=False)


@dataclass(frozen=True)
class Ended:
    """A run in Airflow that has ended.

    Attributes
    ----------
    state
        Airflow's.
    seconds
        From its trigger to its end.
    tries
        How many task instances needed how many tries.
    waits
        The most task instances that waited at the same time.
    """

    state: str
    seconds: float
    tries: Counter[int]
    waits: int


def run_dag(client: AirflowClient, parameters: dict[str, object]) -> Ended:
    """Run the Dag to its end; the API server may be away meanwhile."""
    dag_run = client.trigger(DAG, parameters)
    began = time.perf_counter()
    waits = 0
    while True:
        time.sleep(5)
        with suppress(TinyTagsError):
            state, tasks = client.run_state(DAG, dag_run), client.task_states(DAG, dag_run)
            waits = max(waits, sum(task.state == "up_for_reschedule" for task in tasks))
            if state in ("success", "failed"):
                return Ended(state, time.perf_counter() - began, Counter(task.attempt for task in tasks), waits)


def run_clean(runtime: Runtime, source: Path, model: str) -> Run:
    """Go the whole way once without faults, and without Airflow."""
    storage = runtime.storage
    ingest_corpus(definition_of(CLEAN, source), storage=storage, report=quiet)
    embed_corpus(runtime, CLEAN, NET)
    # The disturbed runs have thresholds from 0 on; no image is so unsure that it makes a difference.
    return tag_corpus(runtime, CLEAN, model, threshold=0)


def documents(runtime: Runtime, run: Run, first: int, last: int) -> list[dict[str, object]]:
    """Return the documents at these positions, without what names the corpus."""
    cores = runtime.solr.export_cores(run.collection)
    found = runtime.solr.export(cores, COMPARED, first=first, last=last)
    return [{name: value for name, value in document.items() if name not in OWN_NAME} for document in found]


def count_different(runtime: Runtime, one: Run, other: Run, images: int) -> tuple[int, int]:
    """Return how many documents two runs have in common, and how many only one of them has."""
    same = different = 0
    step = images // BLOCKS
    for first in range(0, images, step):
        ours, theirs = (documents(runtime, run, first, first + step - 1) for run in (one, other))
        common = sum((Counter(map(repr, ours)) & Counter(map(repr, theirs))).values())
        same += common
        different += len(ours) + len(theirs) - 2 * common
    return same, different


def definition_of(name: str, source: Path) -> CorpusDefinition:
    """Return a corpus of 100 blocks in four shards."""
    images = source.stat().st_size // 3_072
    return definition(name, source, shard_images=images // 4, blocks_per_shard=BLOCKS // 4)


def soak(settings: Settings, folder: Path, images: int, count: int) -> bool:
    """Run until the last fault is over and a run has ended after it; return whether all is as without faults."""
    runtime = Runtime(settings)
    demo = make_demo(folder / "demo", settings.demo_source, report=quiet)
    source = folder / "moved.bin"
    write_moved(source, demo.corpus_path, images)
    save_definition(settings.corpora_folder, definition_of(DISTURBED, source), replace=True)
    client = airflow_client(runtime)
    client.wait_for_dag(DAG)
    faults = Faults(settings, count)
    faults.start()
    ended: list[Ended] = []
    parameters: dict[str, object] = {"corpus": DISTURBED, "labelled": str(demo.labelled_path), "blocks_per_task": 2}
    while not (ended and faults.are_done) and all(one.state == "success" for one in ended):
        ended.append(run_dag(client, parameters | {"threshold": len(ended)}))
        print(f"run {len(ended)}: {ended[-1]}", file=sys.stderr, flush=True)
    faults.end()
    services.up(load_settings(), report=quiet, standard_ports=False)  # waits for what the keeper is starting
    runs = [run for run in list_runs(runtime.storage) if run.corpus == DISTURBED]
    clean = run_clean(runtime, source, runs[0].model)
    compared = [count_different(runtime, run, clean, images) for run in runs]
    print(f"## Soak\n\n{describe_machine()}; {images:,} images in {BLOCKS} blocks, {len(faults.done)} faults.\n")
    print_table(
        ["run", "Airflow says", "minutes", "tasks with 1, 2 ... tries", "that waited at once", "as clean", "others"],
        [
            [
                str(number),
                one.state,
                f"{one.seconds / 60:.0f}",
                ", ".join(str(one.tries[tries]) for tries in range(1, max(one.tries) + 1)),
                str(one.waits),
                *(f"{documents:,}" for documents in counted),
            ]
            for number, (one, counted) in enumerate(zip(ended, compared, strict=True), 1)
        ],
    )
    print()
    print_table(["at", "fault"], [[fault.at, f"{fault.kind} {fault.victim}"] for fault in faults.done])
    restarts = {status.name: status.restarts for status in services.status(settings) if status.restarts}
    print("\nRestarts by the keeper:", ", ".join(f"{name} {times}" for name, times in restarts.items()) or "none")
    return all(one.state == "success" for one in ended) and not any(different for _, different in compared)


def main() -> None:
    """Run on engines of their own."""
    images = int(sys.argv[1]) if len(sys.argv) > 1 else IMAGES
    count = int(sys.argv[2]) if len(sys.argv) > 2 else FAULTS
    with tempfile.TemporaryDirectory(prefix="tinytags-bench-") as name:
        folder = Path(name)
        os.environ["TINYTAGS_HOME"] = str(folder / "home")
        settings = services.up(load_settings(), standard_ports=False, die_with_parent=True, keep=True)
        try:
            is_equal = soak(settings, folder, images, count)
        finally:
            services.down(load_settings())
    sys.exit(not is_equal)


if __name__ == "__main__":
    main()
