"""Publishing at a measured precision: what readers see of a run, and that no kill ever shows them more."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from faulty_storage import MODES, FaultyStorage, Killed
from published_runs import ALIAS, FaultySolr, World, make_world
from small_run import quiet

from tinytags_tasks.errors import BadInputError, CorruptError, FinalError, TransientError
from tinytags_tasks.publish.live import live_collections
from tinytags_tasks.publish.publications import complete_history, read_history
from tinytags_tasks.publish.rollback import RollbackRequest, roll_back
from tinytags_tasks.publish.step import PublishRequest, PublishResult, publish_run
from tinytags_tasks.publish.unpublish import UnpublishRequest, unpublish
from tinytags_tasks.review.draw import next_pictures
from tinytags_tasks.review.frame import load_frame
from tinytags_tasks.runtime import Runtime
from tinytags_tasks.store import layout
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.store.review_log import append_words
from tinytags_tasks.store.review_records import SCHEMA, Verdict, Word
from tinytags_tasks.store.run_records import Run
from tinytags_tasks.upkeep.repair_history import repair_history

SURE_ONES = {"cat": 45, "dog": 45, "emu": 45}
"""Of the first run, everything from 50 % on is right, and nothing below is."""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> World:
    """The second run is live; every picture of the first was looked at."""
    world = make_world(tmp_path_factory.mktemp("world"))
    world.publish(world.runs[1])
    look_at_all(world, world.runs[0])
    return world


@pytest.fixture
def world(prepared: World, tmp_path: Path) -> World:
    return prepared.copy(tmp_path / "store")


def look_at_all(world: World | Runtime, run: Run) -> None:
    """Look at every picture of a run: what has 50 % or more is right, and nothing else is."""
    storage = world.storage
    corpus = Corpus.load(storage, layout.corpus_file(run.corpus))
    drawn = next_pictures(load_frame(run, storage, quiet), SCHEMA.empty_table(), count=50, purpose_share=1.0)
    words = [
        Word(each.position, Verdict.TAG, each.tag, why=each.why)
        if each.confidence >= 50
        else Word(each.position, Verdict.NONE, why=each.why)
        for each in drawn
    ]
    append_words(corpus, words, by="ann", run=run.name, storage=storage)


def publish(
    world: World, run: Run, least: float | None, lines: list[str] | None = None, **changed: object
) -> PublishResult:
    request = PublishRequest(run.name, ALIAS, least_measured_precision=least)
    report = quiet if lines is None else lines.append
    return publish_run(request, **{"storage": world.storage, "solr": world.solr, **changed}, report=report)


def shown_to_readers(world: World, storage: Storage | None = None) -> tuple[str, Mapping[str, int] | None]:
    """Return the collection and the thresholds that readers get, as the search page finds them out."""
    storage = storage or world.storage
    (live,) = live_collections(ALIAS, world.solr)
    last = complete_history(ALIAS, read_history(ALIAS, storage), [live], storage)[-1]
    return live, last.thresholds


def test_each_tag_is_shown_from_the_confidence_on_that_reaches_the_wish(world: World) -> None:
    lines: list[str] = []

    result = publish(world, world.runs[0], 80, lines)

    assert result.thresholds == SURE_ONES
    record = read_history(ALIAS, world.storage)[-1]
    assert (record.thresholds, record.least_precision) == (SURE_ONES, 80)
    assert any("readers see: cat 45 %, dog 45 %, emu 45 %" in line for line in lines)
    assert any(line.startswith(("recall", "what that costs in recall")) for line in lines)


def test_a_run_that_nobody_reviewed_is_not_published(world: World) -> None:
    before = shown_to_readers(world)

    with pytest.raises(FinalError, match=r"verified, but not published: .* not measured on this corpus"):
        publish(world, world.runs[2], 80)

    assert shown_to_readers(world) == before


@pytest.mark.parametrize("least", [-1, 101, float("nan")])
def test_a_wish_that_is_no_percentage_is_refused(least: float) -> None:
    with pytest.raises(BadInputError, match="must be between 0 and 100"):
        PublishRequest("pets-1", least_measured_precision=least)


def test_the_live_run_gets_other_thresholds_by_a_record_of_its_own(world: World) -> None:
    run = world.runs[0]
    publish(world, run, None)
    published = len(read_history(ALIAS, world.storage))

    publish(world, run, 80)
    publish(world, run, 80)

    history = read_history(ALIAS, world.storage)
    assert len(history) == published + 1
    assert (history[-1].previous, history[-1].collection) == (run.collection, run.collection)


def test_repeating_a_publication_without_a_wish_shows_no_more_than_before(world: World) -> None:
    publish(world, world.runs[0], 80)

    assert publish(world, world.runs[0], None).thresholds == SURE_ONES
    assert publish(world, world.runs[0], 0).thresholds is None


def test_a_wish_outlives_the_time_in_which_the_corpus_was_taken_out(world: World) -> None:
    first, second, _ = world.runs
    publish(world, first, 80)
    request = UnpublishRequest(first.corpus, ALIAS)
    unpublish(request, storage=world.storage, solr=world.solr, report=quiet)

    with pytest.raises(FinalError, match=r"precision of 80 %, which stays in force"):
        publish(world, second, None)
    assert publish(world, first, None).thresholds == SURE_ONES


def test_a_wish_outlives_the_run_that_it_was_asked_of(world: World) -> None:
    first, second, _ = world.runs
    publish(world, first, 80)

    with pytest.raises(FinalError, match=r"precision of 80 %, which stays in force .* --gate-measured-precision 0`"):
        publish(world, second, None)
    assert shown_to_readers(world) == (first.collection, SURE_ONES)

    look_at_all(world, second)
    thresholds = publish(world, second, None).thresholds
    assert thresholds
    assert read_history(ALIAS, world.storage)[-1].least_precision == 80
    assert shown_to_readers(world) == (second.collection, thresholds)


def test_a_wish_that_ends_while_a_run_is_measured_is_not_published_at(world: World) -> None:
    first, second, _ = world.runs
    publish(world, first, 80)
    look_at_all(world, second)

    def interfere(line: str) -> None:
        if "readers see:" in line:
            publish(world, first, 0)

    with pytest.raises(TransientError, match="at another measured precision meanwhile; try again"):
        publish_run(PublishRequest(second.name, ALIAS), storage=world.storage, solr=world.solr, report=interfere)
    assert shown_to_readers(world) == (first.collection, None)
    assert publish(world, second, None).thresholds is None


def test_a_wish_of_zero_ends_an_earlier_one(world: World) -> None:
    first, second, third = world.runs
    publish(world, first, 80)

    assert publish(world, second, 0).thresholds is None
    assert publish(world, third, None).thresholds is None


def test_a_rollback_brings_the_earlier_thresholds_back(world: World) -> None:
    first, second, _ = world.runs
    publish(world, first, 80)
    publish(world, second, 0)
    assert shown_to_readers(world) == (second.collection, None)

    roll_back(RollbackRequest(ALIAS), storage=world.storage, solr=world.solr, report=quiet)

    assert shown_to_readers(world) == (first.collection, SURE_ONES)


def test_other_thresholds_of_the_live_run_are_a_step_of_their_own(world: World) -> None:
    first, second, _ = world.runs
    publish(world, first, None)
    publish(world, first, 80)
    steps = []
    for _ in range(2):
        roll_back(RollbackRequest(ALIAS), storage=world.storage, solr=world.solr, report=quiet)
        steps.append(shown_to_readers(world))

    assert steps == [(first.collection, None), (second.collection, None)]


def test_rolling_a_named_run_back_never_leaves_it_live(world: World) -> None:
    first, second, _ = world.runs
    publish(world, first, None)
    publish(world, first, 80)
    for _ in range(2):
        roll_back(RollbackRequest(ALIAS, first.name), storage=world.storage, solr=world.solr, report=quiet)

    assert shown_to_readers(world) == (second.collection, None)


def test_no_kill_at_any_write_shows_readers_more_than_was_published(prepared: World, tmp_path: Path) -> None:
    clean = prepared.copy(tmp_path / "clean")
    publish(clean, clean.runs[0], 80)
    before, after = shown_to_readers(prepared), shown_to_readers(clean)
    met = 0
    for mode in MODES:
        for fail_at in range(1, 100):
            world = prepared.copy(tmp_path / f"{mode}-{fail_at}")
            faulty = FaultyStorage(world.storage, fail_at, mode, Killed)
            try:
                publish(world, world.runs[0], 80, storage=faulty)
                if faulty.calls < fail_at:
                    break
            except Killed:
                met += 1
            assert shown_to_readers(world) in (before, after), (mode, fail_at)
            publish(world, world.runs[0], 80)
            assert shown_to_readers(world) == after, (mode, fail_at)
            assert read_history(ALIAS, world.storage)[-1].thresholds == SURE_ONES
    assert met >= 6


@pytest.mark.parametrize("mode", ["before", "after"])
def test_a_kill_at_the_switch_of_a_rollback_leaves_the_thresholds_that_fit(
    prepared: World, tmp_path: Path, mode: str
) -> None:
    world = prepared.copy(tmp_path / mode)
    publish(world, world.runs[0], 80)
    publish(world, world.runs[1], 0)
    faulty = FaultySolr(world.solr, 1, mode, Killed)
    with pytest.raises(Killed):
        roll_back(RollbackRequest(ALIAS), storage=world.storage, solr=faulty, report=quiet)

    is_switched = mode == "after"
    first, second, _ = world.runs
    expected = (first.collection, SURE_ONES) if is_switched else (second.collection, None)
    assert shown_to_readers(world) == expected


def test_a_damaged_plan_is_named_with_the_command_that_removes_it(world: World) -> None:
    publish(world, world.runs[0], 80)
    world.storage.write(layout.next_publication_file(ALIAS), b"{")
    world.solr.set_alias(ALIAS, world.runs[1].collection)  # so that it must be known what was about to become live

    with pytest.raises(CorruptError, match=rf"{ALIAS}.next.json: .* `tinytags audit --alias {ALIAS} --repair`"):
        publish(world, world.runs[0], 80)
    repair_history(ALIAS, world.storage, world.solr, quiet)

    assert publish(world, world.runs[0], 80).thresholds == SURE_ONES


def test_a_damaged_plan_that_nobody_needs_stops_nothing(world: World) -> None:
    publish(world, world.runs[0], 80)
    world.storage.write(layout.next_publication_file(ALIAS), b"{")

    assert publish(world, world.runs[0], None).thresholds == SURE_ONES
    roll_back(RollbackRequest(ALIAS), storage=world.storage, solr=world.solr, report=quiet)
    assert shown_to_readers(world) == (world.runs[1].collection, None)


def test_a_damaged_last_record_is_repaired_with_its_thresholds(world: World) -> None:
    publish(world, world.runs[0], 80)
    number = len(read_history(ALIAS, world.storage))
    world.storage.write(layout.publication_file(ALIAS, number), b"{")

    repair_history(ALIAS, world.storage, world.solr, quiet)

    assert shown_to_readers(world) == (world.runs[0].collection, SURE_ONES)
