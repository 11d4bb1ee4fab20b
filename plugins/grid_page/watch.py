"""Watching runs: cells, totals and rates are refreshed every few seconds at most, however many people look."""

import secrets
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

from cachetools import LRUCache, TTLCache

from grid_page.cells import BlockTask, Cells, CellState, cell_state, latest_tasks
from grid_page.clients import Clients
from grid_page.dag_runs import DagRuns
from tinytags_tasks.errors import MissingError, TinyTagsError
from tinytags_tasks.publish.live import live_collections, run_of
from tinytags_tasks.store import layout
from tinytags_tasks.store.known_runs import KnownRuns
from tinytags_tasks.store.ledger import LedgerReader, Rates, Totals, add_up, rates
from tinytags_tasks.store.models import has_none
from tinytags_tasks.store.run_identity import corpus_of_run
from tinytags_tasks.store.run_records import BlockRecord, Run

STATES = tuple(CellState)
"""The page gets each state as its index in this tuple."""

REFRESH_SECONDS = 2.0
QUICK_SECONDS = 0.4
"""A refresh that takes longer, because a run has very many blocks, is done as much less often."""

TOTALS_SECONDS = 10.0
"""How often totals and rates are found while the ledger is read for the first time, or nothing changes."""
SOLR_SECONDS = 10.0
RUNS_SECONDS = 10.0

RUNS_SHOWN = 100
"""How many runs there are to choose from, the latest; the tab of its Dag run shows an older one."""

RUNS_WATCHED = 8
"""How many runs are kept in memory; the ledger of 4,000 blocks takes some 10 MB."""

READ_SECONDS = 1.0
"""How long one request reads what has changed in a ledger; the next request continues."""


