"""Three runs of the small corpus, months apart, indexed long ago; and a Solr that fails or dies at the n-th change."""

import copy
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from faulty_storage import Mode
from small_run import SolrHere, index_all, make_another_run, make_corpus, make_run, quiet, score_all

from tinytags_tasks.errors import TransientError
from tinytags_tasks.publish.publications import read_history
from tinytags_tasks.publish.step import PublishRequest, publish_run
from tinytags_tasks.store import layout
from tinytags_tasks.store.ledger import list_runs, read_ledger
from tinytags_tasks.store.local import LocalStorage
from tinytags_tasks.store.run_records import Run

ALIAS = "live"
LONG_AGO = "2024-06-01T00:00:00+00:00"


@dataclass
class World:
    """A store, Solr, and the runs in the order in which they were planned."""

    storage: LocalStorage
    solr: SolrHere
    runs: tuple[Run, ...]

    def copy(self, root: Path) -> "World":
        """Return a copy of the world in another folder."""
        shutil.copytree(self.storage.root, root)
        return World(LocalStorage(root), copy.deepcopy(self.solr), self.runs)

    def publish(self, *runs: Run, alias: str = ALIAS) -> None:
        """Publish runs one after the other."""
        for run in runs:
            publish_run(PublishRequest(run.name, alias), storage=self.storage, solr=self.solr, report=quiet)

    def live(self) -> str:
        """Return the live collection."""
        return self.solr.aliases().get(ALIAS, "")

    def outcome(self) -> dict[str, object]:
        """Return everything that publishing, rolling back and pruning determine, without times."""
        return {
            "aliases": self.solr.aliases(),
            "collections": self.solr.collections(),
            "history": [
                (record.change, record.run, record.collection, record.previous)
                for record in read_history(ALIAS, self.storage)
            ],
            "pruned": [run.name for run in list_runs(self.storage) if run.pruned],
            "scored": {run.name: len(self.storage.names(layout.scored_folder(run.name))) for run in self.runs},
            # Of a lease, only the file under its own name is ever read.
            "leftovers": [path.name for path in self.storage.root.rglob(".*.tmp") if ".lease." not in path.name],
            "leases": [path.name for path in self.storage.root.rglob("*.lease")],
        }


def make_world(folder: Path) -> World:
    """Create the three runs; nothing is published yet."""
    storage, solr = LocalStorage(folder / "store"), SolrHere()
    first = make_run(storage)
    runs = (
        make_another_run(storage, first.threshold, "2024-01-01T00:00:00+00:00"),
        make_another_run(storage, 50, "2024-02-01T00:00:00+00:00"),
        make_another_run(storage, 60, "2024-03-01T00:00:00+00:00"),
    )
    for run in runs:
        score_all(storage, run)
        index_all(storage, run, solr)
        age_ledger(storage, run)
    return World(storage, solr, runs)


def add_corpus(world: World, corpus: str, *thresholds: int) -> tuple[Run, ...]:
    """Create runs of another corpus, which has the same pictures; they are indexed as long ago."""
    make_corpus(world.storage, name=corpus)
    runs = tuple(
        make_another_run(world.storage, threshold, f"2024-0{month}-15T00:00:00+00:00", corpus)
        for month, threshold in enumerate(thresholds, 1)
    )
    for run in runs:
        score_all(world.storage, run)
        index_all(world.storage, run, world.solr)
        age_ledger(world.storage, run)
    return runs


def age_ledger(storage: LocalStorage, run: Run, time: str = LONG_AGO) -> None:
    """Change the times at which a run's blocks were scored and indexed."""
    for record in read_ledger(storage, run):
        record.replaced(scored=time, indexed=time).save(storage, layout.ledger_file(run.name, record.block))


class FaultySolr:
    """Forwards every call to another Solr, and fails at one of the calls that change aliases or collections."""

    def __init__(
        self, inner: SolrHere, fail_at: int, mode: Mode = "before", fault: type[BaseException] = TransientError
    ) -> None:
        self.inner = inner
        self.fail_at = fail_at
        self.mode = mode
        self.fault = fault
        self.calls = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self.inner, name)

    def set_alias(self, alias: str, collections: str) -> None:
        self._change(lambda: self.inner.set_alias(alias, collections))

    def delete_alias(self, alias: str) -> None:
        self._change(lambda: self.inner.delete_alias(alias))

    def delete_collection(self, name: str) -> None:
        self._change(lambda: self.inner.delete_collection(name))

    def _change(self, act: Callable[[], None]) -> None:
        self.calls += 1
        if self.calls == self.fail_at and self.mode == "before":
            raise self.fault(f"fault before call {self.calls}")
        act()
        if self.calls == self.fail_at:
            raise self.fault(f"fault after call {self.calls}")
