"""The ingestion step: turns a corpus' source into verified shards. Airflow runs its three parts as separate tasks."""

from collections.abc import Callable

from tinytags_tasks.corpus.definition import CorpusDefinition
from tinytags_tasks.corpus.sources.files import SourceFiles
from tinytags_tasks.ingest import commit, plan, shards
from tinytags_tasks.ingest.commit import CommitResult
from tinytags_tasks.store.protocol import Storage


def ingest_corpus(
    definition: CorpusDefinition,
    *,
    storage: Storage,
    files: SourceFiles | None = None,
    redo: tuple[int, ...] = (),
    report: Callable[[str], None] = print,
) -> CommitResult:
    """Write every image of a corpus' source to the store's shards, except what is committed already.

    Parameters
    ----------
    definition
        The corpus.
    storage
        The store.
    files
        The source's files; None opens them, if they are on this machine or at an address that needs no settings.
    redo
        Shards that are written again even if they are complete.
    report
        Called with a line of progress every now and then.

    Raises
    ------
    BadInputError
        If the source cannot be used, or differs from the one that the corpus was made from.
    TransientError
        If the store or a remote source is unavailable.
    """
    files = files or SourceFiles(definition.source, definition.options)
    planned = plan.plan_ingestion(plan.PlanRequest(definition, redo=redo), storage=storage, files=files, report=report)
    todo = tuple(shard for group in planned.groups for shard in group)
    again = tuple(shard for shard in todo if shard in redo)
    for request in (
        shards.ShardsRequest(definition.name, tuple(shard for shard in todo if shard not in redo)),
        shards.ShardsRequest(definition.name, again, redo=True),
    ):
        if request.shards:
            shards.ingest_shards(request, storage=storage, files=files, report=report)
    return commit.commit_corpus(definition.name, storage=storage, report=report)
