"""People's words on a small live run, for tests: what is said, and what readers then see."""

import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from faulty_storage import Killed
from published_runs import ALIAS, World
from small_run import CORPUS, SolrHere, index_all, quiet

from tinytags_tasks.publish.corrections import correct_live, pending_blocks
from tinytags_tasks.publish.step import reconcile_run
from tinytags_tasks.review.words import say
from tinytags_tasks.store import layout
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.ledger import read_ledger
from tinytags_tasks.store.local import LocalStorage
from tinytags_tasks.store.review_records import Verdict, Word
from tinytags_tasks.store.run_records import Run

CAT_AT_7 = Word(7, Verdict.TAG, "cat", is_public=True)

GNU_AT_0 = Word(0, Verdict.TAG, "gnu", is_public=True)

NONE_AT_2 = Word(2, Verdict.NONE, is_public=True)

NO_DOG_AT_1 = Word(1, Verdict.WRONG, "dog", is_public=True)

DOWN_8 = Word(8, Verdict.TAKEDOWN, is_public=True, reason="asked")

SHOWN_8 = Word(8, Verdict.RESTORE, is_public=True)

SEVERAL = (CAT_AT_7, GNU_AT_0, NONE_AT_2, NO_DOG_AT_1, DOWN_8)


def speak(world: World, *words: Word, storage=None) -> int:
    return say(corpus_of(world), words, by="ann", storage=storage or world.storage, report=quiet)


def corpus_of(world: World) -> Corpus:
    return Corpus.load(world.storage, layout.corpus_file(CORPUS))


def show(world: World, storage=None, solr=None):
    return correct_live(CORPUS, ALIAS, storage=storage or world.storage, solr=solr or world.solr, report=quiet)


def documents(world: World, run: Run | None = None) -> dict[str, dict]:
    return world.solr.documents((run or world.runs[0]).collection)


def indexed_anew(world: World, run: Run | None = None) -> dict[str, dict]:
    """Return the documents that indexing the run from scratch makes of all words until now."""
    run = run or world.runs[0]
    folder = world.storage.root.with_name(f"anew-{random.random()}")
    shutil.copytree(world.storage.root, folder)
    storage, solr = LocalStorage(folder), SolrHere()
    solr.uploaded, solr.configset_of = world.solr.uploaded, world.solr.configset_of
    shutil.rmtree(folder / layout.ledger_folder(run.name))
    index_all(storage, run, solr)
    return solr.documents(run.collection)


def assert_followed(world: World, run: Run | None = None) -> None:
    """Assert that a run's documents and ledger follow all words, and prove it to the checks of a publication."""
    run = run or world.runs[0]
    assert documents(world, run) == indexed_anew(world, run)
    assert pending_blocks(run, world.storage) == ()
    reconcile_run(run.name, storage=world.storage, solr=world.solr, report=quiet)
    totals = [(record.read, record.accounted) for record in read_ledger(world.storage, run)]
    assert all(read == accounted for read, accounted in totals)


class FaultySolr:
    """Forwards every call, and is killed before or after the n-th that changes documents."""

    def __init__(self, inner: SolrHere, fail_at: int, mode: str) -> None:
        self.inner, self.fail_at, self.mode, self.calls = inner, fail_at, mode, 0

    def __getattr__(self, name: str) -> object:
        return getattr(self.inner, name)

    def _change(self, act: Callable[[], object]) -> object:
        self.calls += 1
        if self.calls == self.fail_at and self.mode == "before":
            raise Killed
        outcome = act()
        if self.calls == self.fail_at:
            raise Killed
        return outcome

    @contextmanager
    def posting(self, collection: str, mime: str) -> Iterator[Callable]:
        with self.inner.posting(collection, mime) as post:
            yield lambda body: self._change(lambda: post(body))

    def delete_ids(self, collection, ids):
        self._change(lambda: self.inner.delete_ids(collection, ids))

    def commit(self, collection):
        self._change(lambda: self.inner.commit(collection))
