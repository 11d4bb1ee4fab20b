"""### TinyTags: tag a corpus and publish it.

`ingest (plan >> shards, mapped >> commit) >> train >> plan >> blocks (score >> index), mapped >> publish`

| task | what is true after it |
| --- | --- |
| `ingest.plan` | the source is listed, HDFS has room for it, and the missing shards are known |
| `ingest.shards` | each shard of the group stands in HDFS with its manifest |
| `ingest.commit` | every image of the source is in one block of one shard, and the corpus' totals say so |
| `train` | the named model is there, or the one that the labelled set and the parameters decide is published |
| `plan` | the run, its Solr collection and its groups of blocks are known |
| `blocks.score` | each block of the group has its scored file and its ledger record |
| `blocks.index` | each block of the group is in the run's collection, and counted |
| `publish` | every count agrees, and readers see the run |

**Anything may be cleared and run again**: a task does only what is not committed yet. A run is known by its content
(the corpus' bytes, the model, the threshold), so triggering the same again finds the same run.

A task that fails at once, without retries, met something that no retry mends; its last line says what, where and the
remedy.
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import Param, dag, get_current_context, task, task_group
from tinytags_airflow import corpus_names, errors_for_airflow, report, runtime

if TYPE_CHECKING:
    from tinytags_tasks.corpus.definition import CorpusDefinition
    from tinytags_tasks.runtime import Runtime

PARAMS = {
    "corpus": Param(
        "",
        type="string",
        pattern="^([a-z0-9][a-z0-9_-]{0,99})?$",
        examples=corpus_names(),
        title="Corpus",
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
    "model": Param(
        "",
        type="string",
        title="Model",
        section="Model",
        description="A published model's version (`tinytags models list`); empty: learn one from the labelled images",
    ),
    "labelled": Param(
        "",
        type="string",
        title="Labelled images",
        section="Model",
        description="Parquet with the columns img and label; empty: the demo's",
    ),
    "test": Param(
        "",
        type="string",
        title="Test images",
        section="Model",
        description="As above, to measure the model's accuracy on; may be empty",
    ),
    "other": Param(
        "",
        type="string",
        title="Images of other things",
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
    "blocks_per_task": Param(
        5,
        type="integer",
        minimum=0,
        title="Blocks a task",
        section="Run",
        description="Blocks that one mapped task scores and indexes; 0: as many as make at most 400 tasks",
    ),
    "gate_documents": Param(
        None,
        type=["null", "number"],
        minimum=0,
        title="Least documents",
        section="Publishing",
        description="In percent of the documents that are live now; fewer are not published",
    ),
    "gate_precision": Param(
        None,
        type=["null", "number"],
        minimum=0,
        maximum=100,
        title="Least precision",
        section="Publishing",
        description="In percent, at the threshold, as the model's card tells; a model with less is not published",
    ),
}

RETRIES: dict[str, Any] = {
    "retries": 4,
    "retry_delay": timedelta(seconds=10),
    "retry_exponential_backoff": True,
    "max_retry_delay": timedelta(minutes=5),
}


@dag(
    schedule=None,
    catchup=False,
    max_active_runs=1,
    params=PARAMS,
    tags=["tinytags"],
    doc_md=__doc__,
    default_args={"owner": "tinytags", **RETRIES},
)
def tinytags() -> None:
    """Tag a corpus and publish it."""

    @task_group
    def ingest() -> Any:  # noqa: ANN401 - what a task returns is known at run time only
        """Put every image of the corpus' source into shards."""

        @task(task_id="plan")
        @errors_for_airflow
        def plan_shards() -> list[dict[str, Any]]:
            """List the source, and tell which shards are missing."""
            from tinytags_tasks.ingest.plan import PlanRequest, run

            context = get_current_context()
            params = context["params"]
            clients = runtime()
            definition = _definition(params["corpus"], clients)
            planned = run(
                PlanRequest(definition, params["shards_per_task"]),
                storage=clients.storage,
                files=clients.source_files(definition),
                report=report,
            )
            context["ti"].xcom_push("corpus", planned.corpus)  # which the groups do not tell when there are none
            return [{"corpus": planned.corpus, "shards": list(shards)} for shards in planned.groups]

        @task(map_index_template="shards {{ numbers }}")
        @errors_for_airflow
        def shards(group: dict[str, Any]) -> dict[str, Any]:
            """Let each shard of the group stand whole, with its manifest."""
            from tinytags_tasks.ingest.plan import load_plan
            from tinytags_tasks.ingest.shards import ShardsRequest, run

            _name_map_index(group["shards"])
            clients = runtime()
            files = clients.source_files(load_plan(clients.storage, group["corpus"]).definition)
            request = ShardsRequest(group["corpus"], tuple(group["shards"]))
            return asdict(run(request, storage=clients.storage, files=files, report=report))

        # When every shard stands, no mapped task runs; that is no reason to skip what follows.
        @task(trigger_rule="none_failed")
        @errors_for_airflow
        def commit(corpus: str) -> dict[str, Any]:
            """Count every shard, then write the corpus' totals."""
            from tinytags_tasks.ingest.commit import run
            from tinytags_tasks.ingest.plan import load_plan

            clients = runtime()
            files = clients.source_files(load_plan(clients.storage, corpus).definition)
            return asdict(run(corpus, storage=clients.storage, files=files, report=report))

        planned = plan_shards()
        committed = commit(planned["corpus"])
        shards.expand(group=planned) >> committed
        return committed

    @task
    @errors_for_airflow
    def train(ingested: dict[str, Any]) -> dict[str, Any]:
        """Publish the model of the labelled set, or find the one that is named."""
        from tinytags_tasks import layout
        from tinytags_tasks.corpus.demo import OTHER_FILE, make_demo
        from tinytags_tasks.records import Corpus, ModelCard
        from tinytags_tasks.train.step import TrainRequest, run

        params = get_current_context()["params"]
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
        return asdict(run(request, storage=clients.storage, connect_spark=clients.connect_spark, report=report))

    @task
    @errors_for_airflow
    def plan(ingested: dict[str, Any], trained: dict[str, Any]) -> list[dict[str, Any]]:
        """Make the run, its collection and its groups of blocks."""
        from tinytags_tasks.index.step import prepare
        from tinytags_tasks.score.plan import PlanRequest, run

        params = get_current_context()["params"]
        clients = runtime()
        planned = run(
            PlanRequest(ingested["corpus"], trained["model"], params["threshold"], params["blocks_per_task"]),
            storage=clients.storage,
        )
        prepare(
            planned.run,
            storage=clients.storage,
            solr=clients.solr,
            shards=clients.settings.solr_shards,
            replicas=clients.settings.solr_replicas,
        )
        report(f"run {planned.run}: {len(planned.groups)} groups of blocks")
        return [{"run": planned.run, "blocks": blocks} for blocks in planned.groups]

    @task_group
    def blocks(group: dict[str, Any]) -> None:
        """Score a group of blocks and index what was scored."""

        @task(map_index_template="blocks {{ numbers }}")
        @errors_for_airflow
        def score(group: dict[str, Any]) -> dict[str, Any]:
            """Commit the group's scored files."""
            from tinytags_tasks.score.step import ScoreRequest, run

            _name_map_index(group["blocks"])
            clients = runtime()
            result = run(
                ScoreRequest(group["run"], tuple(group["blocks"])),
                storage=clients.storage,
                address=clients.store_address,
                connect_spark=clients.connect_spark,
                report=report,
            )
            return asdict(result)

        @task(map_index_template="blocks {{ numbers }}")
        @errors_for_airflow
        def index(scored: dict[str, Any]) -> dict[str, Any]:
            """Let the collection hold exactly the group's scored images."""
            from tinytags_tasks.index.step import IndexRequest, run

            _name_map_index(scored["blocks"])
            clients = runtime()
            request = IndexRequest(scored["run"], tuple(scored["blocks"]))
            return asdict(run(request, storage=clients.storage, solr=clients.solr, report=report))

        index(score(group))

    @task
    @errors_for_airflow
    def publish(groups: list[dict[str, Any]]) -> dict[str, Any]:
        """Reconcile every block, then move the alias."""
        from tinytags_tasks.publish.step import PublishRequest, run

        clients = runtime()
        params = get_current_context()["params"]
        request = PublishRequest(
            groups[0]["run"], clients.settings.alias, params["gate_documents"], params["gate_precision"]
        )
        return asdict(run(request, storage=clients.storage, solr=clients.solr, report=report))

    ingested = ingest()
    groups = plan(ingested, train(ingested))
    blocks.expand(group=groups) >> publish(groups)


def _definition(name: str, clients: Runtime) -> CorpusDefinition:
    """Return a corpus' definition; the demo's, with its files made, when none is named."""
    from tinytags_tasks.corpus.demo import demo_definition, make_demo
    from tinytags_tasks.corpus.registry import load_definition, save_definition

    settings = clients.settings
    if name:
        return load_definition(settings.corpora_folder, name)
    definition = demo_definition(make_demo(settings.home / "demo", settings.demo_source, report=report))
    save_definition(settings.corpora_folder, definition, replace=True)
    return definition


def _name_map_index(numbers: list[int]) -> None:
    """Give the mapped task a name that tells its shards or blocks."""
    from tinytags_tasks.blocks import format_block_numbers

    get_current_context()["numbers"] = format_block_numbers(numbers)


tinytags()
