"""Measure how long it takes until a run is whole again: after the loss of one block, and after a power cut.

``python benchmarks/mending.py [BLOCKS [IMAGES]]`` starts all engines with their keeper, and prints Markdown; 0 leaves a
part out. The first part tags BLOCKS blocks of 100 images each. Again and again, one block loses its documents or its
scored file; the loss is found and mended by the commands that people use, then by the Dags. In the second part, Airflow
ingests, embeds, tags and publishes IMAGES images in 20 blocks, twice over. The second run meets a power cut: when half
of its groups are done, all engines, the keeper and all tasks are killed at once, and ``tinytags up --keep`` follows.
Its index is compared with that of the first, document by document. Exits with 1 if anything differs.
"""

import math
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path

import psutil
from index import publish_model
from ingest import definition
from loop import write_moved
from machine import describe_machine, print_table, quiet
from orchestration import DAG, SHARD_BLOCKS, call_stages
from soak import count_different

from tinytags_tasks import services
from tinytags_tasks.airflow_names import BACKFILL_DAG
from tinytags_tasks.cli.follow import airflow_client
from tinytags_tasks.clients.airflow import AirflowClient
from tinytags_tasks.corpus.demo.make import OTHER_FILE, Demo, make_demo
from tinytags_tasks.corpus.registry import save_definition
from tinytags_tasks.errors import TinyTagsError
from tinytags_tasks.ingest.step import ingest_corpus
from tinytags_tasks.runtime import Runtime
from tinytags_tasks.settings import load_settings
from tinytags_tasks.store import layout
from tinytags_tasks.store.ledger import Totals, add_up, list_runs, read_ledger
from tinytags_tasks.store.run_records import BlockState, Run
from tinytags_tasks.train.parameters import TrainRequest
from tinytags_tasks.train.step import train_model

BLOCKS, IMAGES = 4_000, 400_000
TINY_IMAGES = 100
"""Images of each block of the first part."""

CUT_BLOCKS = 20
ROUNDS = 3
SEED = 21
UNDISTURBED, CUT = "undisturbed", "cut"
AUDIT_DAG = "tinytags_audit"


