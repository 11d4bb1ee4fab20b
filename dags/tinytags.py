"""### TinyTags: tag a corpus and publish it.

`check >> ingest (plan >> shards, mapped >> commit) >> train >> plan >> blocks, mapped >> reconcile >> publish`

| task | what is true after it |
| --- | --- |
| `check` | the form can be followed, the engines answer, and no other run tags this corpus |
| `ingest.plan` | the source is listed, HDFS has room for it, and the missing shards are known |
| `ingest.shards` | each shard of the group stands in HDFS with its manifest |
| `ingest.commit` | every image of the source is in one block of one shard, and the corpus' totals say so |
| `train` | the named model is there, or the one that the labelled set and the parameters decide is published |
| `plan` | the run, its Solr collection and its groups of blocks are known |
| `blocks` | each block of the group has its scored file, and is in the collection and verified |
| `reconcile` | every count agrees: images read = kept + below the threshold + unreadable, and kept = documents |
| `publish` | readers see the run, unless the form said no, or it was a trial |

**Anything may be cleared and run again**: a task does only what is not committed yet, so clearing a failed mapped task
does the blocks of its group that are missing. A run is known by its content (the corpus' bytes, the model, the
threshold), so triggering the same again finds the same run.

**A trial** names blocks, such as `3, 17-20`: only these are scored, indexed and reconciled, and nothing is published.
Triggered again without blocks, the same run does the rest.

**A corpus is tagged by one run at a time**; several corpora may be tagged side by side.

A task that fails at once, without retries, met something that no retry mends; its last line says what, where and the
remedy. To do single blocks again, see the Dag `tinytags_backfill`.
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import Param, dag, get_current_context, task, task_group
from airflow.sdk.exceptions import AirflowSkipException
from tinytags_airflow import (
    CORPUS_ASSET,
    DEFAULTS,
    HDFS,
    INDEX_ASSET,
    MODEL_ASSET,
    NAME_OR_EMPTY_PATTERN,
    NEW_MODELS,
    PRIORITY_OF_SHARDS,
    SHORT,
    SOLR,
    SPARK,
    alias_param,
    blocks_per_task_param,
    corpus_names,
    errors_for_airflow,
    form,
    gate_params,
    model_versions,
    pool,
    refuse_unreachable,
    remember_models,
    report,
    runtime,
    text_param,
    trial_blocks_param,
)
from tinytags_blocks import named_groups, score_and_index, tell_asset

if TYPE_CHECKING:
    from tinytags_tasks.corpus.definition import CorpusDefinition
    from tinytags_tasks.runtime import Runtime

DEMO = "demo"
"""The corpus of an empty name."""

_MOST_BLOCKS = 1_000_000
"""More than any corpus has."""

PARAMS = {
    "corpus": text_param(
        "Corpus",
        pattern=NAME_OR_EMPTY_PATTERN,
        examples=corpus_names(),
        section="Corpus",
        description="A defined corpus' name (`tinytags corpus add` defines one); empty: the demo, made where need be",
    ),
    "shards_per_task": Param(
        0,
        type="integer",
        minimum=0,
        title="Shards a task",
        section="Corpus",
        description="Shards that one mapped task ingests; 0: a quarter of a million images a task",
    ),
    "model": text_param(
        "Model",
        examples=model_versions(),
        section="Model",
        description="A published model's version (`tinytags models list`); empty: learn one from the labelled images",
    ),
    "labelled": text_param(
        "Labelled images",
        section="Model",
        description="Parquet with the columns img and label; empty: the demo's",
    ),
    "test": text_param(
        "Test images",
        section="Model",
        description="As above, to measure the model's accuracy on; may be empty",
    ),
    "other": text_param(
        "Images of other things",
        section="Model",
        description="As above with the label -1 for none of the tags and -2 for unclear: what users will see",
    ),
    "trees": Param(10, type="integer", minimum=1, maximum=1000, title="Trees", section="Model"),
    "depth": Param(10, type="integer", minimum=1, maximum=30, title="Depth", section="Model"),
    "bins": Param(50, type="integer", minimum=2, maximum=65536, title="Bins", section="Model"),
    "seed": Param(42, type="integer", title="Seed", section="Model"),
    "held_out": Param(
        10,
        type="integer",
        minimum=0,
        maximum=50,
        title="Held out",
        section="Model",
        description="Percent of the labelled images that a second forest is measured on; 0 saves its time",
    ),
    "threshold": Param(
        40,
        type="integer",
        minimum=0,
        maximum=100,
        title="Threshold",
        section="Run",
        description="Accuracy in percent (share of the trees that agree) from which an image is kept",
    ),
    "blocks_per_task": blocks_per_task_param(5),
    "blocks": trial_blocks_param(),
    "publish": Param(
        "yes",
        type="string",
        enum=["yes", "gate", "no"],
        title="Publish",
        section="Publishing",
        description="yes; gate: when the run reaches what is asked for below; no: it stays verified, for later",
    ),
    **gate_params(),
    "alias": alias_param("Publishing"),
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
def tinytags() -> None:
    """Tag a corpus and publish it."""

    @task(retries=1, execution_timeout=SHORT)
    @errors_for_airflow
    def check() -> str:
        """Refuse what the form could not, find the engines, and claim the corpus, before any work."""
        params = form()
        clients = runtime()
        _check_choices(params, clients)
        refuse_unreachable(clients)
        _check_against_store(params, clients)
        corpus = params["corpus"] or DEMO
        _claim(corpus, clients)
        return corpus

    @task_group
    def ingest(corpus: Any) -> Any:  # noqa: ANN401 - what a task returns is known at run time only
        """Put every image of the corpus' source into shards."""

        @task(task_id="plan", pool=pool(HDFS))
        @errors_for_airflow
        def plan_shards() -> list[dict[str, Any]]:
            """List the source, and tell which shards are missing."""
            from tinytags_tasks.ingest.plan import PlanRequest, run

            context = get_current_context()
            params = form()
            clients = runtime()
            definition = _definition(params["corpus"], clients)
            _claim(definition.name, clients)  # known only now, where the form names none
            planned = run(
                PlanRequest(definition, params["shards_per_task"]),
                storage=clients.storage,
                files=clients.source_files(definition),
                report=report,
            )
            context["ti"].xcom_push("corpus", planned.corpus)  # which the groups do not tell when there are none
            return [{"corpus": planned.corpus, "shards": list(shards)} for shards in planned.groups]

        @task(
            map_index_template="shards {{ numbers }}",
            pool=pool(HDFS),
            priority_weight=PRIORITY_OF_SHARDS,
            doc_md="Let the group's shards stand whole.",
        )
        @errors_for_airflow
        def shards(group: dict[str, Any]) -> dict[str, Any]:
            """Let each shard of the group stand whole, with its manifest."""
            from tinytags_tasks.blocks import format_block_numbers
            from tinytags_tasks.ingest.plan import load_plan
            from tinytags_tasks.ingest.shards import ShardsRequest, run

            get_current_context()["numbers"] = format_block_numbers(group["shards"])
            clients = runtime()
            files = clients.source_files(load_plan(clients.storage, group["corpus"]).definition)
            request = ShardsRequest(group["corpus"], tuple(group["shards"]))
            return asdict(run(request, storage=clients.storage, files=files, report=report))

        # When every shard stands, no mapped task runs; that is no reason to skip what follows.
        @task(trigger_rule="none_failed", pool=pool(HDFS), outlets=[CORPUS_ASSET])
        @errors_for_airflow
        def commit(corpus: str) -> dict[str, Any]:
            """Count every shard, then write the corpus' totals."""
            from tinytags_tasks.ingest.commit import run
            from tinytags_tasks.ingest.plan import load_plan

            clients = runtime()
            files = clients.source_files(load_plan(clients.storage, corpus).definition)
            committed = asdict(run(corpus, storage=clients.storage, files=files, report=report))
            tell_asset(CORPUS_ASSET, **committed)
            return committed

        planned = plan_shards()
        corpus >> planned  # nothing is begun before it is checked
        committed = commit(planned["corpus"])
        shards.expand(group=planned) >> committed
        return committed

    @task(pool=pool(SPARK), execution_timeout=timedelta(hours=24), outlets=[NEW_MODELS])
    @errors_for_airflow
    def train(ingested: dict[str, Any]) -> dict[str, Any]:
        """Publish the model of the labelled set, or find the one that is named."""
        from tinytags_tasks import layout
        from tinytags_tasks.corpus.demo.make import OTHER_FILE, make_demo
        from tinytags_tasks.records import Corpus, ModelCard
        from tinytags_tasks.train.step import TrainRequest, run

        context = get_current_context()
        params = form()
        clients = runtime()
        if params["model"]:
            return {"model": ModelCard.load(clients.storage, layout.card_file(params["model"])).version}
        labelled, test, other = params["labelled"], params["test"], params["other"]
        if not labelled:
            demo = make_demo(clients.settings.home / "demo", clients.settings.demo_source, report=report)
            labelled, test = str(demo.labelled_path), str(demo.test_path or "")
            if demo.origin == "photographs":
                other = str(demo.labelled_path.with_name(OTHER_FILE))
        corpus = Corpus.load(clients.storage, layout.corpus_file(ingested["corpus"]))
        request = TrainRequest(
            labelled,
            test or None,
            other=other or None,
            height=corpus.height,
            width=corpus.width,
            **{name: params[name] for name in ("trees", "depth", "bins", "seed", "held_out")},
        )
        trained = run(request, storage=clients.storage, connect_spark=clients.connect_spark, report=report)
        remember_models(clients)
        if trained.trained:
            card = ModelCard.load(clients.storage, layout.card_file(trained.model))
            context["outlet_events"][NEW_MODELS].add(MODEL_ASSET, extra=card.figures)
        return asdict(trained)

    @task(execution_timeout=timedelta(hours=1), pool=pool(SOLR))
    @errors_for_airflow
    def plan(ingested: dict[str, Any], trained: dict[str, Any]) -> list[dict[str, Any]]:
        """Make the run, its collection and its groups of blocks."""
        from tinytags_tasks import layout
        from tinytags_tasks.blocks import group_blocks, parse_block_numbers
        from tinytags_tasks.index.step import prepare
        from tinytags_tasks.records import Run
        from tinytags_tasks.score.plan import PlanRequest, run

        params = form()
        clients = runtime()
        planned = run(
            PlanRequest(ingested["corpus"], trained["model"], params["threshold"], params["blocks_per_task"]),
            storage=clients.storage,
        )
        groups = planned.groups
        if params["blocks"].strip():
            known = Run.load(clients.storage, layout.run_file(planned.run)).blocks
            groups = group_blocks(parse_block_numbers(params["blocks"], known), params["blocks_per_task"])
        prepare(
            planned.run,
            storage=clients.storage,
            solr=clients.solr,
            shards=clients.settings.solr_shards,
            replicas=clients.settings.solr_replicas,
        )
        report(f"run {planned.run}: {len(groups)} groups of blocks")
        return named_groups(planned.run, groups, clients.storage)

    @task(pool=pool(SOLR))
    @errors_for_airflow
    def reconcile(groups: list[dict[str, Any]]) -> dict[str, Any]:
        """Let every count of the run agree, or of a trial's blocks; the alias is left alone."""
        from tinytags_tasks.publish.step import reconcile_run

        clients = runtime()
        is_trial = bool(form()["blocks"].strip())
        totals = reconcile_run(
            groups[0]["run"],
            storage=clients.storage,
            solr=clients.solr,
            blocks=tuple(block for group in groups for block in group["blocks"]) if is_trial else None,
            report=report,
        )
        return {"run": groups[0]["run"], "totals": asdict(totals)}

    @task(pool=pool(SOLR), outlets=[INDEX_ASSET])
    @errors_for_airflow
    def publish(reconciled: dict[str, Any]) -> dict[str, Any]:
        """Ask the gate, then move the alias, when the form says so; skipped otherwise, and for a trial."""
        from tinytags_tasks.publish.step import PublishRequest, run

        params = form()
        if params["blocks"].strip():
            raise AirflowSkipException(f"run {reconciled['run']}: blocks {params['blocks']} are a trial")
        if params["publish"] == "no":
            raise AirflowSkipException(
                f"run {reconciled['run']} is verified; publish it with `tinytags publish {reconciled['run']}`"
            )
        gate = (params["gate_documents"], params["gate_precision"]) if params["publish"] == "gate" else (None, None)
        clients = runtime()
        request = PublishRequest(reconciled["run"], params["alias"], *gate)
        published = asdict(run(request, storage=clients.storage, solr=clients.solr, report=report))
        tell_asset(INDEX_ASSET, alias=params["alias"], **published)
        return published

    ingested = ingest(check())
    groups = plan(ingested, train(ingested))
    reconciled = reconcile(groups)
    score_and_index().expand(group=groups) >> reconciled
    publish(reconciled)


