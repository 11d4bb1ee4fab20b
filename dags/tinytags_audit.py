"""### TinyTags: compare what is in Solr with what was scored.

`choose >> audit, mapped >> judge >> backfill, mapped`

| task | once it has succeeded |
| --- | --- |
| `choose` | the runs to audit are known: the one that the form names, else what is live, a run for each corpus |
| `audit` | each block was compared with its scored file, the next share of pictures byte by byte; this is recorded |
| `judge` | nothing differs (the run ends here), or **Repair** is on; otherwise it fails and names the blocks |
| `backfill` | the Dag `tinytags_backfill` is redoing what the audit of a run found |

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

from tinytags_tasks.airflow_names import BACKFILL_DAG, SOLR

if TYPE_CHECKING:
    from collections.abc import Iterable

MOST_PROBLEMS = 20
"""How many blocks, and how many other problems, a failure describes; the audit's record has all of them."""


@task(pool=pool(SOLR), execution_timeout=SHORT)
@errors_for_airflow
def choose() -> list[str]:
    """Find the runs to audit."""
    from tinytags_tasks.publish.live import live_run, live_runs

    form = read_form()
    clients = runtime()
    if form["run"]:
        return [form["run"]]
    live = [run.name for run in live_runs(form["alias"], clients.storage, clients.solr, corpus=form["corpus"])]
    return live or [live_run(form["alias"], form["corpus"], clients.storage, clients.solr).name]  # says what is wrong


@task(
    map_index_template="{{ run }}",
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
    """Return what to backfill; fail if something differs and no backfill is to repair it."""
    from tinytags_tasks.errors import ReconcileError

    to_redo, wrong = [], []
    for found in audited:
        if problem := _unrepaired(found):
            wrong.append(problem)
        elif found["problems"]:
            to_redo.append({"run": found["run"], "select": "audit"})
    if wrong:
        raise ReconcileError("; ".join(wrong))
    return to_redo


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
    TriggerDagRunOperator.partial(
        task_id="backfill",
        trigger_dag_id=BACKFILL_DAG,
        doc_md="Start the Dag `tinytags_backfill` on what the audit of a run found.",
    ).expand(conf=judge(audit.expand(run=choose())))


tinytags_audit()
