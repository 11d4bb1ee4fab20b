"""Watching a run: its cells, totals and rates, asked for anew at most every few seconds, however many people look."""

import secrets
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

from grid_page.clients import Clients
from grid_page.dag_runs import DagRuns
from tinytags_tasks import layout
from tinytags_tasks.errors import MissingError, TinyTagsError
from tinytags_tasks.grid import BlockTask, Cells, CellState, cell_state, latest_tasks
from tinytags_tasks.ledger import LedgerReader, Rates, Totals, add_up, list_runs, rates
from tinytags_tasks.publish.history import live_collection, run_of
from tinytags_tasks.records import BlockRecord, Corpus, Run

STATES = tuple(CellState)
"""A cell's state travels as its place in here."""

REFRESH_SECONDS = 2.0
SOLR_SECONDS = 10.0
RUNS_SECONDS = 10.0

RUNS_SHOWN = 100
"""How many runs there are to choose from, the latest; an older one is shown by its Dag run's tab."""

FIRST_READ_SECONDS = 1.0
"""How long one answer reads a ledger that has not been read yet; the next one reads on."""

BLOCKS_A_READ = 400


class RunWatch:
    """One run as it is.

    Parameters
    ----------
    run
        The run.
    clients
        What is asked.
    pool
        Asks Solr beside the answers, so that none waits for it.
    """

    def __init__(self, run: Run, clients: Clients, pool: ThreadPoolExecutor) -> None:
        self.run = run
        self.mark = secrets.token_hex(8)
        """Tells answers of this watch from those of another process, whose revisions mean other things."""
        self.corpus = Corpus.load(clients.storage, layout.corpus_file(run.corpus))
        self._clients = clients
        self._pool = pool
        self._reader = LedgerReader(clients.storage, run)
        self._records: dict[int, BlockRecord] = {}
        self._tasks: dict[int, BlockTask] = {}
        self._cells = Cells(run.blocks)
        self._totals = add_up(())
        self._rates = Rates(0.0, 0.0, None)
        self._problems: dict[str, str] = {}
        self._lock = threading.Lock()
        self._refreshed = float("-inf")
        self._asked_solr = float("-inf")
        self._answer: Future[dict[int, int]] | None = None
        self._records_when_asked: dict[int, BlockRecord] = {}
        self._counts: dict[int, int] | None = None
        self._counted: dict[int, BlockRecord] = {}

    @property
    def is_read_whole(self) -> bool:
        """Whether each block's record has been read once."""
        return len(self._records) == self.run.blocks

    def refresh(self, find_tasks: Callable[[Run], list[BlockTask]]) -> None:
        """Ask again for what is older than some seconds; at once when somebody else is at it."""
        if not self._lock.acquire(blocking=False):
            return
        try:
            if self.is_read_whole and time.monotonic() - self._refreshed < REFRESH_SECONDS:
                return
            self._read_ledger()
            self._ask_solr()
            self._tasks = latest_tasks(find_tasks(self.run))
            self._cells.update([self._state(block) for block in range(self.run.blocks)])
            records = list(self._records.values())
            self._totals = add_up(records)
            self._rates = rates(self.run, records)
            self._refreshed = time.monotonic()
        finally:
            self._lock.release()

    def _read_ledger(self) -> None:
        deadline = time.monotonic() + FIRST_READ_SECONDS
        try:
            if self.is_read_whole:
                self._records = dict(enumerate(self._reader.read()))
            while not self.is_read_whole and time.monotonic() < deadline:
                first = len(self._records)
                blocks = range(first, min(first + BLOCKS_A_READ, self.run.blocks))
                self._records |= zip(blocks, self._reader.read(blocks), strict=True)
            self._problems.pop("store", None)
        except TinyTagsError as error:
            self._problems["store"] = f"The ledger is as it was before: {error}"

    def _ask_solr(self) -> None:
        if self._answer is not None and self._answer.done():
            self._counts, self._counted = None, self._records_when_asked
            try:
                self._counts = self._answer.result()
                self._problems.pop("solr", None)
            except MissingError:
                self._counts = {}
                self._problems["solr"] = f"Solr has no collection {self.run.collection}."
            except TinyTagsError as error:
                self._problems["solr"] = f"Whether documents are missing is not known: {error}"
            self._answer = None
        if self.run.pruned:
            self._problems["solr"] = f"The collection was dropped by `tinytags prune` ({self.run.pruned})."
        elif self._answer is None and self.is_read_whole and time.monotonic() - self._asked_solr >= SOLR_SECONDS:
            self._asked_solr = time.monotonic()
            self._records_when_asked = dict(self._records)
            self._answer = self._pool.submit(self._clients.solr.count_by_block, self.run.collection)

    def _state(self, block: int) -> CellState:
        record = self._records.get(block)
        if record is None:
            return CellState.UNKNOWN
        return cell_state(record, self._tasks.get(block), self.documents(block))

    def documents(self, block: int) -> int | None:
        """Return how many documents of a block Solr has; None when not known, or the block changed since."""
        if self._counts is None or self._counted.get(block) is not self._records.get(block):
            return None
        return self._counts.get(block, 0)

    def record(self, block: int) -> BlockRecord:
        """Return a block's record as the ledger tells now.

        Raises
        ------
        BadInputError
            When the run has no such block.
        """
        self.run.check_blocks([block])
        (record,) = LedgerReader(self._clients.storage, self.run).read([block])
        return record

    def task(self, block: int) -> BlockTask | None:
        """Return the task that worked on a block last; None when none did."""
        return self._tasks.get(block)

    def state(self, block: int) -> CellState:
        """Return what a block's cell shows."""
        return self._cells.states[block]

    def view(self, mark: str, since: int) -> dict[str, Any]:
        """Return what changed after a revision that this watch gave out; everything to anybody else.

        Parameters
        ----------
        mark, since
            As in the last answer; empty and 0 for the first.
        """
        is_known = mark == self.mark and 0 <= since <= self._cells.revision
        revision = self._cells.revision
        changed = self._cells.changed_since(since if is_known else 0)
        return {
            "mark": self.mark,
            "revision": revision,
            "is_whole": not is_known,
            "read": len(self._records),
            "blocks": list(changed),
            "states": [STATES.index(state) for state in changed.values()],
            "counts": {state.value: count for state in STATES if (count := self._cells.states.count(state))},
            "totals": _totals(self._totals),
            "rates": asdict(self._rates),
            "problems": list(self._problems.values()),
        }


