"""Re-tagging: which live indexes are due, which are left alone and why, and what a new run is compared with."""

import shutil

import pytest
from configset_upgrades import FOUNDING_FOLDER, check_out, with_comment, with_field
from published_runs import ALIAS, make_world
from small_run import MODEL, TAGS, card, quiet

from tinytags_tasks.errors import BadInputError, MissingError
from tinytags_tasks.publish.rollback import RollbackRequest, roll_back
from tinytags_tasks.score.plan import PlanRequest, plan_run
from tinytags_tasks.store import layout
from tinytags_tasks.store.configsets import CONFIGSET_FOLDER
from tinytags_tasks.store.model_records import ReviewUse
from tinytags_tasks.store.run_records import Run
from tinytags_tasks.upkeep import retag
from tinytags_tasks.upkeep.retag import Comparison, Retag, RetagRequest, compare_with_live, plan_retags

NEWER = "forest-ba9876543210"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def world(prepared, tmp_path):
    """Three runs of one model, the first of them live."""
    world = prepared.copy(tmp_path / "store")
    world.publish(world.runs[0])
    return world


def add_model(world, version=NEWER, **changes):
    """Publish a newer model."""
    newer = card(version=version, created="2024-05-01T00:00:00+00:00").replaced(**changes)
    newer.save(world.storage, layout.card_file(version))


def look(world, model="", alias=""):
    return plan_retags(RetagRequest(model, alias), storage=world.storage, solr=world.solr, report=quiet)


def let_second_run_be_of(world, model):
    """Change the second run's model."""
    path = layout.run_file(world.runs[1].name)
    Run.load(world.storage, path).replaced(model=model).save(world.storage, path)


def test_a_live_index_is_due_for_the_newest_model_and_keeps_its_threshold(world):
    add_model(world)
    live = world.runs[0]
    result = look(world)
    reason = f"run {live.name} used {MODEL}"
    assert result.due == (Retag(ALIAS, live.name, live.corpus, NEWER, live.threshold, live.thumbnails, "auto", reason),)
    assert result.skipped == {}


def test_an_index_is_tagged_again_without_vectors_if_the_new_model_cannot_have_them(world):
    add_model(world)
    live = world.runs[0]
    live.replaced(similar="net-0123456789ab").save(world.storage, layout.run_file(live.name))
    lines = []
    (due,) = plan_retags(RetagRequest(), storage=world.storage, solr=world.solr, report=lines.append).due
    assert due.similar == "auto"
    assert any("is tagged again without vectors: " in line and "`tinytags embed" in line for line in lines)


def test_an_index_without_the_vectors_that_it_could_have_gets_none(world, monkeypatch):
    add_model(world)
    monkeypatch.setattr(retag, "choose_vectors", lambda *_: "net-0123456789ab")
    assert [due.similar for due in look(world).due] == ["off"]
    monkeypatch.setattr(retag, "choose_vectors", lambda *_: "")
    assert [due.similar for due in look(world).due] == ["auto"]


def test_what_reviews_of_another_corpus_taught_is_not_for_this_one_unless_named(world):
    use = ReviewUse(
        corpus="elsewhere",
        corpus_digest="d",
        upto=1,
        words=60,
        weight=20,
        replaced_background=False,
        positions_sha256="",
        of_tags=(60, 0, 0),
        none=0,
        other_tags={},
    )
    add_model(world, reviews=use)
    assert look(world).due == ()
    assert [due.model for due in look(world, model=NEWER).due] == [NEWER]
    add_model(world, reviews=use.replaced(corpus=world.runs[0].corpus))
    assert [due.model for due in look(world).due] == [NEWER]


def test_the_damaged_card_of_another_model_is_named_and_does_not_stop_retagging(world):
    add_model(world)
    world.storage.write(layout.card_file("other-0123456789ab"), b"{")
    lines = []
    result = plan_retags(RetagRequest(), storage=world.storage, solr=world.solr, report=lines.append)
    assert [due.model for due in result.due] == [NEWER]
    assert any("other-0123456789ab/model.json" in line and "is not considered" in line for line in lines)


def test_a_live_index_whose_models_tags_are_unknown_is_left_alone(world):
    add_model(world, tags=("gnu",))
    world.storage.write(layout.card_file(MODEL), b"{")
    result = look(world)
    assert result.due == ()
    assert f"the card of its model {MODEL} cannot be read" in result.skipped[ALIAS]


def test_a_live_index_whose_corpus_is_gone_is_skipped_with_the_reason(world):
    add_model(world)
    world.storage.delete(layout.corpus_file(world.runs[0].corpus))
    assert layout.corpus_file(world.runs[0].corpus) in look(world).skipped[ALIAS]


def test_a_live_index_with_the_newest_model_is_due_when_the_configset_has_changed(world, monkeypatch, tmp_path):
    live = world.runs[0]
    check_out(monkeypatch, with_comment(tmp_path / "comment", CONFIGSET_FOLDER))
    assert look(world).due == ()
    later = check_out(monkeypatch, with_field(tmp_path / "field"))
    (due,) = look(world).due
    assert (due.live_run, due.model, due.threshold) == (live.name, MODEL, live.threshold)
    assert due.reason == f"run {live.name} also used it, but was made with configset {live.configset}, not {later}"
    name = plan_run(PlanRequest(due.corpus, due.model, due.threshold), storage=world.storage).run
    assert name not in [run.name for run in world.runs]


def test_a_live_index_from_before_configsets_were_recorded_is_due_for_a_later_one_only(world, monkeypatch, tmp_path):
    live = world.runs[0]
    live.replaced(configset="").save(world.storage, layout.run_file(live.name))
    world.solr.configset_of[live.collection] = "tinytags-0123456789"
    check_out(monkeypatch, FOUNDING_FOLDER)
    assert look(world).due == (), "planning again would find the same run"
    check_out(monkeypatch, with_field(tmp_path / "field"))
    assert [due.live_run for due in look(world).due] == [live.name]


