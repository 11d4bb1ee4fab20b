"""Rolling back: readers get what was live before, if its documents are still what was scored."""

from collections.abc import Callable
from dataclasses import dataclass

from tinytags_tasks.clients.solr import SolrClient
from tinytags_tasks.errors import BadInputError, FinalError, MissingError, ReconcileError, TransientError
from tinytags_tasks.publish.corrections import apply_after_switch, apply_before_switch, compare_corrected
from tinytags_tasks.publish.publications import (
    as_plan,
    complete_history,
    live_collection,
    lock_alias,
    plan_change,
    previous_publications,
    read_history,
    record_change,
    record_missing_change,
    run_of,
    switch_alias,
    unmark_pruned,
)
from tinytags_tasks.publish.reconciliation import RunState, document_problems, refuse_changed
from tinytags_tasks.review.carry import refuse_shown_again
from tinytags_tasks.store import layout
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.store.run_records import Change, NextPublication, Publication, Run


@dataclass(frozen=True)
class RollbackRequest:
    """What to roll back.

    Attributes
    ----------
    alias
        What readers search.
    run
        The run to roll back. Repeating the request changes nothing, so a task names the run. Empty rolls back whatever
        is live, one step further each time; the same run with the thresholds that it had before is a step of its own.
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
        If what was live before does not belong to a run of this store, people's words cannot be applied to it, or it
        shows what was taken down of another version of its corpus.
    ReconcileError
        If its documents are not what was scored; the alias is left alone.
    TransientError
        If another process holds the alias for too long, moves it, or writes the run that was live before; or the alias
        did not move.
    """
    step = _next_step(request, storage, solr)
    compared = _compare(step.target.collection, storage, solr, report) if step.target else None
    with lock_alias(request.alias, storage, report):  # only now: the comparison may take minutes
        present = _next_step(request, storage, solr)
        record_missing_change(request.alias, present.recorded, present.live, storage)
        done = present.done
        if done is None:
            target = present.target
            if compared is None or target is None or (present.live, target) != (step.live, step.target):
                other = step.target.collection if step.target else step.live
                raise TransientError(
                    f"alias {request.alias} was moved to {present.live} while {other} was compared with what was "
                    "scored; roll back again"
                )
            refuse_changed(compared.run, compared.state, storage, solr)
            refuse_shown_again(compared.run, storage)
            apply_before_switch(compared.run, storage=storage, solr=solr, report=report)
            unmark_pruned(compared.run, storage)
            plan_change(target, alias=request.alias, storage=storage)
            if target.collection != present.live:
                switch_alias(request.alias, target.collection, solr)
            done = record_change(
                Change.ROLLED_BACK, target.collection, present.live, alias=request.alias, storage=storage, plan=target
            )
        else:
            report("it was rolled back before; the change is recorded now")
    if run := run_of(done.collection, storage):
        apply_after_switch(run, storage=storage, solr=solr, report=report)
    documents = solr.count(done.collection)
    if done.collection == done.previous:
        report(f"alias {request.alias} still points at {done.collection}, with the thresholds that it had before")
    else:
        report(f"alias {request.alias} points at {done.collection} again, and no longer at {done.previous}")
    return RollbackResult(done.run, done.collection, documents, done.previous)


@dataclass(frozen=True)
class _Step:
    """What a rollback is to do, as its alias is now.

    Attributes
    ----------
    live
        The live collection.
    recorded
        The recorded changes of the alias.
    done
        The change that already did what is requested; None if it is still to be done.
    target
        What to go back to: a collection and its thresholds; None if that is done.
    """

    live: str
    recorded: list[Publication]
    done: Publication | None
    target: NextPublication | None


@dataclass(frozen=True)
class _Compared:
    """A run whose documents are what was scored, and its state before they were compared."""

    run: Run
    state: RunState


def _next_step(request: RollbackRequest, storage: Storage, solr: SolrClient) -> _Step:
    """Return what is to do; nothing is written."""
    live = live_collection(request.alias, solr)
    if not live:
        raise MissingError(f"alias {request.alias} points at nothing: publish a run with `tinytags publish RUN`")
    recorded = read_history(request.alias, storage)
    history = complete_history(request.alias, recorded, live, storage)
    done = _rolled_back_already(request, history, len(recorded), storage)
    earlier = [as_plan(each) for each in previous_publications(history)]
    if request.run:  # other thresholds of the same run would leave the run that is named live
        earlier = [each for each in earlier if each.collection != live]
    target = None if done else next(iter(earlier), None)
    if not (done or target):
        raise MissingError(
            f"alias {request.alias}: nothing is recorded as live before {live}; publish another run with "
            "`tinytags publish RUN`"
        )
    return _Step(live, recorded, done, target)


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


def _compare(collection: str, storage: Storage, solr: SolrClient, report: Callable[[str], None]) -> _Compared:
    """Compare a collection with what was scored."""
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

    refuse_shown_again(run, storage)

    def compare() -> None:
        if problems := document_problems(run, storage, solr, report):
            raise ReconcileError(
                f"cannot roll back to run {run.name}: {'; '.join(problems)}; then roll back again, or publish another "
                "run with `tinytags publish RUN`"
            )

    state, _ = compare_corrected(run, compare, storage=storage, solr=solr, report=report)
    return _Compared(run, state)
