"""Rolling back: readers get what was live of a corpus before, if its documents are still what was scored."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from tinytags_tasks.clients.solr import SolrClient
from tinytags_tasks.errors import BadInputError, FinalError, MissingError, OtherWriterError, ReconcileError
from tinytags_tasks.publish.corrections import apply_after_switch, apply_before_switch, compare_corrected
from tinytags_tasks.publish.live import (
    live_collections,
    lock_alias,
    refuse_several,
    run_of,
    unmark_pruned,
)
from tinytags_tasks.publish.publications import (
    as_plan,
    complete_history,
    live_by_corpus,
    of_corpus,
    previous_publications,
    read_history,
    record_missing_change,
)
from tinytags_tasks.publish.reconciliation import RunState, document_problems, refuse_changed
from tinytags_tasks.publish.replacement import Replacement, describe_beside
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
        is live of the corpus, one step further each time; the same run with the thresholds that it had before is a step
        of its own. A corpus that was taken out of the alias comes back.
    corpus
        The corpus; empty if the run tells, or only one was ever live under the alias.
    was_taken_out
        Whether only a corpus that was taken out is to come back, so that repeating this changes nothing either.
    """

    alias: str = "tinytags"
    run: str = ""
    corpus: str = ""
    was_taken_out: bool = False


@dataclass(frozen=True)
class RollbackResult:
    """What is live of the corpus now.

    Attributes
    ----------
    run, collection, documents
        The run that is live now, its collection, and how many documents that has.
    taken_back
        The collection that was rolled back; empty if the corpus had been taken out of the alias.
    corpus
        The corpus.
    beside
        What else is live under the alias: other corpora's collections.
    """

    run: str
    collection: str
    documents: int
    taken_back: str
    corpus: str = ""
    beside: tuple[str, ...] = ()


def name_rollback(request: RollbackRequest, *, storage: Storage, solr: SolrClient) -> RollbackRequest:
    """Return a request that may be repeated: it names the run, or the corpus that was taken out and is to come back.

    Raises
    ------
    BadInputError
        If no corpus is named, and several were live.
    MissingError
        If nothing under the alias is of a run of this store, or the record of the corpus' live run is lost.
    """
    if request.run:
        return request
    live = live_collections(request.alias, solr)
    history = complete_history(request.alias, read_history(request.alias, storage), live, storage)
    corpus = _corpus_of(request, history, storage)
    own = live_by_corpus(live, history, storage).get(corpus, ())
    if not own:
        return replace(request, corpus=corpus, was_taken_out=True)
    run = run_of(own[-1], storage)
    if run is None:
        raise MissingError(
            f"{own[-1]} is live of corpus {corpus}, but the record of its run is lost: roll back with "
            f"`tinytags rollback --corpus {corpus}`"
        )
    return replace(request, run=run.name, corpus=corpus)


