"""Pictures that were sent to review go once nobody needs them; what was said of them stays."""

from datetime import UTC, datetime, timedelta

import pytest
from published_runs import ALIAS
from small_run import CORPUS, quiet
from small_words import say, tag, takedown, undo

from tinytags_tasks.store import layout
from tinytags_tasks.store.corpus_records import load_corpus
from tinytags_tasks.store.review_log import ReviewLog
from tinytags_tasks.store.review_sets import ChosenPicture, ReviewSet
from tinytags_tasks.store.run_records import Run
from tinytags_tasks.upkeep.prune import PruneRequest, plan_prune, prune_collections
from tinytags_tasks.upkeep.prune_review_sets import KEPT_DAYS

POSITIONS = (0, 2, 4)


@pytest.fixture
def world(made, tmp_path):
    return made.copy(tmp_path / "copy")


def keep_set(world, positions=POSITIONS, days=KEPT_DAYS + 1, run=None, **changed):
    """Send pictures to review some days ago; return the set's name."""
    run = run or world.runs[0]
    made = {
        "run": run.name,
        "corpus": CORPUS,
        "corpus_digest": run.corpus_digest,
        "pictures": tuple(
            ChosenPicture(position=position, block=0, tag="cat", confidence=70) for position in positions
        ),
        "asked": len(positions),
        "by": "ann",
        "created": (datetime.now(UTC) - timedelta(days=days)).isoformat(timespec="seconds"),
    }
    return ReviewSet(**made | changed).keep(world.storage)


def found(world):
    return plan_prune(PruneRequest(ALIAS, keep=9), storage=world.storage, solr=world.solr)


def unneeded(world):
    return {one.name: one.reason for one in found(world).review_sets}


def sets(world):
    return {name.removesuffix(".json") for name in world.storage.names(layout.review_sets_folder(CORPUS))}


def look_at_all(world):
    return say(world.storage, *(tag(position, "cat") for position in POSITIONS))


def test_a_set_that_was_looked_at_goes_with_a_line_and_the_words_stay(world):
    name = keep_set(world)
    look_at_all(world)
    words = ReviewLog(CORPUS, world.storage).read()
    line = f"review set {name} of corpus {CORPUS} (3 pictures): people have looked at all of them"
    assert found(world).lines("drops") == [f"drops {line}"]
    lines = []
    request = PruneRequest(ALIAS, keep=9)
    prune_collections(request, storage=world.storage, solr=world.solr, report=lines.append)
    assert lines == [f"dropped {line}"]
    assert sets(world) == set()
    assert ReviewLog(CORPUS, world.storage).read().equals(words)
    assert found(world).is_empty


def test_a_set_stays_until_all_of_its_pictures_are_done(world):
    name = keep_set(world)
    number = say(world.storage, tag(0, "cat"), tag(2, "dog"))
    assert unneeded(world) == {}
    say(world.storage, takedown(4))  # nobody can look at it any more
    assert set(unneeded(world)) == {name}
    say(world.storage, undo(2, number))
    assert unneeded(world) == {}


def test_a_set_stays_for_some_days(world):
    keep_set(world, days=KEPT_DAYS - 1)
    look_at_all(world)
    assert unneeded(world) == {}


def test_a_set_of_a_run_that_cannot_be_reviewed_goes_however_new_it_is(world):
    first, second = world.runs[0], world.runs[1]
    kept = keep_set(world, days=0)
    gone = keep_set(world, days=0, run=second)
    other = keep_set(world, days=0, corpus_digest="0" * 64)
    removed = first.model_copy(update={"name": "no-such-run"})
    lost = keep_set(world, days=0, run=removed)
    path = layout.run_file(second.name)
    Run.load(world.storage, path).model_copy(update={"pruned": "2026-01-01T00:00:00+00:00"}).save(world.storage, path)
    assert unneeded(world) == {
        gone: f"run {second.name} was pruned",
        other: "its corpus was ingested again, with other pictures",
        lost: "run no-such-run was removed",
    }
    assert kept in sets(world)
    assert load_corpus(CORPUS, world.storage).digest == first.corpus_digest


def test_only_sets_that_were_shown_are_dropped(world):
    shown, new = keep_set(world), keep_set(world, positions=POSITIONS[:2])
    look_at_all(world)
    request = PruneRequest(ALIAS, keep=9, review_sets=(f"{CORPUS}/{shown}",))
    prune_collections(request, storage=world.storage, solr=world.solr, report=quiet)
    assert sets(world) == {new}


def test_a_set_that_cannot_be_read_is_named_and_stays(world):
    path = layout.review_set_file(CORPUS, keep_set(world))
    world.storage.write(path, b"{}")
    looked = found(world)
    assert (looked.review_sets, path in looked.kept[path]) == ((), True)
