"""The runs of the store: how far each is, and which can be searched and compared."""

from collections.abc import Mapping
from dataclasses import dataclass

from tinytags_tasks.clients.solr_http import ForbiddenError
from tinytags_tasks.runtime import Runtime
from tinytags_tasks.search.kept import Kept
from tinytags_tasks.search.live import LiveRuns
from tinytags_tasks.store.known_runs import KnownRuns
from tinytags_tasks.store.ledger import LedgerReader, add_up
from tinytags_tasks.store.run_records import BlockState, Publication, Run

KEPT_SECONDS = 10.0
FIRST_SECONDS = 10.0
"""How long a page waits for the first list; that of a large corpus' ledger takes a few seconds."""

MOST_RUNS = 30
"""Runs that are listed: the newest, and those that are live."""


@dataclass(frozen=True)
class RunState:
    """A run and how far it is.

    Attributes
    ----------
    run
        The run.
    is_live
        Whether readers see it.
    verified, failed
        How many of its blocks are verified, and how many failed.
    kept, by_tag
        How many images it kept, by the ledger; and how many of them with each tag.
    has_collection
        Whether its documents are in Solr.
    publication
        How it became live; None if it is not live, or that is not known.
    """

    run: Run
    is_live: bool
    verified: int
    failed: int
    kept: int
    by_tag: Mapping[str, int]
    has_collection: bool
    publication: Publication | None = None

    @property
    def is_verified(self) -> bool:
        """Whether each of its blocks is, so that it can be searched."""
        return self.verified == self.run.blocks and self.has_collection


class RunList:
    """Lists the runs in the background; pages get what is known.

    Parameters
    ----------
    runtime
        Has the store and Solr.
    live
        Knows what is live.
    """

    def __init__(self, runtime: Runtime, live: LiveRuns) -> None:
        self._runtime = runtime
        self._live = live
        self._ledgers: dict[str, LedgerReader] = {}
        self._known: KnownRuns | None = None
        self._kept = Kept("the list of runs", self._look, KEPT_SECONDS, FIRST_SECONDS)

    def runs(self) -> tuple[tuple[RunState, ...], int]:
        """Return the listed runs, the live ones first and then the newest, and how many there are in all.

        Raises
        ------
        TinyTagsError
            If they were never known, and cannot be.
        """
        return self._kept.get()

    def _look(self) -> tuple[tuple[RunState, ...], int]:
        storage = self._runtime.storage
        damaged: list[str] = []
        self._known = self._known or KnownRuns(storage, MOST_RUNS)
        runs = self._known.read(on_damage=damaged.append)
        live = {live.run.name: live for live in self._live.runs()}
        collections = self._collections()
        chosen = [run for run in runs if run.name in live]
        chosen += [run for run in reversed(runs) if run.name not in live][: max(0, MOST_RUNS - len(chosen))]
        self._ledgers = {run.name: self._ledgers.get(run.name) or LedgerReader(storage, run) for run in chosen}
        return tuple(
            self._state(run, live[run.name].publication if run.name in live else None, run.name in live, collections)
            for run in chosen
        ), len(runs) + len(damaged)

    def _state(
        self, run: Run, publication: Publication | None, is_live: bool, collections: frozenset[str] | None
    ) -> RunState:
        totals = add_up(self._ledgers[run.name].read())
        has_collection = not run.pruned if collections is None else run.collection in collections
        return RunState(
            run=run,
            is_live=is_live,
            verified=totals.by_state.get(BlockState.VERIFIED, 0),
            failed=totals.by_state.get(BlockState.FAILED, 0),
            kept=totals.kept,
            by_tag=totals.kept_by_tag,
            has_collection=has_collection,
            publication=publication,
        )

    def _collections(self) -> frozenset[str] | None:
        """Return Solr's collections; None if the page may not know."""
        try:
            return frozenset(self._runtime.solr.collections())
        except ForbiddenError:
            return None
