"""Carrying words over to another version of a corpus, in which pictures moved, came and went."""

import numpy as np
import pytest
from faulty_storage import MODES, FaultyStorage, Killed
from small_run import (
    BLOCKS_PER_SHARD,
    CORPUS,
    MODEL,
    SHARD_IMAGES,
    make_corpus,
    picture,
    pictures,
    publish_model,
    quiet,
)

from tinytags_tasks.corpus.definition import CorpusDefinition
from tinytags_tasks.corpus.formats.tiny_images import to_column_major
from tinytags_tasks.errors import FinalError
from tinytags_tasks.ingest.step import ingest_corpus
from tinytags_tasks.review.carry import carry_words
from tinytags_tasks.review.takedowns import list_takedowns, taken_down
from tinytags_tasks.review.words import say
from tinytags_tasks.score.plan import PlanRequest, plan_run
from tinytags_tasks.store import layout
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.local import LocalStorage
from tinytags_tasks.store.review_log import counting_words, read_words
from tinytags_tasks.store.review_records import Verdict, Why, Word

DOWN = Word(3, Verdict.TAKEDOWN, reason="asked")
CAT = Word(5, Verdict.TAG, "cat", is_public=True)
LOOK = Word(5, Verdict.NONE, why=Why.MEASURE)
GONE = Word(7, Verdict.WRONG, "emu", is_public=True)
STAYS = Word(0, Verdict.NONE, is_public=True)


@pytest.fixture
def storage(tmp_path):
    storage = LocalStorage(tmp_path / "store")
    first = make_corpus(storage)
    publish_model(storage)
    say(first, [DOWN, CAT, GONE, STAYS], by="ann", storage=storage, report=quiet)
    say(first, [LOOK], by="bob", storage=storage, report=quiet)
    return storage


def ingest(storage: LocalStorage, images: np.ndarray) -> Corpus:
    """Ingest other images under the same name."""
    storage.delete(layout.corpus_folder(CORPUS))
    source = storage.root.with_name("other.bin")
    source.write_bytes(to_column_major(images))
    definition = CorpusDefinition(
        name=CORPUS,
        source=str(source),
        format="tiny-images",
        shard_images=SHARD_IMAGES,
        blocks_per_shard=BLOCKS_PER_SHARD,
    )
    ingest_corpus(definition, storage=storage, report=quiet)
    return Corpus.load(storage, layout.corpus_file(CORPUS))


def moved() -> np.ndarray:
    """Return the pictures: the first stays, a new one follows, the eighth is gone, the sixth is there twice."""
    old = pictures()
    new = picture((1, 1, 8))
    return np.stack([old[0], new, *old[1:7], *old[8:], old[5]])


def words_here(storage: LocalStorage, corpus: Corpus) -> list[tuple[int, str, str, str, bool]]:
    table = read_words(corpus, storage).sort_by([("position", "ascending"), ("number", "ascending")])
    return [(row["position"], row["verdict"], row["tag"], row["by"], row["is_public"]) for row in table.to_pylist()]


CARRIED = [
    (0, "none", "", "ann", True),
    (4, "takedown", "", "ann", True),
    (6, "none", "", "bob", False),
    (6, "tag", "cat", "ann", True),
    (11, "none", "", "bob", False),
    (11, "tag", "cat", "ann", True),
]


def in_order(rows: list) -> list:
    return sorted(rows)


def test_words_follow_their_pictures(storage):
    corpus = ingest(storage, moved())
    assert words_here(storage, corpus) == []
    told: list[str] = []
    found = carry_words(corpus, storage=storage, report=told.append)
    assert in_order(words_here(storage, corpus)) == CARRIED
    assert (found.carried, found.there, found.missing) == (6, 0, ((7, "wrong emu"),))
    assert told == ["3 pictures moved or are gone: looking for them in all 12 images"]
    assert taken_down(corpus, storage).tolist() == [4]
    (kept,) = list_takedowns(corpus, storage).to_pylist()
    assert (kept["reason"], kept["by"]) == ("asked", "ann")
    counting = counting_words(read_words(corpus, storage))
    assert set(counting.column("why").to_pylist()) >= {str(Why.CORRECTION)}


def test_what_was_carried_over_is_not_carried_again(storage):
    corpus = ingest(storage, moved())
    carry_words(corpus, storage=storage, report=quiet)
    before = words_here(storage, corpus)
    again = carry_words(corpus, storage=storage, report=quiet)
    assert (again.carried, again.there, len(again.missing)) == (0, 6, 1)
    assert words_here(storage, corpus) == before


