"""Who gets which picture to look at, and what the review log has afterwards."""

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from review_world import CORPUS, IMAGES, RUN, draw_in_order, make_frame, make_reviewed_run, tag_of
from small_run import make_run, quiet, score_all

from tinytags_tasks.errors import BadInputError
from tinytags_tasks.review.draw import next_pictures
from tinytags_tasks.review.frame import load_frame
from tinytags_tasks.review.words import say
from tinytags_tasks.search import review_session as module
from tinytags_tasks.search.review_places import frame_of_tag
from tinytags_tasks.search.review_session import KEPT_SECONDS, REREAD_SECONDS, ReviewSession
from tinytags_tasks.store import layout
from tinytags_tasks.store.corpus_records import Corpus, load_corpus
from tinytags_tasks.store.local import LocalStorage
from tinytags_tasks.store.review_log import counting_words, read_words
from tinytags_tasks.store.review_records import Verdict, Why, Word
from tinytags_tasks.store.run_records import Run


class Here:
    """Runs what is to be done in the background at once."""

    def submit(self, act: Any, *arguments: Any) -> Future[Any]:
        act(*arguments)
        return Future()


class World:
    """A store, and sessions of it as several processes would have them."""

    def __init__(self, storage: LocalStorage) -> None:
        self.storage = storage
        self.run = Run.load(storage, layout.run_file(RUN))
        self.corpus = Corpus.load(storage, layout.corpus_file(CORPUS))
        self.seconds = 0.0

    def open(self, pool: Any = None) -> ReviewSession:
        return ReviewSession(
            self.run,
            self.corpus,
            make_frame(self.run, self.corpus),
            storage=self.storage,
            pool=pool or Here(),
            clock=lambda: self.seconds,
        )

    def looked_at(self) -> list[int]:
        return counting_words(read_words(self.corpus, self.storage)).column("position").to_pylist()


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(make_reviewed_run(tmp_path, monkeypatch))


def positions(session: ReviewSession, seat: str, count: int) -> list[int]:
    return [drawn.position for drawn in session.take(seat, count)]


def right(position: int) -> Word:
    return Word(position, Verdict.TAG, "cat", why=Why.MEASURE)


def test_two_seats_never_get_the_same_picture(world: World) -> None:
    session = world.open()
    first, second = positions(session, "ann/1", 5), positions(session, "bob/1", 5)
    assert len({*first, *second}) == 10
    session.say("ann/1", [right(first[0])], by="ann")
    assert not set(positions(session, "ann/1", 8)) & set(second)


