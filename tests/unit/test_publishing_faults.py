"""Publishing, rolling back and pruning, killed or failing at every change: a rerun gives the result of a clean run."""

import pytest
from faulty_storage import MODES, FaultyStorage, Killed
from published_runs import ALIAS, FaultySolr, make_world
from small_run import quiet

from tinytags_tasks.errors import TransientError
from tinytags_tasks.publish.rollback import RollbackRequest, roll_back
from tinytags_tasks.publish.step import PublishRequest, publish_run
from tinytags_tasks.upkeep.prune import PruneRequest, prune_collections


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Two of three runs were published; the second is live."""
    world = make_world(tmp_path_factory.mktemp("world"))
    world.publish(*world.runs[:2])
    return world


def publish_the_third(world, storage, solr):
    publish_run(PublishRequest(world.runs[2].name, ALIAS), storage=storage, solr=solr, report=quiet)


def publish_the_first_again(world, storage, solr):
    publish_run(PublishRequest(world.runs[0].name, ALIAS), storage=storage, solr=solr, report=quiet)


def take_back_the_second(world, storage, solr):
    roll_back(RollbackRequest(ALIAS, world.runs[1].name), storage=storage, solr=solr, report=quiet)


def take_back_what_is_live(world, storage, solr):
    roll_back(RollbackRequest(ALIAS), storage=storage, solr=solr, report=quiet)


def drop_both_behind_the_third(world, storage, solr):
    world.publish(world.runs[2])
    prune_collections(PruneRequest(ALIAS, keep=0, scored=True), storage=storage, solr=solr, report=quiet)


STEPS = (
    publish_the_third,
    publish_the_first_again,
    take_back_the_second,
    take_back_what_is_live,
    drop_both_behind_the_third,
)


@pytest.mark.parametrize("fault", [Killed, TransientError])
@pytest.mark.parametrize("step", STEPS)
def test_a_rerun_after_a_fault_of_the_store_equals_a_clean_one(prepared, tmp_path, step, fault):
    clean = prepared.copy(tmp_path / "clean")
    step(clean, clean.storage, clean.solr)
    met = 0
    for mode in MODES:
        for fail_at in range(1, 100):
            world = prepared.copy(tmp_path / f"{mode}-{fail_at}")
            faulty = FaultyStorage(world.storage, fail_at, mode, fault)
            try:
                step(world, faulty, world.solr)
                if faulty.calls < fail_at:
                    break
            except fault:
                met += 1
            # What was recorded is done; without a name, a rerun would mean one more step back.
            is_done = world.outcome()["history"] == clean.outcome()["history"]
            if not (step is take_back_what_is_live and is_done):
                step(world, world.storage, world.solr)
            assert without_leases(world) == without_leases(clean), (mode, fail_at)
    assert met >= 6


@pytest.mark.parametrize("fault", [Killed, TransientError])
@pytest.mark.parametrize("mode", ["before", "after"])
@pytest.mark.parametrize("step", STEPS)
def test_a_rerun_after_a_fault_of_solr_equals_a_clean_one(prepared, tmp_path, step, mode, fault):
    clean = prepared.copy(tmp_path / "clean")
    step(clean, clean.storage, clean.solr)
    met = 0
    for fail_at in range(1, 10):
        world = prepared.copy(tmp_path / str(fail_at))
        faulty = FaultySolr(world.solr, fail_at, mode, fault)
        try:
            step(world, world.storage, faulty)
            if faulty.calls < fail_at:
                break
        except fault:
            step(world, world.storage, world.solr)
        met += 1
        assert without_leases(world) == without_leases(clean), fail_at
    assert met == (2 if step is drop_both_behind_the_third else 1)


def test_a_collection_that_is_gone_although_solr_did_not_say_so_is_dropped(prepared, tmp_path):
    world = prepared.copy(tmp_path / "world")
    drop_both_behind_the_third(world, world.storage, FaultySolr(world.solr, 1, "after"))
    assert world.solr.collections() == [world.runs[2].collection]


def without_leases(world):
    """Return the outcome; a process that was killed with a lease may leave it to the next one."""
    outcome = world.outcome()
    return {name: found for name, found in outcome.items() if name != "leases"}
