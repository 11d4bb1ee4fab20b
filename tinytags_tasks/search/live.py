"""Which runs readers see: one of each corpus."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tinytags_tasks.clients.solr_http import ForbiddenError
from tinytags_tasks.errors import MissingError, TinyTagsError
from tinytags_tasks.publish.live import live_collections, refuse_several, run_of
from tinytags_tasks.publish.publications import complete_history, of_corpus, read_history
from tinytags_tasks.runtime import Runtime
from tinytags_tasks.search.hidden import stricter
from tinytags_tasks.search.kept import Kept
from tinytags_tasks.settings import Settings
from tinytags_tasks.store import layout
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.store.run_records import Publication, Run

KEPT_SECONDS = 3.0
"""How long what is live counts as known."""


@dataclass(frozen=True)
class LiveRun:
    """A run that readers see.

    Attributes
    ----------
    run
        The run.
    corpus
        Its corpus, as it is in the store now: of another version if ``corpus.digest`` is not ``run.corpus_digest``;
        None if it is gone.
    publication
        How it became live, and from which confidence on readers see its tags; None if nothing is known about it.
    fields
        The fields that its collection has. Collections of different ages differ in them: a query that Solr must look up
        a field for, such as a facet or a sort, fails if one collection that is searched lacks it.
    """

    run: Run
    corpus: Corpus | None
    publication: Publication | None
    fields: frozenset[str] = frozenset()


class LiveRuns:
    """Knows what is live under the alias; asks Solr and the store at most every few seconds."""

    def __init__(self, settings: Settings, runtime: Runtime) -> None:
        self._alias = settings.alias
        self._runtime = runtime
        self._fields: dict[str, frozenset[str]] = {}
        self._kept = Kept("what is live", self._look, KEPT_SECONDS)

    @property
    def known(self) -> tuple[LiveRun, ...]:
        """The live runs as they were last seen, without asking."""
        return self._kept.known or ()

    @property
    def current(self) -> tuple[LiveRun, ...] | None:
        """The live runs if :meth:`runs` can say without asking; else None."""
        return self._kept.current

    def runs(self) -> tuple[LiveRun, ...]:
        """Return the live runs; empty if nothing is live, or nothing of this store.

        If Solr or the store does not answer, the last known ones count.

        Raises
        ------
        TinyTagsError
            If they were never known, and cannot be.
        """
        return self._kept.get()

    def run(self, corpus: str = "") -> LiveRun:
        """Return the live run of a corpus; without a name, of the only one that is live.

        Raises the errors of :meth:`runs`; ``MissingError`` if nothing of this store is live, or nothing of the corpus;
        ``BadInputError`` if no corpus is named and several are live.
        """
        found = [live for live in self.runs() if corpus in ("", live.run.corpus)]
        if not found:
            what = f"run of corpus {corpus}" if corpus else "run of this store"
            raise MissingError(f"no {what} is live under {self._alias!r}: publish one with `tinytags run`")
        refuse_several(self._alias, [live.run.corpus for live in found])
        return found[0]

    def forget(self) -> None:
        """Look again at the next question, because something was published just now."""
        self._kept.forget()

    @property
    def least_confidence(self) -> Mapping[str, Mapping[str, int]]:
        """By corpus, the lowest confidence at which readers see each tag; without those of which they see all.

        Raises as :meth:`runs`.
        """
        return least_confidence_of(self.runs())

    def _look(self) -> tuple[LiveRun, ...]:
        storage = self._runtime.storage
        history = read_history(self._alias, storage)
        try:
            names = live_collections(self._alias, self._runtime.solr)
        except ForbiddenError:  # by a Solr whose writer may not look at aliases: the history has to do
            last = {record.corpus: record.collection for record in history if record.corpus}
            names = tuple(filter(None, last.values()))
        runs = [run for run in (run_of(name, storage) for name in names) if run]
        # A killed process may have recorded only what it was about to make live.
        history = complete_history(self._alias, history, names, storage)
        return tuple(self._live_run(run, history) for run in runs)

    def _live_run(self, run: Run, history: Sequence[Publication]) -> LiveRun:
        storage = self._runtime.storage
        own = [record for record in of_corpus(run.corpus, history) if record.collection == run.collection]
        return LiveRun(run, corpus_of(run, storage), own[-1] if own else None, self._fields_of(run.collection))

    def _fields_of(self, collection: str) -> frozenset[str]:
        """Return a collection's fields, which never change; none if Solr does not say, which is asked again."""
        if collection not in self._fields:
            try:
                self._fields[collection] = self._runtime.solr.field_names(collection)
            except TinyTagsError:
                return frozenset()
        return self._fields[collection]


def least_confidence_of(runs: Iterable[LiveRun]) -> Mapping[str, Mapping[str, int]]:
    """Return by corpus of some live runs the lowest confidence at which readers see each tag; see :class:`LiveRuns`."""
    found: dict[str, Mapping[str, int]] = {}
    for live in runs:
        least = live.publication.thresholds if live.publication else None
        if least is not None:
            known = found.get(live.run.corpus)
            found[live.run.corpus] = least if known is None else stricter(known, least)
    return found


def corpus_of(run: Run, storage: Storage) -> Corpus | None:
    """Return a run's corpus as it is in the store now; None if it is gone."""
    path = layout.corpus_file(run.corpus)
    return Corpus.load(storage, path) if storage.exists(path) else None
