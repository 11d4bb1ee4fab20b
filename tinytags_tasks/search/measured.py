"""What was measured of live runs, for pages that show it beside what they found; pages never wait for it."""

import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping

from tinytags_tasks.errors import BadInputError, TinyTagsError
from tinytags_tasks.review.frame import stored_frame
from tinytags_tasks.review.precision import PrecisionTable, measure
from tinytags_tasks.runtime import Runtime
from tinytags_tasks.search.kept import Kept
from tinytags_tasks.search.waiting import BusyError
from tinytags_tasks.search.word_logs import WordLogs
from tinytags_tasks.store.review_log import of_version
from tinytags_tasks.store.run_records import Run

KEPT_SECONDS = 10.0
"""How long a figure counts as current; looks that are new by then are in the next one."""

PATIENCE_SECONDS = 0.3

NEEDED_SECONDS = 8.0
"""How long a search waits that is narrowed by what was measured."""

MOST_RUNS = 8
"""Runs whose figures are kept, unless more are live; others that nobody asked for the longest are forgotten."""


Measured = Mapping[str, PrecisionTable]
"""What was measured of live runs, by corpus; a corpus that was not measured lacks."""


class MeasuredRuns:
    """Measures runs in the background, again only after new looks.

    A run that nobody reviews has no frame, and none is made for a reader: that would read all its scored files.
    """

    def __init__(self, runtime: Runtime, logs: WordLogs) -> None:
        self._runtime = runtime
        self._logs = logs
        self._kept: OrderedDict[str, Kept[PrecisionTable | None]] = OrderedDict()
        self._most = MOST_RUNS
        self._lock = threading.Lock()

    def table(self, run: Run, patience_seconds: float = PATIENCE_SECONDS) -> PrecisionTable | None:
        """Return what was measured of a run; None if nothing was, or it is not known in time."""
        try:
            return self._wait_for(run, patience_seconds)
        except TinyTagsError:
            return None

    def tables(self, runs: Iterable[Run], *, is_needed: bool = False) -> Measured:
        """Return what was measured of runs that are searched together, as far as it is known in time.

        Parameters
        ----------
        runs
            The runs, each of another corpus.
        is_needed
            Whether it decides what is found: then it waits longer, and must know of each run whether it was measured.

        Raises
        ------
        BusyError
            If it is needed and not known yet.
        """
        runs = list(runs)
        with self._lock:
            self._most = max(self._most, len(runs) + 1)
        until = time.monotonic() + (NEEDED_SECONDS if is_needed else PATIENCE_SECONDS)
        found = {}
        for run in runs:
            try:
                table = self._wait_for(run, max(0.0, until - time.monotonic()))
            except TinyTagsError as error:
                if is_needed:
                    raise BusyError(
                        f"the precision of run {run.name} is being measured, so nothing can be chosen by it yet: try "
                        "again in a moment"
                    ) from error
                continue
            if table is not None:
                found[run.corpus] = table
        return found

    def _wait_for(self, run: Run, patience_seconds: float) -> PrecisionTable | None:
        with self._lock:
            kept = self._kept.setdefault(run.name, self._make(run))
            self._kept.move_to_end(run.name)
            if len(self._kept) > self._most:
                self._kept.popitem(last=False)
        return kept.get(patience_seconds)

    def _make(self, run: Run) -> Kept[PrecisionTable | None]:
        def measure_again() -> PrecisionTable | None:
            words = self._logs.of(run.corpus)
            if kept.known is not None and kept.known.last == words.last:
                return kept.known
            frame = stored_frame(run, self._runtime.storage)
            if frame is None:
                return None
            table = measure(frame, of_version(words.words, run.corpus_digest))
            return table if table.is_measured else None

        kept = Kept(f"the precision of run {run.name}", measure_again, KEPT_SECONDS, PATIENCE_SECONDS)
        return kept


def least_confidence(
    measured: Measured, corpora: Iterable[str], least_precision: int
) -> Mapping[str, Mapping[str, int]]:
    """Return by corpus, for each tag, the lowest confidence with at least this stated precision.

    Tags that never reach it lack, and so do all of a corpus that was not measured.

    Parameters
    ----------
    measured
        What was measured.
    corpora
        All corpora that are live.
    least_precision
        In percent.

    Raises
    ------
    BadInputError
        If nothing was measured at all.
    """
    if not any(table.is_measured for table in measured.values()):
        raise BadInputError("precision was not measured on this corpus: review pictures of the live run first")
    return {corpus: _least_of(measured[corpus], least_precision) if corpus in measured else {} for corpus in corpora}


def confidence_ranges(
    measured: Measured, corpora: Iterable[str], low: int, high: int
) -> Mapping[str, Mapping[str, tuple[int, int]]]:
    """Return by corpus, for each tag, the lowest and the highest confidence with a stated precision in a range.

    A stated precision never falls as the confidence rises, so all between them have it, too. What lacks is as for
    :func:`least_confidence`.

    Raises
    ------
    BadInputError
        If nothing was measured at all.
    """
    least = least_confidence(measured, corpora, low)
    return {corpus: _ranges_of(measured[corpus], lowest, high) for corpus, lowest in least.items() if lowest}


def _ranges_of(table: PrecisionTable, least: Mapping[str, int], high: int) -> dict[str, tuple[int, int]]:
    found = {}
    for tag, lowest in least.items():
        reached = [
            confidence
            for confidence in range(lowest, 101)
            if (stated := table.precision_of(tag, confidence)) and stated.percent <= high
        ]
        if reached:
            found[tag] = lowest, reached[-1]
    return found


def _least_of(table: PrecisionTable, least_precision: int) -> dict[str, int]:
    found = {}
    for tag in table.curves:
        reached = (
            confidence
            for confidence in range(101)
            if (stated := table.precision_of(tag, confidence)) and stated.percent >= least_precision
        )
        if (lowest := next(reached, None)) is not None:
            found[tag] = lowest
    return found
