"""What is so if there is nothing to search: what is published, what is under way, and what to do."""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from fastapi import Request, Response

from tinytags_tasks.errors import TinyTagsError
from tinytags_tasks.search.context import PageContext
from tinytags_tasks.search.kept import Kept
from tinytags_tasks.store.ledger import LedgerReader, list_runs, read_ledger
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.store.run_records import BlockRecord, BlockState, Run

KEPT_SECONDS = 10.0
PATIENCE_SECONDS = 3.0

REBUILT_SECONDS = 30.0
"""How old what is said of blocks that are indexed again may be: of a large run, this lists thousands of files."""

MOST_RUNS = 3
"""Runs whose progress is shown: the newest."""

MOST_CHOICES = 50
"""Runs to choose from: the newest."""


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes
    ----------
    run
        The run.
    verified, failed
        How many of its blocks are verified, and how many failed.
    is_live
        Whether readers see it.
    """

    run: Run
    verified: int
    failed: int
    is_live: bool

    @property
    def is_whole(self) -> bool:
        """Whether it can be published."""
        return self.verified == self.run.blocks


class Runs:
    """Knows the runs of the store, as they were some seconds ago."""

    def __init__(self, context: PageContext) -> None:
        self._context = context
        self._runs = Kept("the runs", self._list, KEPT_SECONDS, PATIENCE_SECONDS)
        self._progress = Kept("the progress of runs", self._look, KEPT_SECONDS, PATIENCE_SECONDS)
        self._rebuilt = Kept("the blocks of live runs", self._look_at_live, REBUILT_SECONDS)
        self._readers: dict[str, LedgerReader] = {}

    def names(self, chosen: str = "") -> list[str]:
        """Return the runs that a search may choose beside what is live, the newest first, and the chosen one.

        It is empty if they are not known in time.
        """
        names: list[str] = []
        with suppress(TinyTagsError):
            live = {live.run.name for live in self._context.live.known}
            names = [run.name for run in self._runs.get() if run.name not in live]
        return names if not chosen or chosen in names else [chosen, *names]

    def progress(self) -> list[Progress]:
        """Return how far the newest runs are; empty if that is not known in time."""
        with suppress(TinyTagsError):
            return self._progress.get()
        return []

    def rebuilding(self) -> list[str]:
        """Return what to say of live runs of which blocks are missing in the index; nothing waits for it."""
        with suppress(TinyTagsError):
            return [
                f"Not all of {one.run.corpus} can be found right now: {one.run.blocks - one.verified:,} of its "
                f"{one.run.blocks:,} blocks are being indexed again."
                for one in self._rebuilt.get(first_seconds=0.0)
            ]
        return []

    def _look_at_live(self) -> list[Progress]:
        """Return how far live runs are, of which some blocks are not verified and others are."""
        live = [one.run for one in self._context.live.known]
        readers = {run.name: self._readers.get(run.name) or LedgerReader(self._storage, run) for run in live}
        self._readers = readers
        found = [_progress(run, readers[run.name].read(), is_live=True) for run in live]
        return [one for one in found if 0 < one.verified < one.run.blocks]

    def _list(self) -> list[Run]:
        runs = list_runs(self._storage, on_damage=_ignore)
        return [run for run in reversed(runs) if not run.pruned][:MOST_CHOICES]

    def _look(self) -> list[Progress]:
        live = {live.run.name for live in self._context.live.known}
        newest = self._list()[:MOST_RUNS]
        return [_progress(run, read_ledger(self._storage, run), is_live=run.name in live) for run in newest]

    @property
    def _storage(self) -> Storage:
        return self._context.runtime.storage


def _progress(run: Run, records: Iterable[BlockRecord], *, is_live: bool) -> Progress:
    states = [record.state for record in records]
    return Progress(run, states.count(BlockState.VERIFIED), states.count(BlockState.FAILED), is_live)


def _ignore(message: str) -> None:
    """Leave a damaged record to `tinytags runs`, which says what is wrong with it."""


def show(context: PageContext, request: Request, message: str) -> Response:
    """Return the page that says why there is nothing to search.

    Parameters
    ----------
    message
        Why nothing could be searched; empty if what is live holds nothing.
    """
    progress = request.app.state.runs.progress()
    live = [one for one in progress if one.is_live]
    is_rebuilt = bool(live) and not any(one.is_whole for one in live)
    return context.render(
        request,
        "situation.html",
        status=404 if message else 200,
        message=message,
        alias=context.settings.alias,
        progress=progress,
        is_rebuilt=is_rebuilt,
    )
