"""People's words meet publishing, rolling back and auditing."""

import shutil
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from applied_words import CAT_AT_7, DOWN_8, SEVERAL, FaultySolr, assert_followed, documents, show, speak
from faulty_storage import Killed
from published_runs import ALIAS, World
from small_run import CORPUS, quiet
from typer.testing import CliRunner

from tinytags_tasks.cli import app, blocks
from tinytags_tasks.correct.apply import apply_corrections
from tinytags_tasks.errors import FinalError, TransientError
from tinytags_tasks.publish.corrections import pending_blocks
from tinytags_tasks.publish.rollback import RollbackRequest, roll_back
from tinytags_tasks.publish.step import PublishRequest, publish_run
from tinytags_tasks.store import layout
from tinytags_tasks.store.block_lease import hold_blocks
from tinytags_tasks.store.run_records import Run
from tinytags_tasks.upkeep import audit as auditing
from tinytags_tasks.upkeep import meanwhile
from tinytags_tasks.upkeep.audit import AuditRequest, audit_run
from tinytags_tasks.upkeep.repair import apply_pending


@pytest.fixture
def world(made, tmp_path):
    return made.copy(tmp_path / "store")


def publish(world: World, run: Run, storage=None, solr=None) -> None:
    request = PublishRequest(run.name, ALIAS)
    publish_run(request, storage=storage or world.storage, solr=solr or world.solr, report=quiet)


def take_back(world: World, run: Run, storage=None, solr=None) -> None:
    request = RollbackRequest(ALIAS, run.name)
    roll_back(request, storage=storage or world.storage, solr=solr or world.solr, report=quiet)


class Interrupting:
    """Forwards every call to a client; before the n-th of all calls of both clients, somebody says something."""

    def __init__(self, inner: object, counter: list[int], interrupt: Callable[[], None]) -> None:
        self._inner, self._counter, self._interrupt = inner, counter, interrupt

    def __getattr__(self, name: str) -> object:
        found = getattr(self._inner, name)
        if not callable(found):
            return found

        def call(*arguments, **options):
            self._counter[0] -= 1
            if self._counter[0] == 0:
                self._interrupt()
            return found(*arguments, **options)

        return call


def assert_seen_whenever_it_is_said(made: World, tmp_path, change, run: int, live: int) -> None:
    """Assert that words are followed at the end, wherever in a change of the alias they are said."""
    for at in range(1, 2_000, 7):
        world = made.copy(tmp_path / str(at))
        counter = [at]

        def interrupt(world=world) -> None:
            speak(world, *SEVERAL)
            show(world)

        clients = (Interrupting(client, counter, interrupt) for client in (world.storage, world.solr))
        try:
            change(world, world.runs[run], *clients)
        except TransientError:  # it was seen in the middle of being applied: the task tries again
            change(world, world.runs[run])
        assert world.live() == world.runs[live].collection
        if counter[0] > 0:
            break
        assert_followed(world, world.runs[live])
        shutil.rmtree(tmp_path / str(at))
    assert at > 50


def test_a_word_at_any_point_of_a_publication_is_seen_afterwards(made, tmp_path):
    assert_seen_whenever_it_is_said(made, tmp_path, publish, run=1, live=1)


def test_a_word_at_any_point_of_a_rollback_is_seen_afterwards(made, tmp_path):
    made = made.copy(tmp_path / "made")
    made.publish(made.runs[1])
    assert_seen_whenever_it_is_said(made, tmp_path, take_back, run=1, live=0)


def test_words_on_a_run_that_is_not_live_are_applied_when_it_is_published_or_rolled_back_to(world):
    first, second, _ = world.runs
    speak(world, *SEVERAL)
    publish(world, second)
    assert_followed(world, second)
    assert pending_blocks(first, world.storage)
    take_back(world, second)
    assert_followed(world, first)


def test_a_publication_that_was_killed_after_the_switch_is_ended_by_the_next(world):
    second = world.runs[1]

    class DiesAfterwards:
        def __getattr__(self, name):
            return getattr(world.solr, name)

        def set_alias(self, alias, collection):
            world.solr.set_alias(alias, collection)
            speak(world, *SEVERAL)
            raise Killed

    with pytest.raises(Killed):
        publish(world, second, solr=DiesAfterwards())
    assert pending_blocks(second, world.storage)
    publish(world, second)
    assert_followed(world, second)


def test_a_run_is_not_published_while_another_writer_holds_a_block_with_pending_words(world):
    second = world.runs[1]
    speak(world, DOWN_8)
    held = hold_blocks(second.name, [4], storage=world.storage, report=quiet)
    next(held)
    with pytest.raises(TransientError, match="people's words on blocks 4 are not applied yet"):
        publish(world, second)
    assert world.live() == world.runs[0].collection
    held.close()
    publish(world, second)
    assert_followed(world, second)


