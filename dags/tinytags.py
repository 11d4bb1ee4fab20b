"""### TinyTags: tag a corpus and publish it.

`check >> ingest (plan >> shards, mapped >> commit) >> train >> plan >> blocks, mapped >> reconcile >> publish`, with
`propose >> ask` before the last if a person is to decide

| task | once it has succeeded |
| --- | --- |
| `check` | the form is valid, the engines answer, and no other run is tagging this corpus |
| `ingest.plan` | the source is listed, HDFS has room for it, and the missing shards are known |
| `ingest.shards` | each shard of the group is in HDFS with its manifest |
| `ingest.commit` | every image of the source is in one block of one shard, and the corpus' totals are recorded |
| `train` | the named model exists, or the model that the labelled images and the form determine is published |
| `plan` | the run, its Solr collection and its groups of blocks exist |
| `blocks` | each block of the group has its embeddings, if needed, and its scored file, is indexed, and verified |
| `reconcile` | all counts agree: images read = kept + below the threshold + none + unreadable, and kept = documents |
| `propose` | what would change for readers is described; skipped unless the form says ask |
| `ask` | a person, who was sent a message, has decided under **Required Actions**; skipped likewise |
| `publish` | readers see the run; skipped if the form or the person says no, and for a trial |

**Any task can be cleared and run again**: it only does what is not committed yet. Clearing a failed mapped task does
the missing blocks of its group. A run is identified by its content (the corpus' bytes, the model, the threshold), so
triggering the Dag again with the same form continues the same run.

**What the model sees**: by default, the embeddings of the net that ships. They are made once for each block and stored,
so other models on the same net tag the corpus without reading its pixels. The original system is `features` pixels,
`head` forest. If the form names a model, its own features and head apply.

**What people said of the corpus' pictures** (reviews and corrections) is learned, too, as soon as 50 of them can teach
something. Then the same form gives another model, and so another run beside the live one.

**A trial** names blocks, such as `3, 17-20`. Only these are scored, indexed and reconciled, and nothing is published.
Trigger the same form without blocks to do the rest of the run.

**New files of the source** are appended if the form says so: in new shards, so that only their blocks are embedded and
scored. What the same model said of the other blocks is taken over, and all are indexed into a new collection.
A corpus that is complete does not need its source.

**Only one run at a time tags a corpus**; different corpora can be tagged at the same time.

A task that has to wait, because an engine is away or another writer is at work, says so in its log and its name, and is
run again later; that uses up no try. A task that fails at once, without retries, met an error that no retry can fix.
The last line of its log says what is wrong, where, and how to fix it. To redo single blocks, use the Dag
`tinytags_backfill`.
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import get_current_context, task, task_group
from airflow.sdk.exceptions import AirflowSkipException
from tinytags_airflow import (
    CORPUS_ASSET,
    INDEX_ASSET,
    MODEL_ASSET,
    NEW_MODELS,
    PRIORITY_OF_SHARDS,
    SHORT,
    approval_timeout,
    describe_asset_event,
    errors_for_airflow,
    pool,
    report,
    runtime,
    tinytags_dag,
)
from tinytags_blocks import embed_score_and_index, most_groups, named_groups
from tinytags_forms import read_form, tagging_form
from tinytags_metrics import count_planned
from tinytags_notify import ApprovalNotifier, SuccessNotifier, tell_success
from tinytags_suggestions import remember_models
from tinytags_waits import NOTE

from tinytags_tasks.airflow_names import HDFS, SOLR, SPARK

if TYPE_CHECKING:
    from tinytags_tasks.corpus.definition import CorpusDefinition
    from tinytags_tasks.runtime import Runtime


_PASSED_ON = (
    *("features", "head", "trees", "depth", "bins", "regularization", "iterations"),
    *("seed", "held_out"),
)
"""Fields of the form that are those of a training's request."""


