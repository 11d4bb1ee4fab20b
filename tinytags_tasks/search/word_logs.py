"""What people said of pictures, as the page knows it: who corrected what, and which pictures were taken down.

The logs are listed every few seconds, not at each request. If they cannot be read, what was last read counts; if they
never were, nothing may be shown, because a picture that was taken down could be among it. The damaged log of one corpus
hides nothing of the others.
"""

import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from cachetools import LRUCache

from tinytags_tasks.errors import TinyTagsError
from tinytags_tasks.runtime import Runtime
from tinytags_tasks.search.hidden import MOST_FILTERED, Hidden
from tinytags_tasks.search.kept import Kept
from tinytags_tasks.search.live import LiveRuns
from tinytags_tasks.search.waiting import BusyError
from tinytags_tasks.store import layout
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.review_log import (
    ReviewLog,
    last_request,
    of_version,
    positions_taken_down,
    shared_log,
    takedowns,
)
from tinytags_tasks.store.review_records import SCHEMA

KEPT_SECONDS = 2.0
"""How long what was read counts as current; a take-down elsewhere is hidden after that."""

_MOST_VERSIONS = 32
"""Versions of corpora of which it is kept what was taken down."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Said:
    """Who said something, and when."""

    by: str
    time: str


@dataclass(frozen=True, eq=False)
class CorpusWords:
    """People's words on a corpus' pictures.

    Attributes
    ----------
    words
        All words, in the order of their requests, with the columns of a review log.
    last
        The number of the last request; 0 without any.
    last_public
        The number of the last request that changes what readers see.
    versions
        The digests of the corpus' versions that readers may see.
    taken_down
        The words by which pictures are taken down, by position; of their columns only those that say this.
    """

    words: pa.Table = field(repr=False)
    last: int
    last_public: int
    versions: frozenset[str]
    taken_down: pa.Table = field(repr=False)

    def request(self, number: int) -> pa.Table:
        """Return the words of a request; none if there is no such request."""
        numbers = self.words.column("number").to_numpy()
        first, end = np.searchsorted(numbers, [number, number + 1])
        return self.words.slice(int(first), int(end - first))

    def said(self, number: int) -> Said | None:
        """Return who made a request, and when; None if there is no such request."""
        words = self.request(number)
        if not len(words):
            return None
        return Said(words.column("by")[0].as_py(), words.column("time")[0].as_py())


_NO_WORDS = CorpusWords(SCHEMA.empty_table(), 0, 0, frozenset(), SCHEMA.empty_table())


@dataclass(frozen=True, eq=False)
class Logs:
    """What was read of the logs, by corpus, and why others were never read."""

    words: Mapping[str, CorpusWords]
    unread: Mapping[str, TinyTagsError]

    def of(self, corpus: str) -> CorpusWords:
        """Return what was said of a corpus' pictures, if its log was read."""
        return self.words.get(corpus, _NO_WORDS)


