"""Applying people's words to what readers see: the outcome is that of indexing anew, whatever was killed before."""

import random
import threading

import pytest
from applied_words import (
    CAT_AT_7,
    DOWN_8,
    SEVERAL,
    SHOWN_8,
    FaultySolr,
    assert_followed,
    corpus_of,
    documents,
    show,
    speak,
)
from faulty_storage import MODES, FaultyStorage, Killed
from published_runs import ALIAS
from small_run import CORPUS, index_all, quiet

from tinytags_tasks.correct.apply import apply_corrections
from tinytags_tasks.errors import CorruptError, TransientError
from tinytags_tasks.index.step import DeleteRequest, delete_blocks
from tinytags_tasks.publish.corrections import correct_live, pending_blocks
from tinytags_tasks.store import layout
from tinytags_tasks.store.block_lease import hold_blocks
from tinytags_tasks.store.ledger import read_ledger
from tinytags_tasks.store.review_records import Verdict, Word


@pytest.fixture
def world(made, tmp_path):
    return made.copy(tmp_path / "store")


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


@pytest.mark.parametrize("later", [(), (SHOWN_8, Word(7, Verdict.TAG, "dog", is_public=True))])
@pytest.mark.parametrize("mode", ["before", "after"])
def test_killed_between_any_two_writes_to_solr_the_next_one_ends_it(made, tmp_path, mode, later):
    for fail_at in range(1, 20):
        world = made.copy(tmp_path / str(fail_at))
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
def test_killed_between_any_two_writes_to_the_store_the_next_one_ends_it(made, tmp_path, mode):
    met = 0
    for fail_at in range(1, 100):
        world = made.copy(tmp_path / str(fail_at))
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
def test_whatever_is_said_in_which_order_and_killed_the_outcome_is_that_of_indexing_anew(made, tmp_path, seed):
    world, chance = made.copy(tmp_path / "store"), random.Random(seed)
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
