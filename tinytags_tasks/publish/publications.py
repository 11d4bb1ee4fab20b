"""What became live under an alias, and when: a history that only grows, beside the alias in Solr that decides.

The alias is switched first and the change written down after it, so a kill in between leaves the history one change
behind. Whoever changes the alias next finds that and writes the missing change down before their own.
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
from tinytags_tasks.store.run_records import Change, Publication, Run

WAIT_SECONDS = 300.0
"""How long a change of an alias waits for another one; the lease of a dead one is taken over sooner."""

_POLL_SECONDS = 0.5
_READERS = 8


@contextmanager
def lock_alias(
    alias: str, storage: Storage, report: Callable[[str], None], *, wait_seconds: float = WAIT_SECONDS
) -> Generator[None]:
    """Let nobody else publish, roll back or prune under this alias while the block runs.

    Raises
    ------
    TransientError
        When another was at it all the time.
    """
    leases, path = Leases(storage), layout.alias_lease_file(alias)
    deadline = time.monotonic() + wait_seconds
    told = ""
    while True:
        with leases.hold(path) as is_ours:
            if is_ours:
                yield
                return
        owner = leases.describe(path)
        if time.monotonic() > deadline:
            raise TransientError(
                f"alias {alias} is being changed by {owner}, longer than {wait_seconds:g} s: try again"
            )
        if owner != told:
            report(f"alias {alias} is being changed by {owner}: waiting for it")
            told = owner
        time.sleep(_POLL_SECONDS)


def live_collection(alias: str, solr: SolrClient) -> str:
    """Return what an alias points at; empty when there is no such alias."""
    return solr.aliases().get(alias, "")


def switch_alias(alias: str, collection: str, solr: SolrClient) -> None:
    """Let an alias point at a collection, in one step, and see that it does.

    Raises
    ------
    TransientError
        When it does not.
    """
    solr.set_alias(alias, collection)
    if live_collection(alias, solr) != collection:
        raise TransientError(f"alias {alias} does not point at {collection} after it was moved there")


def run_of(collection: str, storage: Storage) -> Run | None:
    """Return the run of this store that a collection is of; None when there is none."""
    name = layout.run_of_collection(collection)
    path = layout.run_file(name) if name else ""
    return Run.load(storage, path) if path and storage.exists(path) else None


def live_run(alias: str, storage: Storage, solr: SolrClient) -> Run:
    """Return the run that readers see.

    Raises
    ------
    MissingError
        When nothing is live, or what is live is no run's of this store.
    """
    live = live_collection(alias, solr)
    if not live:
        raise MissingError(f"alias {alias} points at nothing: publish a run with `tinytags publish RUN`")
    run = run_of(live, storage)
    if run is None:
        raise MissingError(f"collection {live} is live under {alias}, but is no run's of this store")
    return run


def refuse_without_collection(run: Run, solr: SolrClient, *, may_be_new: bool = False) -> None:
    """Refuse to go on with a run whose collection is not there.

    Parameters
    ----------
    run
        The run.
    solr
        Who is asked.
    may_be_new
        Whether it may be that nothing was indexed yet; else its collection was there once.

    Raises
    ------
    MissingError
        When it was pruned, dropped otherwise, or not made yet.
    """
    if run.collection in solr.collections():
        return
    run.refuse_pruned()
    problem = (
        f" has no collection yet ({run.collection} is not in Solr): index it"
        if may_be_new
        else f": its collection {run.collection} is gone: index the whole run again"
    )
    raise MissingError(f"run {run.name}{problem} with `tinytags index {run.name}`")


def unmark_pruned(run: Run, storage: Storage) -> None:
    """Take the mark off a run whose collection stands whole: it was made anew, or never dropped for a kill."""
    if run.pruned:
        storage.delete_leftovers(layout.run_file(run.name))
        run.replaced(pruned="").save(storage, layout.run_file(run.name))


def read_history(alias: str, storage: Storage) -> list[Publication]:
    """Return what was written down of an alias, the latest last.

    Raises
    ------
    CorruptError
        When a record is damaged.
    """
    path_of = partial(layout.publication_file, alias)
    paths = [path_of(number) for number in record_numbers(path_of, storage)]
    with ThreadPoolExecutor(_READERS) as pool:
        return list(pool.map(lambda path: Publication.load(storage, path), paths))


def record_change(change: Change, collection: str, previous: str, *, alias: str, storage: Storage) -> Publication:
    """Append a change to an alias' history, and return it; the caller holds the lease on the alias."""
    record = _publication(change, collection, previous, storage)
    append_record(record, partial(layout.publication_file, alias), storage, is_sole_writer=True)
    return record


def with_missing_change(history: Sequence[Publication], live: str, storage: Storage) -> list[Publication]:
    """Return a history with the change that is missing at its end, if one is; nothing is written.

    A switch that nobody wrote down and that leads back to what was live before counts as rolled back.

    Parameters
    ----------
    history
        What was written down.
    live
        What the alias points at; empty when there is no such alias.
    """
    last = history[-1].collection if history else ""
    if live in ("", last):
        return [*history]
    is_back = previous_collections(history)[:1] == [live]
    return [*history, _publication(Change.ROLLED_BACK if is_back else Change.FOUND, live, last, storage)]


def record_missing_change(alias: str, history: Sequence[Publication], live: str, storage: Storage) -> list[Publication]:
    """Write down the change that is missing at a history's end, if one is, and return the history with it."""
    whole = with_missing_change(history, live, storage)
    for missing in whole[len(history) :]:
        record_change(missing.change, missing.collection, missing.previous, alias=alias, storage=storage)
    return whole


def previous_collections(history: Sequence[Publication]) -> list[str]:
    """Return what rolling back leads to, step by step, from a history's last change; each collection once.

    What was taken back is not among them: a second rollback leads further back, not forth again.
    """
    standing: list[str] = []
    for record in history:
        if record.change is Change.ROLLED_BACK and record.collection in standing:
            while standing[-1] != record.collection:
                standing.pop()
        elif standing[-1:] != [record.collection]:
            standing.append(record.collection)
    *earlier, last = standing or [""]
    return [collection for collection in dict.fromkeys(reversed(earlier)) if collection != last]


def _publication(change: Change, collection: str, previous: str, storage: Storage) -> Publication:
    run = run_of(collection, storage)
    return Publication(
        change=change,
        run=run.name if run else "",
        collection=collection,
        previous=previous,
        time=now(),
        host=socket.gethostname(),
    )
