"""### TinyTags: tag every live index, each corpus under each alias, again with a newer model.

`choose >> groups >> blocks, mapped >> publish, mapped`, and `choose >> others >> each, mapped`

| task | once it has succeeded |
| --- | --- |
| `choose` | the live index that lacks the model or the schema has a planned run; the log says why others do not |
| `others`, `each` | if several are due, each has a run of this Dag, one after the other, and this run ends |
| `groups` | the groups of blocks of the planned run are known |
| `blocks` | each block of the group is embedded if the model sees a net's embeddings, scored, indexed and verified |
| `publish` | all counts agree, the run was compared with the live one and passed the gate, and readers see it |

If the form names no model, the newest one is used that fits the size of the corpus' images and knows every tag of the
live index. Nothing is done if the live index has that model already, or if that model was rolled back (name it to try
it again). An index that has the model is tagged again all the same if an upgrade of TinyTags has changed the schema
since, or the corpus has grown. While another run tags the corpus, `choose` waits and looks again every five minutes.
The comparison is in the log of `publish` and in its XCom. A corpus that has the net's embeddings is not embedded again:
its pixels are only read for the documents. What the same model said of a corpus before it grew is taken over.

**When**: when a run of the Dag `tinytags` publishes a new model; when `tinytags_grow` has appended images to a corpus;
on the schedule in `TINYTAGS_RETAG_CRON`, a cron expression in UTC such as `0 2 * * 6` (not set: no schedule); and
manually. Airflow creates this Dag paused: switch it on.

**A trial** names blocks: only these are scored, indexed, reconciled and compared, and nothing is published.
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import AssetOrTimeSchedule, get_current_context, task
from airflow.sdk.exceptions import AirflowRescheduleException
from tinytags_airflow import (
    GROWN_ASSET,
    INDEX_ASSET,
    MODEL_ASSET,
    NEW_INDEXES,
    SHORT,
    cron_schedule,
    errors_for_airflow,
    pool,
    report,
    runtime,
    tinytags_dag,
)
from tinytags_blocks import embed_score_and_index, most_groups, named_groups
from tinytags_forms import read_form, retag_form
from tinytags_notify import SuccessNotifier, tell_success
from tinytags_suggestions import remember_models
from tinytags_waits import NOTE

from tinytags_tasks.airflow_names import RETAG_DAG, SOLR

if TYPE_CHECKING:
    from tinytags_tasks.store.protocol import Storage

_WAIT = timedelta(minutes=5)

_OTHERS = "others"

_CRON = cron_schedule("TINYTAGS_RETAG_CRON")
_DUE = MODEL_ASSET | GROWN_ASSET


@task(pool=pool(SOLR))
@errors_for_airflow
def choose() -> list[dict[str, Any]]:
    """Plan a run, with its collection, for the live index that is due; none if none is, or several are."""
    from tinytags_tasks.index.step import prepare_collection
    from tinytags_tasks.score.plan import PlanRequest, plan_run
    from tinytags_tasks.upkeep.retag import RetagRequest, plan_retags

    form = read_form()
    clients = runtime()
    storage, settings = clients.storage, clients.settings
    remember_models(clients)
    request = RetagRequest(form["model"], form["alias"], form["corpus"])
    found = plan_retags(request, storage=storage, solr=clients.solr, report=report).due
    is_told_which = bool(form["alias"] and form["corpus"])
    if len(found) > 1 and not is_told_which:
        others = [(due.alias, due.corpus) for due in found]
        get_current_context()["ti"].xcom_push(_OTHERS, others)
        report(f"{len(others)} indexes are due: each is tagged by a run of its own, one after the other")
        return []
    if not found:
        return []
    due = found[0]
    _claim_or_wait(due.corpus, storage)
    name = plan_run(
        PlanRequest(due.corpus, due.model, due.threshold, thumbnails=due.thumbnails, similar=due.similar),
        storage=storage,
        report=report,
    ).run
    shards, replicas = settings.solr_shards, settings.solr_replicas
    prepare_collection(name, storage=storage, solr=clients.solr, shards=shards, replicas=replicas)
    return [{"run": name, **asdict(due)}]


# If Airflow mapped over all blocks of all corpora at once, it would allow none of them enough tasks.
@task(execution_timeout=SHORT)
@errors_for_airflow
def others(planned: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what to trigger this Dag with, once for each of several indexes that are due."""
    from hashlib import sha256

    context = get_current_context()
    due = [] if planned else context["ti"].xcom_pull(task_ids="choose", key=_OTHERS) or []
    most = most_groups()
    if len(due) > most:
        report(f"Airflow starts {most:,} runs at once: trigger this Dag again for the other {len(due) - most:,}")
    return [
        {
            "conf": {**context["params"], "alias": alias, "corpus": corpus},
            # A retry starts none twice.
            "trigger_run_id": f"{context['run_id'][:200]}__{sha256(f'{alias} {corpus}'.encode()).hexdigest()[:12]}",
        }
        for alias, corpus in due[:most]
    ]


