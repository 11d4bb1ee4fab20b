"""### TinyTags: compare what is in Solr with what was scored.

`choose >> audit, mapped >> judge >> backfill, mapped`, and `audit >> conclude`

| task | once it has succeeded |
| --- | --- |
| `choose` | the runs to audit are known: the one that the form names, else what is live, a run for each corpus |
| `audit` | each block was compared with its scored file, the next share of pictures byte by byte; this is recorded |
| `judge` | what a backfill is to repair is known: nothing, unless **Repair** is on |
| `backfill` | the Dag `tinytags_backfill` is redoing what the audit of a run found |
| `conclude` | nothing differs that no backfill repairs; otherwise it fails and names the blocks, corpus by corpus |

Corrections and take-downs that are not applied yet are named, and applied with **Repair**. A block whose scored file
and documents are good only gets its record in the ledger written again. Documents of no block of the corpus are never
deleted by this Dag: `tinytags audit RUN --repair` shows them and asks.

**When**: manually, and on the schedule in `TINYTAGS_AUDIT_CRON`, a cron expression in UTC such as `0 3 * * 0` (not set:
no schedule). With `TINYTAGS_AUDIT_REPAIR=1`, scheduled audits repair what they find. Airflow creates this Dag paused:
switch it on.
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import get_current_context, task
from tinytags_airflow import SHORT, cron_schedule, errors_for_airflow, pool, report, runtime, tinytags_dag
from tinytags_forms import audit_form, read_form
from tinytags_waits import NOTE

from tinytags_tasks.airflow_names import BACKFILL_DAG, SOLR

if TYPE_CHECKING:
    from collections.abc import Iterable

MOST_PROBLEMS = 20
"""How many blocks, and how many other problems, a failure describes; the audit's record has all of them."""

_DAMAGED = "damaged"


@task(pool=pool(SOLR), execution_timeout=SHORT)
@errors_for_airflow
def choose() -> list[str]:
    """Find the runs to audit."""
    from tinytags_tasks.publish.live import live_run, live_runs

    form = read_form()
    clients = runtime()
    if form["run"]:
        return [form["run"]]
    damaged: list[str] = []
    runs = live_runs(form["alias"], clients.storage, clients.solr, corpus=form["corpus"], on_damage=damaged.append)
    live = [run.name for run in runs]
    for problem in damaged:
        report(f"a live run is not audited: {problem}")
    get_current_context()["ti"].xcom_push(_DAMAGED, damaged)
    return live or [live_run(form["alias"], form["corpus"], clients.storage, clients.solr).name]  # says what is wrong


@task(
    map_index_template="{{ run }}" + NOTE,
    pool=pool(SOLR),
    execution_timeout=timedelta(hours=12),
    doc_md="Compare all blocks of a run, and record what differs.",
)
@errors_for_airflow
def audit(run: str) -> dict[str, Any]:
    """Compare all blocks of a run, and record what differs."""
    from tinytags_tasks.upkeep.audit import AuditRequest, audit_run
    from tinytags_tasks.upkeep.repair import apply_pending

    get_current_context()["run"] = run
    form = read_form()
    clients = runtime()
    request = AuditRequest(run, form["alias"], form["sample"], is_deep=form["deep"])
    result = audit_run(request, storage=clients.storage, solr=clients.solr, report=report)
    for block, problem in list(sorted(result.problems.items()))[:MOST_PROBLEMS]:
        report(f"block {block}: {problem}")
    for problem in result.input_problems[:MOST_PROBLEMS]:
        report(problem)
    if result.pending and form["repair"]:
        apply_pending(result.run, storage=clients.storage, solr=clients.solr, report=report)
    # JSON has no integer keys.
    return {**asdict(result), "problems": {str(block): problem for block, problem in result.problems.items()}}


@task
@errors_for_airflow
def judge(audited: Iterable[dict[str, Any]]) -> list[dict[str, str]]:
    """Return what to backfill: a problem of one run is no reason to leave the others as they are."""
    return [
        {"run": found["run"], "select": "audit"} for found in audited if found["problems"] and not _unrepaired(found)
    ]


@task
@errors_for_airflow
def conclude(audited: Iterable[dict[str, Any]]) -> None:
    """Fail if something differs and no backfill is to repair it, or if a live run could not be audited."""
    from tinytags_tasks.errors import ReconcileError

    wrong = [problem for found in audited if (problem := _unrepaired(found))] + _not_audited()
    if wrong:
        raise ReconcileError("; ".join(wrong))


def _not_audited() -> list[str]:
    """Return what `choose` found to be wrong with live runs that it left out."""
    return get_current_context()["ti"].xcom_pull(task_ids="choose", key=_DAMAGED) or []


def _unrepaired(audited: dict[str, Any]) -> str:
    """Return what is wrong with a run that no backfill is to repair; empty if there is nothing."""
    from tinytags_tasks.blocks import format_block_numbers

    problems = audited["problems"]
    if audited["input_problems"]:
        return (
            f"run {audited['run']}: {_first(audited['input_problems'], audited['path'])}; no block is redone before "
            "that: then audit again"
        )
    if problems and not read_form()["repair"]:
        described = _first([f"block {block} {problem}" for block, problem in problems.items()], audited["path"])
        return (
            f"run {audited['run']}: blocks {format_block_numbers(map(int, problems))} differ ({described}); redo them "
            "with the Dag tinytags_backfill and select audit, or audit with repair on"
        )
    return ""


def _first(problems: list[str], path: str) -> str:
    """Return the first problems, and how many more the audit's record at a path has."""
    more = len(problems) - MOST_PROBLEMS
    return "; ".join([*problems[:MOST_PROBLEMS], *([f"and {more:,} more, which {path} lists"] if more > 0 else [])])


@tinytags_dag(audit_form(), __doc__, schedule=cron_schedule("TINYTAGS_AUDIT_CRON"), starts_unpaused=False)
def tinytags_audit() -> None:
    """Compare what is in Solr with what was scored."""
    audited = audit.expand(run=choose())
    conclude(audited)
    TriggerDagRunOperator.partial(
        task_id="backfill",
        trigger_dag_id=BACKFILL_DAG,
        doc_md="Start the Dag `tinytags_backfill` on what the audit of a run found.",
    ).expand(conf=judge(audited))


tinytags_audit()
