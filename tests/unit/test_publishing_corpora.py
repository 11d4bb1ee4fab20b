"""Several corpora under one alias: whatever is done with one of them, readers keep what they have of the others."""

import pytest
from faulty_storage import FaultyStorage, Killed
from published_runs import ALIAS, FaultySolr, World, add_corpus, make_world
from small_run import quiet

from tinytags_tasks.correct.apply import pending_of
from tinytags_tasks.errors import BadInputError, FinalError, MissingError
from tinytags_tasks.publish.corrections import correct_live
from tinytags_tasks.publish.live import live_run, live_runs
from tinytags_tasks.publish.publications import of_corpus, read_history
from tinytags_tasks.publish.rollback import RollbackRequest, name_rollback, roll_back
from tinytags_tasks.publish.step import PublishRequest, publish_run
from tinytags_tasks.publish.unpublish import UnpublishRequest, unpublish
from tinytags_tasks.review.words import say
from tinytags_tasks.store import layout
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.review_records import Verdict, Word
from tinytags_tasks.store.run_blocks import RunBlocks
from tinytags_tasks.store.run_records import Change, Publication, Run
from tinytags_tasks.upkeep.audit import AuditRequest, audit_run
from tinytags_tasks.upkeep.prune import PruneRequest, plan_prune, prune_collections
from tinytags_tasks.upkeep.retag import RetagRequest, plan_retags


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> tuple[World, tuple[Run, ...]]:
    """Of pets the second of three runs is live, of birds the first of two."""
    world = make_world(tmp_path_factory.mktemp("world"))
    birds = add_corpus(world, "birds", 40, 50)
    world.publish(*world.runs[:2], birds[0])
    return world, birds


@pytest.fixture
def world(prepared, tmp_path) -> World:
    return prepared[0].copy(tmp_path / "store")


@pytest.fixture
def birds(prepared) -> tuple[Run, ...]:
    return prepared[1]


def live(world: World) -> list[str]:
    return world.live().split(",")


def take_back(world: World, run: str = "", corpus: str = "", storage=None, solr=None) -> str:
    request = RollbackRequest(ALIAS, run, corpus)
    return roll_back(request, storage=storage or world.storage, solr=solr or world.solr, report=quiet).collection


def take_out(world: World, name: str, storage=None, solr=None):
    request = UnpublishRequest(name, ALIAS, "ann")
    return unpublish(request, storage=storage or world.storage, solr=solr or world.solr, report=quiet)


def changes(world: World, corpus: str) -> list[tuple[str, str]]:
    return [(one.change, one.collection) for one in of_corpus(corpus, read_history(ALIAS, world.storage))]


def test_a_publication_says_what_it_replaces_and_what_stays_beside_it(world, birds):
    lines = []
    request = PublishRequest(birds[1].name, ALIAS)
    result = publish_run(request, storage=world.storage, solr=world.solr, report=lines.append)
    assert live(world) == [world.runs[1].collection, birds[1].collection]
    assert (result.corpus, result.replaced, result.beside) == (
        "birds",
        (birds[0].collection,),
        (world.runs[1].collection,),
    )
    assert f"it replaces {birds[0].collection} of corpus birds" in lines
    assert f"beside it stays what is live of corpus pets ({world.runs[1].collection})" in lines


def test_a_gate_compares_a_run_with_what_is_live_of_its_own_corpus(world, birds):
    few = add_corpus(world, "cats", 90)[0]
    publish_run(
        PublishRequest(few.name, ALIAS, least_documents_percent=100),
        storage=world.storage,
        solr=world.solr,
        report=quiet,
    )
    assert few.collection in live(world)
    with pytest.raises(FinalError, match=rf"of the 11 that are live; .*; {birds[0].collection} stays live; compare"):
        publish_run(
            PublishRequest(birds[1].name, ALIAS, least_documents_percent=100),
            storage=world.storage,
            solr=world.solr,
            report=quiet,
        )


def test_a_rollback_gives_back_only_what_was_live_of_its_corpus(world, birds):
    world.publish(birds[1])
    assert take_back(world, corpus="birds") == birds[0].collection
    assert live(world) == [world.runs[1].collection, birds[0].collection]
    assert take_back(world, world.runs[1].name) == world.runs[0].collection
    assert live(world) == [world.runs[0].collection, birds[0].collection]
    with pytest.raises(MissingError, match=r"nothing of corpus birds is recorded .*`tinytags unpublish birds`"):
        take_back(world, corpus="birds")


def test_whoever_names_no_corpus_of_several_is_told_which_there_are(world):
    several = f"alias {ALIAS} has several corpora, so name one of them: birds, pets"
    with pytest.raises(BadInputError, match=several):
        take_back(world)
    with pytest.raises(BadInputError, match=several):
        audit_run(AuditRequest(alias=ALIAS), storage=world.storage, solr=world.solr, report=quiet)
    with pytest.raises(MissingError, match="nothing of corpus cats is live"):
        live_run(ALIAS, "cats", world.storage, world.solr)
    with pytest.raises(BadInputError, match="is of corpus pets, not of birds"):
        take_back(world, world.runs[1].name, "birds")