def _check_choices(params: dict[str, Any], clients: Runtime) -> None:
    """Refuse choices that contradict each other, or name nothing."""
    from tinytags_tasks.blocks import parse_block_numbers
    from tinytags_tasks.corpus.registry import load_definition
    from tinytags_tasks.errors import BadInputError

    if params["corpus"]:
        load_definition(clients.settings.corpora_folder, params["corpus"])
    if params["blocks"].strip():
        parse_block_numbers(params["blocks"], _MOST_BLOCKS)  # how many there are may be known later only
    has_gate = params["gate_documents"] is not None or params["gate_precision"] is not None
    if params["publish"] == "gate" and not has_gate:
        raise BadInputError("the gate asks for nothing: say the least documents or the least precision, or choose yes")
    if params["publish"] == "yes" and has_gate:
        raise BadInputError("the gate asks for something, but yes does not ask it: choose gate, or clear its fields")


def _check_against_store(params: dict[str, Any], clients: Runtime) -> None:
    """Refuse a model that is not there, and blocks that the corpus, where it stands already, has not."""
    from tinytags_tasks import layout
    from tinytags_tasks.blocks import parse_block_numbers
    from tinytags_tasks.errors import MissingError
    from tinytags_tasks.records import Corpus, ModelCard

    models = remember_models(clients)
    if params["model"]:
        if params["model"] not in models:
            known = ", ".join(models[-20:]) or "none"
            raise MissingError(f"model {params['model']}: there is no such model (there are: {known})")
        ModelCard.load(clients.storage, layout.card_file(params["model"]))
    corpus_file = layout.corpus_file(params["corpus"] or DEMO)
    if params["blocks"].strip() and clients.storage.exists(corpus_file):
        parse_block_numbers(params["blocks"], Corpus.load(clients.storage, corpus_file).partition.blocks)


def _claim(corpus: str, clients: Runtime) -> None:
    """Let this run be the only one that tags the corpus."""
    from tinytags_claim import claim_corpus, is_running

    context = get_current_context()
    dag_run = (context["ti"].dag_id, context["ti"].run_id)
    claim_corpus(corpus, dag_run, storage=clients.storage, is_running=is_running(context))


def _definition(name: str, clients: Runtime) -> CorpusDefinition:
    """Return a corpus' definition; the demo's, with its files made, when none is named."""
    from tinytags_tasks.corpus.demo.make import demo_definition, make_demo
    from tinytags_tasks.corpus.registry import load_definition, save_definition

    settings = clients.settings
    if name:
        return load_definition(settings.corpora_folder, name)
    definition = demo_definition(make_demo(settings.home / "demo", settings.demo_source, report=report))
    save_definition(settings.corpora_folder, definition, replace=True)
    return definition


tinytags()
