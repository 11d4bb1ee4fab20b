"""### TinyTags: do single blocks of a run again, or delete them from its index.

`plan >> blocks (score >> index), mapped >> reconcile >> publish`, or `plan >> delete`

| choose | by |
| --- | --- |
| blocks by number | **Blocks**, such as `3, 17-20` |
| all that failed | **Select** `failed`: what the run's ledger calls so |
| all that is not whole | **Select** `missing`: not verified, or not whole in Solr or in the store |
| what an audit found | **Select** `audit`: the last one of this run |

| task | what is true after it |
| --- | --- |
| `plan` | the blocks are known; damaged scored files are deleted, so that scoring makes them anew |
| `blocks` | each block of the group has a good scored file, was indexed again, whatever stood there, and is verified |
| `reconcile` | the counts of these blocks agree |
| `publish` | readers see the run, when they saw it before; skipped otherwise |
| `delete` | these blocks have no documents; their scored files stay, so a backfill brings them back |

Clearing a failed mapped task, here or in the Dag `tinytags`, does the same for its group: only blocks without a good
scored file are scored. A run that was pruned, an empty selection and a block out of range are refused by `plan`.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from airflow.sdk import Param, dag, get_current_context, task
from airflow.sdk.exceptions import AirflowSkipException
from tinytags_airflow import (
    BLOCKS_PATTERN,
    DEFAULTS,
    INDEX_ASSET,
    NAME_PATTERN,
    SOLR,
    blocks_per_task_param,
    errors_for_airflow,
    form,
    pool,
    report,
    runtime,
    text_param,
)
from tinytags_blocks import named_groups, score_and_index, tell_asset

NAMED = "named"
"""Selects the blocks whose numbers the form holds."""

PARAMS = {
    "run": Param(
        "",
        type="string",
        pattern=NAME_PATTERN,
        title="Run",
        section="Run",
        description="The run's name (`tinytags runs` lists them)",
    ),
    "action": Param(
        "backfill",
        type="string",
        enum=["backfill", "delete"],
        title="Action",
        section="Run",
        description="backfill: do blocks again; delete: delete their documents from the index",
    ),
    "blocks": text_param(
        "Blocks",
        pattern=BLOCKS_PATTERN,
        section="Blocks",
        description="Numbers and ranges, such as 3, 17-20; empty when they are selected",
    ),
    "select": Param(
        NAMED,
        type="string",
        enum=[NAMED, "failed", "missing", "audit"],
        title="Select",
        section="Blocks",
        description="named: the blocks above; else by what became of them; audit: what the run's last audit found",
    ),
    "blocks_per_task": blocks_per_task_param(5),
}


@dag(
    schedule=None,
    catchup=False,
    max_active_runs=4,
    is_paused_upon_creation=False,
    params=PARAMS,
    tags=["tinytags"],
    doc_md=__doc__,
    default_args=DEFAULTS,
)
def tinytags_backfill() -> None:
    """Do single blocks of a run again."""

    @task(pool=pool(SOLR))
    @errors_for_airflow
    def plan() -> list[dict[str, Any]]:
        """Choose the blocks, and throw away what is damaged of them."""
        from tinytags_tasks.publish.backfill import BackfillRequest, run

        context = get_current_context()
        params = form()
        clients = runtime()
        _refuse_contradiction(params, clients)
        if params["action"] == "delete":
            return []
        select = "" if params["select"] == NAMED else params["select"]
        planned = run(
            BackfillRequest(params["run"], params["blocks"], select, params["blocks_per_task"]),
            storage=clients.storage,
            solr=clients.solr,
            alias=clients.settings.alias,
            report=report,
        )
        context["ti"].xcom_push("planned", {"blocks": list(planned.blocks), "was_live": planned.was_live})
        return named_groups(planned.run, planned.groups, clients.storage)

    @task(pool=pool(SOLR))
    @errors_for_airflow
    def delete() -> dict[str, Any]:
        """Delete all documents of the blocks, one block at a time; skipped when they are to be done again."""
        from tinytags_tasks import layout
        from tinytags_tasks.blocks import parse_block_numbers
        from tinytags_tasks.index.step import DeleteRequest
        from tinytags_tasks.index.step import delete as delete_documents
        from tinytags_tasks.records import Run

        params = form()
        if params["action"] != "delete":
            raise AirflowSkipException("the blocks are done again, not deleted")
        clients = runtime()
        known = Run.load(clients.storage, layout.run_file(params["run"])).blocks
        request = DeleteRequest(params["run"], parse_block_numbers(params["blocks"], known))
        return asdict(delete_documents(request, storage=clients.storage, solr=clients.solr, report=report))

    # Where documents were deleted that are of no block, no mapped task runs; the counts are looked at all the same.
    @task(trigger_rule="none_failed", pool=pool(SOLR))
    @errors_for_airflow
    def reconcile() -> dict[str, Any]:
        """Let the counts of the blocks agree; the alias is left alone."""
        from tinytags_tasks.publish.step import reconcile_run

        context = get_current_context()
        planned = context["ti"].xcom_pull(task_ids="plan", key="planned")
        if not planned:
            raise AirflowSkipException("the blocks were deleted")
        clients = runtime()
        name, blocks = form()["run"], tuple(planned["blocks"])
        totals = reconcile_run(name, storage=clients.storage, solr=clients.solr, blocks=blocks, report=report)
        return {"run": name, "was_live": planned["was_live"], "totals": asdict(totals)}

    @task(pool=pool(SOLR), outlets=[INDEX_ASSET])
    @errors_for_airflow
    def publish(reconciled: dict[str, Any]) -> dict[str, Any]:
        """Reconcile the whole run and let readers see it, when they saw it before; skipped otherwise."""
        from tinytags_tasks.publish.step import PublishRequest, run

        if not reconciled["was_live"]:
            raise AirflowSkipException(f"run {reconciled['run']} was not live, and is not published by a backfill")
        clients = runtime()
        request = PublishRequest(reconciled["run"], clients.settings.alias)
        published = asdict(run(request, storage=clients.storage, solr=clients.solr, report=report))
        tell_asset(INDEX_ASSET, alias=clients.settings.alias, **published)
        return published

    groups = plan()
    reconciled = reconcile()
    groups >> [delete(), reconciled]
    score_and_index(redo=True).expand(group=groups) >> reconciled
    publish(reconciled)


def _refuse_contradiction(params: dict[str, Any], clients: Any) -> None:  # noqa: ANN401 - Runtime, which is not loaded
    """Refuse a deletion that names no blocks, or blocks that are not there."""
    from tinytags_tasks import layout
    from tinytags_tasks.blocks import parse_block_numbers
    from tinytags_tasks.errors import BadInputError
    from tinytags_tasks.records import Run

    if params["action"] != "delete":
        return
    if params["select"] != NAMED or not params["blocks"].strip():
        raise BadInputError("blocks to delete are named by their numbers, such as 3, 17-20")
    plan = Run.load(clients.storage, layout.run_file(params["run"]))
    plan.refuse_pruned()
    parse_block_numbers(params["blocks"], plan.blocks)


tinytags_backfill()
