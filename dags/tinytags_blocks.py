"""The mapped task that scores and indexes a group of blocks; three Dags have it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from airflow.sdk import get_current_context, task
from tinytags_airflow import (
    PRIORITY_OF_BLOCKS,
    SPARK,
    errors_for_airflow,
    pool,
    report,
    runtime,
)

if TYPE_CHECKING:
    from tinytags_tasks.storage import Storage


def score_and_index(*, redo: bool = False) -> Any:  # noqa: ANN401 - Airflow's decorator
    """Return the task ``blocks``, to be expanded over what :func:`named_groups` returns.

    One task does both stages, one after the other: with two, the scheduler would ask of each group that waits to be
    indexed whether it may be, in each of its rounds (ADR 15).

    Parameters
    ----------
    redo
        Whether blocks that are verified are indexed again; those with a good scored file are never scored again.
    """

    @task(
        map_index_template="{{ name }}",
        pool=pool(SPARK),
        priority_weight=PRIORITY_OF_BLOCKS,
        doc_md="Score the group's blocks, index what was scored, and verify each block by its checksum. "
        "What is committed is left alone, so clearing does only the rest.",
    )
    @errors_for_airflow
    def blocks(group: dict[str, Any]) -> dict[str, Any]:
        from tinytags_tasks.errors import FinalError
        from tinytags_tasks.index.step import IndexRequest
        from tinytags_tasks.index.step import run as index
        from tinytags_tasks.score.step import ScoreRequest
        from tinytags_tasks.score.step import run as score
        from tinytags_tasks.score.worker import unsettled_blocks

        run, numbers = group["run"], tuple(group["blocks"])
        get_current_context()["name"] = group["name"]
        clients = runtime()
        storage, solr = clients.storage, clients.solr
        try:
            score(
                ScoreRequest(run, numbers),
                storage=storage,
                address=clients.store_address,
                connect_spark=clients.connect_spark,
                report=report,
            )
        except FinalError:  # no retry comes, so what was scored goes on, and only what failed stays behind
            failed = set(unsettled_blocks(run, numbers, storage))
            scored = tuple(block for block in numbers if block not in failed)
            if scored:
                index(IndexRequest(run, scored, redo), storage=storage, solr=solr, report=report)
            raise
        return asdict(index(IndexRequest(run, numbers, redo), storage=storage, solr=solr, report=report))

    return blocks


def named_groups(run: str, groups: Iterable[Iterable[int]], storage: Storage) -> list[dict[str, Any]]:
    """Return groups of a run's blocks, ``{"run": ..., "blocks": [3, 17], "name": "shard 0, blocks 3, 17"}`` each."""
    from tinytags_tasks import layout
    from tinytags_tasks.records import Corpus, Run

    corpus = Run.load(storage, layout.run_file(run)).corpus
    partition = Corpus.load(storage, layout.corpus_file(corpus)).partition
    return [{"run": run, "blocks": blocks, "name": partition.name_blocks(blocks)} for blocks in map(list, groups)]


def tell_asset(asset: Any, **figures: Any) -> None:  # noqa: ANN401 - Airflow's asset, and whatever JSON holds
    """Attach figures to what the task tells of an asset among its outlets."""
    get_current_context()["outlet_events"][asset].extra = figures