@task(execution_timeout=SHORT)
@errors_for_airflow
def check() -> str:
    """Validate what the form itself cannot, check that the engines answer, and claim the corpus, before any work."""
    from tinytags_checks import DEMO, refuse_contradictions, refuse_unknown, refuse_unreachable

    form = read_form()
    clients = runtime()
    refuse_contradictions(form, clients)
    refuse_unreachable(clients)
    refuse_unknown(form, clients)
    corpus = form["corpus"] or DEMO
    _claim(corpus, clients)
    return corpus


@task(task_id="plan", pool=pool(HDFS))
@errors_for_airflow
def plan_shards() -> list[dict[str, Any]]:
    """List the source, and find out which shards are missing."""
    from tinytags_tasks.ingest.plan import PlanRequest, plan_ingestion

    context = get_current_context()
    form = read_form()
    clients = runtime()
    definition = _definition(form["corpus"], clients)
    _claim(definition.name, clients)  # the demo's name is known only now
    planned = plan_ingestion(
        PlanRequest(definition, form["shards_per_task"], most_groups(), grow=form["new_files"] == "append"),
        storage=clients.storage,
        files=clients.source_files(definition),
        report=report,
    )
    context["ti"].xcom_push("corpus", planned.corpus)  # there may be no group to tell it
    return [{"corpus": planned.corpus, "shards": list(shards)} for shards in planned.groups]


@task(
    map_index_template="shards {{ numbers }}" + NOTE,
    pool=pool(HDFS),
    priority_weight=PRIORITY_OF_SHARDS,
    doc_md="Write the group's shards.",
)
@errors_for_airflow
def shards(group: dict[str, Any]) -> dict[str, Any]:
    """Write each shard of the group, with its manifest."""
    from tinytags_tasks.blocks import format_block_numbers
    from tinytags_tasks.ingest.plan_records import load_plan
    from tinytags_tasks.ingest.shards import ShardsRequest, ingest_shards

    get_current_context()["numbers"] = format_block_numbers(group["shards"])
    clients = runtime()
    files = clients.source_files(load_plan(clients.storage, group["corpus"]).definition)
    request = ShardsRequest(group["corpus"], tuple(group["shards"]))
    return asdict(ingest_shards(request, storage=clients.storage, files=files, report=report))


# When all shards exist, no mapped task runs; that must not skip what follows.
@task(trigger_rule="none_failed", pool=pool(HDFS), outlets=[CORPUS_ASSET])
@errors_for_airflow
def commit(corpus: str) -> dict[str, Any]:
    """Count every shard, then record the corpus' totals."""
    from tinytags_tasks.ingest.commit import commit_corpus

    committed = asdict(commit_corpus(corpus, storage=runtime().storage, report=report))
    describe_asset_event(CORPUS_ASSET, **committed)
    return committed


@task_group
def ingest(corpus: Any) -> Any:  # noqa: ANN401 - a task's result is known at run time only
    """Put every image of the corpus' source into shards."""
    planned = plan_shards()
    corpus >> planned  # nothing starts before the checks
    committed = commit(planned["corpus"])
    shards.expand(group=planned) >> committed
    return committed


@task(pool=pool(SPARK), execution_timeout=timedelta(hours=24), outlets=[NEW_MODELS])
@errors_for_airflow
def train(ingested: dict[str, Any]) -> dict[str, Any]:
    """Train a model on the labelled images and publish it, or find the model that the form names."""
    from tinytags_tasks.corpus.class_names import given_tags
    from tinytags_tasks.store import layout
    from tinytags_tasks.store.corpus_records import Corpus
    from tinytags_tasks.store.model_records import PIXELS, ModelCard
    from tinytags_tasks.train.reviews import ENOUGH
    from tinytags_tasks.train.step import TrainRequest, train_model

    context = get_current_context()
    form = read_form()
    clients = runtime()
    if form["model"]:
        return {"model": ModelCard.load(clients.storage, layout.card_file(form["model"])).version}
    labelled, test, other = _labelled_sets(form, clients)
    tags, remarks = given_tags(form["tags"]) if form["tags"] else (None, [])
    for remark in remarks:
        report(remark)
    corpus = Corpus.load(clients.storage, layout.corpus_file(ingested["corpus"]))
    request = TrainRequest(
        labelled,
        test or None,
        tags=tags,
        other=other or None,
        height=corpus.height,
        width=corpus.width,
        none=False if form["none"] == "no" else None,
        corpus=corpus.name,
        reviews=corpus.name if form["reviews"] == "yes" and form["features"] != PIXELS else None,
        new_tags=form["new_tags"] == "yes",
        least_reviews=ENOUGH,
        **{name: form[name] for name in _PASSED_ON},
    )
    trained = train_model(
        request,
        storage=clients.storage,
        connect_spark=clients.connect_spark,
        report=report,
        providers=clients.onnx_providers,
        open_source=clients.files_at,
    )
    remember_models(clients)
    if trained.trained:
        card = ModelCard.load(clients.storage, layout.card_file(trained.model))
        context["outlet_events"][NEW_MODELS].add(MODEL_ASSET, extra=card.figures)
    return asdict(trained)