@task
@errors_for_airflow
def groups(planned: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Group the blocks of the planned run."""
    from tinytags_tasks.blocks import group_blocks
    from tinytags_tasks.store import layout
    from tinytags_tasks.store.run_records import Run

    form = read_form()
    storage = runtime().storage
    found = []
    for name in [one["run"] for one in planned]:
        blocks = _chosen_blocks(Run.load(storage, layout.run_file(name)).blocks)
        found += named_groups(name, group_blocks(blocks, form["blocks_per_task"], most_groups()), storage)
    return found


# The run's counts decide, not whether all tasks succeeded: a backfill may have redone what failed.
@task(
    map_index_template="{{ index }}" + NOTE,
    trigger_rule="all_done",
    pool=pool(SOLR),
    outlets=[NEW_INDEXES],  # a trial emits no event
    on_success_callback=SuccessNotifier(),
    doc_md="Reconcile a run, compare it with the live one, ask the gate and move the alias; a trial is not published.",
)
@errors_for_airflow
def publish(planned: dict[str, Any]) -> dict[str, Any]:
    """Reconcile a run, compare it with the live one, ask the gate and move the alias; a trial is not published."""
    from tinytags_tasks.publish.announcement import announce_published
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
    published = publish_run(request, storage=storage, solr=solr, report=report)
    tell_success(context, lambda: announce_published(published, storage=storage))
    result = {**planned, "published": True, **asdict(published), "comparison": comparison}
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
    TriggerDagRunOperator.partial(
        task_id="each",
        trigger_dag_id=RETAG_DAG,
        skip_when_already_exists=True,
        doc_md="Start this Dag for one of the indexes that are due.",
    ).expand_kwargs(others(planned))
    embed_score_and_index().expand(group=groups(planned)) >> publish.expand(planned=planned)


def _claim_or_wait(corpus: str, storage: Storage) -> None:
    """Claim the corpus; if another Dag run tags it, let Airflow run the task again later."""
    from tinytags_claim import claim_corpus, corpus_owner, is_running

    context = get_current_context()
    this_run = (context["ti"].dag_id, context["ti"].run_id)
    running = is_running(context)
    owner = corpus_owner(corpus, storage=storage, is_running=running)
    if owner and owner != this_run:
        report(f"waiting: corpus {corpus} is being tagged by run {owner[1]} of {owner[0]}")
        raise AirflowRescheduleException(datetime.now(UTC) + _WAIT)
    claim_corpus(corpus, this_run, storage=storage, is_running=running)


def _chosen_blocks(known: int) -> list[int]:
    """Return the block numbers that the form names, or all."""
    from tinytags_tasks.blocks import parse_block_numbers

    return list(parse_block_numbers(read_form()["blocks"], known))


tinytags_retag()
