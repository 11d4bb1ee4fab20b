"""Applying people's words to what readers see: the outcome is that of indexing anew, whatever was killed before."""

import random
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from faulty_storage import MODES, FaultyStorage, Killed
from published_runs import ALIAS, World, make_world
from small_run import CORPUS, SolrHere, index_all, quiet
from typer.testing import CliRunner

from tinytags_tasks.cli import app, blocks
from tinytags_tasks.correct.apply import apply_corrections
from tinytags_tasks.errors import CorruptError, FinalError, TransientError
from tinytags_tasks.index.step import DeleteRequest, delete_blocks
from tinytags_tasks.publish.corrections import correct_live, pending_blocks
from tinytags_tasks.publish.rollback import RollbackRequest, roll_back
from tinytags_tasks.publish.step import PublishRequest, publish_run, reconcile_run
from tinytags_tasks.review.words import say
from tinytags_tasks.store import layout
from tinytags_tasks.store.block_lease import hold_blocks
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.ledger import read_ledger
from tinytags_tasks.store.local import LocalStorage
from tinytags_tasks.store.review_records import Verdict, Word
from tinytags_tasks.store.run_records import Run
from tinytags_tasks.upkeep import audit as auditing
from tinytags_tasks.upkeep import meanwhile
from tinytags_tasks.upkeep.audit import AuditRequest, audit_run
from tinytags_tasks.upkeep.repair import apply_pending

CAT_AT_7 = Word(7, Verdict.TAG, "cat", is_public=True)
GNU_AT_0 = Word(0, Verdict.TAG, "gnu", is_public=True)
NONE_AT_2 = Word(2, Verdict.NONE, is_public=True)
NO_DOG_AT_1 = Word(1, Verdict.WRONG, "dog", is_public=True)
DOWN_8 = Word(8, Verdict.TAKEDOWN, is_public=True, reason="asked")
SHOWN_8 = Word(8, Verdict.RESTORE, is_public=True)
SEVERAL = (CAT_AT_7, GNU_AT_0, NONE_AT_2, NO_DOG_AT_1, DOWN_8)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """The first of three runs was published."""
    world = make_world(tmp_path_factory.mktemp("world"))
    world.publish(world.runs[0])
    return world


@pytest.fixture
def world(prepared, tmp_path):
    return prepared.copy(tmp_path / "store")


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


def test_readers_see_corrections_and_no_longer_what_was_taken_down(world):
    number = speak(world, *SEVERAL)
    (applied,) = show(world)
    assert (applied.run, applied.changed, applied.removed, applied.waiting) == (world.runs[0].name, 2, 3, ())
    found = documents(world)
    assert found["pets:7"]["tag"] == "cat" and found["pets:7"]["accuracy"] == 100 and found["pets:7"]["votes"] == 10
    assert found["pets:0"]["tag"] == "gnu" and found["pets:0"]["corrected"] == number
    assert not {"pets:1", "pets:2", "pets:8"} & set(found)
    assert_followed(world)


def test_only_documents_of_pictures_that_were_spoken_of_are_written_and_committed_once(world):
    speak(world, *SEVERAL)
    posted, commits = world.solr.posted, world.solr.commits
    show(world)
    assert world.solr.posted - posted == 2
    assert world.solr.deleted[-3:] == ["pets:8", "pets:1", "pets:2"]
    assert world.solr.commits - commits == 1


def test_applying_again_changes_nothing(world):
    speak(world, *SEVERAL)
    show(world)
    before, posted = documents(world).copy(), world.solr.posted
    (again,) = show(world)
    assert (again.blocks, again.changed, again.removed) == ((), 0, 0)
    assert (documents(world), world.solr.posted) == (before, posted)


def test_words_that_are_taken_back_bring_the_models_word_back(world):
    before = documents(world).copy()
    first = speak(world, *SEVERAL)
    show(world)
    speak(world, *(Word(word.position, Verdict.UNDO, undoes=first) for word in SEVERAL[:4]), SHOWN_8)
    show(world)
    assert documents(world) == before
    assert_followed(world)


def test_a_review_that_is_not_public_changes_nothing(world):
    before = documents(world).copy()
    speak(world, Word(7, Verdict.TAG, "cat"), Word(0, Verdict.NONE))
    (applied,) = show(world)
    assert applied.blocks == () and documents(world) == before


