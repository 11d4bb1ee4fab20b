"""Rolling back: readers get what was live before if it is complete, and otherwise keep what they have."""

import pytest
from published_runs import ALIAS, make_world
from small_run import CORPUS, quiet

from tinytags_tasks.errors import BadInputError, FinalError, MissingError, ReconcileError, TransientError
from tinytags_tasks.publish import rollback as rolling_back
from tinytags_tasks.publish.publications import read_history
from tinytags_tasks.publish.rollback import RollbackRequest, roll_back
from tinytags_tasks.store import layout
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.ledger import read_ledger
from tinytags_tasks.store.review_log import append_words
from tinytags_tasks.store.review_records import Verdict, Word
from tinytags_tasks.store.run_records import BlockState, Change, Run


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def world(prepared, tmp_path):
    """Three runs, none of them published."""
    return prepared.copy(tmp_path / "store")


def rollback(world, run_name="", report=quiet):
    return roll_back(RollbackRequest(ALIAS, run_name), storage=world.storage, solr=world.solr, report=report)


def test_readers_get_what_was_live_before(world):
    first, second, _ = world.runs
    world.publish(first, second)
    result = rollback(world)
    assert world.live() == first.collection
    assert (result.run, result.collection, result.taken_back) == (first.name, first.collection, second.collection)
    assert result.documents == world.solr.count(first.collection)
    last = read_history(ALIAS, world.storage)[-1]
    assert (last.change, last.run, last.previous) == (Change.ROLLED_BACK, first.name, second.collection)


def test_each_rollback_leads_one_step_further_back(world):
    world.publish(*world.runs)
    assert rollback(world).run == world.runs[1].name
    assert rollback(world).run == world.runs[0].name
    with pytest.raises(
        MissingError, match=rf"nothing of corpus pets is recorded as live before {world.runs[0].collection}"
    ):
        rollback(world)
    assert world.live() == world.runs[0].collection


def test_what_was_rolled_back_can_be_published_again(world):
    world.publish(*world.runs[:2])
    rollback(world)
    world.publish(world.runs[1])
    assert world.live() == world.runs[1].collection
    assert rollback(world).run == world.runs[0].name


def test_a_named_run_is_rolled_back_once_however_often_it_is_asked(world):
    _, second, third = world.runs
    world.publish(*world.runs)
    once = rollback(world, third.name)
    assert rollback(world, third.name) == once
    assert world.live() == second.collection
    assert len(read_history(ALIAS, world.storage)) == 4
    assert once.taken_back == third.collection


def test_a_run_that_is_not_live_cannot_be_rolled_back(world):
    first, _, third = world.runs
    world.publish(*world.runs)
    with pytest.raises(BadInputError, match=f"run {first.name} is not live under alias live, {third.name} is"):
        rollback(world, first.name)
    assert world.live() == third.collection


def test_nothing_live_is_told_with_the_remedy(world):
    with pytest.raises(MissingError, match="alias live points at nothing: publish a run"):
        rollback(world)


def test_a_switch_that_was_never_written_down_is_rolled_back_too(world):
    first, second, _ = world.runs
    world.publish(first)
    world.solr.set_alias(ALIAS, second.collection)
    assert rollback(world).run == first.name
    assert [record.change for record in read_history(ALIAS, world.storage)] == [
        Change.PUBLISHED,
        Change.FOUND,
        Change.ROLLED_BACK,
    ]


def test_a_rollback_that_was_cut_short_is_finished_and_goes_no_further(world):
    world.publish(*world.runs)
    world.solr.set_alias(ALIAS, world.runs[1].collection)
    lines = []
    result = rollback(world, report=lines.append)
    assert world.live() == result.collection == world.runs[1].collection
    assert result.taken_back == world.runs[2].collection
    assert "it was rolled back before; the change is recorded now" in lines


def test_nobody_waits_for_the_alias_while_documents_are_compared(world, monkeypatch):
    world.publish(*world.runs[:2])
    held = []

    def export(*arguments, **bounds):
        held.append(world.storage.exists(layout.alias_lease_file(ALIAS)))
        return type(world.solr).export(world.solr, *arguments, **bounds)

    monkeypatch.setattr(world.solr, "export", export)
    rollback(world)
    assert held
    assert not any(held)


def write_a_block(world):
    (record,) = read_ledger(world.storage, world.runs[0], [2])
    record.replaced(state=BlockState.INDEXED).save(world.storage, layout.ledger_file(record.run, 2))


def delete_a_document(world):
    world.solr.documents(world.runs[0].collection).popitem()


def publish_the_third(world):
    world.publish(world.runs[2])


MEANWHILE = [
    (write_a_block, "run {first} was written while it was compared with what was scored; .* try again"),
    (delete_a_document, "run {first} was written while it was compared with what was scored; .* try again"),
    (publish_the_third, "alias live was moved to {third} while {first_collection} was compared .* roll back again"),
]


