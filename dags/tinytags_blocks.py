"""The mapped task that embeds, scores and indexes a group of blocks; three Dags use it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from airflow.sdk import get_current_context, task
from tinytags_airflow import PRIORITY_OF_BLOCKS, errors_for_airflow, pool, report, runtime
from tinytags_metrics import measured_group
from tinytags_waits import NOTE

from tinytags_tasks.airflow_names import SPARK

if TYPE_CHECKING:
    from tinytags_tasks.errors import FinalError
    from tinytags_tasks.index.step import IndexRequest
    from tinytags_tasks.runtime import Runtime
    from tinytags_tasks.store.protocol import Storage


def embed_score_and_index(*, redo: bool = False) -> Any:  # noqa: ANN401 - Airflow's decorator
    """Return the task ``blocks``, to be expanded over the result of :func:`named_groups`.

    One task does all three stages. With a task for each, the scheduler would check in every loop whether each group
    that waits for another may start (ADR 15). A retry embeds, too, so that embeddings which scoring found to be lost or
    damaged are made again.

    Parameters
    ----------
    redo
        Whether to index verified blocks again. Blocks with a valid scored file are never scored again.
    """

    @task(
        map_index_template="{{ name }}" + NOTE,
        pool=pool(SPARK),
        priority_weight=PRIORITY_OF_BLOCKS,
        doc_md="Embed the group's blocks if the model sees a net's embeddings, score them, index what was scored, and "
        "verify each block by its checksum. Committed work is not repeated, so clearing the task does only the rest.",
    )
    @errors_for_airflow
    def blocks(group: dict[str, Any]) -> dict[str, Any]:
        run, numbers = group["run"], tuple(group["blocks"])
        context = get_current_context()
        context["name"] = group["name"]
        clients = runtime()
        with measured_group(context, run, numbers, clients.storage):
            return _embed_score_and_index(run, numbers, clients, redo=redo)

    return blocks


def _embed_score_and_index(run: str, numbers: tuple[int, ...], clients: Runtime, *, redo: bool) -> dict[str, Any]:
    from tinytags_tasks.errors import FinalError
    from tinytags_tasks.index.step import IndexRequest, index_blocks
    from tinytags_tasks.score.step import ScoreRequest, score_blocks
    from tinytags_tasks.score.worker import unsettled_blocks

    storage, solr = clients.storage, clients.solr
    embedded, failure = _embed(run, numbers, clients)
    try:
        score_blocks(
            ScoreRequest(run, embedded),
            storage=storage,
            address=clients.store_address,
            connect_spark=clients.connect_spark,
            report=report,
        )
    except FinalError as error:
        failure = error
    if failure is None:
        return _index(IndexRequest(run, numbers, redo), clients)
    # There will be no retry, so index what was scored now.
    failed = set(unsettled_blocks(run, numbers, storage))
    if scored := tuple(block for block in numbers if block not in failed):
        index_blocks(IndexRequest(run, scored, redo), storage=storage, solr=solr, report=report)
    raise failure


def _index(request: IndexRequest, clients: Runtime) -> dict[str, Any]:
    """Index blocks that were scored a moment ago."""
    from tinytags_tasks.errors import MissingError, OtherWriterError
    from tinytags_tasks.index.step import index_blocks
    from tinytags_tasks.score.worker import unsettled_blocks

    try:
        return asdict(index_blocks(request, storage=clients.storage, solr=clients.solr, report=report))
    except MissingError as error:
        if unsettled_blocks(request.run, request.blocks, clients.storage):  # a backfill deleted a damaged scored file
            raise OtherWriterError(f"{error}; another writer is redoing it") from error
        raise


def _embed(run: str, numbers: tuple[int, ...], clients: Runtime) -> tuple[tuple[int, ...], FinalError | None]:
    """Embed what scoring reads; return the blocks that can be scored, and why the others cannot.

    If all can be scored, there is no reason: None.
    """
    from tinytags_tasks.embed.step import EmbedRequest, embed_blocks
    from tinytags_tasks.errors import FinalError, TransientError, WaitError
    from tinytags_tasks.score.step import ScoreRequest, needed_embeddings
    from tinytags_tasks.score.unembedded import record_unembedded
    from tinytags_tasks.store.run_identity import load_run

    storage = clients.storage
    net, needed = needed_embeddings(ScoreRequest(run, numbers), storage=storage)
    if not needed:
        return numbers, None
    try:
        embed_blocks(
            EmbedRequest(load_run(run, storage).corpus, net, needed),
            storage=storage,
            address=clients.store_address,
            connect_spark=clients.connect_spark,
            report=report,
            providers=clients.onnx_providers,
        )
    except WaitError:  # nothing has failed
        raise
    except (FinalError, TransientError) as error:
        failed = record_unembedded(run, needed, str(error), storage=storage, report=report)
        if isinstance(error, TransientError):
            raise
        return tuple(block for block in numbers if block not in failed), error
    return numbers, None


def most_groups() -> int:
    """Return how many mapped tasks Airflow creates of one result at most; a longer result fails the task it is of."""
    from airflow.sdk.configuration import conf

    return max(1, int(conf.getint("core", "max_map_length", fallback=1024)))


def named_groups(run: str, groups: Iterable[Iterable[int]], storage: Storage) -> list[dict[str, Any]]:
    """Return groups of a run's blocks, ``{"run": ..., "blocks": [3, 17], "name": "shard 0, blocks 3, 17"}`` each."""
    from tinytags_tasks.store import layout
    from tinytags_tasks.store.corpus_records import Corpus
    from tinytags_tasks.store.run_records import Run

    corpus = Run.load(storage, layout.run_file(run)).corpus
    partition = Corpus.load(storage, layout.corpus_file(corpus)).partition
    return [{"run": run, "blocks": blocks, "name": partition.name_blocks(blocks)} for blocks in map(list, groups)]
