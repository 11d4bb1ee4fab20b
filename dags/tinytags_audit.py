"""### TinyTags: compare what stands in Solr with what was scored.

`audit >> judge >> backfill`

| task | what is true after it |
| --- | --- |
| `audit` | each block was compared with its scored file, some documents byte by byte, and what differs is kept |
| `judge` | nothing differs (then it ends here), or **Repair** is on; else it fails and names the blocks |
| `backfill` | the Dag `tinytags_backfill` does again what the audit found |

**When**: by hand, and by the setting `TINYTAGS_AUDIT_CRON`, a cron line in UTC such as `0 3 * * 0`; unset, never by
itself. `TINYTAGS_AUDIT_REPAIR=1` lets scheduled audits repair. A new Dag of Airflow is paused: switch it on.
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from typing import Any

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import Param, dag, task
from tinytags_airflow import (
    DEFAULTS,
    SOLR,
    alias_param,
    cron_schedule,
    errors_for_airflow,
    form,
    is_on,
    pool,
    report,
    run_param,
    runtime,
)

PARAMS = {
    "run": run_param("A run's name; empty: what is live under the alias"),
    "alias": alias_param("Params"),
    "sample": Param(
        1000,
        type="integer",
        minimum=0,
        title="Sample",
        description="Documents that are compared byte by byte with their shard",
    ),
    "repair": Param(
        is_on("TINYTAGS_AUDIT_REPAIR"),
        type="boolean",
        title="Repair",
        description="Do again what differs, by the Dag tinytags_backfill",
    ),
}

MOST_PROBLEMS = 20
"""Blocks that a failure describes; the audit's file has all."""


@dag(
    schedule=cron_schedule("TINYTAGS_AUDIT_CRON"),
    catchup=False,
    max_active_runs=1,
    params=PARAMS,
    tags=["tinytags"],
    doc_md=__doc__,
    default_args=DEFAULTS,
)
def tinytags_audit() -> None:
    """Compare what stands in Solr with what was scored."""

    @task(pool=pool(SOLR), execution_timeout=timedelta(hours=12))
    @errors_for_airflow
    def audit() -> dict[str, Any]:
        """Compare all blocks, and write down what differs."""
        from tinytags_tasks.publish.audit import AuditRequest, run

        params = form()
        clients = runtime()
        request = AuditRequest(params["run"], params["alias"], params["sample"])
        result = run(request, storage=clients.storage, solr=clients.solr, report=report)
        for block, problem in list(sorted(result.problems.items()))[:MOST_PROBLEMS]:
            report(f"block {block} {problem}")
        # JSON has no numbers for keys.
        return {**asdict(result), "problems": {str(block): problem for block, problem in result.problems.items()}}

    @task.short_circuit
    @errors_for_airflow
    def judge(audited: dict[str, Any]) -> bool:
        """End here when nothing differs; fail when something does that nobody repairs."""
        from tinytags_tasks.blocks import format_block_numbers
        from tinytags_tasks.errors import ReconcileError

        problems = audited["problems"]
        if problems and not form()["repair"]:
            first = "; ".join(f"block {block} {problem}" for block, problem in list(problems.items())[:MOST_PROBLEMS])
            raise ReconcileError(
                f"run {audited['run']}: blocks {format_block_numbers(map(int, problems))} differ ({first}); do them "
                "again by the Dag tinytags_backfill with select audit, or audit with repair on"
            )
        return bool(problems)

    judge(audit()) >> TriggerDagRunOperator(
        task_id="backfill",
        trigger_dag_id="tinytags_backfill",
        conf={"run": "{{ ti.xcom_pull(task_ids='audit')['run'] }}", "select": "audit"},
        doc_md="Start the Dag `tinytags_backfill` on what the audit found.",
    )


tinytags_audit()