def _totals(totals: Totals) -> dict[str, Any]:
    return {name: getattr(totals, name) for name in ("read", "kept", "below", "unreadable", "documents", "kept_by_tag")}


class Watches:
    """The runs that somebody watches, and what there is to watch.

    Parameters
    ----------
    connect
        Builds the clients, at the first question.
    """

    MOST = 8
    """Runs that are remembered; a ledger of 4,000 blocks takes some 10 MB."""

    def __init__(self, connect: Callable[[], Clients]) -> None:
        self.dag_runs = DagRuns()
        self._connect = connect
        self._clients: Clients | None = None
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="grid")
        self._lock = threading.Lock()
        self._watches: dict[str, RunWatch] = {}
        self._runs: tuple[float, dict[str, Any]] | None = None

    @property
    def clients(self) -> Clients:
        """What is asked."""
        with self._lock:
            if self._clients is None:
                self._clients = self._connect()
            return self._clients

    def watch(self, name: str) -> RunWatch:
        """Return the watch of a run.

        Raises
        ------
        MissingError
            When there is no such run.
        """
        clients = self.clients
        known = self._watches.get(name)
        if known is None:
            run = Run.load(clients.storage, layout.run_file(name))
            known = RunWatch(run, clients, self._pool)
        with self._lock:
            known = self._watches.pop(name, known)
            self._watches[name] = known
            for oldest in list(self._watches)[: -self.MOST]:
                del self._watches[oldest]
        return known

    def runs(self) -> dict[str, Any]:
        """Return the latest runs, the last planned first, how many there are in all, and what is live."""
        clients = self.clients
        if self._runs is None or time.monotonic() - self._runs[0] >= RUNS_SECONDS:
            runs = list_runs(clients.storage)
            for run in runs:
                if known := self._watches.get(run.name):
                    known.run = run  # it may have been pruned, or stand again
            latest = [run.model_dump() for run in reversed(runs[-RUNS_SHOWN:])]
            found = {"runs": latest, "known": len(runs), "live": _find_live(clients)}
            self._runs = time.monotonic(), found
        return self._runs[1]


def _find_live(clients: Clients) -> dict[str, str]:
    live = {"alias": clients.settings.alias}
    try:
        live["collection"] = live_collection(clients.settings.alias, clients.solr)
        run = run_of(live["collection"], clients.storage) if live["collection"] else None
        return live | ({"run": run.name, "model": run.model} if run else {})
    except TinyTagsError as error:
        return live | {"problem": f"What is live is not known: {error}"}
