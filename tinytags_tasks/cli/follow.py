"""Follow a run of the Dag `tinytags` and print its progress and result; tell Airflow about new models."""

import itertools
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from tinytags_tasks.airflow_names import MODEL_ASSET, RETAG_DAG, TAG_DAG
from tinytags_tasks.clients.airflow import AirflowClient, TaskState
from tinytags_tasks.errors import BadInputError, FinalError, ReconcileError, TransientError
from tinytags_tasks.runtime import Runtime
from tinytags_tasks.secrecy import without_password
from tinytags_tasks.store import layout
from tinytags_tasks.store.ledger import Totals, add_up, read_ledger
from tinytags_tasks.store.model_records import ModelCard
from tinytags_tasks.store.models import has_none
from tinytags_tasks.store.run_identity import corpus_of_run
from tinytags_tasks.store.run_records import Run

if TYPE_CHECKING:
    from collections.abc import Generator

STAGES = {
    "ingest": ("ingest.plan", "ingest.shards", "ingest.commit"),
    "train": ("train",),
    "plan": ("plan",),
    "blocks": ("blocks",),
    "publish": ("reconcile", "publish"),
}
"""The Dag's tasks by stage, in the order in which they run."""


def airflow_client(runtime: Runtime) -> AirflowClient:
    """Return a client of the Airflow that the settings name.

    Raises
    ------
    BadInputError
        If its password is neither set nor generated.
    """
    settings = runtime.settings
    url = settings.address("airflow_url")
    return AirflowClient(url, settings.airflow_user, settings.password("airflow_password"))


def tell_of_model(runtime: Runtime, version: str, *, report: Callable[[str], None]) -> None:
    """Tell Airflow, if there is one, that a model is new, so that re-tagging starts.

    The model is published in any case, so a failure to tell Airflow is only reported.
    """
    if runtime.settings.airflow_url is None:
        return
    figures = ModelCard.load(runtime.storage, layout.card_file(version)).figures
    try:
        airflow_client(runtime).report_asset_change(MODEL_ASSET, figures)
    except (FinalError, TransientError) as error:
        report(f"Airflow could not be told about the model, so trigger {RETAG_DAG} to tag with it ({error})")
    else:
        report(f"told Airflow about the model: {RETAG_DAG} starts unless it is paused")


def follow_run(
    runtime: Runtime, parameters: Mapping[str, object], *, report: Callable[[str], None], unpause: bool = False
) -> None:
    """Trigger the Dag, show its progress, and print the table of what was read, kept and indexed.

    If a run with the same parameters has not ended, such as one that goes on after a power cut, that run is followed.
    A Dag that an operator paused stays so, unless ``unpause`` says otherwise.

    Raises
    ------
    BadInputError
        If the Dag is paused.
    FinalError
        If the run failed: which task, and why.
    ReconcileError
        If the counts of the finished run do not add up.
    """
    client = airflow_client(runtime)
    page = f"{runtime.settings.airflow_page}/dags/{TAG_DAG}"
    client.wait_for_dag(TAG_DAG)
    if unpause:
        client.unpause(TAG_DAG)
    elif client.is_paused(TAG_DAG):
        raise BadInputError(
            f"the Dag {TAG_DAG} is paused, so that no run of it goes on: un-pause it at {page}, or with "
            "`tinytags run --unpause`"
        )
    dag_run = _unfinished_run(client, parameters)
    if dag_run:
        report(f"run {dag_run} has the same parameters and has not ended: joining it")
    else:
        dag_run = client.trigger(TAG_DAG, parameters)
    report(f"run {dag_run}: {page}/runs/{dag_run}")
    with _progress(report) as watch:
        tasks = client.follow(TAG_DAG, dag_run, watch)
    name = client.result(TAG_DAG, dag_run, "reconcile")["run"]
    run = Run.load(runtime.storage, layout.run_file(name))
    totals = add_up(read_ledger(runtime.storage, run))
    is_published = parameters.get("publish") != "no"
    searched = runtime.settings.alias if is_published else run.collection
    documents = runtime.solr.count(run.collection)
    _print_summary(runtime, run, totals, documents, searched, tasks)
    corpus = corpus_of_run(run, runtime.storage)
    if not (totals.read == corpus.images == totals.accounted and totals.kept == documents):
        raise ReconcileError(
            f"run {run.name}: the counts do not add up: the corpus has {corpus.images:,} images, {totals.read:,} were "
            f"read, {totals.kept:,} kept, and {run.collection} has {documents:,} documents; see `tinytags ledger "
            f"{run.name}`"
        )
    if not is_published:
        report(f"readers do not see it yet; publish it with `tinytags publish {run.name}`")
    print(_next_step(run, is_demo=not parameters.get("corpus")))


def _next_step(run: Run, *, is_demo: bool) -> str:
    """Return what to do next: precision is not measured before somebody reviews."""
    if is_demo:
        return (
            "next: measure precision, with a made reviewer who knows what the demo's pictures show: "
            f"`tinytags demo review`, then `tinytags precision {run.name}`"
        )
    return f"next: measure precision: review 250 pictures, then `tinytags precision {run.name}`"


def _unfinished_run(client: AirflowClient, parameters: Mapping[str, object]) -> str:
    """Return the id of a run with these parameters and no others that has not ended; empty if there is none."""

    def is_same(conf: Mapping[str, object]) -> bool:
        return all((conf.get(name) or "") == (parameters.get(name) or "") for name in {*conf, *parameters})

    return next((run for run, conf in client.unfinished_runs(TAG_DAG).items() if is_same(conf)), "")


