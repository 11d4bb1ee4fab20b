"""The reviews that are open in this process, one for each run; a review is opened in the background."""

import threading
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress

from tinytags_tasks.errors import BadInputError, MissingError, TinyTagsError
from tinytags_tasks.review.frame import load_frame
from tinytags_tasks.search.context import PageContext
from tinytags_tasks.search.present import PresentCorpora
from tinytags_tasks.search.review_session import ReviewSession
from tinytags_tasks.search.waiting import BusyError
from tinytags_tasks.store import layout
from tinytags_tasks.store.corpus_records import Corpus, load_corpus
from tinytags_tasks.store.ledger import LedgerReader, list_runs
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.store.run_records import BlockState, Run

PATIENCE_SECONDS = 1.5
"""How long a page waits for a review to be opened, before it says that it is being prepared."""

MOST_SESSIONS = 8
MOST_RUNS = 50
"""Runs that a page offers; the newest."""

_THREADS = 4


class ReviewSessions:
    """Opens reviews, and finds those that are open.

    Parameters
    ----------
    context
        Of the search page.
    """

    def __init__(self, context: PageContext) -> None:
        self._context = context
        self._corpora = PresentCorpora(context.runtime)
        self._opening = ThreadPoolExecutor(_THREADS, thread_name_prefix="open-review")
        self._working = ThreadPoolExecutor(_THREADS, thread_name_prefix="review")
        self._sessions: OrderedDict[str, Future[ReviewSession]] = OrderedDict()
        self._progress: dict[str, str] = {}
        self._lock = threading.Lock()

    def find(self, run: str, patience_seconds: float | None = None) -> ReviewSession | None:
        """Return the review of a run; None if it is still being opened.

        Raises
        ------
        MissingError
            If there is no such run.
        BadInputError
            If it is not verified, or its corpus is another one by now.
        TransientError
            If as many reviews are open as may be, and somebody is at each.
        """
        layout.checked_name(run, "run")
        with self._lock:
            opening = self._sessions.get(run)
        if opening is None:
            # Before it takes a place: names of runs that do not exist must not close what others look at.
            record = _load_run(run, self._context.runtime.storage)
            with self._lock:
                opening = self._sessions.get(run)
                if opening is None:
                    self._make_room()
                    opening = self._sessions[run] = self._opening.submit(self._open, record)
        with self._lock:
            if run in self._sessions:
                self._sessions.move_to_end(run)
        with self._context.waiting.seconds(
            PATIENCE_SECONDS if patience_seconds is None else patience_seconds
        ) as patience:
            wait([opening], timeout=patience)
        if not opening.done():
            return None
        try:
            session = opening.result()
            _refuse_another_version(session.run, self._corpora.find(session.run.corpus))
        except (BadInputError, MissingError):
            self._drop(run, opening)
            raise
        except TinyTagsError:
            if opening.exception() is not None:  # the next one who asks tries again
                self._drop(run, opening)
            raise
        return session

    def _drop(self, run: str, opening: Future[ReviewSession]) -> None:
        with self._lock:
            if self._sessions.get(run) is opening:
                del self._sessions[run]

    def _make_room(self) -> None:
        """Close the review that was not asked for for the longest time, of those that nobody is at; lock held."""
        if len(self._sessions) < MOST_SESSIONS:
            return
        for run, opening in self._sessions.items():
            if opening.done() and (opening.exception() is not None or not opening.result().is_in_use):
                del self._sessions[run]
                return
        raise BusyError(
            f"{MOST_SESSIONS} reviews are open, and somebody is at each: review one of these, or try again in some "
            "minutes"
        )

    def progress(self, run: str) -> str:
        """Return how far the opening of a review is."""
        return self._progress.get(run, "")

    def live_runs(self) -> list[str]:
        """Return the names of the live runs; none if there are none, or Solr does not say."""
        with suppress(TinyTagsError):
            return [live.run.name for live in self._context.live.runs()]
        return []

    def choices(self) -> list[Run]:
        """Return the runs that may be reviewed, the newest first."""
        runs = list_runs(self._context.runtime.storage, on_damage=lambda _: None)
        return [run for run in reversed(runs) if not run.pruned][:MOST_RUNS]

    def _open(self, run: Run) -> ReviewSession:
        name = run.name
        storage = self._context.runtime.storage
        corpus = load_corpus(run.corpus, storage)
        _refuse_another_version(run, corpus)
        self._progress[name] = "looking at its blocks"
        unverified = [record for record in LedgerReader(storage, run).read() if record.state != BlockState.VERIFIED]
        if unverified:
            raise BadInputError(
                f"run {name} cannot be reviewed yet: {len(unverified):,} of its {run.blocks:,} blocks are not "
                f"verified; complete it with `tinytags run {run.corpus}`"
            )

        def report(line: str) -> None:
            self._progress[name] = line

        frame = load_frame(run, storage, report)
        return ReviewSession(run, corpus, frame, storage=storage, pool=self._working)


def _load_run(name: str, storage: Storage) -> Run:
    try:
        return Run.load(storage, layout.run_file(name))
    except MissingError as error:
        raise MissingError(f"there is no run {name} in the store: choose one of those on the page Review") from error


def _refuse_another_version(run: Run, corpus: Corpus) -> None:
    if corpus.digest != run.corpus_digest:
        raise BadInputError(
            f"run {run.name} is of another version of corpus {corpus.name}, whose pictures are not there any more: "
            "review a later run"
        )