def tinytags(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command as people do, in a process of its own."""
    return subprocess.run([sys.executable, "-m", "tinytags_tasks.cli", *arguments], capture_output=True, text=True)


def expect(done: subprocess.CompletedProcess[str], code: int, text: str) -> None:
    """Stop if a command ended otherwise or said something else."""
    if done.returncode != code or text not in done.stdout:
        raise SystemExit(f"{done.args} ended with {done.returncode}:\n{done.stdout}{done.stderr}")


def lose_documents(runtime: Runtime, run: Run, block: int) -> None:
    """Delete a block's documents behind the ledger's back."""
    runtime.solr.delete_block(run.collection, block)
    runtime.solr.commit(run.collection)


def lose_scored_file(runtime: Runtime, run: Run, block: int) -> None:
    """Delete a block's scored file."""
    runtime.storage.delete(layout.scored_file(run.name, block))


LOSSES = {"its documents": lose_documents, "its scored file": lose_scored_file}


def mend_by_commands(run: Run, block: int) -> list[float]:
    """Return the seconds of ``audit``, which finds the loss, and of ``backfill``, which mends it."""
    seconds = []
    for command, code, text in (
        (("audit", run.name), 1, f"block {block}: "),
        (("backfill", run.name, "--select", "audit"), 0, "1 blocks were redone"),
    ):
        began = time.perf_counter()
        done = tinytags(*command)
        seconds.append(time.perf_counter() - began)
        expect(done, code, text)
    return seconds


def mend_by_dags(client: AirflowClient, run: Run) -> list[float]:
    """Return the seconds until the Dag ``tinytags_audit`` has found a loss, and until its backfill has mended it."""
    began = time.time()
    known = set(dag_runs(client, BACKFILL_DAG))
    tasks = client.follow(AUDIT_DAG, client.trigger(AUDIT_DAG, {"run": run.name, "repair": True}), lambda *_: None)
    (found,) = [task.ended for task in tasks if task.task == "audit" and task.ended]
    (backfill,) = set(dag_runs(client, BACKFILL_DAG)) - known
    client.follow(BACKFILL_DAG, backfill, lambda *_: None)
    ended = datetime.fromisoformat(dag_runs(client, BACKFILL_DAG)[backfill]["end_date"]).timestamp()
    return [found - began, ended - found]


def dag_runs(client: AirflowClient, dag: str) -> dict[str, dict[str, str]]:
    """Return the latest runs of a Dag by their ids."""
    found = client._ask("GET", f"/api/v2/dags/{dag}/dagRuns", order_by="-id", limit=50)["dag_runs"]
    return {run["dag_run_id"]: run for run in found}


def measure_losses(runtime: Runtime, source: Path, blocks: int) -> None:
    """Lose one block after the other, and print how long each was lost."""
    shards = math.ceil(blocks / SHARD_BLOCKS)
    cut = definition(
        f"of-{blocks}", source, shard_images=blocks * TINY_IMAGES // shards, blocks_per_shard=blocks // shards
    )
    save_definition(runtime.settings.corpora_folder, cut, replace=True)
    ingest_corpus(cut, storage=runtime.storage, report=quiet)
    called, run = call_stages(runtime, cut.name)
    print(f"{blocks:,} blocks are tagged and live: {called:.0f} s", file=sys.stderr, flush=True)
    client = airflow_client(runtime)
    for dag in (AUDIT_DAG, BACKFILL_DAG):
        client.wait_for_dag(dag)
        client.unpause(dag)
    documents = runtime.solr.count(run.collection)
    chosen = random.Random(SEED)
    rows = []
    ways: dict[str, Callable[[int], list[float]]] = {
        "`audit`, `backfill`": partial(mend_by_commands, run),
        "`tinytags_audit`, `tinytags_backfill`": lambda _: mend_by_dags(client, run),
    }
    for what, lose in LOSSES.items():
        for way, mend in ways.items():
            rounds = []
            for _ in range(ROUNDS):
                block = chosen.randrange(blocks)
                lose(runtime, run, block)
                rounds.append(mend(block))
                print(f"{what} of block {block}, {way}: {rounds[-1]}", file=sys.stderr, flush=True)
            parts = zip(*rounds, strict=True)
            rows.append([what, way, *(", ".join(f"{seconds:.1f}" for seconds in part) for part in parts)])
    whole = tinytags("audit", run.name)
    expect(whole, 0, "everything matches what was scored")
    if runtime.solr.count(run.collection) != documents:
        raise SystemExit(f"{documents:,} documents before, {runtime.solr.count(run.collection):,} after")
    print(f"One of {blocks:,} blocks of {TINY_IMAGES} images is lost:\n")
    print_table(["lost", "found and mended by", "found after, s", "mended after that, s"], rows)
    print(f"\nAfterwards: {whole.stdout.splitlines()[0]}\n", flush=True)


def train(runtime: Runtime, demo: Demo) -> str:
    """Train the default model; return its version."""
    request = TrainRequest(str(demo.labelled_path), other=str(demo.labelled_path.with_name(OTHER_FILE)))
    return train_model(request, storage=runtime.storage, connect_spark=runtime.connect_spark, report=quiet).model


@dataclass(frozen=True)
class Ended:
    """A run in Airflow that has ended well.

    Attributes
    ----------
    began, ended
        Seconds since the epoch.
    tries
        Of each task that needed several.
    """

    began: float
    ended: float
    tries: dict[str, int]


def run_dag(runtime: Runtime, parameters: dict[str, object], when_half_done: Callable[[], None]) -> Ended:
    """Run the Dag to its end."""
    client = airflow_client(runtime)
    client.wait_for_dag(DAG)
    began = time.time()
    dag_run = client.trigger(DAG, parameters)
    is_half_done = False
    while True:
        time.sleep(1)
        with suppress(TinyTagsError):
            state, tasks = client.run_state(DAG, dag_run), client.task_states(DAG, dag_run)
            if state in ("success", "failed"):
                break
            done = sum(task.task == "blocks" and task.state == "success" for task in tasks)
            if not is_half_done and done >= CUT_BLOCKS // 2:
                is_half_done = True
                when_half_done()
    if state == "failed":
        client.follow(DAG, dag_run, lambda *_: None)  # says why
    ended = datetime.fromisoformat(dag_runs(client, DAG)[dag_run]["end_date"]).timestamp()
    return Ended(began, ended, {f"{task.task} {task.label}": task.attempt for task in tasks if task.attempt > 1})


class PowerCut:
    """Ends all engines at once, and starts them as after a boot.

    Attributes
    ----------
    at
        When they were killed, in seconds since the epoch.
    killed
        How many processes.
    up_seconds
        How long ``tinytags up --keep`` took.
    """

    at = up_seconds = 0.0
    killed = 0

    def __call__(self) -> None:
        """Cut the power, and wait until the engines are up."""
        victims = processes_of_engines()
        self.at, self.killed = time.time(), len(victims)
        for victim in victims:
            with suppress(psutil.NoSuchProcess):
                victim.kill()
        print(f"{self.killed} processes were killed", file=sys.stderr, flush=True)
        began = time.perf_counter()
        expect(tinytags("up", "--keep"), 0, "airflow")
        self.up_seconds = time.perf_counter() - began
        print(f"the engines were up after {self.up_seconds:.0f} s", file=sys.stderr, flush=True)


def processes_of_engines() -> list[psutil.Process]:
    """Return the keeper, the engines of this home, and all that they have started, tasks included."""
    found: dict[psutil.Process, None] = {}
    for status in reversed(services.status(load_settings())):  # the keeper is the last one
        with suppress(psutil.NoSuchProcess):
            if status.pid:
                process = psutil.Process(status.pid)
                found |= dict.fromkeys([process, *process.children(recursive=True)])
    return list(found)


def counts(runtime: Runtime, run: Run) -> Totals:
    """Return a run's counts, which must agree with each other, without what it took."""
    totals = add_up(read_ledger(runtime.storage, run))
    documents = runtime.solr.count(run.collection)
    if totals.by_state != {BlockState.VERIFIED: CUT_BLOCKS} or not totals.kept == totals.documents == documents:
        raise SystemExit(f"run {run.name} is not whole: {totals}, and {documents:,} documents in Solr")
    return replace(totals, embed_seconds=0, score_seconds=0, index_seconds=0)


def measure_power_cut(runtime: Runtime, source: Path, model: str, images: int) -> bool:
    """Run the Dag undisturbed, then with a power cut; print both, and return whether their indexes are equal."""
    cut = PowerCut()
    ended: dict[str, Ended] = {}
    for name, when_half_done in ((UNDISTURBED, lambda: None), (CUT, cut)):
        made = definition(name, source, shard_images=images // 4, blocks_per_shard=CUT_BLOCKS // 4)
        save_definition(runtime.settings.corpora_folder, made, replace=True)
        parameters: dict[str, object] = {"corpus": name, "model": model, "blocks_per_task": 1}
        ended[name] = run_dag(runtime, parameters, when_half_done)
        print(f"{name}: {ended[name]}", file=sys.stderr, flush=True)
    runs = {run.corpus: run for run in list_runs(runtime.storage)}
    totals = {name: counts(runtime, runs[name]) for name in ended}
    same, different = count_different(runtime, runs[CUT], runs[UNDISTURBED], images)
    seconds = {name: one.ended - one.began for name, one in ended.items()}
    print(f"A power cut when half of {CUT_BLOCKS} blocks of {images // CUT_BLOCKS:,} images were tagged:\n")
    print_table(
        [
            "the same run undisturbed, s",
            "cut after, s",
            "engines up after the cut, s",
            "run ended after the cut, s",
            "the cut cost, s",
            "tasks with several tries",
            "documents as undisturbed",
            "others",
        ],
        [
            [
                f"{seconds[UNDISTURBED]:.0f}",
                f"{cut.at - ended[CUT].began:.0f}",
                f"{cut.up_seconds:.0f}",
                f"{ended[CUT].ended - cut.at:.0f}",
                f"{seconds[CUT] - seconds[UNDISTURBED]:.0f}",
                ", ".join(f"{task}: {tries}" for task, tries in ended[CUT].tries.items()) or "none",
                f"{same:,}",
                f"{different:,}",
            ]
        ],
    )
    print(f"\n{cut.killed} processes were killed.")
    return totals[CUT] == totals[UNDISTURBED] and not different


def main() -> None:
    """Run on engines of their own."""
    numbers = [int(each.replace(",", "")) for each in sys.argv[1:]]
    blocks, images = [*numbers, *(BLOCKS, IMAGES)[len(numbers) :]]
    with tempfile.TemporaryDirectory(prefix="tinytags-bench-") as name:
        folder = Path(name)
        os.environ["TINYTAGS_HOME"] = str(folder / "home")
        settings = services.up(load_settings(), standard_ports=False, die_with_parent=True, keep=True)
        is_equal = True
        try:
            runtime = Runtime(settings)
            demo = make_demo(folder / "demo", settings.demo_source, report=quiet)
            source = folder / "moved.bin"
            print(f"## Mending\n\n{describe_machine()}.\n")
            if blocks:
                publish_model(runtime)
                write_moved(source, demo.corpus_path, blocks * TINY_IMAGES)
                measure_losses(runtime, source, blocks)
            if images:
                write_moved(source, demo.corpus_path, images)
                is_equal = measure_power_cut(runtime, source, train(runtime, demo), images)
        finally:
            services.down(load_settings())
    sys.exit(not is_equal)


if __name__ == "__main__":
    main()
