"""The history of an alias: what became live under it, and when. The alias in Solr is decisive; the history follows.

The alias is switched first and the change recorded afterwards, so a crash in between leaves the history one change
behind. The next change of the alias first records the missing one.
"""

import socket
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

from tinytags_tasks.clients.solr import SolrClient
from tinytags_tasks.errors import MissingError, TransientError
from tinytags_tasks.store import layout
from tinytags_tasks.store.lease import Leases
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.store.record import now
from tinytags_tasks.store.record_series import append_record, record_numbers
from tinytags_tasks.store.run_records import Change, NextPublication, Publication, Run

WAIT_SECONDS = 300.0
"""How long a change of an alias waits for another change; the lease of a dead process is taken over sooner."""

_POLL_SECONDS = 0.5
_READERS = 8


@contextmanager
def lock_alias(
    alias: str, storage: Storage, report: Callable[[str], None], *, wait_seconds: float = WAIT_SECONDS
) -> Generator[None]:
    """Hold the right to publish, roll back or prune under an alias while the block runs.

    Raises
    ------
    TransientError
        If another process held it for all that time.
    """
    leases, path = Leases(storage), layout.alias_lease_file(alias)
    deadline = time.monotonic() + wait_seconds
    last_owner = ""
    while True:
        with leases.hold(path) as is_ours:
            if is_ours:
                yield
                return
        owner = leases.describe(path)
        if time.monotonic() > deadline:
            raise TransientError(
                f"alias {alias} has been changed by {owner} for more than {wait_seconds:g} s; try again"
            )
        if owner != last_owner:
            report(f"alias {alias} is being changed by {owner}: waiting for it")
            last_owner = owner
        time.sleep(_POLL_SECONDS)


def live_collection(alias: str, solr: SolrClient) -> str:
    """Return the collection that an alias points at; empty if there is no such alias."""
    return solr.aliases().get(alias, "")


def switch_alias(alias: str, collection: str, solr: SolrClient) -> None:
    """Point an alias at a collection, in one step, and check that it does.

    Raises
    ------
    TransientError
        If it does not.
    """
    solr.set_alias(alias, collection)
    if live_collection(alias, solr) != collection:
        raise TransientError(f"alias {alias} does not point at {collection} after it was moved there")


def run_of(collection: str, storage: Storage) -> Run | None:
    """Return the run that a collection belongs to; None if this store has no such run."""
    name = layout.run_of_collection(collection)
    path = layout.run_file(name) if name else ""
    return Run.load(storage, path) if path and storage.exists(path) else None


def live_run(alias: str, storage: Storage, solr: SolrClient) -> Run:
    """Return the live run.

    Raises
    ------
    MissingError
        If nothing is live, or what is live does not belong to a run of this store.
    """
    live = live_collection(alias, solr)
    if not live:
        raise MissingError(f"alias {alias} points at nothing: publish a run with `tinytags publish RUN`")
    run = run_of(live, storage)
    if run is None:
        raise MissingError(f"collection {live} is live under {alias}, but does not belong to a run of this store")
    return run


def refuse_without_collection(run: Run, solr: SolrClient, *, may_be_new: bool = False) -> None:
    """Refuse to continue with a run whose collection does not exist.

    Parameters
    ----------
    run
        The run.
    solr
        The Solr that should have it.
    may_be_new
        Whether the run may not have been indexed yet; otherwise its collection existed once.

    Raises
    ------
    MissingError
        If it was pruned, deleted otherwise, or not created yet.
    """
    if run.collection in solr.collections():
        return
    run.refuse_pruned()
    problem = (
        f" has no collection yet ({run.collection} is not in Solr): index it"
        if may_be_new
        else f": its collection {run.collection} does not exist; index the whole run again"
    )
    raise MissingError(f"run {run.name}{problem} with `tinytags index {run.name}`")


def unmark_pruned(run: Run, storage: Storage) -> None:
    """Unmark a run whose collection is complete: it was created again, or a crash kept it from being dropped."""
    if run.pruned:
        storage.delete_leftovers(layout.run_file(run.name))
        run.replaced(pruned="").save(storage, layout.run_file(run.name))


def read_history(alias: str, storage: Storage) -> list[Publication]:
    """Return the recorded changes of an alias, the latest last.

    Raises
    ------
    CorruptError
        If a record is damaged.
    """
    path_of = partial(layout.publication_file, alias)
    paths = [path_of(number) for number in record_numbers(path_of, storage)]
    with ThreadPoolExecutor(_READERS) as pool:
        return list(pool.map(lambda path: Publication.load(storage, path), paths))


