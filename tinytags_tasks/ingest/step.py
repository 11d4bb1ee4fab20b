"""The ingestion step: a corpus' source in, verified shards out. Airflow runs its three parts as tasks of their own."""

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
    """Put every image of a corpus' source into the store's shards, doing only what is not committed.

    Parameters
    ----------
    definition
        The corpus.
    storage
        Where it goes.
    files
        The source's files; None opens those of this machine, or of an address that needs no settings.
    redo
        Shards that are written again even where they stand.
    report
        Gets a line now and then.

    Raises
    ------
    BadInputError
        When the source cannot be used, or is another one than the corpus was made from.
    TransientError
        When the store or a remote source cannot do its part now.
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