class RunWatch:
    """The current state of one run.

    Parameters
    ----------
    run
        The run.
    clients
        Where its state is read.
    pool
        Queries Solr in the background, so that no request waits for it.
    """

    def __init__(self, run: Run, clients: Clients, pool: ThreadPoolExecutor) -> None:
        self.run = run
        self.mark = secrets.token_hex(8)
        """Identifies this watch, because revisions of another process are not comparable."""
        self.corpus = corpus_of_run(run, clients.storage)
        self.has_none = has_none(run.model, clients.storage)
        """Whether the run's model knows "none of the tags"."""
        self._clients = clients
        self._pool = pool
        self._reader = LedgerReader(clients.storage, run)
        self._records: dict[int, BlockRecord] = {}
        self._found_tasks: frozenset[BlockTask] = frozenset()
        self._tasks: dict[int, BlockTask] = {}
        self._cells = Cells(run.blocks)
        self._totals = add_up(())
        self._rates = Rates(0.0, 0.0, None)
        self._problems: dict[str, str] = {}
        self._waits: list[str] = []
        self._lock = threading.Lock()
        self._next_refresh = float("-inf")
        self._added_up = float("-inf")
        self._asked_solr = float("-inf")
        self._answer: Future[dict[int, int]] | None = None
        self._records_when_asked: dict[int, BlockRecord] = {}
        self._counts: dict[int, int] | None = None
        self._counted: dict[int, BlockRecord] = {}

    def refresh(
        self, find_tasks: Callable[[Run], list[BlockTask]], find_waits: Callable[[Run], list[str]] = lambda run: []
    ) -> None:
        """Update everything that is a few seconds old; return at once if another thread is doing so."""
        if not self._lock.acquire(blocking=False):
            return
        try:
            began = time.monotonic()
            if self._reader.is_whole and began < self._next_refresh:
                return
            was_whole = self._reader.is_whole
            touched = {*self._find_tasks(find_tasks), *self._read_ledger()}
            self._waits = find_waits(self.run)
            blocks = range(self.run.blocks) if self._ask_solr() else touched
            self._cells.change({block: self._state(block) for block in blocks})
            is_due = began - self._added_up >= TOTALS_SECONDS or self._reader.is_whole is not was_whole
            if is_due or (touched and was_whole):
                records = list(self._records.values())
                self._totals, self._rates, self._added_up = add_up(records), rates(self.run, records), began
            ended = time.monotonic()
            self._next_refresh = ended + REFRESH_SECONDS * max(1.0, (ended - began) / QUICK_SECONDS)
        finally:
            self._lock.release()

    def _find_tasks(self, find_tasks: Callable[[Run], list[BlockTask]]) -> set[int]:
        """Look for the tasks that work on blocks; return the blocks of those that have changed."""
        found = frozenset(find_tasks(self.run))
        changed = found ^ self._found_tasks
        if changed:
            self._found_tasks, self._tasks = found, latest_tasks(found)
        return {block for task in changed for block in task.blocks}

    def _read_ledger(self) -> Iterable[int]:
        """Read what has changed in the ledger; return the blocks."""
        try:
            self.run = Run.load(self._clients.storage, layout.run_file(self.run.name))  # it may be pruned or restored
            changed = self._reader.update(READ_SECONDS)
        except TinyTagsError as error:
            self._problems["store"] = f"The ledger cannot be read, so older figures are shown: {error}"
            return ()
        self._records |= changed
        self._problems.pop("store", None)
        return changed

    def _ask_solr(self) -> bool:
        """Ask for the number of each block's documents now and then; return whether an answer has come."""
        is_answered = self._answer is not None and self._answer.done()
        if self._answer is not None and is_answered:
            self._counts, self._counted = None, self._records_when_asked
            try:
                self._counts = self._answer.result()
                self._problems.pop("solr", None)
            except MissingError:
                self._counts = {}
                self._problems["solr"] = f"Solr has no collection {self.run.collection}."
            except TinyTagsError as error:
                self._problems["solr"] = f"Documents in Solr cannot be counted: {error}"
            self._answer = None
        if self.run.pruned:
            self._problems["solr"] = f"The collection was dropped by `tinytags prune` ({self.run.pruned})."
        elif self._answer is None and self._reader.is_whole and time.monotonic() - self._asked_solr >= SOLR_SECONDS:
            self._asked_solr = time.monotonic()
            self._records_when_asked = dict(self._records)
            self._answer = self._pool.submit(self._clients.solr.count_by_block, self.run.collection)
        return is_answered

    def _state(self, block: int) -> CellState:
        record = self._records.get(block)
        if record is None:
            return CellState.UNKNOWN
        return cell_state(record, self._tasks.get(block), self.documents(block))

    def documents(self, block: int) -> int | None:
        """Return how many documents of a block are in Solr; None if unknown, or if the block has changed since."""
        if self._counts is None or self._counted.get(block) is not self._records.get(block):
            return None
        return self._counts.get(block, 0)

    def record(self, block: int) -> BlockRecord:
        """Return the current record of a block.

        Raises
        ------
        BadInputError
            If the run has no such block.
        """
        self.run.check_blocks([block])
        (record,) = self._reader.read([block])
        return record

    def task(self, block: int) -> BlockTask | None:
        """Return the task that worked on a block last; None if there is none."""
        return self._tasks.get(block)

    def state(self, block: int) -> CellState:
        """Return the state of a block's cell."""
        return self._cells.states[block]

    def view(self, mark: str, since: int) -> dict[str, Any]:
        """Return what changed after a revision of this watch; everything if the revision is another watch's.

        Parameters
        ----------
        mark, since
            Those of the previous answer; empty and 0 in the first request.
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
            "problems": [*self._waits, *self._problems.values()],
        }


def _totals(totals: Totals) -> dict[str, Any]:
    names = ("read", "kept", "below", "none", "unreadable", "taken_down", "documents", "kept_by_tag")
    return {name: getattr(totals, name) for name in names}


class Watches:
    """The runs that are being watched, and the list of runs to choose from.

    Parameters
    ----------
    connect
        Builds the clients, at the first request that needs them.
    """

    def __init__(self, connect: Callable[[], Clients]) -> None:
        self.dag_runs = DagRuns()
        self._connect = connect
        self._clients: Clients | None = None
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="grid")
        self._lock = threading.Lock()
        self._watches: LRUCache[str, RunWatch] = LRUCache(RUNS_WATCHED)
        self._runs: TTLCache[str, dict[str, Any]] = TTLCache(1, RUNS_SECONDS)
        self._known_runs: KnownRuns | None = None
        self._listing = threading.Lock()

    @property
    def clients(self) -> Clients:
        """Clients of the engines."""
        with self._lock:
            if self._clients is None:
                self._clients = self._connect()
            return self._clients

    def watch(self, name: str) -> RunWatch:
        """Return the watch of a run.

        Raises
        ------
        MissingError
            If the run does not exist.
        """
        clients = self.clients
        with self._lock:
            known = self._watches.get(name)
        if known is not None:
            return known
        run = Run.load(clients.storage, layout.run_file(name))
        made = RunWatch(run, clients, self._pool)
        with self._lock:
            return self._watches.setdefault(name, made)  # another thread may have been faster

    def runs(self) -> dict[str, Any]:
        """Return the latest runs, newest first, how many there are in total, and what is live."""
        clients = self.clients
        with self._listing:  # other viewers wait for the same answer
            if (listed := self._runs.get("runs")) is not None:
                return listed
            self._known_runs = self._known_runs or KnownRuns(clients.storage, RUNS_SHOWN)
            damaged: list[str] = []
            runs = self._known_runs.read(on_damage=damaged.append)
            latest = [run.model_dump() for run in reversed(runs[-RUNS_SHOWN:])]
            self._runs["runs"] = {"runs": latest, "known": len(runs), "live": _find_live(clients), "damaged": damaged}
            return self._runs["runs"]


def _find_live(clients: Clients) -> dict[str, Any]:
    """Return what is live: of each collection its run, corpus and model, if it is of a run of this store."""
    live: dict[str, Any] = {"alias": clients.settings.alias, "collections": []}
    try:
        for collection in live_collections(clients.settings.alias, clients.solr):
            run = run_of(collection, clients.storage)
            of_run = {"run": run.name, "corpus": run.corpus, "model": run.model} if run else {}
            live["collections"].append({"collection": collection} | of_run)
    except TinyTagsError as error:
        live["problem"] = f"What is live is unknown: {error}"
    return live
