"""The mapped task that scores and indexes a group of blocks; three Dags have it."""

# mypy: allow-untyped-decorators

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from airflow.sdk import get_current_context, task
from tinytags_airflow import (
    PRIORITY_OF_BLOCKS,
    SPARK,
    errors_for_airflow,
    pool,
    report,
    runtime,
)


def score_and_index(*, redo: bool = False) -> Any:  # noqa: ANN401 - Airflow's decorator
    """Return the task ``blocks``, to be expanded over groups such as ``{"run": ..., "blocks": [3, 17]}``.

    One task does both stages, one after the other: with two, the scheduler would ask of each group that waits to be
    indexed whether it may be, in each of its rounds (ADR 15).

    Parameters
    ----------
    redo
        Whether blocks that are verified are indexed again; those with a good scored file are never scored again.
    """

    @task(
        map_index_template="blocks {{ numbers }}",
        pool=pool(SPARK),
        priority_weight=PRIORITY_OF_BLOCKS,
        doc_md="Score the group's blocks, index what was scored, and verify each block by its checksum. "
        "What is committed is left alone, so clearing does only the rest.",
    )
    @errors_for_airflow
    def blocks(group: dict[str, Any]) -> dict[str, Any]:
        from tinytags_tasks.index.step import IndexRequest
        from tinytags_tasks.index.step import run as index
        from tinytags_tasks.score.step import ScoreRequest
        from tinytags_tasks.score.step import run as score

        run, numbers = group["run"], tuple(group["blocks"])
        name_map_index(numbers)
        clients = runtime()
        storage = clients.storage
        score(
            ScoreRequest(run, numbers),
            storage=storage,
            address=clients.store_address,
            connect_spark=clients.connect_spark,
            report=report,
        )
        return asdict(index(IndexRequest(run, numbers, redo), storage=storage, solr=clients.solr, report=report))

    return blocks


def name_map_index(numbers: Iterable[int]) -> None:
    """Give the mapped task a name that tells its shards or blocks."""
    from tinytags_tasks.blocks import format_block_numbers

    get_current_context()["numbers"] = format_block_numbers(numbers)


def tell_asset(asset: Any, **figures: Any) -> None:  # noqa: ANN401 - Airflow's asset, and whatever JSON holds
    """Attach figures to what the task tells of an asset among its outlets."""
    get_current_context()["outlet_events"][asset].extra = figures
