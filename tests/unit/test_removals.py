"""Removing models and runs by command: what refuses it, what is gone afterwards, and what a killed command leaves."""

import io
from types import SimpleNamespace

import pytest
from faulty_storage import MODES, FaultyStorage, Killed, files_under
from published_runs import ALIAS, FaultySolr, age_ledger, make_world
from small_run import quiet, score_all
from typer.testing import CliRunner

from tinytags_tasks.cli import app, common, models
from tinytags_tasks.cli import runs as runs_commands
from tinytags_tasks.errors import BadInputError, CorruptError, MissingError, TransientError
from tinytags_tasks.store import layout
from tinytags_tasks.store.lease import Leases
from tinytags_tasks.store.ledger import list_runs
from tinytags_tasks.store.record import now
from tinytags_tasks.store.review_log import ReviewLog
from tinytags_tasks.upkeep.prune import PruneRequest, prune_collections
from tinytags_tasks.upkeep.remove import RunRemoval, remove_model, remove_run


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Three runs that were published one after the other."""
    world = make_world(tmp_path_factory.mktemp("world"))
    world.publish(*world.runs)
    return world


@pytest.fixture
def world(prepared, tmp_path, monkeypatch):
    """The world, and the commands that work on it."""
    world = prepared.copy(tmp_path / "store")
    settings = SimpleNamespace(alias=ALIAS, keep_collections=1)
    runtime = SimpleNamespace(storage=world.storage, solr=world.solr, settings=settings)
    for module in (common, models, runs_commands):
        monkeypatch.setattr(module, "clients", lambda: runtime)
    return world


def tinytags(*arguments, typed=None, code=0):
    outcome = CliRunner().invoke(app, arguments, input=typed, catch_exceptions=False)
    assert outcome.exit_code == code, outcome.output
    return outcome.stdout


def remove(world, run, keep=1, solr=None, storage=None):
    request = RunRemoval(run.name, ALIAS, keep, "ada")
    return remove_run(request, storage=storage or world.storage, solr=solr or world.solr, report=quiet)


def names(world):
    return [run.name for run in list_runs(world.storage)]


def remove_all_runs(world):
    world.solr.delete_alias(ALIAS)
    world.storage.delete(layout.publications_folder(ALIAS))
    for run in world.runs:
        remove(world, run, keep=0)


# Runs


def test_a_removed_run_is_gone_with_its_collection_and_its_removal_is_recorded(world):
    first, second, third = world.runs
    asked = tinytags("runs", "remove", first.name, typed="y\n")
    assert "11 documents" in asked and f"removed run {first.name}" in asked
    assert names(world) == [second.name, third.name]
    assert first.collection not in world.solr.collections()
    assert not world.storage.exists(layout.run_folder(first.name))
    assert world.storage.names("removed/runs") == []
    (line,) = tinytags("runs", "removed").splitlines()
    assert line.endswith(f"removed run {first.name}")


def test_nothing_is_removed_unless_a_person_confirms_it(world):
    first = world.runs[0]
    before = files_under(world.storage.root)
    tinytags("runs", "remove", first.name, typed="n\n", code=1)
    assert files_under(world.storage.root) == before
    assert first.collection in world.solr.collections()
    assert "nothing was removed yet" in tinytags("runs", "removed")


def test_a_live_run_is_never_removed(world):
    with pytest.raises(BadInputError, match=rf"is live under {ALIAS}; publish another run .*tinytags unpublish"):
        remove(world, world.runs[2], keep=0)


def test_a_run_that_a_rollback_leads_to_is_removed_only_if_that_is_given_up(world):
    second = world.runs[1]
    with pytest.raises(BadInputError, match="kept for a rollback; --keep 0 gives that up"):
        remove(world, second)
    remove(world, second, keep=0)
    assert second.name not in names(world)


def test_a_run_that_is_being_written_is_not_removed(world):
    first = world.runs[0]
    with (
        Leases(world.storage).hold(layout.writer_lease_file(layout.leases_folder(first.name), "a" * 32)) as is_ours,
        pytest.raises(BadInputError, match="is being written by"),
    ):
        assert is_ours
        remove(world, first)
    age_ledger(world.storage, first, now())
    with pytest.raises(BadInputError, match=r"was written at .* less than 1 hour ago"):
        remove(world, first)


def test_a_run_that_was_never_published_and_has_no_collection_can_be_removed(world):
    newest = world.runs[2]
    world.solr.delete_alias(ALIAS)
    world.storage.delete(layout.publications_folder(ALIAS))
    world.solr.delete_collection(newest.collection)
    remove(world, newest)
    assert newest.name not in names(world)


def test_an_unknown_run_is_named(world):
    with pytest.raises(MissingError, match="pets-0: no such run; `tinytags runs`"):
        remove_run(RunRemoval("pets-0", ALIAS, 1, "ada"), storage=world.storage, solr=world.solr)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("fail_at", range(1, 17))
def test_a_removal_that_is_killed_is_ended_by_the_same_command(prepared, tmp_path, mode, fail_at):
    world = prepared.copy(tmp_path / "store")
    first, second, third = world.runs
    faulty = FaultyStorage(world.storage, fail_at, mode, Killed)
    try:
        remove(world, first, storage=faulty)
    except Killed:
        assert set(names(world)) >= {second.name, third.name}
        try:
            remove(world, first)
        except MissingError:  # it was over already
            assert not world.storage.exists(layout.removed_folder(layout.run_folder(first.name)))
    assert names(world) == [second.name, third.name]
    assert world.storage.names("removed/runs") == []
    assert len(world.storage.names(layout.REMOVALS)) == 1
    assert first.collection not in world.solr.collections()


def test_what_a_killed_removal_left_is_deleted_by_prune(world):
    first = world.runs[0]
    kept = FaultyStorage(world.storage, 1, "before", Killed)
    fails_at = next(n for n in range(1, 30) if _is_moved(world, first, n, kept))
    assert fails_at
    said = io.StringIO()
    prune_collections(
        PruneRequest(ALIAS), storage=world.storage, solr=world.solr, report=lambda line: print(line, file=said)
    )
    assert f"ada@{_host()} removed run {first.name}" in said.getvalue()
    assert world.storage.names("removed/runs") == []


def _host():
    import socket

    return socket.gethostname()


def _is_moved(world, run, fail_at, faulty):
    faulty.fail_at, faulty.calls = fail_at, 0
    with pytest.raises(Killed):
        remove(world, run, storage=faulty)
    return world.storage.exists(layout.removed_folder(layout.run_folder(run.name)))


def test_solr_that_fails_leaves_a_run_that_can_be_removed_again(world):
    first = world.runs[0]
    with pytest.raises(TransientError):
        remove(world, first, solr=FaultySolr(world.solr, 1))
    assert first.name in names(world)
    remove(world, first)
    assert first.name not in names(world)


def test_a_run_that_is_made_again_can_be_removed_again(world):
    first = world.runs[0]
    remove(world, first)
    first.save(world.storage, layout.run_file(first.name))
    score_all(world.storage, first)
    age_ledger(world.storage, first)
    remove(world, first)
    assert len(tinytags("runs", "removed").splitlines()) == 2


def test_peoples_words_outlive_a_run(world):
    log = ReviewLog("pets", world.storage)
    last = log.last
    remove(world, world.runs[0])
    assert ReviewLog("pets", world.storage).last == last


# Models


def test_a_model_that_a_run_needs_is_not_removed(world):
    version = world.runs[0].model
    with pytest.raises(BadInputError, match=rf"it made run {world.runs[0].name}, .*`tinytags runs remove`"):
        remove_model(version, "ada", storage=world.storage)
    assert world.storage.exists(layout.card_file(version))


def test_a_model_that_nobody_needs_is_removed_by_the_beginning_of_its_version(world):
    version = world.runs[0].model
    remove_all_runs(world)
    said = tinytags("models", "remove", version[:-4], "--yes")
    assert f"removed model {version}" in said
    assert world.storage.names(layout.MODELS) == []
    assert tinytags("runs", "removed").splitlines()[-1].endswith(f"removed model {version}")


def test_nobody_guesses_what_a_damaged_run_needs(world):
    world.storage.write(layout.run_file(world.runs[0].name), b"{")
    with pytest.raises(CorruptError, match=r"run\.json"):
        remove_model(world.runs[1].model, "ada", storage=world.storage)


def test_a_model_that_is_being_published_is_not_removed(world):
    version = world.runs[0].model
    remove_all_runs(world)
    with (
        Leases(world.storage).hold(layout.model_lease_file(version)),
        pytest.raises(TransientError, match="is being published by"),
    ):
        remove_model(version, "ada", storage=world.storage)


def test_a_model_with_a_damaged_card_can_be_removed(world):
    version = world.runs[0].model
    remove_all_runs(world)
    world.storage.write(layout.card_file(version), b"{")
    remove_model(version, "ada", storage=world.storage)
    assert world.storage.names(layout.MODELS) == []


# What is live is always shown


def test_live_runs_are_listed_however_many_are_newer(world):
    first, second, third = world.runs
    world.publish(first)
    listed = tinytags("runs", "--limit", "1")
    assert third.name in listed and first.name in listed and second.name not in listed
    assert "the latest 1 of 3 runs, and 1 live; --limit 3 shows all" in listed
