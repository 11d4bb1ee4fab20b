"""Runs that readers choose by name, instead of what is live: only verified ones, whose collections are still there."""

import threading

from cachetools import TTLCache

from tinytags_tasks.errors import BadInputError, MissingError
from tinytags_tasks.publish.publications import read_history
from tinytags_tasks.runtime import Runtime
from tinytags_tasks.search.live import LiveRun, corpus_of
from tinytags_tasks.settings import Settings
from tinytags_tasks.store import layout
from tinytags_tasks.store.ledger import LedgerReader
from tinytags_tasks.store.run_records import BlockState, Run

KEPT_SECONDS = 60.0
"""How long a run that was found verified is not looked at again: reading its ledger takes a while."""


class ChosenRuns:
    """Finds verified runs.

    Parameters
    ----------
    settings
        Has the alias, whose history has the confidence from which a run's tags were shown.
    runtime
        Has the store, and Solr.
    """

    def __init__(self, settings: Settings, runtime: Runtime) -> None:
        self._alias = settings.alias
        self._runtime = runtime
        self._known: TTLCache[str, LiveRun] = TTLCache(100, KEPT_SECONDS)
        self._lock = threading.Lock()

    def get(self, name: str) -> LiveRun:
        """Return a run by its name.

        Raises
        ------
        MissingError
            If there is no such run, or its collection was deleted.
        BadInputError
            If it is not verified.
        """
        with self._lock:
            if (known := self._known.get(name)) is not None:
                return known
        found = self._find(name)
        with self._lock:
            self._known[name] = found
        return found

    def look_again(self, name: str) -> None:
        """Look whether a run is still there, because its collection was not; raises as :meth:`get`."""
        with self._lock:
            self._known.pop(name, None)
        self.get(name)

    def _find(self, name: str) -> LiveRun:
        storage = self._runtime.storage
        path = layout.run_file(layout.checked_name(name, "run"))
        if not storage.exists(path):
            raise MissingError(f"there is no run {name}: see `tinytags runs`")
        run = Run.load(storage, path)
        if run.pruned:
            raise MissingError(f"run {name} was pruned, and cannot be searched any more: choose another one")
        unverified = sum(record.state is not BlockState.VERIFIED for record in LedgerReader(storage, run).read())
        if unverified:
            raise BadInputError(f"run {name} cannot be searched yet: {unverified:,} of its blocks are not verified")
        own = [record for record in read_history(self._alias, storage) if record.collection == run.collection]
        fields = self._runtime.solr.field_names(run.collection)
        return LiveRun(run, corpus_of(run, storage), own[-1] if own else None, fields)