@task(execution_timeout=timedelta(hours=1), pool=pool(SOLR))
@errors_for_airflow
def plan(ingested: dict[str, Any], trained: dict[str, Any]) -> list[dict[str, Any]]:
    """Create the run, its collection and its groups of blocks."""
    from tinytags_tasks.blocks import group_blocks, parse_block_numbers
    from tinytags_tasks.index.step import prepare_collection
    from tinytags_tasks.score.plan import PlanRequest, plan_run
    from tinytags_tasks.store import layout
    from tinytags_tasks.store.run_records import Run

    form = read_form()
    clients = runtime()
    planned = plan_run(
        PlanRequest(
            ingested["corpus"],
            trained["model"],
            form["threshold"],
            form["blocks_per_task"],
            most_groups(),
            similar=form["similar"],
        ),
        storage=clients.storage,
        report=report,
    )
    groups = planned.groups
    if form["blocks"].strip():
        known = Run.load(clients.storage, layout.run_file(planned.run)).blocks
        groups = group_blocks(parse_block_numbers(form["blocks"], known), form["blocks_per_task"], most_groups())
    prepare_collection(
        planned.run,
        storage=clients.storage,
        solr=clients.solr,
        shards=clients.settings.solr_shards,
        replicas=clients.settings.solr_replicas,
    )
    count_planned(get_current_context(), sum(map(len, groups)))
    report(f"run {planned.run}: {len(groups)} groups of up to {max(map(len, groups), default=0)} blocks")
    return named_groups(planned.run, groups, clients.storage)


@task(pool=pool(SOLR))
@errors_for_airflow
def reconcile(groups: list[dict[str, Any]]) -> dict[str, Any]:
    """Check that all counts of the run, or of a trial's blocks, agree; readers see no change."""
    from tinytags_tasks.publish.step import reconcile_run

    clients = runtime()
    is_trial = bool(read_form()["blocks"].strip())
    totals = reconcile_run(
        groups[0]["run"],
        storage=clients.storage,
        solr=clients.solr,
        blocks=tuple(block for group in groups for block in group["blocks"]) if is_trial else None,
        report=report,
    )
    return {"run": groups[0]["run"], "totals": asdict(totals)}


@task(pool=pool(SOLR))
@errors_for_airflow
def propose(reconciled: dict[str, Any]) -> str:
    """Describe what would change for readers, for the person who decides."""
    from tinytags_tasks.publish.proposal import describe_publication

    form = read_form()
    if form["publish"] != "ask" or form["blocks"].strip():
        raise AirflowSkipException("nobody is asked")
    clients = runtime()
    return describe_publication(
        reconciled["run"],
        form["alias"],
        storage=clients.storage,
        solr=clients.solr,
        search_url=clients.settings.search_page,
        report=report,
    )