@pytest.mark.parametrize(("act", "message"), MEANWHILE, ids=[act.__name__ for act, _ in MEANWHILE])
def test_a_change_while_documents_are_compared_stops_the_rollback(world, monkeypatch, act, message):
    first, second, third = world.runs
    world.publish(first, second)
    compare = rolling_back.document_problems

    def compare_and_act(*arguments):
        problems = compare(*arguments)
        act(world)
        return problems

    monkeypatch.setattr(rolling_back, "document_problems", compare_and_act)
    names = {"first": first.name, "first_collection": first.collection, "third": third.collection}
    with pytest.raises(TransientError, match=message.format(**names)):
        rollback(world)
    assert world.live() == (third if act is publish_the_third else second).collection


def drop_the_collection(world, run):
    del world.solr.visible[run.collection]


def prune_the_run(world, run):
    del world.solr.visible[run.collection]
    run.replaced(pruned="2024-05-01").save(world.storage, layout.run_file(run.name))


def lose_a_document(world, run):
    world.solr.documents(run.collection).popitem()


def add_a_stranger(world, run):
    world.solr.documents(run.collection)["pets:777"] = {"block": 99}


def change_a_keyword(world, run):
    world.solr.documents(run.collection)["pets:0"]["keyword"] = "gnu"


def damage_a_record(world, run):
    world.storage.write(layout.ledger_file(run.name, 3), b"{")


def forget_the_run(world, run):
    world.storage.delete(layout.run_file(run.name))


OBSTACLES = [
    (drop_the_collection, MissingError, "its collection {collection} does not exist; .*tinytags index {name}"),
    (
        prune_the_run,
        MissingError,
        r"was dropped by `tinytags prune` \(2024-05-01\); .*tinytags index {name}",
    ),
    (
        lose_a_document,
        ReconcileError,
        "blocks . do not have the .*tinytags backfill {name} --blocks .*Solr holds 10 documents, 11 images were kept",
    ),
    (add_a_stranger, ReconcileError, "Solr holds 12 documents, 11 images were kept; then roll back"),
    (
        damage_a_record,
        ReconcileError,
        "blocks 3 do not have the documents .*Solr holds 11 documents, 10 images were kept",
    ),
    (
        change_a_keyword,
        ReconcileError,
        "cannot roll back to run {name}: block 0 has documents with ids or fields .*tinytags backfill {name}",
    ),
    (forget_the_run, FinalError, "collection {collection} was live before, but does not belong to a run of this store"),
]


@pytest.mark.parametrize(("make", "error", "message"), OBSTACLES, ids=[make.__name__ for make, _, _ in OBSTACLES])
def test_what_does_not_stand_whole_is_not_given_back(world, make, error, message):
    first, second, _ = world.runs
    world.publish(first, second)
    make(world, first)
    with pytest.raises(error, match=message.format(collection=first.collection, name=first.name)):
        rollback(world)
    assert world.live() == second.collection
    assert len(read_history(ALIAS, world.storage)) == 2


def test_a_corpus_that_was_ingested_anew_does_not_keep_readers_from_the_run_before(world):
    world.publish(*world.runs[:2])
    world.storage.delete(layout.corpus_file("pets"))
    assert rollback(world).run == world.runs[0].name


def test_documents_are_compared_even_if_the_corpus_is_gone(world):
    world.publish(*world.runs[:2])
    world.storage.delete(layout.corpus_file("pets"))
    change_a_keyword(world, world.runs[0])
    with pytest.raises(ReconcileError, match="block 0 has documents with ids or fields that differ"):
        rollback(world)


def test_a_run_whose_pruning_was_cut_short_is_pruned_no_more_when_it_is_live_again(world):
    first, second, _ = world.runs
    world.publish(first, second)
    first.replaced(pruned="2024-05-01").save(world.storage, layout.run_file(first.name))
    rollback(world)
    assert Run.load(world.storage, layout.run_file(first.name)) == first


def of_another_version(world, *words):
    """Say something of pictures as if another version of the corpus stood in the store, and the run's were gone."""
    path = layout.corpus_file(CORPUS)
    corpus = Corpus.load(world.storage, path).replaced(digest="another")
    corpus.save(world.storage, path)
    append_words(corpus, words, by="ann", storage=world.storage)


def test_a_run_of_another_version_is_not_given_back_while_it_may_show_what_was_taken_down(world):
    first, second, _ = world.runs
    world.publish(first, second)
    of_another_version(world, Word(5, Verdict.TAKEDOWN, picture=b"p" * 16, is_public=True, reason="asked"))
    with pytest.raises(FinalError, match=r"1 pictures again that were taken down of another .*`tinytags run pets`"):
        rollback(world)
    assert world.live() == second.collection


def test_a_run_of_another_version_is_given_back_if_the_same_pictures_are_taken_down_there(world):
    first, second, _ = world.runs
    down = {"picture": b"p" * 16, "is_public": True, "reason": "asked"}
    corpus = Corpus.load(world.storage, layout.corpus_file(CORPUS))
    append_words(corpus, [Word(3, Verdict.TAKEDOWN, **down)], by="ann", storage=world.storage)
    world.publish(first, second)
    of_another_version(world, Word(5, Verdict.TAKEDOWN, **down))
    rollback(world)
    assert world.live() == first.collection
