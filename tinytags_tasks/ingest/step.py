"""The ingestion step: turns a corpus' source into verified shards. Airflow runs its three parts as separate tasks."""

from collections.abc import Callable
from dataclasses import replace

from tinytags_tasks.corpus.definition import CorpusDefinition
from tinytags_tasks.corpus.sources.files import SourceFiles
from tinytags_tasks.errors import MissingError
from tinytags_tasks.ingest import commit, plan, shards
from tinytags_tasks.ingest.commit import CommitResult
from tinytags_tasks.store.protocol import Storage


def ingest_corpus(
    definition: CorpusDefinition,
    *,
    storage: Storage,
    files: SourceFiles | None = None,
    redo: tuple[int, ...] = (),
    grow: bool = False,
    least_new: int = 1,
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
    grow
        Whether images that are new in the source are appended to a corpus that is complete.
    least_new
        How many images must be new so that they are appended.
    report
        Called with a line of progress every now and then.

    Raises
    ------
    BadInputError
        If the source cannot be used, or differs from the one that the corpus was made from; with ``grow``, new files
        make no difference.
    MissingError
        If the corpus is to grow, and the source is away.
    TransientError
        If the store or a remote source is unavailable.
    """
    files = files or SourceFiles(definition.source, definition.options)
    request = plan.PlanRequest(definition, redo=redo, grow=grow, least_new=least_new)
    planned = plan.plan_ingestion(request, storage=storage, files=files, report=report)
    committed = _write(planned, redo, storage, files, report)
    if grow and planned.untaken >= least_new:  # what was begun before had to be completed first
        planned = plan.plan_ingestion(request, storage=storage, files=files, report=report)
        again = _write(planned, (), storage, files, report)
        committed = replace(again, new_images=committed.new_images + again.new_images)
    if grow and committed.awaited_images:
        raise MissingError(
            f"corpus {definition.name} is to grow by {committed.awaited_images:,} images that are not in the store "
            f"yet; once {files.address} can be read, continue with `tinytags corpus grow {definition.name}`"
        )
    return committed


def _write(
    planned: plan.PlanResult,
    redo: tuple[int, ...],
    storage: Storage,
    files: SourceFiles,
    report: Callable[[str], None],
) -> CommitResult:
    """Write the planned shards, and commit the corpus."""
    todo = tuple(shard for group in planned.groups for shard in group)
    again = tuple(shard for shard in todo if shard in redo)
    for request in (
        shards.ShardsRequest(planned.corpus, tuple(shard for shard in todo if shard not in redo)),
        shards.ShardsRequest(planned.corpus, again, redo=True),
    ):
        if request.shards:
            shards.ingest_shards(request, storage=storage, files=files, report=report)
    return commit.commit_corpus(planned.corpus, storage=storage, report=report)