# A person's no, or an answer that does not come in time, skips it; that nobody is asked does not.
@task(
    trigger_rule="none_failed_min_one_success",
    pool=pool(SOLR),
    outlets=[INDEX_ASSET],
    on_success_callback=SuccessNotifier(),
    on_skipped_callback=SuccessNotifier(),
)
@errors_for_airflow
def publish(reconciled: dict[str, Any]) -> dict[str, Any]:
    """Ask the gate and move the alias; skipped if the form says no, and for a trial."""
    from tinytags_tasks.publish.announcement import announce_published, announce_verified
    from tinytags_tasks.publish.step import PublishRequest, publish_run
    from tinytags_tasks.store.ledger import Totals

    form = read_form()
    if form["blocks"].strip():
        raise AirflowSkipException(f"run {reconciled['run']}: only a trial of blocks {form['blocks']}")
    clients = runtime()
    if form["publish"] == "no":
        totals = Totals(**reconciled["totals"])
        tell_success(
            get_current_context(),
            lambda: announce_verified(
                reconciled["run"], totals, form["alias"], storage=clients.storage, solr=clients.solr
            ),
        )
        raise AirflowSkipException(
            f"run {reconciled['run']} is verified; publish it with `tinytags publish {reconciled['run']}`"
        )
    limits = ("gate_documents", "gate_precision", "gate_measured_precision")
    gate = [form[limit] if form["publish"] in ("gate", "ask") else None for limit in limits]
    request = PublishRequest(reconciled["run"], form["alias"], *gate)
    result = publish_run(request, storage=clients.storage, solr=clients.solr, report=report)
    tell_success(get_current_context(), lambda: announce_published(result, storage=clients.storage))
    published = asdict(result)
    describe_asset_event(INDEX_ASSET, alias=form["alias"], **published)
    return published


@tinytags_dag(tagging_form(), __doc__, max_active_runs=4)
def tinytags() -> None:
    """Tag a corpus and publish it."""
    ingested = ingest(check())
    groups = plan(ingested, train(ingested))
    reconciled = reconcile(groups)
    embed_score_and_index().expand(group=groups) >> reconciled
    ask = ApprovalOperator(
        task_id="ask",
        subject="Publish run {{ ti.xcom_pull(task_ids='reconcile')['run'] }}?",
        body="{{ ti.xcom_pull(task_ids='propose') }}",
        defaults=ApprovalOperator.REJECT,
        response_timeout=approval_timeout(),
        notifiers=ApprovalNotifier(),
        doc_md="Ask a person whether the run is published; without an answer in time, it is not.",
    )
    propose(reconciled) >> ask >> publish(reconciled)


def _claim(corpus: str, clients: Runtime) -> None:
    """Make this Dag run the only one that tags the corpus."""
    from tinytags_claim import claim_corpus, is_running

    context = get_current_context()
    dag_run = (context["ti"].dag_id, context["ti"].run_id)
    claim_corpus(corpus, dag_run, storage=clients.storage, is_running=is_running(context))


def _definition(name: str, clients: Runtime) -> CorpusDefinition:
    """Return the definition of a corpus; if none is named, that of the demo, whose files are created."""
    from tinytags_tasks.corpus.definitions import find_definition
    from tinytags_tasks.corpus.demo.make import demo_definition, make_demo
    from tinytags_tasks.corpus.registry import save_definition

    settings = clients.settings
    if name:
        return find_definition(settings.corpora_folder, name, clients.storage)
    definition = demo_definition(make_demo(settings.home / "demo", settings.demo_source, report=report))
    save_definition(settings.corpora_folder, definition, replace=True)
    return definition


def _labelled_sets(form: dict[str, Any], clients: Runtime) -> tuple[str, str, str]:
    """Return the labelled images, test images and images of other things; the demo's if the form names none."""
    from tinytags_tasks.corpus.demo.make import OTHER_FILE, make_demo

    if form["labelled"]:
        return form["labelled"], form["test"], form["other"]
    demo = make_demo(clients.settings.home / "demo", clients.settings.demo_source, report=report)
    other = str(demo.labelled_path.with_name(OTHER_FILE)) if demo.origin == "photographs" else form["other"]
    return str(demo.labelled_path), str(demo.test_path or ""), other


tinytags()
