"""What an alias points at: the live collections of all corpora, in one list that is replaced in one step.

A collection of the list that belongs to no run of this store is nobody's to replace: it stays until a person takes it
out.
"""

import time
from collections.abc import Callable, Collection, Generator, Sequence
from contextlib import contextmanager

from tinytags_tasks.clients.solr import SolrClient
from tinytags_tasks.errors import BadInputError, CorruptError, MissingError, OtherWriterError, TransientError
from tinytags_tasks.store import layout
from tinytags_tasks.store.lease import Leases
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.store.run_records import Run

WAIT_SECONDS = 300.0
"""How long a change of an alias waits for another change; the lease of a dead process is taken over sooner."""

_POLL_SECONDS = 0.5


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
            raise OtherWriterError(
                f"alias {alias} has been changed by {owner} for more than {wait_seconds:g} s; try again"
            )
        if owner != last_owner:
            report(f"alias {alias} is being changed by {owner}: waiting for it")
            last_owner = owner
        time.sleep(_POLL_SECONDS)


def collections_of(points_at: str) -> tuple[str, ...]:
    """Return the collections in what Solr says that an alias points at."""
    return tuple(name for name in points_at.split(",") if name)


def live_collections(alias: str, solr: SolrClient) -> tuple[str, ...]:
    """Return the collections that an alias points at; none if there is no such alias."""
    return collections_of(solr.aliases().get(alias, ""))


def switch_alias(alias: str, collections: Sequence[str], solr: SolrClient) -> None:
    """Point an alias at collections, in one step, and check that it does; without any, the alias is deleted.

    Raises
    ------
    TransientError
        If it does not.
    """
    if collections:
        solr.set_alias(alias, ",".join(collections))
    else:
        solr.delete_alias(alias)
    if live_collections(alias, solr) != tuple(collections):
        named = ",".join(collections) or "nothing"
        raise TransientError(f"alias {alias} does not point at {named} after it was moved there")


def put_in_place(
    live: Sequence[str], own: Collection[str], collection: str, solr: SolrClient
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return what an alias is to point at when a corpus' live collections are replaced by another, or by none.

    Parameters
    ----------
    live
        What it points at.
    own
        Those that are replaced.
    collection
        The collection in their place; empty if there is none.
    solr
        Solr, which refuses an alias with a collection that does not exist.

    Returns
    -------
    tuple of str
        What it is to point at.
    tuple of str
        Collections that are left out because Solr does not have them any more.
    """
    others = [name for name in live if name not in own and name != collection]
    known = {*solr.collections(), *solr.aliases()} if others else set()
    gone = tuple(name for name in others if name not in known)
    found = [name for name in live if name in own or (name in others and name not in gone)]
    at = next((place for place, name in enumerate(found) if name in own), len(found))
    before = [name for name in found[:at] if name not in own]
    after = [name for name in found[at:] if name not in own]
    return (*before, *([collection] if collection else []), *after), gone


def run_of(collection: str, storage: Storage) -> Run | None:
    """Return the run that a collection belongs to; None if this store has no such run."""
    name = layout.run_of_collection(collection)
    path = layout.run_file(name) if name else ""
    return Run.load(storage, path) if path and storage.exists(path) else None


def live_runs(
    alias: str,
    storage: Storage,
    solr: SolrClient,
    *,
    corpus: str = "",
    on_damage: Callable[[str], None] | None = None,
) -> list[Run]:
    """Return the live runs of this store, or those of one corpus; only their records are read then.

    Raises
    ------
    CorruptError
        If a record is damaged, unless ``on_damage`` takes the message.
    """
    names = [
        name
        for name in live_collections(alias, solr)
        if not corpus or layout.corpus_of_run(layout.run_of_collection(name)) in ("", corpus)
    ]
    runs = []
    for name in names:
        try:
            runs.append(run_of(name, storage))
        except CorruptError as error:
            if on_damage is None:
                raise
            on_damage(str(error))
    return [run for run in runs if run and corpus in ("", run.corpus)]


def live_run(alias: str, corpus: str, storage: Storage, solr: SolrClient) -> Run:
    """Return the live run of a corpus; without a name, of the only corpus that is live.

    Raises
    ------
    MissingError
        If nothing is live, or nothing of this corpus, or what is live does not belong to a run of this store.
    BadInputError
        If no corpus is named, and several are live.
    """
    live = live_collections(alias, solr)
    if not live:
        raise MissingError(f"alias {alias} points at nothing: publish a run with `tinytags publish RUN`")
    runs = live_runs(alias, storage, solr, corpus=corpus)
    if not runs:
        if corpus:
            raise MissingError(
                f"nothing of corpus {corpus} is live under {alias}, which points at {', '.join(live)}: publish a run "
                "with `tinytags publish RUN`"
            )
        what = f"collection {live[0]} is" if len(live) == 1 else f"collections {', '.join(live)} are"
        raise MissingError(f"{what} live under {alias}, but not of a run of this store")
    refuse_several(alias, [run.corpus for run in runs])
    return runs[0]


def refuse_several(alias: str, corpora: Sequence[str]) -> None:
    """Refuse to choose among corpora for a person who named none.

    Raises
    ------
    BadInputError
        If there are several.
    """
    if len(set(corpora)) > 1:
        raise BadInputError(
            f"alias {alias} has several corpora, so name one of them: {', '.join(sorted(set(corpora)))}"
        )


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
