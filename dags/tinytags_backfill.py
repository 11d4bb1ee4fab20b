"""### TinyTags: redo single blocks of a run, or delete them from its index.

`plan >> blocks (embed >> score >> index), mapped >> reconcile >> publish`, or `plan >> delete`

| choose | with |
| --- | --- |
| blocks by number | **Blocks**, such as `3, 17-20` |
| all that failed | **Select** `failed`: blocks that failed according to the run's ledger |
| all that are incomplete | **Select** `missing`: not verified, or incomplete in Solr or in the store |
| what an audit found | **Select** `audit`: the last audit of this run |

| task | once it has succeeded |
| --- | --- |
| `plan` | the blocks are known; damaged scored files are deleted, so that these blocks are scored again |
| `blocks` | each block of the group has a valid scored file, was indexed again in any case, and is verified |
| `reconcile` | the counts of these blocks agree |
| `publish` | readers see the run, if they did before; skipped otherwise |
| `delete` | these blocks have no documents; their scored files stay, so a backfill restores the documents |

Clearing a failed mapped task, here or in the Dag `tinytags`, does the same for its group; only blocks without a valid
scored file are scored, and only those of them that lack embeddings are embedded. `plan` refuses a run that was pruned,
an empty selection, and blocks out of range.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from airflow.sdk import get_current_context, task
from airflow.sdk.exceptions import AirflowSkipException
from tinytags_airflow import INDEX_ASSET, describe_asset_event, errors_for_airflow, pool, report, runtime, tinytags_dag
from tinytags_blocks import embed_score_and_index, most_groups, named_groups
from tinytags_forms import NAMED, backfill_form, read_form

from tinytags_tasks.airflow_names import SOLR


@task(pool=pool(SOLR))
@errors_for_airflow
def plan() -> list[dict[str, Any]]:
    """Select the blocks, and delete their damaged scored files."""
    from tinytags_checks import refuse_vague_deletion

    from tinytags_tasks.upkeep.backfill import BackfillRequest, plan_backfill

    context = get_current_context()
    form = read_form()
    clients = runtime()
    refuse_vague_deletion(form, clients)
    if form["action"] == "delete":
        return []
    select = "" if form["select"] == NAMED else form["select"]
    planned = plan_backfill(
        BackfillRequest(form["run"], form["blocks"], select, form["blocks_per_task"], most_groups()),
        storage=clients.storage,
        solr=clients.solr,
        alias=clients.settings.alias,
        report=report,
    )
    context["ti"].xcom_push("planned", {"blocks": list(planned.all_blocks), "was_live": planned.was_live})
    return named_groups(planned.run, planned.groups, clients.storage)


@task(pool=pool(SOLR))
@errors_for_airflow
def delete() -> dict[str, Any]:
    """Delete all documents of the blocks, one block at a time; skipped if the blocks are to be redone."""
    from tinytags_tasks.blocks import parse_block_numbers
    from tinytags_tasks.index.step import DeleteRequest, delete_blocks
    from tinytags_tasks.store import layout
    from tinytags_tasks.store.run_records import Run

    form = read_form()
    if form["action"] != "delete":
        raise AirflowSkipException("the blocks are redone, not deleted")
    clients = runtime()
    known = Run.load(clients.storage, layout.run_file(form["run"])).blocks
    request = DeleteRequest(form["run"], parse_block_numbers(form["blocks"], known))
    return asdict(delete_blocks(request, storage=clients.storage, solr=clients.solr, report=report))


# If the only problem was documents of no block, no mapped task runs; the counts are still checked.
@task(trigger_rule="none_failed", pool=pool(SOLR))
@errors_for_airflow
def reconcile() -> dict[str, Any]:
    """Check that the counts of the blocks agree; readers see no change."""
    from tinytags_tasks.publish.step import reconcile_run

    context = get_current_context()
    planned = context["ti"].xcom_pull(task_ids="plan", key="planned")
    if not planned:
        raise AirflowSkipException("the blocks were deleted")
    clients = runtime()
    name, blocks = read_form()["run"], tuple(planned["blocks"])
    totals = reconcile_run(name, storage=clients.storage, solr=clients.solr, blocks=blocks, report=report)
    return {"run": name, "was_live": planned["was_live"], "totals": asdict(totals)}


@task(pool=pool(SOLR), outlets=[INDEX_ASSET])
@errors_for_airflow
def publish(reconciled: dict[str, Any]) -> dict[str, Any]:
    """Reconcile the whole run and publish it again if it was live; skipped otherwise."""
    from tinytags_tasks.publish.step import PublishRequest, publish_run

    if not reconciled["was_live"]:
        raise AirflowSkipException(f"run {reconciled['run']} was not live, and a backfill does not publish it")
    clients = runtime()
    request = PublishRequest(reconciled["run"], clients.settings.alias)
    published = asdict(publish_run(request, storage=clients.storage, solr=clients.solr, report=report))
    describe_asset_event(INDEX_ASSET, alias=clients.settings.alias, **published)
    return published


@tinytags_dag(backfill_form(), __doc__, max_active_runs=4)
def tinytags_backfill() -> None:
    """Redo single blocks of a run, or delete them from its index."""
    groups = plan()
    reconciled = reconcile()
    groups >> [delete(), reconciled]
    embed_score_and_index(redo=True).expand(group=groups) >> reconciled
    publish(reconciled)


tinytags_backfill()
