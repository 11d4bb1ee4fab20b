"""Brings people's words to the live index: after each request, at the start, and until it succeeds."""

import logging
import threading
import time
from dataclasses import dataclass

from tinytags_tasks.correct.apply import ApplyResult
from tinytags_tasks.errors import TinyTagsError
from tinytags_tasks.publish.corrections import correct_live
from tinytags_tasks.runtime import Runtime
from tinytags_tasks.search.live import LiveRuns
from tinytags_tasks.search.word_logs import WordLogs

LOOK_SECONDS = 15.0
"""How often the background looks for words that others said, or that could not be applied."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Applied:
    """Whether readers see words that were said.

    Attributes
    ----------
    is_shown
        Whether readers see them now.
    problem
        Why not, if there is a reason that a person can act on.
    results
        What was applied to each live run.
    """

    is_shown: bool
    problem: str = ""
    results: tuple[ApplyResult, ...] = ()


class Applier:
    """Applies words in one background thread, which starts with the application or the first request.

    Applying is idempotent and blocks have leases, so several processes may do it at once, and a killed one is made up
    for by any other.
    """

    def __init__(self, runtime: Runtime, alias: str, live: LiveRuns, logs: WordLogs) -> None:
        self._runtime = runtime
        self._alias = alias
        self._live = live
        self._logs = logs
        self._changed = threading.Condition()
        self._asked: dict[str, int] = {}
        self._answers: dict[str, tuple[int, Applied]] = {}
        self._tickets = 0
        self._thread: threading.Thread | None = None
        self._is_over = False

    def start(self) -> None:
        """Start the background thread, unless it runs."""
        with self._changed:
            if self._thread is None and not self._is_over:
                self._thread = threading.Thread(target=self._run, name="apply-words", daemon=True)
                self._thread.start()

    def stop(self) -> None:
        """End the background thread after what it is doing; what is not applied then is applied at the next start."""
        with self._changed:
            self._is_over = True
            self._changed.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join(timeout=30)

    def apply(self, corpus: str, *, patience_seconds: float) -> Applied:
        """Bring all words on a corpus' pictures to readers, and wait for that as long as asked."""
        self.start()
        deadline = time.monotonic() + patience_seconds
        with self._changed:
            self._tickets += 1
            ticket = self._asked[corpus] = self._tickets
            self._changed.notify_all()
            while (answer := self._answers.get(corpus, (0, Applied(False))))[0] < ticket:
                left = deadline - time.monotonic()
                if left <= 0 or self._is_over:
                    return Applied(False)
                self._changed.wait(left)
            return answer[1]

    def _run(self) -> None:
        next_look = time.monotonic()
        while True:
            with self._changed:
                while not self._asked and not self._is_over and (left := next_look - time.monotonic()) > 0:
                    self._changed.wait(left)
                if self._is_over:
                    return
                asked, self._asked = self._asked, {}
            if not asked:
                self._look()
            for corpus, ticket in asked.items():
                applied = self._apply(corpus)
                with self._changed:
                    self._answers[corpus] = (ticket, applied)
                    self._changed.notify_all()
            if time.monotonic() >= next_look:
                next_look = time.monotonic() + LOOK_SECONDS

    def _look(self) -> None:
        """Apply what others said, and what could not be applied before."""
        try:
            corpora = {live.run.corpus for live in self._live.runs()}
            behind = [name for name in corpora if self._logs.of(name).last_public > self._logs.applied(name)]
        except TinyTagsError as error:
            _log.warning("cannot tell whether there are words to apply; trying again: %s", error)
            return
        for corpus in behind:
            self._apply(corpus)

    def _apply(self, corpus: str) -> Applied:
        lines: list[str] = []
        try:
            results = correct_live(
                corpus, self._alias, storage=self._runtime.storage, solr=self._runtime.solr, report=lines.append
            )
        except TinyTagsError as error:
            _log.warning("words on pictures of %s are not in the live index yet: %s", corpus, error)
            return Applied(False, str(error))
        except Exception:  # the thread must live on: the words are in the log, and the next look tries again
            _log.exception("words on pictures of %s are not in the live index", corpus)
            return Applied(False)
        finally:
            for line in lines:
                _log.info("%s", line)
        if not results:  # readers see nothing of this corpus
            return Applied(False, lines[-1] if lines else "")
        if not results[-1].is_complete:
            why = "another writer has these blocks" if results[-1].waiting else "its blocks are being redone"
            return Applied(False, why, tuple(results))
        self._logs.note_applied(corpus, results[-1].run, results[-1].last)
        return Applied(True, results=tuple(results))
