"""The mapped tasks that score and index a group of blocks; three Dags have them."""

# mypy: allow-untyped-decorators

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from airflow.sdk import get_current_context, task, task_group
from tinytags_airflow import (
    PRIORITY_OF_INDEX,
    PRIORITY_OF_SCORE,
    SOLR,
    SPARK,
    errors_for_airflow,
    pool,
    report,
    runtime,
)


def score_and_index(*, redo: bool = False) -> Any:  # noqa: ANN401 - Airflow's decorator
    """Return the task group ``blocks``, to be expanded over groups such as ``{"run": ..., "blocks": [3, 17]}``.

    Parameters
    ----------
    redo
        Whether blocks that are verified are indexed again; those with a good scored file are never scored again.
    """

    @task_group(group_id="blocks")
    def blocks(group: dict[str, Any]) -> None:
        """Score a group of blocks and index what was scored."""

        @task(map_index_template="blocks {{ numbers }}", pool=pool(SPARK), priority_weight=PRIORITY_OF_SCORE)
        @errors_for_airflow
        def score(group: dict[str, Any]) -> dict[str, Any]:
            """Commit the group's scored files; those that stand are left alone, so clearing does only the rest."""
            from tinytags_tasks.score.step import ScoreRequest, run

            name_map_index(group["blocks"])
            clients = runtime()
            result = run(
                ScoreRequest(group["run"], tuple(group["blocks"])),
                storage=clients.storage,
                address=clients.store_address,
                connect_spark=clients.connect_spark,
                report=report,
            )
            return asdict(result)

        @task(map_index_template="blocks {{ numbers }}", pool=pool(SOLR), priority_weight=PRIORITY_OF_INDEX)
        @errors_for_airflow
        def index(scored: dict[str, Any]) -> dict[str, Any]:
            """Let the collection hold exactly the group's scored images, and verify each block by its checksum."""
            from tinytags_tasks.index.step import IndexRequest, run

            name_map_index(scored["blocks"])
            clients = runtime()
            request = IndexRequest(scored["run"], tuple(scored["blocks"]), redo)
            return asdict(run(request, storage=clients.storage, solr=clients.solr, report=report))

        index(score(group))

    return blocks


def name_map_index(numbers: Iterable[int]) -> None:
    """Give the mapped task a name that tells its shards or blocks."""
    from tinytags_tasks.blocks import format_block_numbers

    get_current_context()["numbers"] = format_block_numbers(numbers)


def tell_asset(asset: Any, **figures: Any) -> None:  # noqa: ANN401 - Airflow's asset, and whatever JSON holds
    """Attach figures to what the task tells of an asset among its outlets."""
    get_current_context()["outlet_events"][asset].extra = figures