def test_a_corpus_is_taken_out_once_and_a_rollback_brings_it_back(world, birds):
    assert take_out(world, "birds").taken_out == (birds[0].collection,)
    assert take_out(world, "birds").taken_out == ()
    assert live(world) == [world.runs[1].collection]
    assert [record.by for record in of_corpus("birds", read_history(ALIAS, world.storage))] == ["", "ann"]
    with pytest.raises(BadInputError, match="name one of them: birds, pets"):
        take_back(world)
    assert plan_prune(PruneRequest(ALIAS), storage=world.storage, solr=world.solr).kept[birds[0].collection] == (
        f"was live under {ALIAS} before, and is kept for a rollback"
    )
    take_back(world, corpus="birds")
    assert live(world) == [world.runs[1].collection, birds[0].collection]
    assert changes(world, "birds") == [
        (Change.PUBLISHED, birds[0].collection),
        (Change.UNPUBLISHED, ""),
        (Change.ROLLED_BACK, birds[0].collection),
    ]


def test_without_any_corpus_there_is_no_alias_and_it_comes_back(world, birds):
    take_out(world, "birds")
    take_out(world, "pets")
    assert ALIAS not in world.solr.aliases()
    take_back(world, corpus="birds")
    assert live(world) == [birds[0].collection]


def test_what_the_dag_chooses_counts_a_corpus_that_was_taken_out_and_may_be_repeated(world, birds):
    def chosen(corpus: str = "") -> RollbackRequest:
        return name_rollback(RollbackRequest(ALIAS, corpus=corpus), storage=world.storage, solr=world.solr)

    assert chosen("pets").run == world.runs[1].name
    take_out(world, "birds")
    with pytest.raises(BadInputError, match="name one of them: birds, pets"):
        chosen()
    back = chosen("birds")
    for _ in range(2):
        roll_back(back, storage=world.storage, solr=world.solr, report=quiet)
        assert live(world) == [world.runs[1].collection, birds[0].collection]
    assert changes(world, "birds")[-2:] == [(Change.UNPUBLISHED, ""), (Change.ROLLED_BACK, birds[0].collection)]


def test_taking_out_the_only_corpus_that_was_killed_after_its_switch_is_finished_by_its_command(world, birds):
    take_out(world, "birds")
    world.solr.delete_alias(ALIAS)
    with pytest.raises(MissingError, match="`tinytags unpublish pets` finishes that"):
        take_back(world, corpus="pets")
    take_out(world, "pets")
    take_back(world, corpus="pets")
    assert live(world) == [world.runs[1].collection]


def test_what_is_of_no_run_of_this_store_stays_until_a_person_takes_it_out(world, birds):
    world.solr.documents("customers")
    world.solr.set_alias(ALIAS, f"customers,{world.live()}")
    world.publish(birds[1])
    take_back(world, corpus="birds")
    assert live(world) == ["customers", world.runs[1].collection, birds[0].collection]
    assert take_out(world, "customers").taken_out == ("customers",)
    assert live(world) == [world.runs[1].collection, birds[0].collection]
    with pytest.raises(MissingError, match="nothing of corpus customers is live under live, where birds, pets is"):
        take_out(world, "customers")


def test_pruning_keeps_what_any_corpus_has_live_or_needs_for_a_rollback(world, birds):
    world.publish(birds[1], world.runs[2])
    waiting = add_corpus(world, "cats", 40)[0]
    kept = {world.runs[1], world.runs[2], *birds, waiting}
    prune_collections(PruneRequest(ALIAS), storage=world.storage, solr=world.solr, report=quiet)
    assert set(world.solr.collections()) == {run.collection for run in kept}
    prune_collections(PruneRequest(ALIAS, keep=0), storage=world.storage, solr=world.solr, report=quiet)
    kept -= {world.runs[1], birds[0]}
    assert set(world.solr.collections()) == {run.collection for run in kept}


def test_each_corpus_is_audited_and_tagged_again_by_itself(world, birds):
    for corpus, run in (("pets", world.runs[1]), ("birds", birds[0])):
        request = AuditRequest(alias=ALIAS, corpus=corpus)
        audited = audit_run(request, storage=world.storage, solr=world.solr, report=quiet)
        assert (audited.run, audited.problems) == (run.name, {})
    found = plan_retags(RetagRequest(), storage=world.storage, solr=world.solr, report=quiet)
    assert set(found.skipped) == {f"{ALIAS} pets", f"{ALIAS} birds"}
    found = plan_retags(RetagRequest(corpus="birds"), storage=world.storage, solr=world.solr, report=quiet)
    assert set(found.skipped) == {f"{ALIAS} birds"}