def plan_change(following: NextPublication, *, alias: str, storage: Storage) -> None:
    """Record what is about to become live; the caller must hold the lease on the alias."""
    path = layout.next_publication_file(alias)
    storage.delete_leftovers(path)
    following.save(storage, path)


def read_plan(alias: str, storage: Storage) -> NextPublication | None:
    """Return what was last about to become live; None if that was never recorded.

    Raises
    ------
    CorruptError
        If its record is damaged.
    """
    try:
        return NextPublication.load(storage, layout.next_publication_file(alias))
    except MissingError:
        return None


def record_change(
    change: Change,
    collection: str,
    previous: str,
    *,
    alias: str,
    storage: Storage,
    plan: NextPublication | None = None,
) -> Publication:
    """Append a change to an alias' history and return it; the caller must hold the lease on the alias.

    Parameters
    ----------
    change, collection, previous
        As in :class:`Publication`.
    alias, storage
        Whose history it is.
    plan
        From which confidence on readers see the collection; None shows every document.
    """
    record = _publication(change, plan or NextPublication(collection=collection), previous, storage)
    append_record(record, partial(layout.publication_file, alias), storage, is_sole_writer=True)
    return record


def with_missing_change(
    history: Sequence[Publication], live: str, storage: Storage, plan: NextPublication | None = None
) -> list[Publication]:
    """Return a history with the change that is missing at its end, if any; nothing is written.

    An unrecorded switch that leads back to what was live before counts as rolled back.

    Parameters
    ----------
    history
        The recorded changes.
    live
        The collection that the alias points at; empty if there is no such alias.
    storage
        The store.
    plan
        What was last about to become live. If it did, its thresholds count; otherwise those with which the collection
        was last live.
    """
    last = history[-1].collection if history else ""
    if live in ("", last):
        return [*history]
    is_back = previous_collections(history)[:1] == [live]
    if plan is None or plan.collection != live:
        before = next((record for record in reversed(history) if record.collection == live), None)
        plan = as_plan(before) if before else NextPublication(collection=live)
    return [*history, _publication(Change.ROLLED_BACK if is_back else Change.FOUND, plan, last, storage)]


def complete_history(alias: str, history: Sequence[Publication], live: str, storage: Storage) -> list[Publication]:
    """Return :func:`with_missing_change` by what was last about to become live, which is read only if it is needed.

    Raises
    ------
    CorruptError
        If it is needed, and its record is damaged.
    """
    is_complete = live in ("", history[-1].collection if history else "")
    return with_missing_change(history, live, storage, None if is_complete else read_plan(alias, storage))


def record_missing_change(alias: str, history: Sequence[Publication], live: str, storage: Storage) -> list[Publication]:
    """Record the change that is missing at a history's end, if any, and return the complete history."""
    complete = complete_history(alias, history, live, storage)
    for missing in complete[len(history) :]:
        append_record(missing, partial(layout.publication_file, alias), storage, is_sole_writer=True)
    return complete


def as_plan(publication: Publication) -> NextPublication:
    """Return what would make a publication live again."""
    return NextPublication(
        collection=publication.collection,
        thresholds=publication.thresholds,
        least_precision=publication.least_precision,
    )


def previous_publications(history: Sequence[Publication]) -> list[Publication]:
    """Return the publications that successive rollbacks lead to, from a history's last change; each of them once.

    The same collection with other thresholds is another publication. Those that were rolled back are left out, so a
    second rollback leads further back, not forward again.
    """
    earlier_live: list[Publication] = []
    for record in history:
        plans = [as_plan(other) for other in earlier_live]
        if record.change is Change.ROLLED_BACK:
            same = [place for place, plan in enumerate(plans) if plan == as_plan(record)]
            alike = [place for place, plan in enumerate(plans) if plan.collection == record.collection]
            earlier_live[(same or alike or [len(plans)])[-1] :] = [record]
        elif not plans or plans[-1] != as_plan(record):
            earlier_live.append(record)
    found: list[Publication] = []
    for record in reversed(earlier_live[:-1]):
        if as_plan(record) not in [as_plan(other) for other in (earlier_live[-1], *found)]:
            found.append(record)
    return found


def previous_collections(history: Sequence[Publication]) -> list[str]:
    """Return the collections that successive rollbacks lead to, from a history's last change; each of them once."""
    last = history[-1].collection if history else ""
    collections = dict.fromkeys(record.collection for record in previous_publications(history))
    return [collection for collection in collections if collection != last]


def _publication(change: Change, following: NextPublication, previous: str, storage: Storage) -> Publication:
    run = run_of(following.collection, storage)
    return Publication(
        change=change,
        run=run.name if run else "",
        collection=following.collection,
        previous=previous,
        time=now(),
        host=socket.gethostname(),
        thresholds=following.thresholds,
        least_precision=following.least_precision,
    )
