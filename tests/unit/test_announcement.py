"""What people are told of a run that has succeeded."""

import re
import shutil

import pytest
from published_runs import ALIAS, World, add_corpus, make_world
from small_run import quiet

from tinytags_tasks.publish.announcement import MOST_TAGS, announce_published, announce_verified, describe_changes
from tinytags_tasks.publish.step import PublishRequest, PublishResult, publish_run
from tinytags_tasks.store import layout
from tinytags_tasks.store.ledger import add_up, read_ledger
from tinytags_tasks.store.run_records import Run


@pytest.fixture
def world(tmp_path) -> World:
    return make_world(tmp_path)


def publish(world: World, run: Run) -> PublishResult:
    return publish_run(PublishRequest(run.name, ALIAS), storage=world.storage, solr=world.solr, report=quiet)


def kept(world: World, run: Run) -> int:
    return add_up(read_ledger(world.storage, run)).kept


def test_the_first_publication_of_a_corpus_replaces_nothing(world: World) -> None:
    run = world.runs[0]
    lines = announce_published(publish(world, run), storage=world.storage)
    assert lines[0] == f"pets: run {run.name} is live"
    assert f"from {run.threshold} % on: {kept(world, run):,} kept" in lines[1]
    assert lines[2:] == ["it replaces no other run of the corpus"]


def test_a_publication_says_what_it_changes_against_its_own_corpus(world: World) -> None:
    (bird,) = add_corpus(world, "birds", 40)
    world.publish(bird, world.runs[0])
    lines = announce_published(publish(world, world.runs[2]), storage=world.storage)
    fewer = kept(world, world.runs[2]) - kept(world, world.runs[0])
    assert fewer < 0
    assert lines[2] == f"it replaces run {world.runs[0].name}: {fewer:+,} images kept"
    assert lines[3].startswith(f"that one is of model {world.runs[0].model}, from {world.runs[0].threshold} %")
    assert " -" in lines[4]
    assert bird.name not in "".join(lines)


def test_a_verified_run_that_is_not_to_be_published_is_compared_with_the_live_one(world: World) -> None:
    world.publish(world.runs[0])
    run = world.runs[1]
    totals = add_up(read_ledger(world.storage, run))
    lines = announce_verified(run.name, totals, ALIAS, storage=world.storage, solr=world.solr)
    assert lines[0] == f"pets: run {run.name} is verified, and not published"
    assert lines[2].startswith(f"it would replace run {world.runs[0].name}: ")
    assert lines[-1] == f"publish it with `tinytags publish {run.name}`"


def test_a_run_whose_predecessor_is_gone_or_damaged_is_told_all_the_same(world: World) -> None:
    world.publish(world.runs[0])
    result = publish(world, world.runs[1])
    ledger = world.storage.root / layout.ledger_file(world.runs[0].name, 0)
    ledger.write_text("{")
    assert re.search(r"counts only \d+ of \d+ images: repair it", announce_published(result, storage=world.storage)[2])
    (world.storage.root / layout.run_file(world.runs[0].name)).write_text("{")
    assert "whose counts cannot be read: " in announce_published(result, storage=world.storage)[2]
    shutil.rmtree(world.storage.root / layout.run_folder(world.runs[0].name))
    assert "belongs to no run of this store" in announce_published(result, storage=world.storage)[2]


def test_of_many_tags_those_that_changed_most_are_named() -> None:
    before = {f"tag{number:02}": 100 for number in range(30)}
    now = {tag: 100 + number for number, tag in enumerate(before)} | {"new": 7}
    told = describe_changes(before, now)
    assert told.startswith("tag29 +29, tag28 +28, ")
    assert told.count("+") == MOST_TAGS
    assert told.endswith(" and 20 more tags")
    assert describe_changes({"cat": 3, "dog": 1}, {"cat": 1, "dog": 1}) == "cat -2"
