"""What measured precision says after looks at pictures whose truth is known."""

import json

import numpy as np
import pyarrow as pa
import pytest
from made_frames import DIGEST, NONE, RUN, TAGS, UNCLEAR, look, make_corpus, make_frame

from tinytags_tasks.errors import BadInputError
from tinytags_tasks.review.draw import next_pictures
from tinytags_tasks.review.frame import Frame
from tinytags_tasks.review.intervals import share_of_sample, share_of_strata, wilson
from tinytags_tasks.review.precision import PrecisionTable, measure
from tinytags_tasks.review.thresholds import choose_thresholds
from tinytags_tasks.store.review_records import SCHEMA

NO_WORDS = SCHEMA.empty_table()
PETS = make_corpus(20_000)
KEPT = (PETS.tags < 3) & (PETS.sure >= 40)


@pytest.fixture(scope="module")
def frame() -> Frame:
    return make_frame(PETS.tags, PETS.sure)


@pytest.fixture(scope="module")
def words(frame: Frame) -> pa.Table:
    return review(frame, 500)


@pytest.fixture(scope="module")
def table(frame: Frame, words: pa.Table) -> PrecisionTable:
    return measure(frame, words)


def review(frame: Frame, looks: int, share: float = 1.0, truth: np.ndarray = PETS.truth) -> pa.Table:
    words = NO_WORDS
    for number in range(1, looks // 250 + 1):
        drawn = next_pictures(frame, words, count=250, purpose_share=share)
        words = pa.concat_tables([words, look(drawn, truth, number)])
    return words


def true_precision(tag: str, low: int, high: int = 100) -> float:
    chosen = KEPT & (PETS.tags == TAGS.index(tag)) & (PETS.sure >= low) & (PETS.sure <= high)
    return 100.0 * (PETS.truth[chosen] == TAGS.index(tag)).mean()


def test_before_any_review_nothing_is_measured(frame: Frame) -> None:
    table = measure(frame, NO_WORDS)

    assert not table.is_measured
    assert table.overall is None
    assert table.precision_of("cat", 90) is None
    assert table.recall("cat", 40) is None
    assert {row.precision for row in table.rows} == {None}
    assert table.more_looks == ""


def test_the_interval_of_each_figure_holds_the_truth(table: PrecisionTable) -> None:
    """With seeds fixed; how often it does is measured over many reviews below."""
    assert table.overall.low < 100 * (PETS.truth[KEPT] == PETS.tags[KEPT]).mean() < table.overall.high
    for row in table.tags:
        index = TAGS.index(row.tag)
        recall = 100 * (KEPT & (PETS.tags == index) & (PETS.truth == index)).sum() / (PETS.truth == index).sum()
        assert row.precision.low < true_precision(row.tag, 0) < row.precision.high
        assert row.recall.low < recall < row.recall.high


def test_looks_are_counted_by_tag_and_band_and_the_dropped_ones_apart(table: PrecisionTable) -> None:
    assert table.looks == 500
    assert table.dropped_looks == 100
    assert sum(row.looks for row in table.rows) == 400
    assert sum(row.images for row in table.rows) == KEPT.sum()
    assert all(row.low <= row.precision <= row.high for row in table.rows)


def test_the_stated_precision_is_near_the_truth_and_never_falls(table: PrecisionTable) -> None:
    for row in table.rows:
        assert abs(row.stated - true_precision(row.tag, row.band_low, row.band_high)) < 10
    for tag in TAGS:
        stated = [table.precision_of(tag, confidence).percent for confidence in range(101)]
        assert stated == sorted(stated)


def test_a_tag_that_nobody_looked_at_is_stated_from_the_others(frame: Frame, words: pa.Table) -> None:
    shown = np.array(words.column("shown_tag").to_pylist())
    table = measure(frame, words.filter(pa.array(shown != "emu")))

    emu = next(row for row in table.tags if row.tag == "emu")
    assert emu.precision is None
    stated = table.precision_of("emu", 95)
    others = table.precision_of("cat", 95)
    assert 50 < stated.percent < 100
    assert stated.high - stated.low > others.high - others.low


def few_cats(wrong: int, right: int, unseen: int = 0) -> tuple[Frame, np.ndarray]:
    """Return a frame of cats, and what they show: first none, then cats."""
    images = wrong + right + unseen
    return make_frame(np.zeros(images, dtype=np.int64), np.full(images, 95)), np.repeat(
        [NONE, 0], [wrong, images - wrong]
    )


def look_at(frame: Frame, truth: np.ndarray, measured: range, **others: str) -> pa.Table:
    """Return words on all pictures but the last: some measure, and the others are of another kind."""
    drawn = next_pictures(frame, NO_WORDS, count=len(truth), purpose_share=1.0)
    measuring = look([each for each in drawn if each.position in measured], truth, 1)
    other = look([each for each in drawn if each.position < measured.start], truth, 2, **others)
    return pa.concat_tables([measuring, other])


@pytest.mark.parametrize("why", ["teach", "correction", "import"])
def test_what_people_said_is_wrong_for_another_reason_is_wrong_in_every_figure(why: str) -> None:
    frame, truth = few_cats(wrong=8, right=2)

    table = measure(frame, look_at(frame, truth, range(8, 10), why=why))

    assert table.overall.percent == table.tags[0].precision.percent == table.rows[0].precision == 20
    assert table.precision_from("cat", 95).low == 20
    assert (table.looks, table.rows[0].looks) == (2, 2)
    with pytest.raises(BadInputError, match="no tag of run pets-1 reaches"):
        choose_thresholds(table, 90)


def test_what_readers_no_longer_see_under_a_tag_is_not_in_its_figures() -> None:
    frame, truth = few_cats(wrong=8, right=2)
    words = look_at(frame, truth, range(8, 10), why="correction")
    public = pa.array([number == 2 for number in words.column("number").to_pylist()])
    words = words.set_column(words.schema.get_field_index("is_public"), "is_public", public)

    table = measure(frame, words)

    assert (table.overall.percent, table.overall.low) == (100, 100)
    assert choose_thresholds(table, 90).thresholds == {"cat": 40}


def made_public(words: pa.Table, positions: range) -> pa.Table:
    """Return words of which those on some positions are public."""
    public = pa.array([position in positions for position in words.column("position").to_pylist()])
    return words.set_column(words.schema.get_field_index("is_public"), "is_public", public)


def test_what_a_look_measured_and_corrected_at_once_is_seen_by_no_reader_either() -> None:
    frame, truth = few_cats(wrong=6, right=14, unseen=20)
    private = look_at(frame, truth, range(20))

    before, after = (measure(frame, made_public(private, range(number))) for number in (0, 6))

    assert before.overall.percent == pytest.approx(100 * (14 + 0.7 * 20) / 40, abs=0.01)
    assert after.overall.percent == after.tags[0].precision.percent == after.rows[0].precision
    assert after.overall.percent == pytest.approx(100 * (14 + 0.7 * 20) / 34, abs=0.01)
    assert after.overall.low > before.overall.low
    assert after.overall.high <= 100
    assert after.rows[0].looks == before.rows[0].looks == 20
    assert after.precision_of("cat", 95) == before.precision_of("cat", 95)  # of those that nobody corrected yet


def test_once_all_is_looked_at_and_corrected_all_that_readers_see_is_right_or_there_is_nothing() -> None:
    frame, truth = few_cats(wrong=6, right=14)
    assert measure(frame, made_public(look_at(frame, truth, range(20)), range(6))).overall.low == 100
    frame, truth = few_cats(wrong=6, right=0)
    table = measure(frame, made_public(look_at(frame, truth, range(6)), range(6)))
    assert (table.overall, table.tags[0].precision) == (None, None)


def test_missed_pictures_whose_tag_a_person_told_readers_are_not_missed() -> None:
    tags, sure = np.repeat([0, 3], 20), np.repeat([95, 0], 20)
    truth = np.repeat([0, 0, NONE], [20, 10, 10])
    frame = make_frame(tags, sure)
    drawn = next_pictures(frame, NO_WORDS, count=40, purpose_share=1.0)

    table = measure(frame, made_public(look(drawn, truth, 1), range(20, 26)))

    assert table.recall("cat", 40).percent == pytest.approx(100 * 20 / 24, abs=0.01)


def test_what_a_model_learned_from_is_not_known_either() -> None:
    frame, truth = few_cats(wrong=8, right=2)

    table = measure(frame, look_at(frame, truth, range(8, 10), why="teach"), exclude=range(8))

    assert table.overall.percent == 100


def test_known_pictures_count_by_their_number_and_the_sample_for_the_others() -> None:
    frame, truth = few_cats(wrong=10, right=20, unseen=70)

    table = measure(frame, look_at(frame, truth, range(10, 30), why="teach"))

    assert table.overall.percent == 90
    assert table.overall.high == 90  # at least the ten are wrong
    assert 70 < table.overall.low < 85


def test_known_pictures_that_were_dropped_are_missed() -> None:
    tags, sure = np.repeat([0, 3], 20), np.repeat([95, 0], 20)
    truth = np.repeat([0, 0, NONE], [20, 10, 10])
    frame = make_frame(tags, sure)
    drawn = next_pictures(frame, NO_WORDS, count=40, purpose_share=1.0)
    measuring = look([each for each in drawn if not 20 <= each.position < 30], truth, 1)
    teaching = look([each for each in drawn if 20 <= each.position < 30], truth, 2, why="teach")

    table = measure(frame, pa.concat_tables([measuring, teaching]))

    assert table.recall("cat", 40).percent == pytest.approx(100 * 20 / 30, abs=0.01)


def test_what_was_chosen_to_teach_is_in_no_sample(frame: Frame) -> None:
    drawn = next_pictures(frame, NO_WORDS, count=250)
    words = look(drawn, PETS.truth, 1)
    without = words.filter(pa.array([why == "measure" for why in words.column("why").to_pylist()]))

    table = measure(frame, words)

    assert table.looks == 150
    assert [row.right for row in table.rows] == [row.right for row in measure(frame, without).rows]


def test_looks_for_another_run_or_version_do_not_count(frame: Frame) -> None:
    drawn = next_pictures(frame, NO_WORDS, count=50)

    assert measure(frame, look(drawn, PETS.truth, 1, run="other")).looks == 0
    assert measure(frame, look(drawn, PETS.truth, 1, corpus_digest="d2")).looks == 0


def test_what_the_model_learned_from_does_not_count(frame: Frame, words: pa.Table) -> None:
    learned = words.column("position").to_pylist()[:250]

    assert measure(frame, words, exclude=learned).looks == 250


def test_unclear_looks_are_missing_not_wrong(frame: Frame) -> None:
    drawn = next_pictures(frame, NO_WORDS, count=250, purpose_share=1.0)
    unclear = PETS.truth.copy()
    unclear[[each.position for each in drawn[:100]]] = UNCLEAR

    table = measure(frame, look(drawn, unclear, 1))

    assert (table.looks, table.unclear) == (150, 100)
    assert sum(row.right for row in table.rows) == sum(
        PETS.truth[each.position] == TAGS.index(each.tag) for each in drawn[100:] if each.tag
    )


@pytest.mark.parametrize(
    ("verdict", "tag", "right", "unclear"),
    [
        ("tag", "own", 1, 0),
        ("tag", "other", 0, 0),
        ("none", "", 0, 0),
        ("wrong", "own", 0, 0),
        ("wrong", "other", 0, 1),
    ],
)
def test_each_verdict_on_a_tagged_picture(frame: Frame, verdict: str, tag: str, right: int, unclear: int) -> None:
    drawn = [each for each in next_pictures(frame, NO_WORDS, count=50, purpose_share=1.0) if each.tag][:1]
    own = drawn[0].tag
    said = {"own": own, "other": next(name for name in TAGS if name != own), "": ""}[tag]

    table = measure(frame, look(drawn, PETS.truth, 1, verdict=verdict, tag=said))

    assert (sum(row.right for row in table.rows), table.unclear) == (right, unclear)


def test_the_latest_word_on_a_picture_counts_and_an_undone_one_does_not(frame: Frame) -> None:
    drawn = [each for each in next_pictures(frame, NO_WORDS, count=50, purpose_share=1.0) if each.tag][:2]
    first = look(drawn, PETS.truth, 1, verdict="none", tag="")
    again = pa.concat_tables([look([each], PETS.truth, 2, verdict="tag", tag=each.tag) for each in drawn[:1]])
    undo = look(drawn[1:], PETS.truth, 3, verdict="undo", tag="")
    undo = undo.set_column(undo.schema.get_field_index("undoes"), "undoes", pa.array([1], pa.int64()))

    table = measure(frame, pa.concat_tables([first, again, undo]))

    assert (table.looks, sum(row.right for row in table.rows)) == (1, 1)


def test_the_same_looks_give_the_same_table_and_json(frame: Frame, words: pa.Table, table: PrecisionTable) -> None:
    assert json.dumps(measure(frame, words).as_json()) == json.dumps(table.as_json())
    assert table.as_json()["run"] == RUN
    assert table.as_json()["corpus_digest"] == DIGEST
    assert table.as_json()["last_request"] == 2
    assert "100 more looks" in table.as_json()["more_looks"]


def test_intervals_cover_the_truth_in_93_to_97_of_100_reviews(frame: Frame) -> None:
    """A quick form of ``benchmarks/precision.py``, which takes 1,000 reviews of real pictures."""
    held = {"overall": [], "tags": [], "bands": []}
    for seed in range(60):
        made = make_frame(PETS.tags, PETS.sure, seed=seed)
        table = measure(made, review(made, 250))
        truth = 100 * (PETS.truth[KEPT] == PETS.tags[KEPT]).mean()
        held["overall"].append(table.overall.low <= truth <= table.overall.high)
        held["tags"] += [row.precision.low <= true_precision(row.tag, 0) <= row.precision.high for row in table.tags]
        held["bands"] += [
            row.low <= true_precision(row.tag, row.band_low, row.band_high) <= row.high for row in table.rows
        ]

    assert np.mean(held["overall"]) >= 0.90  # sixty reviews: four misses are chance, seven are not
    assert 0.92 <= np.mean(held["tags"]) <= 0.99
    assert 0.92 <= np.mean(held["bands"]) <= 0.99


def test_an_interval_is_exact_once_every_image_was_looked_at() -> None:
    found = share_of_sample(8, 8, 6).estimate

    assert (found.percent, found.low, found.high) == (75, 75, 75)


def test_of_two_images_that_nobody_looked_at_both_may_be_wrong() -> None:
    assert share_of_sample(10, 8, 8).estimate.low == 80


def test_wilsons_interval_is_the_published_one() -> None:
    """Of 81 in 263: 0.2553 to 0.3662 (Newcombe, "Two-sided confidence intervals", 1998, table I, method 3)."""
    assert wilson(81 / 263, 263) == (pytest.approx(0.2553, abs=1e-4), pytest.approx(0.3662, abs=1e-4))


def test_strata_are_weighted_by_their_images_not_by_their_looks() -> None:
    images, looks, right = (np.array(each, dtype=float) for each in ([900_000, 100_000], [10, 90], [10, 0]))

    assert share_of_strata(images, looks, right, np.array([0.9, 0.1])).share == pytest.approx(0.9, abs=1e-3)


def test_thresholds_are_the_lowest_that_surely_reach_a_precision(table: PrecisionTable) -> None:
    chosen = choose_thresholds(table, 80)

    for tag, threshold in chosen.thresholds.items():
        assert table.precision_from(tag, threshold).low >= 80
        assert true_precision(tag, threshold) >= 80
    assert chosen.images < chosen.images_before
    assert chosen.recall.percent < chosen.recall_before.percent
    assert any(line.startswith("recall falls from") for line in chosen.lines)


def test_a_higher_wish_never_lowers_a_threshold_and_may_drop_tags(table: PrecisionTable) -> None:
    low, high = choose_thresholds(table, 60), choose_thresholds(table, 85)

    assert set(high.thresholds) <= set(low.thresholds)
    assert all(high.thresholds[tag] >= low.thresholds[tag] for tag in high.thresholds)
    assert set(high.dropped) == set(TAGS) - set(high.thresholds)


def test_thresholds_without_any_review_are_refused_with_the_remedy(frame: Frame) -> None:
    with pytest.raises(BadInputError, match="not measured on this corpus: look at some of its pictures"):
        choose_thresholds(measure(frame, NO_WORDS), 80)


def test_a_precision_that_no_tag_reaches_is_refused_with_the_best(table: PrecisionTable) -> None:
    with pytest.raises(BadInputError, match=r"no tag of run pets-1 reaches .* 99.9 % .*the best reaches"):
        choose_thresholds(table, 99.9)


def test_recall_is_not_measured_without_looks_at_dropped_pictures(frame: Frame, words: pa.Table) -> None:
    shown = words.column("shown_tag").to_pylist()
    table = measure(frame, words.filter(pa.array([bool(tag) for tag in shown])))

    assert table.recall("cat", 40) is None
    assert table.overall is not None
    assert "recall is not measured" in " ".join(choose_thresholds(table, 60).lines)


def test_a_run_that_dropped_nothing_misses_only_what_it_tagged_otherwise() -> None:
    tags, truth = np.repeat([0, 1], 100), np.repeat([0, 1], 100)
    truth[150:] = 0
    frame = make_frame(tags, np.full(200, 99))

    table = measure(frame, review(frame, 250, truth=truth))

    assert table.recall("cat", 40).percent == pytest.approx(100 * 100 / 150, abs=0.01)
    assert table.recall("dog", 40).percent == 100


def test_a_picture_of_a_tag_that_the_model_lacks_is_wrong(frame: Frame) -> None:
    drawn = [each for each in next_pictures(frame, NO_WORDS, count=50, purpose_share=1.0) if each.tag][:1]

    table = measure(frame, look(drawn, PETS.truth, 1, verdict="tag", tag="gnu"))

    assert (table.looks, sum(row.right for row in table.rows)) == (1, 0)
    assert NONE not in (row.right for row in table.rows)