def test_rolling_back_without_the_corpus_is_refused_only_while_words_are_pending(world):
    first, second, _ = world.runs
    publish(world, second)
    path = world.storage.root / layout.corpus_folder(CORPUS)
    speak(world, DOWN_8)
    show(world)
    kept = path.with_name("kept")
    path.rename(kept)
    assert pending_blocks(first, world.storage) == (4,)
    with pytest.raises(FinalError, match="pictures of blocks 4 that its documents do not follow yet, and its version"):
        take_back(world, second)
    assert world.live() == second.collection
    kept.rename(path)
    apply_corrections(first, storage=world.storage, solr=world.solr, report=quiet)
    path.rename(kept)
    take_back(world, second)
    assert world.live() == first.collection and "pets:8" not in documents(world, first)


def test_an_audit_names_pending_blocks_and_finds_nothing_wrong_after_they_were_applied(world):
    run = world.runs[0]
    speak(world, *SEVERAL)
    audited = audit_run(AuditRequest(run.name), storage=world.storage, solr=world.solr, report=quiet)
    assert audited.pending == (0, 1, 4) and not audited.problems
    show(world)
    audited = audit_run(AuditRequest(run.name, is_deep=True), storage=world.storage, solr=world.solr, report=quiet)
    assert not audited.pending and not audited.problems and not audited.input_problems


def test_a_word_at_any_point_of_an_audit_is_not_called_wrong(made, tmp_path):
    for at in range(1, 2_000, 7):
        world = made.copy(tmp_path / str(at))
        counter = [at]

        def interrupt(world=world) -> None:
            speak(world, *SEVERAL)
            show(world)

        clients = [Interrupting(client, counter, interrupt) for client in (world.storage, world.solr)]
        request = AuditRequest(world.runs[0].name, is_deep=True)
        audited = audit_run(request, storage=clients[0], solr=clients[1], report=quiet)
        assert not audited.problems and not audited.input_problems, at
        if counter[0] > 0:
            break
        shutil.rmtree(tmp_path / str(at))
    assert at > 50


def test_a_wrong_picture_is_named_even_if_words_on_its_block_are_applied_meanwhile(world, monkeypatch):
    run = world.runs[0]
    at = next(name for name, one in documents(world).items() if one["block"] == 4 and name != "pets:8")
    documents(world)[at]["data"] = documents(world)["pets:0"]["data"]
    real, spoke = auditing.compare_share, []

    def compare_and_speak(*arguments):
        compared = real(*arguments)
        if not spoke:
            spoke.append(speak(world, DOWN_8))
            show(world)
        return compared

    monkeypatch.setattr(auditing, "compare_share", compare_and_speak)
    request = AuditRequest(run.name, is_deep=True)
    audited = audit_run(request, storage=world.storage, solr=world.solr, report=quiet)
    assert set(audited.problems) == {4} and "pets:8" not in documents(world)


def test_a_repair_applies_words_whatever_else_is_wrong(world, monkeypatch):
    runtime = SimpleNamespace(storage=world.storage, solr=world.solr, settings=SimpleNamespace(alias=ALIAS))
    monkeypatch.setattr(blocks, "clients", lambda: runtime)
    path = world.storage.root / layout.shard_file(CORPUS, 0)
    path.write_bytes(path.read_bytes()[:-1])
    speak(world, DOWN_8)
    outcome = CliRunner().invoke(app, ["audit", world.runs[0].name, "--repair"], catch_exceptions=False)
    assert outcome.exit_code == 1  # the shard
    assert "pets:8" not in documents(world) and pending_blocks(world.runs[0], world.storage) == ()


def test_an_audit_of_words_that_a_killed_process_half_applied_names_them_and_the_repair_ends_them(world, monkeypatch):
    monkeypatch.setattr(meanwhile, "_LOOK_SECONDS", 0.0)
    run = world.runs[0]
    speak(world, *SEVERAL)
    with pytest.raises(Killed):
        show(world, solr=FaultySolr(world.solr, 4, "after"))  # the commit, before the ledger
    audited = audit_run(AuditRequest(run.name), storage=world.storage, solr=world.solr, report=quiet)
    assert set(audited.pending) == {0, 1, 4}
    apply_pending(run.name, storage=world.storage, solr=world.solr, report=quiet)
    assert_followed(world)
    audited = audit_run(AuditRequest(run.name), storage=world.storage, solr=world.solr, report=quiet)
    assert not audited.pending and not audited.problems


def test_who_applies_words_also_applies_those_that_waited_for_its_blocks_in_vain(world):
    class Slow:
        """Somebody else speaks of the same block before these words are committed, and gives up waiting."""

        spoke = False

        def __getattr__(self, name):
            return getattr(world.solr, name)

        def commit(self, collection):
            if not self.spoke:
                self.spoke = True
                speak(world, DOWN_8)
            world.solr.commit(collection)

    speak(world, CAT_AT_7)
    show(world, solr=Slow())
    assert_followed(world)
    assert "pets:8" not in documents(world)
