"""Corrections and take-downs that are killed between any two of their writes; and what follows from them."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
from faulty_site import CLEAN, CORPUS, STORE, audit, index_run, publish, repair, visible
from small_run import quiet

from tinytags_tasks.index.step import IndexRequest, index_blocks
from tinytags_tasks.parts import PROJECT_ROOT
from tinytags_tasks.publish.corrections import correct_live, pending_blocks
from tinytags_tasks.publish.rollback import RollbackRequest, roll_back
from tinytags_tasks.publish.step import reconcile_run
from tinytags_tasks.review.takedowns import list_takedowns
from tinytags_tasks.review.words import say
from tinytags_tasks.runtime import Runtime
from tinytags_tasks.store import layout
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.review_log import ReviewLog
from tinytags_tasks.store.review_records import Verdict, Word
from tinytags_tasks.store.run_records import Run

pytest_plugins = ["faulty_site"]

# The votes of a picture follow from its position modulo 11: 1 and 12 are dogs, 0 and 11 are cats, 3 and 14 are below.
DOG, CAT, BELOW = 1, 11, 14

KILLED = """
import os, signal, sys
from tinytags_tasks.cli import main
from tinytags_tasks.clients.solr import SolrClient
from tinytags_tasks.publish import corrections
from tinytags_tasks.store.run_records import BlockRecord

def die(*arguments, **options):
    os.kill(os.getpid(), signal.SIGKILL)

moment = {moment!r}
if moment == "log":
    corrections.correct_live = die
elif moment == "documents":
    SolrClient.commit = die
elif moment == "commit":
    BlockRecord.save = die
sys.argv = ["tinytags", *{arguments!r}]
main()
"""
MOMENTS = ("log", "documents", "commit")


@pytest.fixture
def no_words(site: Runtime) -> Iterator[None]:
    """Forget afterwards what was said, so that other tests' runs are not corrected."""
    yield
    site.storage.delete(f"{layout.REVIEWS}/{CORPUS}")


def corpus_of(site: Runtime) -> Corpus:
    return Corpus.load(site.storage, layout.corpus_file(CORPUS))


def killed(alias: str, moment: str, *arguments: str) -> None:
    """Run a command that is killed at a moment."""
    process = subprocess.run(
        [sys.executable, "-c", KILLED.format(moment=moment, arguments=arguments)],
        env={**os.environ, "TINYTAGS_STORE": STORE, "TINYTAGS_ALIAS": alias},
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert process.returncode == -signal.SIGKILL, process.stderr


def corrected(position: int, number: int) -> dict[str, object]:
    """Return the document of a picture of which a person said that it shows a gnu."""
    kept = CLEAN[f"{CORPUS}:{position}"]
    return {**kept, "tag": "gnu", "votes": 10, "accuracy": 100, "corrected": number}


def assert_right(site: Runtime, run: Run, expected: dict[str, dict]) -> None:
    """Assert that a run has exactly these documents, and that every check agrees."""
    assert visible(site, run.collection) == expected
    assert pending_blocks(run, site.storage) == ()
    reconcile_run(run.name, storage=site.storage, solr=site.solr, report=quiet)
    found = audit(site, run)
    assert (found.problems, found.input_problems, found.pending) == ({}, (), ())


@pytest.mark.usefixtures("no_words")
def test_killed_between_any_two_writes_nothing_is_lost_and_nothing_is_shown_that_was_taken_down(
    site: Runtime, published: Run, alias: str
) -> None:
    expected = dict(CLEAN)
    for turn, moment in enumerate(MOMENTS):
        dog, cat = DOG + 11 * 6 * turn, CAT + 11 * 6 * turn
        killed(alias, moment, "takedown", "add", CORPUS, str(dog), "--reason", "the owner asked")
        # This is what the search page hides, whatever Solr has.
        assert dog in list_takedowns(corpus_of(site), site.storage).column("position").to_pylist()
        assert pending_blocks(published, site.storage)
        expected.pop(f"{CORPUS}:{dog}")
        killed(alias, moment, "correct", CORPUS, str(cat), "--tag", "gnu")
        log = ReviewLog(CORPUS, site.storage)
        log.read()
        expected[f"{CORPUS}:{cat}"] = corrected(cat, log.last)
        # Whoever says something next ends it, also what is in blocks that this is not about.
        last = Word(329 - turn, Verdict.NONE, is_public=True)
        say(corpus_of(site), [last], by="ann", storage=site.storage)
        correct_live(CORPUS, alias, storage=site.storage, solr=site.solr, report=quiet)
        expected.pop(f"{CORPUS}:{last.position}", None)
        assert_right(site, published, expected)
    assert visible(site, alias) == expected


@pytest.mark.usefixtures("no_words")
def test_another_run_a_rollback_a_backfill_and_a_repair_after_corrections_give_exactly_what_is_right(
    site: Runtime, published: Run, new_run: Callable[[], Run], alias: str
) -> None:
    words = [
        Word(CAT, Verdict.TAG, "gnu", is_public=True),
        Word(DOG, Verdict.TAKEDOWN, reason="asked"),
        Word(BELOW, Verdict.TAKEDOWN, reason="asked"),
    ]
    number = say(corpus_of(site), words, by="ann", storage=site.storage)
    correct_live(CORPUS, alias, storage=site.storage, solr=site.solr, report=quiet)
    expected = {**CLEAN, f"{CORPUS}:{CAT}": corrected(CAT, number)}
    expected.pop(f"{CORPUS}:{DOG}")
    assert_right(site, published, expected)

    tagged_again = new_run()
    index_run(site, tagged_again)
    publish(site, tagged_again, alias)
    assert_right(site, tagged_again, expected)

    say(corpus_of(site), [Word(CAT, Verdict.TAKEDOWN, reason="asked")], by="ann", storage=site.storage)
    correct_live(CORPUS, alias, storage=site.storage, solr=site.solr, report=quiet)
    expected.pop(f"{CORPUS}:{CAT}")
    assert visible(site, alias) == expected
    assert pending_blocks(published, site.storage) == (0,)
    roll_back(RollbackRequest(alias), storage=site.storage, solr=site.solr, report=quiet)
    assert_right(site, published, expected)

    blocks = tuple(range(published.blocks))
    index_blocks(IndexRequest(published.name, blocks, redo=True), storage=site.storage, solr=site.solr, report=quiet)
    assert_right(site, published, expected)
    site.solr._update(published.collection, {"add": {"doc": {**CLEAN[f"{CORPUS}:{DOG}"], "id": f"{CORPUS}:{DOG}"}}})
    site.solr.commit(published.collection)
    assert audit(site, published).wrong == (0,)
    repair(site, published)
    assert_right(site, published, expected)
