"""Which pictures are drawn next."""

import numpy as np
import pyarrow as pa
import pytest
from made_frames import TAGS, look, make_corpus, make_frame

from tinytags_tasks.derived_fields import random_numbers
from tinytags_tasks.review.draw import DROPPED_SHARE, Drawn, next_pictures
from tinytags_tasks.review.frame import Frame
from tinytags_tasks.review.sampler import seed_of
from tinytags_tasks.store.review_records import SCHEMA, Why

NO_WORDS = SCHEMA.empty_table()
PETS = make_corpus(20_000)


@pytest.fixture(scope="module")
def frame() -> Frame:
    return make_frame(PETS.tags, PETS.sure)


def measuring(drawn: list[Drawn]) -> list[Drawn]:
    return [each for each in drawn if each.why is Why.MEASURE]


def test_the_asked_share_measures_and_the_rest_teaches(frame: Frame) -> None:
    drawn = next_pictures(frame, NO_WORDS, count=250)

    assert len(drawn) == 250
    assert len(measuring(drawn)) == 150
    assert len({each.position for each in drawn}) == 250


def test_dropped_pictures_are_measured_too_and_never_teach(frame: Frame) -> None:
    drawn = next_pictures(frame, NO_WORDS, count=250)

    dropped = [each for each in drawn if not each.tag]
    assert len(dropped) == round(DROPPED_SHARE * 150)
    assert {each.why for each in dropped} == {Why.MEASURE}
    assert {each.confidence for each in dropped} == {-1}


def test_each_stratum_is_drawn_in_its_fixed_order(frame: Frame) -> None:
    words, drawn = NO_WORDS, []
    for number in range(1, 4):
        found = next_pictures(frame, words, count=100, purpose_share=1.0)
        drawn += found
        words = pa.concat_tables([words, look(found, PETS.truth, number)])
    for index, stratum in enumerate(frame.strata):
        own = {each.position for each in drawn if each.stratum == stratum.name}
        columns = frame.columns
        first = columns["position"][(columns["stratum"] == index) & (columns["order"] < len(own))]
        assert own == set(first.tolist())


def test_how_many_a_stratum_gets_does_not_depend_on_what_was_seen_there(frame: Frame) -> None:
    first = next_pictures(frame, NO_WORDS, count=100, purpose_share=1.0)
    answers = [look(first, truth, 1) for truth in (PETS.truth, np.full(len(PETS.truth), -1))]

    one, other = (next_pictures(frame, words, count=100, purpose_share=1.0) for words in answers)

    assert one == other


def test_the_chance_of_a_picture_is_the_share_of_its_stratum_that_was_drawn(frame: Frame) -> None:
    drawn = measuring(next_pictures(frame, NO_WORDS, count=250))

    for stratum in frame.strata:
        own = [each for each in drawn if each.stratum == stratum.name]
        assert {round(each.chance, 9) for each in own} <= {round(len(own) / stratum.images, 9)}


def test_pictures_with_a_word_or_in_somebodys_hands_or_learned_from_are_not_drawn(frame: Frame) -> None:
    first = next_pictures(frame, NO_WORDS, count=250)
    said, held, learned = first[:100], first[100:200], first[200:]
    words = look(said, PETS.truth, 1)

    drawn = next_pictures(
        frame,
        words,
        count=250,
        taken={each.position for each in held},
        exclude={each.position for each in learned},
    )

    assert not {each.position for each in drawn} & {each.position for each in first}


def test_pictures_that_were_taken_down_are_not_drawn(frame: Frame) -> None:
    first = next_pictures(frame, NO_WORDS, count=50)
    words = look(first, PETS.truth, 1, verdict="takedown", tag="", why="correction", reason="asked for")

    assert not {each.position for each in next_pictures(frame, words, count=250)} & {each.position for each in first}


def test_two_rounds_in_two_hands_at_once_share_no_picture(frame: Frame) -> None:
    one = next_pictures(frame, NO_WORDS, count=250)
    other = next_pictures(frame, NO_WORDS, count=250, taken=[each.position for each in one])

    assert not {each.position for each in one} & {each.position for each in other}


def test_what_teaches_are_the_surest_of_each_tag_and_undecided_ones(frame: Frame) -> None:
    teaching = [each for each in next_pictures(frame, NO_WORDS, count=250) if each.why is Why.TEACH]

    for tag in TAGS:
        sure = sorted((each.confidence for each in teaching if each.tag == tag), reverse=True)
        assert min(sure[:10]) >= 98
        assert min(sure) < 65
    assert {each.chance for each in teaching} == {0.0}


def test_a_small_run_gives_every_picture_once_and_then_no_more() -> None:
    frame = make_frame(PETS.tags[:60], PETS.sure[:60])
    words, seen = NO_WORDS, []
    for number in range(1, 20):
        drawn = next_pictures(frame, words, count=10)
        seen += [each.position for each in drawn]
        words = pa.concat_tables([words, look(drawn, PETS.truth, number)])

    assert len(seen) == len(set(seen))
    assert next_pictures(frame, words, count=10, purpose_share=1.0) == []
    assert sum(not each for each in (frame.columns["position"][:, None] == np.array(seen)).any(axis=1)) == 0


def test_permanent_numbers_are_spread_evenly_and_differ_by_corpus() -> None:
    positions = np.arange(100_000)
    one, other = (random_numbers(seed_of(digest), positions) for digest in ("a", "b"))

    assert len(np.unique(one)) == len(positions)
    assert abs((one >> np.uint64(63)).mean() - 0.5) < 0.01
    assert abs(np.corrcoef(one.astype(float), other.astype(float))[0, 1]) < 0.02
    assert (random_numbers(seed_of("a"), positions[7:9]) == one[7:9]).all()
