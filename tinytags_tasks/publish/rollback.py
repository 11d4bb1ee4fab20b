"""Rolling back: readers get what was live before, if its documents are still what was scored."""

from collections.abc import Callable
from dataclasses import dataclass

from tinytags_tasks.clients.solr import SolrClient
from tinytags_tasks.errors import BadInputError, FinalError, MissingError, ReconcileError
from tinytags_tasks.publish.publications import (
    live_collection,
    lock_alias,
    previous_collections,
    read_history,
    record_change,
    record_missing_change,
    run_of,
    switch_alias,
    unmark_pruned,
    with_missing_change,
)
from tinytags_tasks.publish.reconciliation import compare_documents
from tinytags_tasks.store import layout
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.store.run_records import Change, Publication, Run


@dataclass(frozen=True)
class RollbackRequest:
    """What to roll back.

    Attributes
    ----------
    alias
        What readers search.
    run
        The run to roll back. Repeating the request changes nothing, so a task names the run. Empty rolls back whatever
        is live, one step further each time.
    """

    alias: str = "tinytags"
    run: str = ""


@dataclass(frozen=True)
class RollbackResult:
    """The run that is live now, its collection and documents, and the collection that was rolled back."""

    run: str
    collection: str
    documents: int
    taken_back: str


def roll_back(
    request: RollbackRequest, *, storage: Storage, solr: SolrClient, report: Callable[[str], None] = print
) -> RollbackResult:
    """Let the alias point at what was live before, if its documents are still what was scored.

    Raises
    ------
    BadInputError
        If the run to roll back is not live.
    MissingError
        If nothing was live before, or its collection was dropped.
    FinalError
        If what was live before does not belong to a run of this store.
    ReconcileError
        If its documents are not what was scored; the alias is left alone.
    TransientError
        If another process holds the alias for too long, or the alias did not move.
    """
    with lock_alias(request.alias, storage, report):
        live = live_collection(request.alias, solr)
        if not live:
            raise MissingError(f"alias {request.alias} points at nothing: publish a run with `tinytags publish RUN`")
        history = read_history(request.alias, storage)
        done = _rolled_back_already(request, with_missing_change(history, live, storage), len(history), storage)
        history = record_missing_change(request.alias, history, live, storage)
        if done is None:
            target = next(iter(previous_collections(history)), "")
            if not target:
                raise MissingError(
                    f"alias {request.alias}: nothing is recorded as live before {live}; publish another run "
                    "with `tinytags publish RUN`"
                )
            documents = _compare(target, storage, solr, report)
            switch_alias(request.alias, target, solr)
            done = record_change(Change.ROLLED_BACK, target, live, alias=request.alias, storage=storage)
        else:
            report("it was rolled back before; the change is recorded now")
            documents = solr.count(live)
    report(f"alias {request.alias} points at {done.collection} again, and no longer at {done.previous}")
    return RollbackResult(done.run, done.collection, documents, done.previous)


def _rolled_back_already(
    request: RollbackRequest, history: list[Publication], recorded: int, storage: Storage
) -> Publication | None:
    """Return the change that already did what is requested; None if it is still to be done.

    Parameters
    ----------
    request
        What is requested.
    history
        The complete history, including a change that was not recorded.
    recorded
        How many changes were recorded.
    """
    last = history[-1]
    if not request.run:  # a process that was killed after the switch asks again
        return last if last.change is Change.ROLLED_BACK and len(history) > recorded else None
    unwanted = Run.load(storage, layout.run_file(request.run)).collection
    if last.collection == unwanted:
        return None
    if last.change is Change.ROLLED_BACK and last.previous == unwanted:
        return last
    raise BadInputError(
        f"run {request.run} is not live under alias {request.alias}, {last.run or last.collection} is: there is "
        "nothing to roll back"
    )


def _compare(collection: str, storage: Storage, solr: SolrClient, report: Callable[[str], None]) -> int:
    """Return how many documents a collection has if they are what was scored."""
    run = run_of(collection, storage)
    if run is None:
        raise FinalError(
            f"collection {collection} was live before, but does not belong to a run of this store, so it cannot be "
            "compared with what was scored; publish a run with `tinytags publish RUN`"
        )
    if collection not in solr.collections():
        run.refuse_pruned()
        raise MissingError(
            f"run {run.name} was live before, but its collection {collection} does not exist; index the run again with "
            f"`tinytags index {run.name}`, then `tinytags publish {run.name}`"
        )
    try:
        documents = compare_documents(run, storage, solr, report)
    except ReconcileError as error:
        raise ReconcileError(f"{error}; then roll back again, or publish another run") from error
    unmark_pruned(run, storage)
    return documents
