"""Which runs readers see."""

from collections.abc import Mapping
from dataclasses import dataclass

from tinytags_tasks.clients.solr_http import ForbiddenError
from tinytags_tasks.errors import MissingError
from tinytags_tasks.publish.publications import complete_history, live_collection, read_history, run_of
from tinytags_tasks.runtime import Runtime
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
    """

    run: Run
    corpus: Corpus | None
    publication: Publication | None


class LiveRuns:
    """Knows what is live under the alias; asks Solr and the store at most every few seconds."""

    def __init__(self, settings: Settings, runtime: Runtime) -> None:
        self._alias = settings.alias
        self._runtime = runtime
        self._kept = Kept("what is live", self._look, KEPT_SECONDS)

    @property
    def known(self) -> tuple[LiveRun, ...]:
        """The live runs as they were last seen, without asking."""
        return self._kept.known or ()

    def runs(self) -> tuple[LiveRun, ...]:
        """Return the live runs; empty if nothing is live, or nothing of this store.

        If Solr or the store does not answer, the last known ones count.

        Raises
        ------
        TinyTagsError
            If they were never known, and cannot be.
        """
        return self._kept.get()

    def run(self) -> LiveRun:
        """Return the live run; the first of several.

        Raises the errors of :meth:`runs`, and ``MissingError`` if nothing of this store is live.
        """
        found = self.runs()
        if not found:
            raise MissingError(f"no run of this store is live under {self._alias!r}: publish one with `tinytags run`")
        return found[0]

    def forget(self) -> None:
        """Look again at the next question, because something was published just now."""
        self._kept.forget()

    @property
    def least_confidence(self) -> Mapping[str, int] | None:
        """The lowest confidence at which readers see each tag; None if they see all. Raises as :meth:`runs`."""
        found = self.runs()
        publication = found[0].publication if found else None
        return publication.thresholds if publication else None

    def _look(self) -> tuple[LiveRun, ...]:
        storage = self._runtime.storage
        history = read_history(self._alias, storage)
        try:
            names = live_collection(self._alias, self._runtime.solr)
        except ForbiddenError:  # by a Solr whose writer may not look at aliases: the history has to do
            names = history[-1].collection if history else ""
        runs = [run for run in (run_of(name, storage) for name in names.split(",") if name) if run]
        if names and "," not in names:  # a killed process may have recorded only what it was about to make live
            history = complete_history(self._alias, history, names, storage)
        latest = {publication.collection: publication for publication in history}
        return tuple(LiveRun(run, _corpus_of(run, storage), latest.get(run.collection)) for run in runs)


def _corpus_of(run: Run, storage: Storage) -> Corpus | None:
    path = layout.corpus_file(run.corpus)
    return Corpus.load(storage, path) if storage.exists(path) else None
