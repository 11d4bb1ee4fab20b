"""The mapped task that scores and indexes a group of blocks; three Dags use it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from airflow.sdk import get_current_context, task
from tinytags_airflow import PRIORITY_OF_BLOCKS, errors_for_airflow, pool, report, runtime

from tinytags_tasks.airflow_names import SPARK

if TYPE_CHECKING:
    from tinytags_tasks.storage import Storage


def score_and_index(*, redo: bool = False) -> Any:  # noqa: ANN401 - Airflow's decorator
    """Return the task ``blocks``, to be expanded over the result of :func:`named_groups`.

    One task does both stages. With two tasks, the scheduler would check in every loop whether each group that waits to
    be indexed may start (ADR 15).

    Parameters
    ----------
    redo
        Whether to index verified blocks again. Blocks with a valid scored file are never scored again.
    """

    @task(
        map_index_template="{{ name }}",
        pool=pool(SPARK),
        priority_weight=PRIORITY_OF_BLOCKS,
        doc_md="Score the group's blocks, index what was scored, and verify each block by its checksum. "
        "Committed work is not repeated, so clearing the task does only the rest.",
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
        except FinalError:  # there will be no retry, so index what was scored now
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