def test_many_seats_at_once_share_all_pictures_without_an_overlap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = 60
    world = World(make_reviewed_run(tmp_path, monkeypatch, images))
    with ThreadPoolExecutor(4) as pool:
        session = world.open(pool)
        seen: dict[str, list[int]] = {}

        def review(seat: str) -> None:
            seen[seat] = []
            while found := session.take(seat, 3):
                seen[seat].append(found[0].position)
                session.say(seat, [right(found[0].position)], by=seat)

        threads = [threading.Thread(target=review, args=(f"p{number}",)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    everything = [position for mine in seen.values() for position in mine]
    assert len(everything) == len(set(everything))
    # Those who came last found everything kept for others, and those others have said it.
    assert sorted(everything) == sorted(world.looked_at())
    assert len(everything) > images - 4 * 3


def test_a_page_that_is_loaded_again_shows_the_same_picture(world: World) -> None:
    session = world.open()
    assert positions(session, "ann/1", 3) == positions(session, "ann/1", 3)


def test_what_is_kept_for_somebody_who_left_goes_to_others_after_a_while(world: World) -> None:
    session = world.open()
    kept = positions(session, "ann/1", 2)
    world.seconds += KEPT_SECONDS - 1
    assert not set(kept) & set(positions(session, "bob/1", 4))
    world.seconds += 1
    assert set(kept) <= set(positions(session, "eve/1", 6))


def test_somebody_who_goes_on_keeps_what_they_have(world: World) -> None:
    session = world.open()
    kept = positions(session, "ann/1", 3)
    for _ in range(3):
        world.seconds += KEPT_SECONDS - 1
        session.say("ann/1", [right(kept.pop(0))], by="ann")
    assert not set(kept) & set(positions(session, "bob/1", 8))


def test_after_a_restart_it_goes_on_with_what_nobody_looked_at(world: World) -> None:
    before = world.open()
    done = positions(before, "ann/1", 3)
    for position in done:
        before.say("ann/1", [right(position)], by="ann")
    after = world.open()
    assert after.looks == 3
    assert not set(done) & set(positions(after, "ann/1", 20))


def test_a_look_at_a_picture_of_before_the_restart_is_saved_as_it_was_drawn(world: World) -> None:
    world.open().take("ann/1", 1)
    after = world.open()
    drawn = after.drawn(0, "measure")
    assert (drawn.tag, drawn.confidence, drawn.why) == (tag_of(0), 70, Why.MEASURE)
    assert after.drawn(4, "measure").why is Why.TEACH  # it is there to teach only
    assert after.drawn(0, "nonsense").why is Why.TEACH


@pytest.mark.parametrize("position", [-1, IMAGES, 10**11])
def test_a_position_that_is_not_in_the_corpus_is_refused(world: World, position: int) -> None:
    with pytest.raises(BadInputError, match="is not in corpus pets"):
        world.open().drawn(position)


def test_looks_made_elsewhere_are_seen_after_a_few_seconds(world: World) -> None:
    here, there = world.open(), world.open()
    positions(here, "ann/1", 1)
    there.say("bob/1", [right(5), right(6)], by="bob")
    world.seconds += REREAD_SECONDS + 1
    assert not {5, 6} & set(positions(here, "ann/1", 20))
    assert here.looks == 2


def test_a_picture_that_was_taken_down_after_it_was_drawn_is_not_shown(world: World) -> None:
    session = world.open()
    positions(session, "ann/1", 1)
    say(world.corpus, [Word(5, Verdict.TAKEDOWN, reason="asked")], by="oli", storage=world.storage)
    world.seconds += REREAD_SECONDS + 1
    assert 5 not in positions(session, "ann/1", 20)


def test_of_two_verdicts_at_once_the_later_wins_and_nobody_is_told_off(world: World) -> None:
    here, there = world.open(), world.open()
    here.say("ann/1", [right(0)], by="ann")
    there.say("bob/1", [Word(0, Verdict.NONE, why=Why.MEASURE)], by="bob")
    words = counting_words(read_words(world.corpus, world.storage)).to_pylist()
    assert [(row["by"], row["verdict"]) for row in words] == [("bob", "none")]


def test_a_look_that_is_taken_back_is_shown_again_first_and_does_not_count(world: World) -> None:
    session = world.open()
    first, second, third = positions(session, "ann/1", 3)
    one = session.say("ann/1", [right(first)], by="ann")
    two = session.say("ann/1", [right(second)], by="ann")
    assert session.last_number("ann/1", "ann") == two
    session.undo("ann/1", two, by="ann")
    assert (session.looks, world.looked_at()) == (1, [first])
    assert positions(session, "ann/1", 2) == [second, third]
    assert session.last_number("ann/1", "ann") == one
    session.undo("ann/1", one, by="ann")
    assert positions(session, "ann/1", 3) == [first, second, third]
    assert session.last_number("ann/1", "ann") == 0


def test_after_a_restart_the_last_look_of_the_person_can_be_taken_back(world: World) -> None:
    before = world.open()
    before.say("bob/1", [right(8)], by="bob")
    number = before.say("ann/1", [right(0)], by="ann")
    before.say("bob/1", [right(9)], by="bob")
    after = world.open()
    assert after.last_number("ann/2", "ann") == number
    assert [drawn.position for drawn in after.undo("ann/2", number, by="ann")[0]] == [0]
    assert after.last_number("ann/2", "ann") == 0


def test_nobody_takes_back_what_another_said_or_what_is_taken_back_already(world: World) -> None:
    session = world.open()
    number = session.say("ann/1", [right(0)], by="ann")
    for by, wrong in (("bob", number), ("ann", number + 5), ("ann", 0)):
        with pytest.raises(BadInputError, match="could be taken back"):
            session.undo("x/1", wrong, by=by)
    session.undo("ann/1", number, by="ann")
    with pytest.raises(BadInputError, match="could be taken back"):
        session.undo("ann/1", number, by="ann")


def test_a_wall_has_one_tag_stays_the_same_and_is_for_nobody_else(world: World) -> None:
    session = world.open()
    one_by_one = positions(session, "bob/1", 8)
    wall = [drawn.position for drawn in session.take_of_tag("ann/1", "dog", 10)]
    assert {tag_of(position) for position in wall} == {"dog"}
    assert not set(wall) & set(one_by_one)
    assert wall == [drawn.position for drawn in session.take_of_tag("ann/1", "dog", 10)]
    assert not set(wall) & {drawn.position for drawn in session.take_of_tag("eve/1", "dog", 10)}
    assert not set(wall) & set(positions(session, "bob/1", 60))


def test_a_wall_gets_what_was_kept_for_somebody_who_left(world: World) -> None:
    session = world.open()
    kept = [drawn.position for drawn in session.take_of_tag("ann/1", "dog", 50)]
    world.seconds += KEPT_SECONDS
    assert [drawn.position for drawn in session.take_of_tag("bob/1", "dog", 50)] == kept


def test_what_is_kept_for_others_while_a_wall_is_drawn_is_not_on_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = world.open()
    session.take("eve/1", 1)
    others: list[int] = []

    def draw(*arguments: Any, **options: Any) -> Any:
        drawn = draw_in_order(*arguments, **options)
        monkeypatch.setattr(module, "next_pictures", draw_in_order)
        others.extend(positions(session, "bob/1", 10))
        session.say("bob/1", [right(others[0])], by="bob")
        return drawn

    monkeypatch.setattr(module, "next_pictures", draw)
    wall = [drawn.position for drawn in session.take_of_tag("ann/1", "cat", 10)]
    assert len(others) == 10
    assert wall
    assert not set(wall) & set(others)


def test_a_look_that_is_being_taken_back_is_given_to_nobody_else(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    session = world.open()
    (first,) = positions(session, "ann/1", 1)
    number = session.say("ann/1", [right(first)], by="ann")
    others: list[int] = []

    def say_and_be_overtaken(*arguments: Any, **options: Any) -> int:
        said = say(*arguments, **options)
        others.extend(positions(session, "bob/1", IMAGES))
        return said

    monkeypatch.setattr(module, "say", say_and_be_overtaken)
    session.undo("ann/1", number, by="ann")
    assert len(others) > 10
    assert first not in others
    assert positions(session, "ann/1", 1) == [first]


def test_a_wall_of_a_tag_that_the_run_never_gave_is_refused(world: World) -> None:
    for tag in ("unicorn", ""):
        with pytest.raises(BadInputError, match="has no picture with the tag"):
            world.open().take_of_tag("ann/1", tag, 10)


def test_a_wall_is_taken_back_as_a_whole(world: World) -> None:
    session = world.open()
    wall = [drawn.position for drawn in session.take_of_tag("ann/1", "dog", 10)]
    number = session.say("ann/1", [Word(at, Verdict.TAG, "dog", why=Why.MEASURE) for at in wall], by="ann")
    assert session.looks == 10
    session.undo("ann/1", number, by="ann")
    assert (session.looks, world.looked_at()) == (0, [])
    assert [drawn.position for drawn in session.take_of_tag("ann/1", "dog", 10)] == wall


def test_what_others_said_of_the_corpus_does_not_count_as_a_look_at_the_run(world: World) -> None:
    say(world.corpus, [right(0)], by="ann", storage=world.storage)
    assert world.open().looks == 0


def test_the_figures_follow_the_looks(world: World) -> None:
    session = world.open()
    assert session.precision().overall is None
    session.say("ann/1", [Word(0, Verdict.TAG, "cat", why=Why.MEASURE, shown_tag="cat")], by="ann")
    assert session.precision().looks == 1


def test_the_next_picture_is_drawn_before_it_is_asked_for(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    draws: list[str] = []

    def draw(*arguments: Any, **options: Any) -> Any:
        draws.append(threading.current_thread().name)
        return draw_in_order(*arguments, **options)

    monkeypatch.setattr(module, "next_pictures", draw)
    with ThreadPoolExecutor(1, thread_name_prefix="background") as pool:
        session = world.open(pool)
        session.take("ann/1", 1)
        draws.clear()
        for _ in range(40):
            (drawn,) = session.take("ann/1", 1)
            session.say("ann/1", [right(drawn.position)], by="ann")
    assert draws
    assert all(name.startswith("background") for name in draws)


def test_a_wall_of_a_real_run_has_only_its_tag_and_measures_as_pictures_one_by_one_do(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path / "store")
    run = make_run(storage)
    score_all(storage, run)
    frame = load_frame(run, storage, quiet)
    words = read_words(load_corpus(run.corpus, storage), storage)
    wall = next_pictures(frame_of_tag(frame, "cat"), words, count=50)
    every = next_pictures(frame, words, count=50, purpose_share=1.0)
    assert {drawn.tag for drawn in wall} == {"cat"}
    assert {drawn.position for drawn in wall} == {drawn.position for drawn in every if drawn.tag == "cat"}
    strata = {drawn.position: drawn.stratum for drawn in every}
    assert all(strata[drawn.position] == drawn.stratum for drawn in wall)