def test_pixels_of_what_is_written_are_the_shards(world):
    before = documents(world)["pets:7"]["data"]
    speak(world, CAT_AT_7)
    show(world)
    assert documents(world)["pets:7"]["data"] == before


def test_a_picture_that_is_not_the_one_that_was_spoken_of_is_not_written(world):
    speak(world, CAT_AT_7, DOWN_8)
    path = world.storage.root / layout.shard_file(CORPUS, 1)
    stored = bytearray(path.read_bytes())
    stored[3072 + 5] ^= 1
    path.write_bytes(stored)
    with pytest.raises(CorruptError, match="position 7 is not the picture that was spoken of; write the shard again"):
        show(world)
    assert documents(world)["pets:7"]["tag"] == "emu"
    assert "pets:8" not in documents(world)  # what was taken down goes, whatever else is wrong


@pytest.mark.parametrize("damaged", ["scored", "manifest"])
def test_what_was_taken_down_goes_even_if_its_block_cannot_be_read(world, damaged):
    speak(world, DOWN_8)
    scored, manifest = layout.scored_file(world.runs[0].name, 4), layout.shard_manifest_file(CORPUS, 1)
    world.storage.write(scored if damaged == "scored" else manifest, b"damaged")
    with pytest.raises(CorruptError, match=r"damaged|no usable"):
        show(world)
    assert "pets:8" not in documents(world)
    assert read_ledger(world.storage, world.runs[0], [4])[0].corrections == 0  # and is tried again


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


@pytest.mark.parametrize("later", [(), (SHOWN_8, Word(7, Verdict.TAG, "dog", is_public=True))])
@pytest.mark.parametrize("mode", ["before", "after"])
def test_killed_between_any_two_writes_to_solr_the_next_one_ends_it(prepared, tmp_path, mode, later):
    for fail_at in range(1, 20):
        world = prepared.copy(tmp_path / str(fail_at))
        speak(world, *SEVERAL)
        faulty = FaultySolr(world.solr, fail_at, mode)
        try:
            show(world, solr=faulty)
            break
        except Killed:
            assert pending_blocks(world.runs[0], world.storage)
        if later:
            speak(world, *later)
        show(world)
        assert_followed(world)
    assert fail_at >= 4


@pytest.mark.parametrize("mode", MODES)
def test_killed_between_any_two_writes_to_the_store_the_next_one_ends_it(prepared, tmp_path, mode):
    met = 0
    for fail_at in range(1, 100):
        world = prepared.copy(tmp_path / str(fail_at))
        faulty = FaultyStorage(world.storage, fail_at, mode, Killed)
        try:
            speak(world, *SEVERAL, storage=faulty)
            show(world, storage=faulty)
            break
        except Killed:
            met += 1
        speak(world, *SEVERAL)  # the person asks again: it was said once or twice, which is the same
        show(world)
        assert_followed(world)
    assert met >= 6


@pytest.mark.parametrize("seed", range(8))
def test_whatever_is_said_in_which_order_and_killed_the_outcome_is_that_of_indexing_anew(prepared, tmp_path, seed):
    world, chance = prepared.copy(tmp_path / "store"), random.Random(seed)
    said: list[tuple[int, int]] = []
    for _ in range(12):
        position = chance.randrange(11)
        tag = chance.choice(("cat", "dog", "emu", "gnu"))
        choices = [
            Word(position, Verdict.TAG, tag, is_public=True),
            Word(position, Verdict.WRONG, tag, is_public=True),
            Word(position, Verdict.NONE, is_public=True),
            Word(position, Verdict.UNCLEAR, is_public=True),
            Word(position, Verdict.TAKEDOWN, is_public=True, reason="asked"),
            Word(position, Verdict.RESTORE, is_public=True),
            *(Word(at, Verdict.UNDO, undoes=number) for at, number in said[-1:]),
        ]
        word = chance.choice(choices)
        number = speak(world, word)
        if word.verdict is not Verdict.UNDO:
            said.append((position, number))
        if chance.random() < 0.4:
            try:
                show(world, solr=FaultySolr(world.solr, chance.randrange(1, 5), chance.choice(("before", "after"))))
            except Killed:
                continue
        elif chance.random() < 0.5:
            show(world)
    show(world)
    assert_followed(world)


