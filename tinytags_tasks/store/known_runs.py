"""The list of runs, for pages that show it again and again: the records of old runs are read once."""

from collections.abc import Callable

from tinytags_tasks.store import layout
from tinytags_tasks.store.ledger import list_runs
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.store.run_records import Run


class KnownRuns:
    """Reads the records of runs that are new and of the newest ones, which may change; the names are listed each time.

    Parameters
    ----------
    storage
        The store.
    newest
        How many of the newest runs are read again.
    """

    def __init__(self, storage: Storage, newest: int) -> None:
        self._storage = storage
        self._newest = newest
        self._known: dict[str, Run] = {}

    def read(self, *, on_damage: Callable[[str], None]) -> list[Run]:
        """Return all runs, newest last.

        Parameters
        ----------
        on_damage
            As for :func:`~tinytags_tasks.store.ledger.list_runs`.
        """
        names = self._storage.names(layout.RUNS)
        newest = {run.name for run in self._sorted()[-self._newest :]}
        known = {name: self._known[name] for name in names if name in self._known and name not in newest}
        unread = [name for name in names if name not in known]
        self._known = known | {run.name: run for run in list_runs(self._storage, names=unread, on_damage=on_damage)}
        return self._sorted()

    def _sorted(self) -> list[Run]:
        return sorted(self._known.values(), key=lambda run: (run.created, run.name))
