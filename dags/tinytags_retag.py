"""### TinyTags: tag every live index again by a newer model.

`choose >> groups >> blocks, mapped >> publish, mapped`

| task | what is true after it |
| --- | --- |
| `choose` | a run is planned for each live index that lacks the model or the new schema; the log has the reasons |
| `groups` | the groups of blocks of all these runs are known |
| `blocks` | each block of the group is scored, indexed and verified |
| `publish` | every count agrees, the run was compared with the live one, the gate let it pass, and readers see it |

Without a name, the model is the newest for images of the corpus' size that knows every tag of the live index. Nothing
is done where the live index has that model already, and where that model was rolled back (name it to try it again).
An index that has the model is due all the same if an upgrade of TinyTags changed the schema since it was made.
While another run tags one of the corpora, `choose` waits: it looks again every five minutes. The comparison is in the
log of `publish` and in its XCom.

**When**: when a run of the Dag `tinytags` publishes a new model; by the setting `TINYTAGS_RETAG_CRON`, a cron line in
UTC such as `0 2 * * 6` (unset, no time-table); and by hand. A new Dag of Airflow is paused: switch it on.

**A trial** names blocks: only these are scored, indexed, reconciled and compared, and nothing is published.
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import AssetOrTimeSchedule, dag, get_current_context, task
from airflow.sdk.exceptions import AirflowRescheduleException
from tinytags_airflow import (
    DEFAULTS,
    INDEX_ASSET,
    MODEL_ASSET,
    NEW_INDEXES,
    SOLR,
    blocks_per_task_param,
    cron_schedule,
    errors_for_airflow,
    form,
    gate_params,
    model_versions,
    pool,
    remember_models,
    report,
    runtime,
    text_param,
    trial_blocks_param,
)
from tinytags_blocks import named_groups, score_and_index

PARAMS = {
    "model": text_param(
        "Model",
        examples=model_versions(),
        section="Run",
        description="A published model's version; empty: the newest that fits each corpus and knows all its live tags",
    ),
    "alias": text_param(
        "Alias",
        pattern="^[a-z0-9_-]*$",
        section="Run",
        description="Only what is live under it; empty: under all",
    ),
    "blocks": trial_blocks_param(),
    "blocks_per_task": blocks_per_task_param(5),
    **gate_params(documents=80),
}

_WAIT = timedelta(minutes=5)

_CRON = cron_schedule("TINYTAGS_RETAG_CRON")


@dag(
    schedule=AssetOrTimeSchedule(assets=[MODEL_ASSET], timetable=_CRON) if _CRON else [MODEL_ASSET],
    catchup=False,
    max_active_runs=1,
    params=PARAMS,
    tags=["tinytags"],
    doc_md=__doc__,
    default_args=DEFAULTS,
)
def tinytags_retag() -> None:
    """Tag every live index again by a newer model."""

    @task(pool=pool(SOLR))
    @errors_for_airflow
    def choose() -> list[dict[str, Any]]:
        """Plan a run with its collection for each live index that lacks the model or the new schema, if any does."""
        from tinytags_claim import claim_corpus, corpus_owner, is_running

        from tinytags_tasks.index.step import prepare
        from tinytags_tasks.publish.retag import RetagRequest, run
        from tinytags_tasks.score.plan import PlanRequest
        from tinytags_tasks.score.plan import run as plan

        context = get_current_context()
        params = form()
        clients = runtime()
        storage, settings = clients.storage, clients.settings
        remember_models(clients)
        us = (context["ti"].dag_id, context["ti"].run_id)
        asked = is_running(context)
        request = RetagRequest(params["model"], params["alias"])
        found = run(request, storage=storage, solr=clients.solr, report=report).due
        owners = {due.corpus: corpus_owner(due.corpus, storage=storage, is_running=asked) for due in found}
        if others := {corpus: owner for corpus, owner in owners.items() if owner and owner != us}:
            for corpus, (dag_id, dag_run) in others.items():
                report(f"waiting: corpus {corpus} is being tagged by run {dag_run} of {dag_id}")
            raise AirflowRescheduleException(datetime.now(UTC) + _WAIT)
        for due in found:
            claim_corpus(due.corpus, us, storage=storage, is_running=asked)
        planned = []
        for due in found:
            to_plan = PlanRequest(due.corpus, due.model, due.threshold, thumbnails=due.thumbnails)
            name = plan(to_plan, storage=storage).run
            shards, replicas = settings.solr_shards, settings.solr_replicas
            prepare(name, storage=storage, solr=clients.solr, shards=shards, replicas=replicas)
            planned.append({"run": name, **asdict(due)})
        return planned

    @task
    @errors_for_airflow
    def groups(planned: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Cut the blocks of all runs into groups."""
        from tinytags_tasks import layout
        from tinytags_tasks.blocks import group_blocks
        from tinytags_tasks.records import Run

        params = form()
        storage = runtime().storage
        found = []
        for name in dict.fromkeys(one["run"] for one in planned):  # two aliases may show one corpus
            blocks = _chosen_blocks(Run.load(storage, layout.run_file(name)).blocks)
            found += named_groups(name, group_blocks(blocks, params["blocks_per_task"]), storage)
        return found

    # One corpus' failure does not keep another's readers waiting: each run's own counts decide.
    @task(
        map_index_template="{{ alias }}",
        trigger_rule="all_done",
        pool=pool(SOLR),
        outlets=[NEW_INDEXES],  # of a trial, nothing is told
        doc_md="Reconcile a run, compare it with the live one, then ask the gate and move the alias, but for a trial.",
    )
    @errors_for_airflow
    def publish(planned: dict[str, Any]) -> dict[str, Any]:
        """Reconcile a run, compare it with the live one, then ask the gate and move the alias, but for a trial."""
        from tinytags_tasks import layout
        from tinytags_tasks.publish.retag import compare
        from tinytags_tasks.publish.step import PublishRequest, reconcile_run, run
        from tinytags_tasks.records import Run

        context = get_current_context()
        params = form()
        context["alias"] = planned["alias"]
        clients = runtime()
        storage, solr = clients.storage, clients.solr
        plan = Run.load(storage, layout.run_file(planned["run"]))
        trial = tuple(_chosen_blocks(plan.blocks)) if params["blocks"].strip() else None
        totals = reconcile_run(plan.name, storage=storage, solr=solr, blocks=trial, report=report)
        found = compare(planned["live_run"], plan.name, storage=storage, blocks=trial, report=report)
        comparison = asdict(found)
        context["ti"].xcom_push("comparison", comparison)  # stands even when the gate refuses
        if trial is not None:
            return {**planned, "published": False, "totals": asdict(totals), "comparison": comparison}
        request = PublishRequest(planned["run"], planned["alias"], params["gate_documents"], params["gate_precision"])
        published = asdict(run(request, storage=storage, solr=solr, report=report))
        result = {**planned, "published": True, **published, "comparison": comparison}
        context["outlet_events"][NEW_INDEXES].add(INDEX_ASSET, extra=result)
        return result

    planned = choose()
    score_and_index().expand(group=groups(planned)) >> publish.expand(planned=planned)


def _chosen_blocks(known: int) -> list[int]:
    """Return the block numbers that the form names, or all."""
    from tinytags_tasks.blocks import parse_block_numbers

    return list(parse_block_numbers(form()["blocks"], known))


tinytags_retag()
