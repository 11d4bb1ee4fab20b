"""Cleaning up: drops the collections of runs that readers neither see nor can get back by a rollback.

Embeddings that nobody needs, and pictures that were sent to review and need no look any more, are dropped as well;
nets and models are kept. Temporary files of killed writers, anywhere in the store, are deleted.
"""

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from tinytags_tasks.clients.solr import SolrClient
from tinytags_tasks.errors import BadInputError, FinalError, TransientError
from tinytags_tasks.publish.live import collections_of, lock_alias
from tinytags_tasks.publish.publications import (
    live_by_corpus,
    of_corpus,
    previous_collections,
    read_history,
    with_missing_change,
)
from tinytags_tasks.store import layout
from tinytags_tasks.store.configsets import current_configset, is_own_name
from tinytags_tasks.store.lease import Leases
from tinytags_tasks.store.ledger import list_runs, read_ledger
from tinytags_tasks.store.protocol import LEFTOVER_SECONDS, Leftover, Storage
from tinytags_tasks.store.record import now
from tinytags_tasks.store.run_records import Run
from tinytags_tasks.upkeep.prune_embeddings import PrunableEmbeddings, drop_embeddings, find_embeddings
from tinytags_tasks.upkeep.prune_review_sets import PrunableSet, drop_review_set, find_review_sets
from tinytags_tasks.upkeep.removals import finish_removals

QUIET_HOURS = 1
"""A run counts as being written if its ledger changed within this time."""


@dataclass(frozen=True)
class PruneRequest:
    """What may be dropped.

    Attributes
    ----------
    alias
        What readers search. Under every other alias, live collections and earlier ones are kept in the same way.
    keep
        How many earlier collections of each corpus to keep besides the live one, to roll back to.
    scored
        Whether to delete the scored files of runs whose collection is dropped, or was dropped before. A run without
        scored files has to be scored again before it can be indexed again.
    runs
        Drop only what belongs to these runs, such as those that a person was shown; None drops all that may be dropped.
    embeddings, review_sets
        The same for embeddings and for pictures that were sent to review, by their names.
    """

    alias: str = "tinytags"
    keep: int = 1
    scored: bool = False
    runs: tuple[str, ...] | None = None
    embeddings: tuple[str, ...] | None = None
    review_sets: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        """Refuse a negative number of collections.

        Raises
        ------
        BadInputError
            If it is negative.
        """
        if self.keep < 0:
            raise BadInputError(f"{self.keep} collections cannot be kept: give 0 or more")


@dataclass(frozen=True)
class Prunable:
    """A run whose collection or scored files may be dropped.

    Attributes
    ----------
    run
        The run's name.
    collection
        The collection that would be dropped; empty if it was dropped before.
    documents
        How many documents the collection has.
    scored_bytes
        Size of the scored files that would be deleted; 0 if they are kept or do not exist.
    """

    run: str
    collection: str
    documents: int
    scored_bytes: int


