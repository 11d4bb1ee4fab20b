"""Rolling back: readers get what was live before, when it still stands whole."""

from collections.abc import Callable
from dataclasses import dataclass

from tinytags_tasks.blocks import format_block_numbers
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
from tinytags_tasks.store import layout
from tinytags_tasks.store.ledger import read_ledger
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.store.run_records import Change, Publication, Run


@dataclass(frozen=True)
class RollbackRequest:
    """What shall be live no more.

    Attributes
    ----------
    alias
        What readers search.
    run
        The run to take back; asking again when that is done changes nothing, so a task names it. Empty takes back
        whatever is live, one step further each time.
    """

    alias: str = "tinytags"
    run: str = ""


@dataclass(frozen=True)
class RollbackResult:
    """The run that is live now, its collection and documents, and the collection that was taken back."""

    run: str
    collection: str
    documents: int
    taken_back: str


def roll_back(
    request: RollbackRequest, *, storage: Storage, solr: SolrClient, report: Callable[[str], None] = print
) -> RollbackResult:
    """Let the alias point at what was live before, when that still stands whole.

    Raises
    ------
    BadInputError
        When the run to take back is not live.
    MissingError
        When nothing was live before, or its collection was dropped.
    FinalError
        When what was live before is no run of this store.
    ReconcileError
        When its documents are not as many as its ledger says; the alias is left alone.
    TransientError
        When another changes the alias all the time, or it did not move.
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
                    f"alias {request.alias}: nothing is known to have been live before {live}; publish another run "
                    "with `tinytags publish RUN`"
                )
            documents = _count_whole(target, storage, solr)
            switch_alias(request.alias, target, solr)
            done = record_change(Change.ROLLED_BACK, target, live, alias=request.alias, storage=storage)
        else:
            report("it was rolled back before, and is written down now")
            documents = solr.count(live)
    report(f"alias {request.alias} points at {done.collection} again, no more at {done.previous}")
    return RollbackResult(done.run, done.collection, documents, done.previous)


def _rolled_back_already(
    request: RollbackRequest, history: list[Publication], written: int, storage: Storage
) -> Publication | None:
    """Return the change that did what is asked for; None when it is still to do.

    Parameters
    ----------
    request
        What is asked for.
    history
        The whole history, with the change that was not written down.
    written
        How many changes were.
    """
    last = history[-1]
    if not request.run:  # whoever was killed after the switch is taken to ask again
        return last if last.change is Change.ROLLED_BACK and len(history) > written else None
    unwanted = Run.load(storage, layout.run_file(request.run)).collection
    if last.collection == unwanted:
        return None
    if last.change is Change.ROLLED_BACK and last.previous == unwanted:
        return last
    raise BadInputError(
        f"run {request.run} is not live under alias {request.alias}, {last.run or last.collection} is: there is "
        "nothing to take back"
    )


def _count_whole(collection: str, storage: Storage, solr: SolrClient) -> int:
    """Return the documents of a collection that stands whole: each block has as many as the ledger says."""
    run = run_of(collection, storage)
    if run is None:
        raise FinalError(
            f"collection {collection} was live before, but is no run's of this store, so nothing tells whether it is "
            "whole: publish a run with `tinytags publish RUN`"
        )
    if collection not in solr.collections():
        run.refuse_pruned()
        raise MissingError(
            f"run {run.name} was live before, but its collection {collection} is gone: index the run again "
            f"with `tinytags index {run.name}`, then `tinytags publish {run.name}`"
        )
    solr.wait_until_settled(collection)
    records = read_ledger(storage, run)
    counts, documents = solr.count_by_block(collection), solr.count(collection)
    wrong = [record.block for record in records if record.kept != counts.get(record.block, 0)]
    kept = sum(record.kept for record in records)
    if wrong or documents != kept:
        blocks = f", blocks {format_block_numbers(wrong)} differ" if wrong else ""
        raise ReconcileError(
            f"run {run.name} was live before, but is not whole: Solr holds {documents:,} documents, the ledger says "
            f"{kept:,}{blocks}; repair it with `tinytags audit {run.name} --repair`, then roll back"
        )
    unmark_pruned(run, storage)
    return documents
