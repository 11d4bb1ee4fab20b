"""### TinyTags: compare what is in Solr with what was scored.

`audit >> judge >> backfill`

| task | once it has succeeded |
| --- | --- |
| `audit` | each block was compared with its scored file, the next share of pictures byte by byte; this is recorded |
| `judge` | nothing differs (the run ends here), or **Repair** is on; otherwise it fails and names the blocks |
| `backfill` | the Dag `tinytags_backfill` is redoing what the audit found |

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
from typing import Any

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import task
from tinytags_airflow import cron_schedule, errors_for_airflow, pool, report, runtime, tinytags_dag
from tinytags_forms import audit_form, read_form

from tinytags_tasks.airflow_names import BACKFILL_DAG, SOLR

MOST_PROBLEMS = 20
"""How many blocks, and how many other problems, a failure describes; the audit's record has all of them."""


@task(pool=pool(SOLR), execution_timeout=timedelta(hours=12))
@errors_for_airflow
def audit() -> dict[str, Any]:
    """Compare all blocks, and record what differs."""
    from tinytags_tasks.upkeep.audit import AuditRequest, audit_run
    from tinytags_tasks.upkeep.repair import apply_pending

    form = read_form()
    clients = runtime()
    request = AuditRequest(form["run"], form["alias"], form["sample"], is_deep=form["deep"])
    result = audit_run(request, storage=clients.storage, solr=clients.solr, report=report)
    for block, problem in list(sorted(result.problems.items()))[:MOST_PROBLEMS]:
        report(f"block {block}: {problem}")
    for problem in result.input_problems[:MOST_PROBLEMS]:
        report(problem)
    if result.pending and form["repair"]:
        apply_pending(result.run, storage=clients.storage, solr=clients.solr, report=report)
    # JSON has no integer keys.
    return {**asdict(result), "problems": {str(block): problem for block, problem in result.problems.items()}}


@task.short_circuit
@errors_for_airflow
def judge(audited: dict[str, Any]) -> bool:
    """End the run here if nothing differs; fail if something does and no backfill is to repair it."""
    from tinytags_tasks.blocks import format_block_numbers
    from tinytags_tasks.errors import ReconcileError

    problems = audited["problems"]
    if audited["input_problems"]:
        raise ReconcileError(
            f"run {audited['run']}: {_first(audited['input_problems'], audited['path'])}; no block is redone before "
            "that: then audit again"
        )
    if problems and not read_form()["repair"]:
        described = _first([f"block {block} {problem}" for block, problem in problems.items()], audited["path"])
        raise ReconcileError(
            f"run {audited['run']}: blocks {format_block_numbers(map(int, problems))} differ ({described}); redo them "
            "with the Dag tinytags_backfill and select audit, or audit with repair on"
        )
    return bool(problems)


def _first(problems: list[str], path: str) -> str:
    """Return the first problems, and how many more the audit's record at a path has."""
    more = len(problems) - MOST_PROBLEMS
    return "; ".join([*problems[:MOST_PROBLEMS], *([f"and {more:,} more, which {path} lists"] if more > 0 else [])])


@tinytags_dag(audit_form(), __doc__, schedule=cron_schedule("TINYTAGS_AUDIT_CRON"), starts_unpaused=False)
def tinytags_audit() -> None:
    """Compare what is in Solr with what was scored."""
    judge(audit()) >> TriggerDagRunOperator(
        task_id="backfill",
        trigger_dag_id=BACKFILL_DAG,
        conf={"run": "{{ ti.xcom_pull(task_ids='audit')['run'] }}", "select": "audit"},
        doc_md="Start the Dag `tinytags_backfill` on what the audit found.",
    )


tinytags_audit()