def roll_back(
    request: RollbackRequest, *, storage: Storage, solr: SolrClient, report: Callable[[str], None] = print
) -> RollbackResult:
    """Let the alias point at what was live of a corpus before, if its documents are still what was scored.

    What other corpora have live stays.

    Raises
    ------
    BadInputError
        If the run to roll back is not live or is of another corpus; or no corpus is named, and several were live.
    MissingError
        If nothing of the corpus was live before, or its collection was dropped.
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
        history = record_missing_change(request.alias, present.recorded, present.live, storage)
        done = present.done
        change = present.change
        if done is None:
            target = present.target
            if compared is None or target is None or (present.change.own, target) != (step.change.own, step.target):
                other = step.target.collection if step.target else ", ".join(step.change.own)
                raise OtherWriterError(
                    f"alias {request.alias} was moved to {', '.join(present.change.own) or 'nothing'} while {other} "
                    "was compared with what was scored; roll back again"
                )
            refuse_changed(compared.run, compared.state, storage, solr)
            refuse_shown_again(compared.run, storage)
            apply_before_switch(compared.run, storage=storage, solr=solr, report=report)
            unmark_pruned(compared.run, storage)
            change = replace(change, collection=target.collection)
            history = change.make(Change.ROLLED_BACK, target, history, storage, solr, report)
            done = of_corpus(change.corpus, history)[-1]
        else:
            report("it was rolled back before; the change is recorded now")
    if run := run_of(done.collection, storage):
        apply_after_switch(run, storage=storage, solr=solr, report=report)
    documents = solr.count(done.collection)
    if done.collection == done.previous:
        report(f"alias {request.alias} still points at {done.collection}, with the thresholds that it had before")
    else:
        left = f", and no longer at {done.previous}" if done.previous else ""
        report(f"alias {request.alias} points at {done.collection} again{left}")
    for line in describe_beside(request.alias, change.beside, history, storage):
        report(line)
    return RollbackResult(
        done.run, done.collection, documents, done.previous, corpus=change.corpus, beside=change.beside
    )


@dataclass(frozen=True)
class _Step:
    """What a rollback is to do, as its alias is now.

    Attributes
    ----------
    live
        The live collections.
    recorded
        The recorded changes of the alias.
    change
        The corpus, and what is live of it.
    done
        The change that already did what is requested; None if it is still to be done.
    target
        What to go back to: a collection and its thresholds; None if that is done.
    """

    live: tuple[str, ...]
    recorded: list[Publication]
    change: Replacement
    done: Publication | None
    target: NextPublication | None


@dataclass(frozen=True)
class _Compared:
    """A run whose documents are what was scored, and its state before they were compared."""

    run: Run
    state: RunState


def _next_step(request: RollbackRequest, storage: Storage, solr: SolrClient) -> _Step:
    """Return what is to do; nothing is written."""
    live = live_collections(request.alias, solr)
    recorded = read_history(request.alias, storage)
    if not (live or recorded):
        raise MissingError(f"alias {request.alias} points at nothing: publish a run with `tinytags publish RUN`")
    complete = complete_history(request.alias, recorded, live, storage)
    corpus = _corpus_of(request, complete, storage)
    history = of_corpus(corpus, complete)
    own = live_by_corpus(live, recorded, storage).get(corpus, ())
    if not (own or (history and history[-1].change is Change.UNPUBLISHED)):
        what = f"nothing of corpus {corpus}" if live else "nothing"
        # Without an alias, nothing tells that `unpublish` was killed after its switch, and not somebody else's command.
        ended = (
            f"; if it was being taken out, `tinytags unpublish {corpus}` finishes that, and then roll back again"
            if history
            else ""
        )
        raise MissingError(f"alias {request.alias} points at {what}: publish a run with `tinytags publish RUN`{ended}")
    done = _rolled_back_already(request, history, len(of_corpus(corpus, recorded)), storage)
    earlier = [as_plan(each) for each in previous_publications(history)]
    if request.run:  # other thresholds of the same run would leave the run that is named live
        earlier = [each for each in earlier if each.collection not in own]
    target = None if done else next(iter(earlier), None)
    if not (done or target):
        raise MissingError(
            f"alias {request.alias}: nothing of corpus {corpus} is recorded as live before {', '.join(own)}; publish "
            f"another run with `tinytags publish RUN`, or take the corpus out with `tinytags unpublish {corpus}`"
        )
    change = Replacement(request.alias, corpus, live, own, target.collection if target else "")
    return _Step(live, recorded, change, done, target)


def _corpus_of(request: RollbackRequest, history: list[Publication], storage: Storage) -> str:
    """Return the corpus that is rolled back: that of the run, else the named one, else the only one of the alias."""
    run = Run.load(storage, layout.run_file(request.run)) if request.run else None
    if run and request.corpus not in ("", run.corpus):
        raise BadInputError(f"run {run.name} is of corpus {run.corpus}, not of {request.corpus}: name one of the two")
    if run or request.corpus:
        return run.corpus if run else request.corpus
    corpora = sorted({record.corpus for record in history if record.corpus})
    refuse_several(request.alias, corpora)
    if not corpora:
        raise MissingError(
            f"nothing under alias {request.alias} is of a run of this store: there is nothing to roll back"
        )
    return corpora[0]


def _rolled_back_already(
    request: RollbackRequest, history: list[Publication], recorded: int, storage: Storage
) -> Publication | None:
    """Return the change that already did what is requested; None if it is still to be done.

    Parameters
    ----------
    request
        What is requested.
    history
        The corpus' complete history, including a change that was not recorded.
    recorded
        How many of its changes were recorded.
    """
    last = history[-1]
    if request.was_taken_out and last.change is not Change.UNPUBLISHED:
        if last.change is Change.ROLLED_BACK:
            return last
        raise BadInputError(f"corpus {last.corpus} is live again under alias {request.alias}: it was published since")
    if not request.run:  # a process that was killed after the switch asks again
        return last if last.change is Change.ROLLED_BACK and len(history) > recorded else None
    unwanted = Run.load(storage, layout.run_file(request.run)).collection
    if last.collection == unwanted:
        return None
    if last.change is Change.ROLLED_BACK and last.previous == unwanted:
        return last
    raise BadInputError(
        f"run {request.run} is not live under alias {request.alias}, {last.run or last.collection or 'nothing'} is: "
        "there is nothing to roll back"
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