def test_a_later_word_of_this_version_stays_decisive_even_if_it_was_taken_back(storage):
    corpus = ingest(storage, moved())
    said = say(corpus, [Word(6, Verdict.TAG, "dog", is_public=True)], by="eve", storage=storage)
    say(corpus, [Word(6, Verdict.UNDO, undoes=said)], by="eve", storage=storage)
    carry_words(corpus, storage=storage, report=quiet)
    public = [row for row in words_here(storage, corpus) if row[0] == 6 and row[4] and row[1] == "tag"]
    assert [row[3] for row in public] == ["eve"]


def test_no_run_is_planned_while_a_takedown_is_not_carried_over(storage):
    assert plan_run(PlanRequest(CORPUS, MODEL), storage=storage)
    corpus = ingest(storage, moved())
    with pytest.raises(
        FinalError, match=r"1 pictures were taken down of another version of corpus pets, .*reviews carry"
    ):
        plan_run(PlanRequest(CORPUS, MODEL), storage=storage)
    carry_words(corpus, storage=storage, report=quiet)
    assert plan_run(PlanRequest(CORPUS, MODEL), storage=storage)


def test_words_other_than_takedowns_do_not_hinder_a_run(storage):
    first = Corpus.load(storage, layout.corpus_file(CORPUS))
    say(first, [Word(3, Verdict.RESTORE)], by="ann", storage=storage)
    ingest(storage, moved())
    assert plan_run(PlanRequest(CORPUS, MODEL), storage=storage)


def test_the_same_images_in_another_order_and_back_again_keep_all_words(storage):
    first = Corpus.load(storage, layout.corpus_file(CORPUS))
    other = ingest(storage, pictures()[::-1])
    carry_words(other, storage=storage, report=quiet)
    assert taken_down(other, storage).tolist() == [7]
    say(other, [Word(7, Verdict.RESTORE)], by="ann", storage=storage)
    back = ingest(storage, pictures())
    assert back.digest == first.digest
    carry_words(back, storage=storage, report=quiet)
    assert taken_down(back, storage).tolist() == []  # it was shown again in the other version


def test_what_could_not_be_read_is_no_picture_that_is_found_elsewhere(tmp_path):
    storage = LocalStorage(tmp_path / "store")
    blank = np.zeros((32, 32, 3), np.uint8)
    first = ingest(storage, np.stack([blank, *pictures()]))
    say(first, [Word(0, Verdict.TAKEDOWN, reason="asked")], by="ann", storage=storage)
    corpus = ingest(storage, np.stack([*pictures(), blank]))
    found = carry_words(corpus, storage=storage, report=quiet)
    assert found.missing == ((0, "takedown"),)


@pytest.mark.parametrize("mode", MODES)
def test_killed_at_any_write_the_next_one_ends_it(storage, tmp_path, mode):
    corpus = ingest(storage, moved())
    log = storage.root / layout.review_log_folder(CORPUS)
    clean = {path.name: path.read_bytes() for path in log.iterdir()}
    for fail_at in range(1, 20):
        for path in log.iterdir():
            if path.name not in clean:
                path.unlink()
        storage.delete(f"{layout.REVIEWS}/{CORPUS}/carried")
        try:
            carry_words(corpus, storage=FaultyStorage(storage, fail_at, mode, Killed), report=quiet)
            break
        except Killed:
            carry_words(corpus, storage=storage, report=quiet)
        assert in_order(words_here(storage, corpus)) == CARRIED, fail_at
    assert fail_at >= 3


def test_a_word_that_is_said_while_pictures_are_searched_is_not_overruled(storage):
    corpus = ingest(storage, moved())
    said: list[int] = []

    def speak(_: str) -> None:
        if not said:
            said.append(say(corpus, [Word(6, Verdict.TAG, "dog", is_public=True)], by="eve", storage=storage))

    carry_words(corpus, storage=storage, report=speak)
    here = counting_words(read_words(corpus, storage).filter(read_words(corpus, storage).column("is_public")))
    assert {row["position"]: (row["tag"], row["by"]) for row in here.to_pylist()} == {
        0: ("", "ann"),
        6: ("dog", "eve"),
        11: ("cat", "ann"),
    }
    assert ("tag", "cat", "ann") not in {(row[1], row[2], row[3]) for row in words_here(storage, corpus) if row[0] == 6}


def twice(position: int) -> np.ndarray:
    """Return the pictures, one of them once more at the end."""
    return np.stack([*pictures(), pictures()[position]])


def test_a_picture_that_is_taken_down_at_one_of_its_positions_is_taken_down(storage):
    first = ingest(storage, twice(1))
    down = [Word(at, Verdict.TAKEDOWN, reason="asked") for at in (1, 11)]
    say(first, down, by="ann", storage=storage)
    say(first, [Word(11, Verdict.RESTORE)], by="ann", storage=storage)
    corpus = ingest(storage, pictures()[::-1])
    carry_words(corpus, storage=storage, report=quiet)
    assert 9 in taken_down(corpus, storage).tolist()