@dataclass(frozen=True)
class PruneResult:
    """What would be dropped, or was dropped.

    Attributes
    ----------
    drop
        The collections and scored files to drop, by run.
    kept
        The other collections, and embeddings that nobody needs, each with the reason why it is kept.
    leftovers, leftover_bytes
        Temporary files and folders of killed writers that are at least a day old.
    configsets
        Old configsets in Solr that no collection uses any longer.
    embeddings
        Embeddings that no model sees and no run has as vectors, or whose blocks a corpus no longer has.
    review_sets
        Pictures that were sent to review, and that nobody needs to look at any more.
    """

    drop: tuple[Prunable, ...]
    kept: dict[str, str]
    leftovers: int
    leftover_bytes: int
    configsets: tuple[str, ...] = ()
    embeddings: tuple[PrunableEmbeddings, ...] = ()
    review_sets: tuple[PrunableSet, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to drop."""
        return not (self.drop or self.leftovers or self.configsets or self.embeddings or self.review_sets)

    def lines(self, verb: str) -> list[str]:
        """Return one readable line for each thing that is dropped."""
        lines = [describe(one, verb) for one in self.drop]
        lines += [f"{verb} configset {name}, which no collection uses" for name in self.configsets]
        lines += [embeddings.line(verb) for embeddings in self.embeddings]
        lines += [review_set.line(verb) for review_set in self.review_sets]
        if self.leftovers:
            size = f"{self.leftover_bytes / 1e6:,.1f} MB"
            lines.append(f"{verb} {self.leftovers:,} temporary files of killed writers ({size})")
        return lines


def plan_prune(request: PruneRequest, *, storage: Storage, solr: SolrClient) -> PruneResult:
    """Return what may be dropped, without changing anything."""
    found = _find(request, storage, solr)
    embeddings, being_written = find_embeddings(storage, without={one.run for one in found.drop})
    sets, unreadable = find_review_sets(storage)
    kept = found.kept | being_written | unreadable
    return _result(found.drop, kept, _old_leftovers(storage), found.configsets, embeddings, sets)


@dataclass(frozen=True)
class _Found:
    """What of Solr's may be dropped, and what is kept for which reason; see :class:`PruneResult`."""

    drop: list[Prunable]
    kept: dict[str, str]
    configsets: list[str]


def _find(request: PruneRequest, storage: Storage, solr: SolrClient) -> _Found:
    """Return which collections, scored files and configsets may be dropped."""
    runs = list_runs(storage)
    configset_of = solr.configsets()
    reasons = reasons_to_keep(request, runs, storage, solr)
    drop = []
    kept = {}
    for run in runs:
        exists = run.collection in configset_of
        if not (exists or (run.pruned and request.scored)):
            continue
        if reason := reason_to_keep(run, reasons, configset_of, storage):
            if exists:
                kept[run.collection] = reason
            continue
        scored_bytes = sum(storage.sizes(layout.scored_folder(run.name)).values()) if request.scored else 0
        if exists or scored_bytes:
            documents = solr.count(run.collection) if exists else 0
            drop.append(Prunable(run.name, run.collection if exists else "", documents, scored_bytes))
    ours = {run.collection for run in runs}
    kept |= {
        collection: "does not belong to a run of this store" for collection in configset_of if collection not in ours
    }
    to_drop = {one.collection for one in drop}
    configsets = _unused_configsets([run for run in runs if run.collection not in to_drop], to_drop, solr)
    return _Found(drop, kept, configsets)


def prune_collections(
    request: PruneRequest, *, storage: Storage, solr: SolrClient, report: Callable[[str], None] = print
) -> PruneResult:
    """Drop what may be dropped, and return what was; a run is marked as pruned before its collection is dropped.

    Raises
    ------
    TransientError
        If another process holds the alias for too long, or Solr cannot drop a collection at the moment.
    """
    with lock_alias(request.alias, storage, report):
        found = _find(request, storage, solr)
        drop = tuple(one for one in found.drop if request.runs is None or one.run in request.runs)
        for one in drop:
            drop_run(one, storage, solr)
            report(describe(one, "dropped"))
        configsets = _unused_configsets(list_runs(storage), set(), solr)
        for name in configsets:
            _drop_configset(name, solr)
            report(f"dropped configset {name}, which no collection uses")
    # Walks through the store take minutes: nobody waits for the alias meanwhile.
    unneeded, being_written = find_embeddings(storage)
    embeddings = [one for one in unneeded if request.embeddings is None or one.name in request.embeddings]
    for one_net in embeddings:
        drop_embeddings(one_net, storage)
        report(one_net.line("dropped"))
    sets, unreadable = find_review_sets(storage)
    sets = tuple(one for one in sets if request.review_sets is None or one.key in request.review_sets)
    for one_set in sets:
        drop_review_set(one_set, storage)
        report(one_set.line("dropped"))
    finish_removals(storage, report)
    deleted = [leftover for leftover in _old_leftovers(storage) if storage.delete(leftover.path)]
    kept = found.kept | being_written | unreadable
    return _result(drop, kept, deleted, configsets, embeddings, sets)


def describe(found: Prunable, verb: str) -> str:
    """Return a readable line for a run whose collection or scored files are dropped."""
    parts = [f"{found.collection} ({found.documents:,} documents)"] if found.collection else []
    if found.scored_bytes:
        parts.append(f"the scored files of run {found.run} ({found.scored_bytes / 1e6:,.1f} MB)")
    return f"{verb} {' and '.join(parts)}"


def reasons_to_keep(
    request: PruneRequest, runs: Iterable[Run], storage: Storage, solr: SolrClient
) -> Mapping[str, str]:
    """Return the collections that are kept, whether or not they are being written, each with the reason.

    Of ``runs``, those that were never published are kept if they are new. Without any, what readers see and rollbacks
    lead to is kept.
    """
    reasons: dict[str, str] = {}
    published: set[str] = set()
    aliases = solr.aliases()
    known = {name for name in storage.names(layout.PUBLICATIONS) if "." not in name}
    live_since: dict[str, str] = {}
    for alias in sorted(known | {request.alias}):
        live = collections_of(aliases.get(alias, ""))
        history = with_missing_change(read_history(alias, storage), live, storage)
        published.update(record.collection for record in history)
        for corpus in {record.corpus for record in history}:
            own = of_corpus(corpus, history)
            for collection in previous_collections(own)[: request.keep]:
                reasons.setdefault(collection, f"was live under {alias} before, and is kept for a rollback")
            if alias not in aliases and own[-1].collection:
                reasons[own[-1].collection] = f"was live under {alias}, which now points at nothing"
        if alias == request.alias:
            live_since = _live_since(live_by_corpus(live, history, storage), runs)
    for run in runs:
        if run.collection not in published and run.created >= live_since.get(run.corpus, ""):
            is_live = (
                "is newer than what is live of its corpus" if run.corpus in live_since else "nothing of it is live"
            )
            reasons.setdefault(run.collection, f"was never published, and {is_live}")
    for alias, points_at in aliases.items():
        for collection in collections_of(points_at):
            reasons[collection] = f"is live under {alias}"
    return reasons


def _live_since(live: Mapping[str, Collection[str]], runs: Iterable[Run]) -> dict[str, str]:
    """Return when the live run of each corpus was planned."""
    created = {run.collection: run.created for run in runs}
    return {
        corpus: max(created.get(name, "") for name in collections) for corpus, collections in live.items() if corpus
    }


def reason_to_keep(run: Run, reasons: Mapping[str, str], configset_of: Mapping[str, str], storage: Storage) -> str:
    """Return why a run must not be dropped; empty if it may be.

    Parameters
    ----------
    run
        The run.
    reasons
        What :func:`reasons_to_keep` found.
    configset_of
        The collections in Solr, each with its configset.
    storage
        The store.
    """
    if run.collection in configset_of and not is_own_name(configset_of[run.collection]):
        return f"its configset {configset_of[run.collection] or '(unknown)'} is not one of TinyTags"
    return reasons.get(run.collection, "") or _reason_if_written(run, storage)


def _reason_if_written(run: Run, storage: Storage) -> str:
    """Return why a run counts as being written; empty if it does not."""
    leases = Leases(storage)
    folders = [layout.run_folder(run.name), layout.leases_folder(run.name)]
    # Each write of a record or a lease is a rename in its folder. Twice the time, as the store's clock may differ.
    is_quiet = storage.changed_seconds(layout.ledger_folder(run.name)) < time.time() - 2 * QUIET_HOURS * 3_600
    if not is_quiet:  # earlier versions had leases in it
        folders.append(layout.ledger_folder(run.name))
    for path in (f"{within}/{name}" for within in folders for name in storage.names(within) if name.endswith(".lease")):
        with leases.hold(path) as is_free:  # this also removes the lease of a dead process
            if not is_free:
                return f"is being written by {leases.describe(path)}, which holds {path}"
    if is_quiet:
        return ""
    latest = max((max(record.scored, record.indexed) for record in read_ledger(storage, run)), default="")
    # Both are UTC to the second, like all times in records, so they can be compared as text.
    if latest > (datetime.now(UTC) - timedelta(hours=QUIET_HOURS)).isoformat(timespec="seconds"):
        return f"was written at {latest}, less than {QUIET_HOURS} hour ago"
    return ""


def _result(
    drop: Iterable[Prunable],
    kept: dict[str, str],
    leftovers: Sequence[Leftover],
    configsets: Sequence[str],
    embeddings: Iterable[PrunableEmbeddings],
    sets: tuple[PrunableSet, ...],
) -> PruneResult:
    leftover_bytes = sum(leftover.size_bytes for leftover in leftovers)
    return PruneResult(tuple(drop), kept, len(leftovers), leftover_bytes, tuple(configsets), tuple(embeddings), sets)


def _unused_configsets(runs: Iterable[Run], ignored: Collection[str], solr: SolrClient) -> list[str]:
    """Return TinyTags' own configsets that are not in use.

    Parameters
    ----------
    runs
        The runs that are kept. The collection of a run that is not pruned may be about to be created.
    ignored
        Collections whose use of a configset does not count, because they will be dropped.
    solr
        The Solr that has them.
    """
    used = {configset for collection, configset in solr.configsets().items() if collection not in ignored}
    used |= {run.configset for run in runs if not run.pruned}
    used.add(current_configset().name)
    return [name for name in solr.configset_names() if is_own_name(name) and name not in used]


def _drop_configset(name: str, solr: SolrClient) -> None:
    try:
        solr.delete_configset(name)
    except (FinalError, TransientError):
        if name in solr.configset_names() and name not in solr.configsets().values():  # else gone or in use again
            raise


def _old_leftovers(storage: Storage) -> list[Leftover]:
    oldest = time.time() - LEFTOVER_SECONDS
    return [leftover for leftover in storage.leftovers("") if leftover.changed < oldest]


def drop_run(found: Prunable, storage: Storage, solr: SolrClient) -> None:
    """Mark a run as pruned, drop its collection, then delete its scored files; each step may have been done before."""
    path = layout.run_file(found.run)
    run = Run.load(storage, path)
    if not run.pruned:
        storage.delete_leftovers(path)
        run.replaced(pruned=now()).save(storage, path)
    if found.collection:
        try:
            solr.delete_collection(found.collection)
        except (FinalError, TransientError):
            if found.collection in solr.collections():  # otherwise it was dropped, but the answer was lost
                raise
    if found.scored_bytes:
        storage.delete(layout.scored_folder(found.run))