@contextmanager
def _progress(report: Callable[[str], None]) -> "Generator[Callable[[str, list[TaskState]], None]]":
    """Yield a function that shows progress: bars on a terminal, elsewhere a line for each change."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _line_printer(report)
        return
    columns = (TextColumn("{task.description:<14}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("{task.fields[note]}"), console=console) as bars:
        ids = {stage: bars.add_task(stage, total=None, start=False, note="") for stage in STAGES}

        def draw(_: str, tasks: list[TaskState]) -> None:
            others = _notes_of_others(tasks)  # such as the check of all engines, before the first stage
            for stage in STAGES:
                own = _tasks_of(stage, tasks)
                note, others = ", ".join(filter(None, (others, _note(own)))), ""
                started = [task for task in own if task.started is not None]
                done = sum(task.state in ("success", "skipped") for task in own)
                if started and not bars.tasks[ids[stage]].started:
                    bars.start_task(ids[stage])
                total = len(own) if started or len(own) > 1 else None
                bars.update(ids[stage], completed=done, total=total, note=note)
                if own and done == len(own):
                    bars.stop_task(ids[stage])

        yield draw


def _tasks_of(stage: str, tasks: Sequence[TaskState]) -> list[TaskState]:
    return [task for task in tasks if task.task in STAGES[stage]]


def _notes_of_others(tasks: Sequence[TaskState]) -> str:
    """Return which tasks of no stage wait, are to be retried or have failed."""
    staged = set(itertools.chain(*STAGES.values()))
    noted = ((task.task, _note([task])) for task in tasks if task.task not in staged)
    return ", ".join(f"{name} ({note})" for name, note in noted if note)


def _note(tasks: Sequence[TaskState]) -> str:
    waiting = [task for task in tasks if task.state == "up_for_reschedule"]
    why = next((found[1] for task in waiting if (found := re.search(r"\(waiting (for .*)\)$", task.label))), "")
    retrying = sum(task.state == "up_for_retry" for task in tasks)
    failed = sum(task.state == "failed" for task in tasks)
    # Only mapped tasks have a label that says for what.
    counts = (
        (len(waiting), f"waiting {why}" if why else "waiting, see `tinytags status`"),
        (retrying, "to be retried"),
        (failed, "failed"),
    )
    return ", ".join(f"{count} {what}" for count, what in counts if count)


def _line_printer(
    report: Callable[[str], None], heartbeat_seconds: float = 20
) -> Callable[[str, list[TaskState]], None]:
    began = time.monotonic()
    last_line, last_at = "", began

    def show(state: str, tasks: list[TaskState]) -> None:
        nonlocal last_line, last_at
        parts = []
        for stage in STAGES:
            own = _tasks_of(stage, tasks)
            if not any(task.started for task in own):
                continue
            done = sum(task.state in ("success", "skipped") for task in own)
            note = _note(own)
            parts.append(f"{stage} {done}/{len(own)}{f' ({note})' if note else ''}")
        parts += filter(None, [_notes_of_others(tasks)])
        line = ", ".join(parts) or state
        now = time.monotonic()
        if line != last_line or now - last_at > heartbeat_seconds:
            report(f"{now - began:6.0f} s  {line}")
            last_line, last_at = line, now

    return show


def _print_summary(
    runtime: Runtime, run: Run, totals: Totals, documents: int, searched: str, tasks: Sequence[TaskState]
) -> None:
    settings = runtime.settings
    table = Table(title=f"run {run.name}", title_justify="left")
    table.add_column("what")
    table.add_column("how many", justify="right")
    shows_none = totals.none or has_none(run.model, runtime.storage)
    for what, count in (
        ("images read", totals.read),
        ("kept", totals.kept),
        (f"below the threshold of {run.threshold} %", totals.below),
        *((("none of the tags", totals.none),) if shows_none else ()),
        ("unreadable", totals.unreadable),
        *((("taken down", totals.taken_down),) if totals.taken_down else ()),
        ("documents in Solr", documents),
    ):
        table.add_row(what, f"{count:,}")
    table.add_section()
    for stage in STAGES:
        own = [task for task in _tasks_of(stage, tasks) if task.started is not None and task.ended is not None]
        if own:
            seconds = max(task.ended or 0 for task in own) - min(task.started or 0 for task in own)
            table.add_row(f"seconds of {stage}", f"{seconds:.1f}")
    console = Console()
    console.print(table)
    if totals.unreadable:
        print(f"{'unreadable':<12} `tinytags corpus show {run.corpus}` names the images, with the reasons")
    if run.description:
        console.print(Text(run.description))
    for what, url, user in (
        ("Airflow", settings.airflow_page, settings.airflow_user),
        ("search page", settings.search_page, settings.search_user),
    ):
        if url:
            print(f"{what:<12} {url}  user {user}")
    if settings.search_page:
        print(f"{'review':<12} {settings.search_page}/review")
    print(f"{'HDFS':<12} {without_password(settings.webhdfs_url or '')} (WebHDFS), {settings.hdfs_url}")
    login = f"  user {settings.solr_reader_user}" if settings.solr_login("reader") else ""
    print(f"{'Solr':<12} {without_password(settings.solr_url or '')}/{searched}{login}")
    print(f"{'passwords':<12} `tinytags passwords`")