def test_a_configset_that_was_rolled_back_is_tried_again_only_by_the_models_name(world, monkeypatch, tmp_path):
    later = check_out(monkeypatch, with_field(tmp_path / "field"))
    path = layout.run_file(world.runs[1].name)
    Run.load(world.storage, path).replaced(configset=later).save(world.storage, path)
    world.publish(world.runs[1])
    roll_back(RollbackRequest(ALIAS), storage=world.storage, solr=world.solr, report=quiet)
    assert look(world).skipped == {ALIAS: f"{MODEL} was rolled back here; name the model to try it again"}
    assert [due.model for due in look(world, model=MODEL).due] == [MODEL]
    check_out(monkeypatch, with_field(tmp_path / "another", "shade"))
    assert [due.model for due in look(world).due] == [MODEL]


def test_a_model_that_was_rolled_back_is_not_tried_again_with_another_configset(world, monkeypatch, tmp_path):
    add_model(world)
    world.publish(world.runs[1])
    let_second_run_be_of(world, NEWER)
    roll_back(RollbackRequest(ALIAS), storage=world.storage, solr=world.solr, report=quiet)
    check_out(monkeypatch, with_field(tmp_path / "field"))
    assert look(world).skipped == {ALIAS: f"{NEWER} was rolled back here; name the model to try it again"}


def test_nothing_is_done_where_the_live_index_has_the_newest_model(world):
    result = look(world)
    assert result.due == ()
    assert result.skipped == {ALIAS: f"run {world.runs[0].name} was already tagged by {MODEL}"}


def test_every_alias_that_was_published_under_is_looked_at_or_the_named_one_alone(world):
    add_model(world)
    world.publish(world.runs[1], alias="other")
    world.solr.set_alias("strangers", world.runs[2].collection)
    assert [due.alias for due in look(world).due] == [ALIAS, "other"]
    assert [due.alias for due in look(world, alias="other").due] == ["other"]


@pytest.mark.parametrize("changes", [{"width": 64}, {"pixel_order": "another"}, {"tags": TAGS[:2]}])
def test_a_newer_model_for_other_images_or_without_all_live_tags_is_not_chosen(world, changes):
    add_model(world, **changes)
    assert look(world).due == ()


def test_a_named_model_may_know_other_tags_but_must_fit_the_images(world):
    add_model(world, tags=("fox", "gnu"))
    assert [due.model for due in look(world, model=NEWER).due] == [NEWER]
    add_model(world, "forest-64", width=64)
    assert look(world, model="forest-64").due == ()
    with pytest.raises(BadInputError, match=f"model forest-64 does not fit corpus pets, which is live under {ALIAS}"):
        look(world, model="forest-64", alias=ALIAS)


def test_a_model_that_was_rolled_back_is_tried_again_only_by_its_name(world):
    add_model(world)
    world.publish(world.runs[1])
    let_second_run_be_of(world, NEWER)
    roll_back(RollbackRequest(ALIAS), storage=world.storage, solr=world.solr, report=quiet)
    result = look(world)
    assert result.due == ()
    assert result.skipped == {ALIAS: f"{NEWER} was rolled back here; name the model to try it again"}
    assert [due.model for due in look(world, model=NEWER).due] == [NEWER]


def test_an_alias_that_points_at_nothing_of_ours_is_left_alone(world):
    add_model(world)
    world.solr.alias_of[ALIAS] = "somebody-elses"
    assert look(world).skipped == {ALIAS: "somebody-elses does not belong to a run of this store"}
    del world.solr.alias_of[ALIAS]
    assert look(world).skipped == {ALIAS: "it points at nothing"}


def test_a_model_or_alias_that_is_not_there_is_refused(world):
    with pytest.raises(MissingError, match="forest-no: no such model"):
        look(world, model="forest-no")
    with pytest.raises(MissingError, match="alias nowhere points at nothing"):
        look(world, alias="nowhere")


def test_looking_changes_nothing(world):
    add_model(world)
    before = world.outcome()
    look(world)
    assert world.outcome() == before


def test_a_new_run_is_compared_with_the_live_one(world):
    first, _, third = world.runs
    lines = []
    found = compare_with_live(first.name, third.name, storage=world.storage, report=lines.append)
    assert found.reason == ""
    assert found.lost == world.solr.count(first.collection) - world.solr.count(third.collection) > 0
    assert (found.changed, found.gained) == (0, 0)
    assert f"{found.lost} lost" in lines[-1]


def test_a_trial_is_compared_in_its_blocks(world):
    first, _, third = world.runs
    lines = []
    whole = compare_with_live(first.name, third.name, storage=world.storage, report=lines.append)
    parts = [
        compare_with_live(first.name, third.name, storage=world.storage, blocks=(block,), report=lines.append)
        for block in range(first.blocks)
    ]
    assert sum(part.lost for part in parts) == whole.lost
    assert sum(part.same for part in parts) == whole.same
    assert f"`tinytags diff {first.name} {third.name} --blocks 0`" in lines[1]


def test_a_live_run_without_scored_files_is_no_reason_not_to_go_on(world):
    first, second, _ = world.runs
    shutil.rmtree(world.storage.root / layout.scored_folder(first.name))
    lines = []
    found = compare_with_live(first.name, second.name, storage=world.storage, report=lines.append)
    assert found == Comparison(None, None, None, None, found.reason)
    assert first.name in found.reason
    assert lines == [f"{second.name} cannot be compared with the live run: {found.reason}"]
