"""Cleaning up: drops the collections of runs that readers neither see nor can be given back by a rollback.

With them goes what killed writers left under temporary names anywhere in the store.
"""

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from tinytags_tasks.clients.solr import SolrClient
from tinytags_tasks.errors import BadInputError, FinalError, TransientError
from tinytags_tasks.publish.publications import (
    live_collection,
    lock_alias,
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

QUIET_HOURS = 1
"""How long a ledger must have been still before its run counts as one that nobody writes."""


@dataclass(frozen=True)
class PruneRequest:
    """What may go.

    Attributes
    ----------
    alias
        What readers search; what is live under other aliases, and before there, is kept as well.
    keep
        Collections to keep behind the live one, to roll back to.
    scored
        Whether the scored files of runs whose collection goes, or went before, go as well. A run without them has to be
        scored again before it can be indexed again.
    runs
        Drop only what is of these runs, such as those that a person was shown; None drops all that may go.
    """

    alias: str = "tinytags"
    keep: int = 1
    scored: bool = False
    runs: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        """Refuse a number below zero.

        Raises
        ------
        BadInputError
            If it is.
        """
        if self.keep < 0:
            raise BadInputError(f"{self.keep} collections cannot be kept: give 0 or more")


@dataclass(frozen=True)
class Prunable:
    """A run of which something may go.

    Attributes
    ----------
    run
        The run's name.
    collection
        What would be dropped; empty where it went before.
    documents
        Its documents.
    scored_bytes
        Of the scored files that would be deleted; 0 where they stay or are not there.
    """

    run: str
    collection: str
    documents: int
    scored_bytes: int


@dataclass(frozen=True)
class PruneResult:
    """What goes, or went.

    Attributes
    ----------
    drop
        By run.
    stays
        The other collections, with the reason why each stays.
    leftovers, leftover_bytes
        Files and folders that killed writers left under temporary names a day or longer ago.
    configsets
        Old configsets in Solr that no collection uses any longer.
    """

    drop: tuple[Prunable, ...]
    stays: dict[str, str]
    leftovers: int
    leftover_bytes: int
    configsets: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether nothing goes."""
        return not (self.drop or self.leftovers or self.configsets)

    def lines(self, verb: str) -> list[str]:
        """Return what goes, a line each, for people."""
        lines = [describe(one, verb) for one in self.drop]
        lines += [f"{verb} configset {name}, which no collection uses" for name in self.configsets]
        if self.leftovers:
            lines.append(
                f"{verb} {self.leftovers:,} files that killed writers left ({self.leftover_bytes / 1e6:,.1f} MB)"
            )
        return lines


def plan_prune(request: PruneRequest, *, storage: Storage, solr: SolrClient) -> PruneResult:
    """Tell what may go, and change nothing."""
    return _find(request, storage, solr)[0]


def _find(request: PruneRequest, storage: Storage, solr: SolrClient) -> tuple[PruneResult, list[Leftover]]:
    """Return what may go, with the leftovers one by one: the whole store is looked through for them."""
    runs = list_runs(storage)
    configset_of = solr.configsets()
    reasons = _reasons_to_stay(request, runs, storage, solr)
    drop = []
    stays = {}
    for run in runs:
        exists = run.collection in configset_of
        scored_bytes = sum(storage.sizes(layout.scored_folder(run.name)).values()) if request.scored else 0
        if not (exists or (run.pruned and scored_bytes)):
            continue
        reason = reasons.get(run.collection, "")
        if exists and not is_own_name(configset_of[run.collection]):
            reason = f"its configset {configset_of[run.collection] or '(unknown)'} is none of TinyTags'"
        reason = reason or _writer(run, storage)
        if not reason:
            documents = solr.count(run.collection) if exists else 0
            drop.append(Prunable(run.name, run.collection if exists else "", documents, scored_bytes))
        elif exists:
            stays[run.collection] = reason
    ours = {run.collection for run in runs}
    stays |= {collection: "is no run's of this store" for collection in configset_of if collection not in ours}
    left = _old_leftovers(storage)
    going = {one.collection for one in drop}
    configsets = _unused_configsets([run for run in runs if run.collection not in going], going, solr)
    return _result(drop, stays, left, configsets), left


def prune_collections(
    request: PruneRequest, *, storage: Storage, solr: SolrClient, report: Callable[[str], None] = print
) -> PruneResult:
    """Drop what may go, and tell what went; a run is marked as pruned before its collection goes.

    Raises
    ------
    TransientError
        When another changes the alias all the time, or Solr cannot drop a collection now.
    """
    with lock_alias(request.alias, storage, report):
        found, leftovers = _find(request, storage, solr)
        drop = tuple(one for one in found.drop if request.runs is None or one.run in request.runs)
        for one in drop:
            _drop(one, storage, solr)
            report(describe(one, "dropped"))
        configsets = _unused_configsets(list_runs(storage), set(), solr)
        for name in configsets:
            _drop_configset(name, solr)
            report(f"dropped configset {name}, which no collection uses")
    # Those in the folder of a scored run went with it.
    left = [leftover for leftover in leftovers if storage.delete(leftover.path)]
    return _result(drop, found.stays, left, configsets)


def describe(found: Prunable, verb: str) -> str:
    """Return a line for people."""
    parts = [f"{found.collection} ({found.documents:,} documents)"] if found.collection else []
    if found.scored_bytes:
        parts.append(f"the scored files of run {found.run} ({found.scored_bytes / 1e6:,.1f} MB)")
    return f"{verb} {' and '.join(parts)}"


def _reasons_to_stay(
    request: PruneRequest, runs: Iterable[Run], storage: Storage, solr: SolrClient
) -> Mapping[str, str]:
    """Return the collections that stay whether or not somebody writes them, and why."""
    reasons: dict[str, str] = {}
    published: set[str] = set()
    aliases = solr.aliases()
    known = {name for name in storage.names(layout.PUBLICATIONS) if "." not in name}
    for alias in sorted(known | {request.alias}):
        history = with_missing_change(read_history(alias, storage), aliases.get(alias, ""), storage)
        published.update(record.collection for record in history)
        for collection in previous_collections(history)[: request.keep]:
            reasons.setdefault(collection, f"was live under {alias} before, and is kept to roll back to")
        if history and alias not in aliases:
            reasons[history[-1].collection] = f"was live under {alias}, which points at nothing now"
    live = live_collection(request.alias, solr)
    live_since = next((run.created for run in runs if run.collection == live), "")
    for run in runs:
        if run.collection not in published and run.created >= live_since:
            reasons.setdefault(run.collection, "was never published, and is newer than what is live")
    for alias, collections in aliases.items():
        for collection in collections.split(","):
            reasons[collection] = f"is live under {alias}"
    return reasons


def _writer(run: Run, storage: Storage) -> str:
    """Return the reason to believe that somebody writes a run; empty when there is none."""
    leases = Leases(storage)
    folder = layout.run_folder(run.name)
    folders = [folder, *(f"{folder}/{name}" for name in storage.names(folder) if "." not in name)]
    for path in (f"{within}/{name}" for within in folders for name in storage.names(within) if name.endswith(".lease")):
        with leases.hold(path) as is_free:  # the lease of one of the dead is taken, and so removed
            if not is_free:
                return f"is being written by {leases.describe(path)}, which holds {path}"
    latest = max((max(record.scored, record.indexed) for record in read_ledger(storage, run)), default="")
    # Both are UTC to the second, as every record's times, so that they compare as texts.
    if latest > (datetime.now(UTC) - timedelta(hours=QUIET_HOURS)).isoformat(timespec="seconds"):
        return f"was written at {latest}, less than {QUIET_HOURS} hour ago"
    return ""


def _result(
    drop: Iterable[Prunable], stays: dict[str, str], left: Sequence[Leftover], configsets: Sequence[str]
) -> PruneResult:
    left_bytes = sum(leftover.size_bytes for leftover in left)
    return PruneResult(tuple(drop), stays, len(left), left_bytes, tuple(configsets))


def _unused_configsets(runs: Iterable[Run], going: Collection[str], solr: SolrClient) -> list[str]:
    """Return TinyTags' own configsets that nothing uses.

    Parameters
    ----------
    runs
        Those that are kept. One that is not pruned may be about to get its collection.
    going
        Collections that do not count.
    solr
        Who is asked.
    """
    used = {configset for collection, configset in solr.configsets().items() if collection not in going}
    used |= {run.configset for run in runs if not run.pruned}
    used.add(current_configset().name)
    return [name for name in solr.configset_names() if is_own_name(name) and name not in used]


def _drop_configset(name: str, solr: SolrClient) -> None:
    try:
        solr.delete_configset(name)
    except (FinalError, TransientError):
        if name in solr.configset_names() and name not in solr.configsets().values():  # else gone, or in use again
            raise


def _old_leftovers(storage: Storage) -> list[Leftover]:
    oldest = time.time() - LEFTOVER_SECONDS
    return [leftover for leftover in storage.leftovers("") if leftover.changed < oldest]


def _drop(found: Prunable, storage: Storage, solr: SolrClient) -> None:
    """Mark a run as pruned, then drop its collection, then its scored files; each step may find itself done."""
    path = layout.run_file(found.run)
    run = Run.load(storage, path)
    if not run.pruned:
        storage.delete_leftovers(path)
        run.replaced(pruned=now()).save(storage, path)
    if found.collection:
        try:
            solr.delete_collection(found.collection)
        except (FinalError, TransientError):
            if found.collection in solr.collections():  # otherwise a lost answer said that it is gone
                raise
    if found.scored_bytes:
        storage.delete(layout.scored_folder(found.run))