def test_a_block_that_another_writer_holds_stays_pending_and_is_named(world):
    speak(world, *SEVERAL)
    told: list[str] = []
    held = hold_blocks(world.runs[0].name, [4], storage=world.storage, report=quiet)
    next(held)
    options = {"storage": world.storage, "solr": world.solr, "report": told.append}
    applied = apply_corrections(world.runs[0], patience_seconds=0.0, **options)
    assert applied.waiting == (4,) and applied.blocks == (0, 1)
    assert any("blocks 4 are held by another writer and stay pending" in line for line in told)
    assert pending_blocks(world.runs[0], world.storage) == (4,)
    held.close()
    apply_corrections(world.runs[0], **options)
    assert_followed(world)


def test_two_who_speak_at_once_lose_no_word(world):
    words = [Word(position, Verdict.TAG, "gnu", is_public=True) for position in range(11)]

    def one(word: Word) -> None:
        speak(world, word)
        show(world)

    threads = [threading.Thread(target=one, args=(word,)) for word in words[:6]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    show(world)
    assert_followed(world)
    assert sum(document["tag"] == "gnu" for document in documents(world).values()) == 6


def test_a_block_without_all_its_documents_is_named_and_not_called_good(world):
    del documents(world)["pets:8"]
    speak(world, CAT_AT_7)
    with pytest.raises(TransientError, match="have 1 of 2 documents; redo them with `tinytags backfill"):
        show(world)
    assert pending_blocks(world.runs[0], world.storage)


def test_what_is_not_verified_is_left_to_indexing(world):
    run = world.runs[0]
    delete_blocks(DeleteRequest(run.name, (4,)), storage=world.storage, solr=world.solr, report=quiet)
    speak(world, *SEVERAL)
    (applied,) = show(world)
    assert 4 not in applied.blocks and pending_blocks(run, world.storage) == ()
    assert applied.unfinished == (4,) and not applied.is_complete
    index_all(world.storage, run, world.solr)
    (applied,) = show(world)
    assert applied.is_complete
    assert_followed(world)


def test_another_corpus_or_nothing_that_is_live_stays_as_it_is(world):
    told: list[str] = []
    options = {"storage": world.storage, "solr": world.solr, "report": told.append}
    assert correct_live("cats", ALIAS, **options) == []
    assert correct_live(CORPUS, "empty", **options) == []
    assert "nothing of corpus cats: readers see no change" in told[0]
    assert told[1].startswith("nothing is live under empty")


def test_another_version_that_is_live_stays_as_it_is(world):
    corpus_of(world).replaced(digest="another").save(world.storage, layout.corpus_file(CORPUS))
    speak(world, *SEVERAL)
    told: list[str] = []
    assert correct_live(CORPUS, ALIAS, storage=world.storage, solr=world.solr, report=told.append) == []
    assert "shows another version of corpus pets, and stays as it is" in told[0]


# Publishing, rolling back, auditing


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


def test_a_word_at_any_point_of_a_publication_is_seen_afterwards(prepared, tmp_path):
    for at in range(1, 2_000, 7):
        world = prepared.copy(tmp_path / str(at))
        counter = [at]

        def interrupt(world=world) -> None:
            speak(world, *SEVERAL)
            show(world)

        clients = (Interrupting(client, counter, interrupt) for client in (world.storage, world.solr))
        try:
            publish(world, world.runs[1], *clients)
        except TransientError:  # it was seen in the middle of being applied: the task tries again
            publish(world, world.runs[1])
        assert world.live() == world.runs[1].collection
        if counter[0] > 0:
            break
        assert_followed(world, world.runs[1])
        shutil.rmtree(tmp_path / str(at))
    assert at > 50


def test_a_word_at_any_point_of_a_rollback_is_seen_afterwards(prepared, tmp_path):
    prepared = prepared.copy(tmp_path / "prepared")
    prepared.publish(prepared.runs[1])
    for at in range(1, 2_000, 7):
        world = prepared.copy(tmp_path / str(at))
        counter = [at]

        def interrupt(world=world) -> None:
            speak(world, *SEVERAL)
            show(world)

        clients = (Interrupting(client, counter, interrupt) for client in (world.storage, world.solr))
        try:
            take_back(world, world.runs[1], *clients)
        except TransientError:
            take_back(world, world.runs[1])
        assert world.live() == world.runs[0].collection
        if counter[0] > 0:
            break
        assert_followed(world, world.runs[0])
        shutil.rmtree(tmp_path / str(at))
    assert at > 50


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


def test_a_word_at_any_point_of_an_audit_is_not_called_wrong(prepared, tmp_path):
    for at in range(1, 2_000, 7):
        world = prepared.copy(tmp_path / str(at))
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