def test_a_picture_that_is_not_taken_down_is_not_restored(storage):
    first = Corpus.load(storage, layout.corpus_file(CORPUS))
    say(first, [Word(3, Verdict.RESTORE)], by="ann", storage=storage)
    corpus = ingest(storage, moved())
    found = carry_words(corpus, storage=storage, report=quiet)
    assert "restore" not in {row[1] for row in words_here(storage, corpus)}
    assert (found.carried, found.there) == (5, 1)


def test_words_on_one_picture_keep_their_order(storage):
    first = Corpus.load(storage, layout.corpus_file(CORPUS))
    say(first, [Word(9, Verdict.TAG, "dog")], by="zoe", storage=storage)
    say(first, [Word(9, Verdict.TAG, "cat", is_public=True)], by="ann", storage=storage)
    corpus = ingest(storage, pictures()[::-1])
    carry_words(corpus, storage=storage, report=quiet)
    said = [row["tag"] for row in read_words(corpus, storage).to_pylist() if row["position"] == 1]
    assert said == ["dog", "cat"]


def test_no_cat_is_carried_over_only_if_it_decided(storage):
    first = Corpus.load(storage, layout.corpus_file(CORPUS))
    say(first, [Word(9, Verdict.TAG, "dog", is_public=True)], by="ann", storage=storage)
    say(first, [Word(9, Verdict.WRONG, "cat", is_public=True)], by="bob", storage=storage)
    corpus = ingest(storage, pictures()[::-1])
    carry_words(corpus, storage=storage, report=quiet)
    assert [row[1:3] for row in words_here(storage, corpus) if row[0] == 1] == [("tag", "dog")]


CALLED_A_DOG_AND_NOT = [("tag", "dog", "ann"), ("wrong", "dog", "bob")]


def call_a_dog_and_not(storage: LocalStorage) -> None:
    first = Corpus.load(storage, layout.corpus_file(CORPUS))
    say(first, [Word(9, Verdict.TAG, "dog", is_public=True)], by="ann", storage=storage)
    say(first, [Word(9, Verdict.WRONG, "dog", is_public=True)], by="bob", storage=storage)


def said_of_the_second(storage: LocalStorage, corpus: Corpus) -> list[tuple[str, str, str]]:
    """Return what was said of the picture that stood at 9, in the reversed corpus."""
    return [
        (row["verdict"], row["tag"], row["by"])
        for row in read_words(corpus, storage).to_pylist()
        if row["position"] == 1
    ]


def test_a_person_s_dog_that_is_no_dog_shows_no_other_tag_of_the_model_either(storage):
    call_a_dog_and_not(storage)
    corpus = ingest(storage, pictures()[::-1])
    found = carry_words(corpus, storage=storage, report=quiet)
    assert said_of_the_second(storage, corpus) == CALLED_A_DOG_AND_NOT
    assert carry_words(corpus, storage=storage, report=quiet).there == found.carried


def test_that_a_picture_shows_neither_a_cat_nor_a_dog_is_carried_over(storage):
    first = Corpus.load(storage, layout.corpus_file(CORPUS))
    for tag in ("cat", "dog", "cat"):
        say(first, [Word(9, Verdict.WRONG, tag, is_public=True)], by="ann", storage=storage)
    corpus = ingest(storage, pictures()[::-1])
    carry_words(corpus, storage=storage, report=quiet)
    assert said_of_the_second(storage, corpus) == [("wrong", "cat", "ann"), ("wrong", "dog", "ann")]


def test_killed_between_two_words_on_one_picture_the_next_one_ends_it(storage):
    call_a_dog_and_not(storage)
    corpus = ingest(storage, pictures()[::-1])
    log = storage.root / layout.review_log_folder(CORPUS)
    clean = {path.name for path in log.iterdir()}
    stopped = set()
    for fail_at in range(1, 20):
        for path in log.iterdir():
            if path.name not in clean:
                path.unlink()
        storage.delete(f"{layout.REVIEWS}/{CORPUS}/carried")
        try:
            carry_words(corpus, storage=FaultyStorage(storage, fail_at, MODES[0], Killed), report=quiet)
            break
        except Killed:
            stopped.add(len(said_of_the_second(storage, corpus)))
            carry_words(corpus, storage=storage, report=quiet)
        assert said_of_the_second(storage, corpus) == CALLED_A_DOG_AND_NOT, fail_at
    assert stopped >= {0, 1, 2}
