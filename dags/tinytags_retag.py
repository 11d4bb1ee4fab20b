"""### TinyTags: tag every live index, each corpus under each alias, again with a newer model.

`choose >> groups >> blocks, mapped >> publish, mapped`

| task | once it has succeeded |
| --- | --- |
| `choose` | each live index that lacks the model or the schema has a planned run; the log says why others do not |
| `groups` | the groups of blocks of all these runs are known |
| `blocks` | each block of the group is embedded if the model sees a net's embeddings, scored, indexed and verified |
| `publish` | all counts agree, the run was compared with the live one and passed the gate, and readers see it |

If the form names no model, the newest one is used that fits the size of the corpus' images and knows every tag of the
live index. Nothing is done if the live index has that model already, or if that model was rolled back (name it to try
it again). An index that has the model is tagged again all the same if an upgrade of TinyTags has changed the schema
since, or the corpus has grown. While another run tags one of the corpora, `choose` waits and looks again every five
minutes. The comparison is in the log of `publish` and in its XCom. A corpus that has the net's embeddings is not
embedded again: its pixels are only read for the documents. What the same model said of a corpus before it grew is taken
over.

**When**: when a run of the Dag `tinytags` publishes a new model; when `tinytags_grow` has appended images to a corpus;
on the schedule in `TINYTAGS_RETAG_CRON`, a cron expression in UTC such as `0 2 * * 6` (not set: no schedule); and
manually. Airflow creates this Dag paused: switch it on.

**A trial** names blocks: only these are scored, indexed, reconciled and compared, and nothing is published.
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import AssetOrTimeSchedule, get_current_context, task
from airflow.sdk.exceptions import AirflowRescheduleException
from tinytags_airflow import (
    GROWN_ASSET,
    INDEX_ASSET,
    MODEL_ASSET,
    NEW_INDEXES,
    cron_schedule,
    errors_for_airflow,
    pool,
    report,
    runtime,
    tinytags_dag,
)
from tinytags_blocks import embed_score_and_index, most_groups, named_groups
from tinytags_forms import read_form, retag_form
from tinytags_suggestions import remember_models
from tinytags_waits import NOTE

from tinytags_tasks.airflow_names import SOLR

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tinytags_tasks.store.protocol import Storage

_WAIT = timedelta(minutes=5)

_CRON = cron_schedule("TINYTAGS_RETAG_CRON")
_DUE = MODEL_ASSET | GROWN_ASSET


@task(pool=pool(SOLR))
@errors_for_airflow
def choose() -> list[dict[str, Any]]:
    """Plan a run, with its collection, for each live index that lacks the model or the schema; there may be none."""
    from tinytags_tasks.errors import FinalError
    from tinytags_tasks.index.step import prepare_collection
    from tinytags_tasks.score.plan import PlanRequest, plan_run
    from tinytags_tasks.upkeep.retag import RetagRequest, plan_retags

    form = read_form()
    clients = runtime()
    storage, settings = clients.storage, clients.settings
    remember_models(clients)
    found = plan_retags(
        RetagRequest(form["model"], form["alias"], form["corpus"]), storage=storage, solr=clients.solr, report=report
    ).due
    _claim_or_wait([due.corpus for due in found], storage)
    planned = []
    failed: list[FinalError] = []
    for due in found:
        request = PlanRequest(due.corpus, due.model, due.threshold, thumbnails=due.thumbnails, similar=due.similar)
        shards, replicas = settings.solr_shards, settings.solr_replicas
        try:
            name = plan_run(request, storage=storage, report=report).run
            prepare_collection(name, storage=storage, solr=clients.solr, shards=shards, replicas=replicas)
        except FinalError as error:  # the other corpora do not wait for it
            report(f"{due.alias} {due.corpus} is skipped: {error}")
            failed.append(error)
            continue
        planned.append({"run": name, **asdict(due)})
    if failed and not planned:
        raise failed[0]
    return planned


@task
@errors_for_airflow
def groups(planned: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Group the blocks of all runs; each run has its share of the tasks that Airflow creates at most."""
    from tinytags_tasks.blocks import group_blocks
    from tinytags_tasks.store import layout
    from tinytags_tasks.store.run_records import Run

    form = read_form()
    storage = runtime().storage
    found = []
    runs = list(dict.fromkeys(one["run"] for one in planned))  # two aliases may show the same corpus
    for name in runs:
        blocks = _chosen_blocks(Run.load(storage, layout.run_file(name)).blocks)
        most = max(1, most_groups() // len(runs))
        found += named_groups(name, group_blocks(blocks, form["blocks_per_task"], most), storage)
    return found


# Each run's own counts decide, so that a failure in one corpus does not hold back the others.
@task(
    map_index_template="{{ index }}" + NOTE,
    trigger_rule="all_done",
    pool=pool(SOLR),
    outlets=[NEW_INDEXES],  # a trial emits no event
    doc_md="Reconcile a run, compare it with the live one, ask the gate and move the alias; a trial is not published.",
)
@errors_for_airflow
def publish(planned: dict[str, Any]) -> dict[str, Any]:
    """Reconcile a run, compare it with the live one, ask the gate and move the alias; a trial is not published."""
    from tinytags_tasks.publish.step import PublishRequest, publish_run, reconcile_run
    from tinytags_tasks.store import layout
    from tinytags_tasks.store.run_records import Run
    from tinytags_tasks.upkeep.retag import compare_with_live

    context = get_current_context()
    form = read_form()
    context["index"] = f"{planned['alias']} {planned['corpus']}"
    clients = runtime()
    storage, solr = clients.storage, clients.solr
    name = planned["run"]
    is_trial = bool(form["blocks"].strip())
    trial = tuple(_chosen_blocks(Run.load(storage, layout.run_file(name)).blocks)) if is_trial else None
    totals = reconcile_run(name, storage=storage, solr=solr, blocks=trial, report=report)
    comparison = asdict(compare_with_live(planned["live_run"], name, storage=storage, blocks=trial, report=report))
    context["ti"].xcom_push("comparison", comparison)  # kept even if the gate refuses the run
    if is_trial:
        return {**planned, "published": False, "totals": asdict(totals), "comparison": comparison}
    limits = ("gate_documents", "gate_precision", "gate_measured_precision")
    request = PublishRequest(name, planned["alias"], *(form[limit] for limit in limits))
    published = asdict(publish_run(request, storage=storage, solr=solr, report=report))
    result = {**planned, "published": True, **published, "comparison": comparison}
    context["outlet_events"][NEW_INDEXES].add(INDEX_ASSET, extra=result)
    return result


@tinytags_dag(
    retag_form(),
    __doc__,
    schedule=AssetOrTimeSchedule(assets=_DUE, timetable=_CRON) if _CRON else _DUE,
    starts_unpaused=False,
)
def tinytags_retag() -> None:
    """Tag every live index again with a newer model."""
    planned = choose()
    embed_score_and_index().expand(group=groups(planned)) >> publish.expand(planned=planned)


def _claim_or_wait(corpora: Iterable[str], storage: Storage) -> None:
    """Claim all corpora; if another Dag run tags one of them, claim none and let Airflow run the task again later."""
    from tinytags_claim import claim_corpus, corpus_owner, is_running

    context = get_current_context()
    this_run = (context["ti"].dag_id, context["ti"].run_id)
    running = is_running(context)
    corpora = list(corpora)
    owners = {corpus: corpus_owner(corpus, storage=storage, is_running=running) for corpus in corpora}
    if others := {corpus: owner for corpus, owner in owners.items() if owner and owner != this_run}:
        for corpus, (dag_id, dag_run) in others.items():
            report(f"waiting: corpus {corpus} is being tagged by run {dag_run} of {dag_id}")
        raise AirflowRescheduleException(datetime.now(UTC) + _WAIT)
    for corpus in corpora:
        claim_corpus(corpus, this_run, storage=storage, is_running=running)


def _chosen_blocks(known: int) -> list[int]:
    """Return the block numbers that the form names, or all."""
    from tinytags_tasks.blocks import parse_block_numbers

    return list(parse_block_numbers(read_form()["blocks"], known))


tinytags_retag()