def test_a_damaged_record_of_a_run_stops_the_tagging_of_its_corpus_only(world, birds):
    world.storage.write(layout.run_file(birds[0].name), b"{")
    found = plan_retags(RetagRequest(), storage=world.storage, solr=world.solr, report=quiet)
    assert set(found.skipped) == {f"{ALIAS} pets", f"{ALIAS} {birds[0].collection}"}
    assert f"{birds[0].name}/run.json" in found.skipped[f"{ALIAS} {birds[0].collection}"]
    damaged = []
    runs = live_runs(ALIAS, world.storage, world.solr, on_damage=damaged.append)
    assert [run.name for run in runs] == [world.runs[1].name]
    assert birds[0].name in damaged[0]


def test_words_reach_what_is_live_of_their_corpus(world, birds):
    for corpus_name, run, other in (("pets", world.runs[1], birds[0]), ("birds", birds[0], world.runs[1])):
        corpus = Corpus.load(world.storage, layout.corpus_file(corpus_name))
        say(corpus, [Word(0, Verdict.TAG, "emu", is_public=True)], by="ann", storage=world.storage)
        applied = correct_live(corpus_name, ALIAS, storage=world.storage, solr=world.solr, report=quiet)
        assert [one.run for one in applied] == [run.name]
        assert world.solr.documents(run.collection)[f"{corpus_name}:0"]["tag"] == "emu"
        others = Corpus.load(world.storage, layout.corpus_file(other.corpus))
        assert not list(pending_of(RunBlocks(other, others, world.storage)))


def as_older_tinytags_left_it(world: World, *runs: Run) -> None:
    """Write the history of an alias as it was written before there were several corpora: each run replaced the last."""
    world.storage.delete(layout.publications_folder(ALIAS))
    for number, (run, previous) in enumerate(zip(runs, [None, *runs], strict=False), 1):
        record = Publication(
            change=Change.PUBLISHED,
            run=run.name,
            collection=run.collection,
            previous=previous.collection if previous else "",
            time="2024-05-01T00:00:00+00:00",
            host="here",
        )
        record.save(world.storage, layout.publication_file(ALIAS, number))
    world.solr.set_alias(ALIAS, runs[-1].collection)


def test_an_alias_of_one_collection_goes_on_as_one_of_several(world, birds):
    as_older_tinytags_left_it(world, world.runs[0], birds[0], birds[1])
    assert take_back(world, corpus="birds") == birds[0].collection
    world.publish(world.runs[1])
    assert live(world) == [birds[0].collection, world.runs[1].collection]
    assert take_back(world, corpus="pets") == world.runs[0].collection
    assert changes(world, "pets") == [
        (Change.PUBLISHED, world.runs[0].collection),
        (Change.UNPUBLISHED, ""),
        (Change.PUBLISHED, world.runs[1].collection),
        (Change.ROLLED_BACK, world.runs[0].collection),
    ]


# A kill between any two steps


def publish_birds_again(world, birds, storage, solr):
    publish_run(PublishRequest(birds[1].name, ALIAS), storage=storage, solr=solr, report=quiet)


def take_back_the_birds(world, birds, storage, solr):
    take_back(world, birds[1].name, storage=storage, solr=solr)


def take_out_the_birds(world, birds, storage, solr):
    take_out(world, "birds", storage, solr)


STEPS = (publish_birds_again, take_back_the_birds, take_out_the_birds)


@pytest.mark.parametrize("is_other_first", [False, True], ids=["the step again", "another corpus first"])
@pytest.mark.parametrize("step", STEPS)
def test_a_kill_between_any_two_writes_is_made_up_for(world, birds, tmp_path, step, is_other_first):
    """Whichever corpus is changed next, each has the history of what readers saw, and keeps what is live of it."""

    def other(world: World) -> None:
        world.publish(world.runs[2])

    if step is take_back_the_birds:
        world.publish(birds[1])
    clean = world.copy(tmp_path / "clean")
    step(clean, birds, clean.storage, clean.solr)
    if is_other_first:
        other(clean)
    met = 0
    for kind in ("after", "solr before", "solr after"):
        for fail_at in range(1, 100):
            killed = world.copy(tmp_path / f"{kind}-{fail_at}")
            storage, solr = killed.storage, killed.solr
            if kind == "after":
                faulty = storage = FaultyStorage(killed.storage, fail_at, "after", Killed)
            else:
                faulty = solr = FaultySolr(killed.solr, fail_at, kind.removeprefix("solr "), Killed)
            try:
                step(killed, birds, storage, solr)
                if faulty.calls < fail_at:
                    break
            except Killed:
                met += 1
            if is_other_first:
                other(killed)
            step(killed, birds, killed.storage, killed.solr)
            assert sorted(live(killed)) == sorted(live(clean)), (kind, fail_at)
            for corpus in ("pets", "birds"):
                assert [one[1] for one in changes(killed, corpus)] == [one[1] for one in changes(clean, corpus)]
    assert met >= 4
