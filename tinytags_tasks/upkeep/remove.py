"""Removing a model or a run that a person names; refused while it is live or needed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from tinytags_tasks.clients.solr import SolrClient
from tinytags_tasks.errors import BadInputError, TransientError
from tinytags_tasks.publish.live import lock_alias
from tinytags_tasks.store import layout
from tinytags_tasks.store.lease import Leases
from tinytags_tasks.store.ledger import list_runs
from tinytags_tasks.store.models import find_version
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.store.run_records import Removal, Run
from tinytags_tasks.upkeep.prune import Prunable, PruneRequest, drop_run, reason_to_keep, reasons_to_keep
from tinytags_tasks.upkeep.removals import delete_moved, move_away, move_back, sole_remover

_NAMED = 5
"""How many of the runs that need a model an error names."""


@dataclass(frozen=True)
class RunRemoval:
    """Which run to remove.

    Attributes
    ----------
    run
        Its name.
    alias, keep
        As in :class:`~tinytags_tasks.upkeep.prune.PruneRequest`: collections that rollbacks lead to are kept.
    by
        Who removes it.
    """

    run: str
    alias: str
    keep: int
    by: str


def plan_run_removal(request: RunRemoval, *, storage: Storage, solr: SolrClient) -> Prunable:
    """Return what would be removed with a run, without changing anything.

    Raises
    ------
    MissingError
        If there is no such run.
    BadInputError
        If it is live, a rollback leads to it, or somebody is writing it.
    """
    run = Run.load(storage, layout.run_file(request.run))
    configset_of = solr.configsets()
    reasons = reasons_to_keep(PruneRequest(request.alias, request.keep), (), storage, solr)
    if reason := reason_to_keep(run, reasons, configset_of, storage):
        raise BadInputError(f"run {run.name} cannot be removed: its collection {run.collection} {_remedied(reason)}")
    exists = run.collection in configset_of
    scored_bytes = sum(storage.sizes(layout.scored_folder(run.name)).values())
    return Prunable(
        run.name, run.collection if exists else "", solr.count(run.collection) if exists else 0, scored_bytes
    )


def _remedied(reason: str) -> str:
    """Return a reason with what a person can do about it."""
    if reason.startswith("is live"):
        return f"{reason}; publish another run of the corpus, or take it out with `tinytags unpublish`"
    if "rollback" in reason:
        return f"{reason}; --keep 0 gives that up"
    return reason


def remove_run(
    request: RunRemoval, *, storage: Storage, solr: SolrClient, report: Callable[[str], None] = print
) -> Removal:
    """Drop a run's collection, and remove the run with its scored files, ledger and audits.

    If a process was killed that removed the same run, its work is ended. What people said of the corpus' pictures
    stays, and so do the embeddings, which `tinytags prune` drops once nobody needs them.

    Raises
    ------
    MissingError, BadInputError
        As :func:`plan_run_removal` does.
    TransientError
        If another process holds the alias for too long, or Solr cannot drop the collection at the moment.
    """
    folder = layout.run_folder(request.run)
    with lock_alias(request.alias, storage, report), sole_remover(storage, report) as done:
        if (begun := _of(folder, done)) and not storage.exists(folder):
            return begun
        drop_run(replace(plan_run_removal(request, storage=storage, solr=solr), scored_bytes=0), storage, solr)
        move_away(folder, request.by, storage)
        return delete_moved(folder, storage)


def plan_model_removal(beginning: str, *, storage: Storage) -> str:
    """Return the version of the model that would be removed, without changing anything.

    Raises
    ------
    MissingError
        If there is no such model.
    BadInputError
        If several versions begin like this, or a run needs the model.
    CorruptError
        If a run's record cannot be read, so that nobody knows which model it needs.
    """
    version = find_version(storage, beginning)
    if needed_by := _runs_of(version, storage):
        more = f" and {len(needed_by) - _NAMED:,} more" if len(needed_by) > _NAMED else ""
        raise BadInputError(
            f"model {version} cannot be removed: it made run {', '.join(needed_by[:_NAMED])}{more}; remove "
            f"{'these' if len(needed_by) > 1 else 'that'} first with `tinytags runs remove`"
        )
    return version


def remove_model(version: str, by: str, *, storage: Storage, report: Callable[[str], None] = print) -> Removal:
    """Remove a model with its card and report; training or importing the same again restores it.

    If a process was killed that removed the same model, its work is ended.

    Raises
    ------
    MissingError, BadInputError, CorruptError
        As :func:`plan_model_removal` does.
    TransientError
        If somebody is publishing the model.
    """
    folder = layout.model_folder(version)
    with sole_remover(storage, report) as done:
        if (begun := _of(folder, done)) and not storage.exists(folder):
            return begun
        leases, lease = Leases(storage), layout.model_lease_file(plan_model_removal(version, storage=storage))
        with leases.hold(lease) as is_ours:
            if not is_ours:
                raise TransientError(f"model {version} is being published by {leases.describe(lease)}; try again")
            move_away(folder, by, storage)
            if _runs_of(version, storage):  # planned since we looked
                move_back(folder, storage)
                plan_model_removal(version, storage=storage)
            return delete_moved(folder, storage)


def _of(folder: str, removals: Sequence[Removal]) -> Removal | None:
    return next((removal for removal in removals if removal.folder == folder), None)


def _runs_of(version: str, storage: Storage) -> list[str]:
    return [run.name for run in list_runs(storage) if run.model == version]
