"""### TinyTags: tag a corpus and publish it.

`ingest >> train >> plan >> blocks (score >> index), mapped >> publish`

| task | what is true after it |
| --- | --- |
| `ingest` | every image of the source is in a shard in HDFS, with its manifest |
| `train` | the model that the labelled set and the parameters decide is published |
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
from typing import Any

from airflow.sdk import Param, dag, get_current_context, task, task_group
from tinytags_airflow import errors_for_airflow, report, runtime

PARAMS = {
    "source": Param(
        "", type="string", title="Source", section="Corpus", description="A Tiny Images .bin file; empty: the demo"
    ),
    "corpus": Param(
        "demo",
        type="string",
        pattern="^[a-z0-9][a-z0-9_-]{0,99}$",
        title="Corpus",
        section="Corpus",
        description="Its name; lower-case letters, digits, '-' and '_'. The demo names itself",
    ),
    "shard_images": Param(5_000, type="integer", minimum=1, title="Images a shard", section="Corpus"),
    "blocks_per_shard": Param(5, type="integer", minimum=1, title="Blocks a shard", section="Corpus"),
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
    "trees": Param(10, type="integer", minimum=1, maximum=1000, title="Trees", section="Model"),
    "depth": Param(10, type="integer", minimum=1, maximum=30, title="Depth", section="Model"),
    "bins": Param(50, type="integer", minimum=2, maximum=65536, title="Bins", section="Model"),
    "seed": Param(42, type="integer", title="Seed", section="Model"),
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

    @task
    @errors_for_airflow
    def ingest() -> dict[str, Any]:
        """Put every image of the source into shards."""
        from tinytags_tasks.corpus.demo import make_demo
        from tinytags_tasks.ingest.step import IngestRequest, run

        params = get_current_context()["params"]
        source, corpus, description = params["source"], params["corpus"], ""
        clients = runtime()
        if not source:
            demo = make_demo(clients.settings.home / "demo", clients.settings.demo_source, report=report)
            source, corpus, description = str(demo.corpus_path), demo.corpus_name, demo.description
        request = IngestRequest(corpus, source, params["shard_images"], params["blocks_per_shard"], description)
        return asdict(run(request, storage=clients.storage, report=report))

    @task
    @errors_for_airflow
    def train() -> dict[str, Any]:
        """Publish the model of the labelled set."""
        from tinytags_tasks.corpus.demo import make_demo
        from tinytags_tasks.train.step import TrainRequest, run

        params = get_current_context()["params"]
        labelled, test = params["labelled"], params["test"]
        clients = runtime()
        if not labelled:
            demo = make_demo(clients.settings.home / "demo", clients.settings.demo_source, report=report)
            labelled, test = str(demo.labelled_path), str(demo.test_path or "")
        request = TrainRequest(
            labelled, test or None, **{name: params[name] for name in ("trees", "depth", "bins", "seed")}
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

        @task(map_index_template="blocks {{ block_numbers }}")
        @errors_for_airflow
        def score(group: dict[str, Any]) -> dict[str, Any]:
            """Commit the group's scored files."""
            from tinytags_tasks.score.step import ScoreRequest, run

            _name_map_index(group)
            clients = runtime()
            result = run(
                ScoreRequest(group["run"], tuple(group["blocks"])),
                storage=clients.storage,
                address=clients.store_address,
                connect_spark=clients.connect_spark,
                report=report,
            )
            return asdict(result)

        @task(map_index_template="blocks {{ block_numbers }}")
        @errors_for_airflow
        def index(scored: dict[str, Any]) -> dict[str, Any]:
            """Let the collection hold exactly the group's scored images."""
            from tinytags_tasks.index.step import IndexRequest, run

            _name_map_index(scored)
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
        request = PublishRequest(groups[0]["run"], clients.settings.alias)
        return asdict(run(request, storage=clients.storage, solr=clients.solr, report=report))

    ingested = ingest()
    trained = train()
    groups = plan(ingested, trained)
    ingested >> trained
    blocks.expand(group=groups) >> publish(groups)


def _name_map_index(group: dict[str, Any]) -> None:
    """Give the mapped task a name that tells its blocks."""
    from tinytags_tasks.blocks import format_block_numbers

    get_current_context()["block_numbers"] = format_block_numbers(group["blocks"])


tinytags()