class WordLogs:
    """Reads the logs of all corpora.

    Parameters
    ----------
    runtime
        Has the store.
    live
        Knows which versions of corpora readers see.
    """

    def __init__(self, runtime: Runtime, live: LiveRuns) -> None:
        self._runtime = runtime
        self._live = live
        self._logs: dict[str, ReviewLog] = {}
        self._applied: dict[tuple[str, str], int] = {}
        self._down: LRUCache[tuple[str, int, str], Hidden] = LRUCache(_MOST_VERSIONS)
        self._hidden: tuple[tuple[tuple[str, CorpusWords, int], ...], Hidden] | None = None
        self._down_lock = threading.Lock()
        self._kept = Kept("the words on pictures", self._read, KEPT_SECONDS)

    @property
    def current(self) -> Logs | None:
        """The logs if all are known without asking; else None."""
        logs = self._kept.current
        return None if logs is None or logs.unread else logs

    def hidden(self) -> Hidden:
        """Return which pictures must not be shown.

        Raises
        ------
        BusyError
            If the logs were never read, and cannot be; or if that of a live corpus cannot be.
        """
        logs = self._look()
        self._refuse_unread_live(logs.unread)
        return self.hidden_in(logs)

    def hidden_in(self, logs: Logs) -> Hidden:
        """Return which pictures must not be shown, by logs that were read."""
        words = logs.words
        state = tuple((name, of, self.applied(name)) for name, of in words.items())
        made = self._hidden
        if made is not None and made[0] == state:
            return made[1]
        positions = {name: of.taken_down.column("position").to_numpy() for name, of in words.items()}
        pending: list[str] = []
        for name, of, applied in state:
            is_new = of.taken_down.column("number").to_numpy() > applied
            pending += [layout.document_id(name, position) for position in positions[name][is_new][:MOST_FILTERED]]
        hidden = Hidden(positions, tuple(pending[:MOST_FILTERED]))
        self._hidden = state, hidden
        return hidden

    def hidden_of(self, corpus: str, digest: str) -> Hidden:
        """Return which pictures of a version of a corpus are taken down, whatever is live.

        Raises
        ------
        BusyError
            If the log was never read, and cannot be.
        """
        words = self.of(corpus)
        key = corpus, words.last, digest
        with self._down_lock:
            hidden = self._down.get(key)
            if hidden is None:
                down = positions_taken_down(of_version(words.words, digest))
                pending = tuple(layout.document_id(corpus, int(position)) for position in down[:MOST_FILTERED])
                hidden = self._down[key] = Hidden({corpus: down}, pending)
        return hidden

    def of(self, corpus: str) -> CorpusWords:
        """Return what was said of a corpus' pictures.

        Raises
        ------
        BusyError
            If its log was never read, and cannot be.
        """
        logs = self._look()
        if error := logs.unread.get(corpus):
            raise _nothing_is_shown(error)
        return logs.of(corpus)

    def is_taken_down(self, corpus: Corpus, position: int) -> bool:
        """Tell whether a picture of this version of a corpus is taken down, as of some seconds ago at most.

        Raises
        ------
        BusyError
            If the log was never read, and cannot be.
        """
        return self.hidden_of(corpus.name, corpus.digest).hides(corpus.name, position)

    def corpora(self) -> list[str]:
        """Return the corpora of whose pictures something was said, as far as their logs can be read.

        Raises
        ------
        BusyError
            If no log was ever read, or can be.
        """
        return sorted(self._look().words)

    def forget(self) -> None:
        """Read the logs again at the next question, because something was said just now."""
        self._kept.forget()

    def note_applied(self, corpus: str, run: str, number: int) -> None:
        """Note that a run's documents follow its corpus' words up to a number."""
        self._applied[corpus, run] = number

    def applied(self, corpus: str) -> int:
        """Return the number up to which this page knows that readers see a corpus' words."""
        live = [run.run.name for run in self._live.known if run.run.corpus == corpus]
        return min((self._applied.get((corpus, run), 0) for run in live), default=0)

    def _look(self) -> Logs:
        try:
            return self._kept.get()
        except TinyTagsError as error:
            raise _nothing_is_shown(error) from error

    def _refuse_unread_live(self, unread: Mapping[str, TinyTagsError]) -> None:
        """Refuse to show anything if the log of a live corpus was never read."""
        if not unread:
            return
        try:
            live = {run.run.corpus for run in self._live.runs()}
        except TinyTagsError as error:
            raise _nothing_is_shown(next(iter(unread.values()))) from error
        for name in sorted(live & set(unread)):
            raise _nothing_is_shown(unread[name])

    def _read(self) -> Logs:
        storage = self._runtime.storage
        words = dict(self._kept.known.words) if self._kept.known else {}
        unread: dict[str, TinyTagsError] = {}
        for name in storage.names(layout.REVIEWS):
            try:
                words[name] = self._read_log(name, words.get(name))
            except TinyTagsError as error:
                _log.warning("the words on pictures of %s cannot be read: %s", name, error)
                if name not in words:  # else what was last read counts
                    unread[name] = error
        return Logs(words, unread)

    def _read_log(self, name: str, known: CorpusWords | None) -> CorpusWords:
        log = self._logs.setdefault(name, shared_log(name, self._runtime.storage))
        table = log.read()
        last = last_request(table)
        versions = self._versions(name)
        if known is not None and (known.last, known.versions) == (last, versions):
            return known
        public = table.column("number").filter(table.column("is_public"))
        return CorpusWords(
            words=table,
            last=last,
            last_public=pc.max(public).as_py() or 0,
            versions=versions,
            taken_down=_taken_down(table, versions),
        )

    def _versions(self, corpus: str) -> frozenset[str]:
        """Return the versions of a corpus whose pictures readers see; if none is live, the one in the store.

        A position is another picture in another version, so only live ones count.
        """
        try:
            runs = self._live.runs()
        except TinyTagsError:  # then nothing is found, either
            runs = ()
        if live := frozenset(run.run.corpus_digest for run in runs if run.run.corpus == corpus):
            return live
        path = layout.corpus_file(corpus)
        storage = self._runtime.storage
        return frozenset([Corpus.load(storage, path).digest] if storage.exists(path) else [])


def _nothing_is_shown(error: TinyTagsError) -> BusyError:
    _log.error("what was taken down cannot be read: %s", error)
    return BusyError(
        "pictures may have been taken down, and the list of them cannot be read, so nothing is shown; the log says why"
    )


def hidden_from_readers(runtime: Runtime) -> Hidden:
    """Return what readers do not see of the live index, for a command that looks once.

    Raises
    ------
    TinyTagsError
        If that cannot be known.
    """
    live = LiveRuns(runtime.settings, runtime)
    return WordLogs(runtime, live).hidden().at_least(live.least_confidence)


def _taken_down(words: pa.Table, versions: frozenset[str]) -> pa.Table:
    """Return the words by which pictures of some versions of a corpus are taken down, by position."""
    columns = ["position", "verdict", "undoes", "number"]  # all of them, twice, would take much memory
    found = [takedowns(of_version(words, version).select(columns)) for version in sorted(versions)]
    together: pa.Table = pa.concat_tables([SCHEMA.empty_table().select(columns), *found])
    return together.sort_by("position").combine_chunks()
