"""Pruning: everything that is unused goes, and everything that is read, written or may be rolled back to stays."""

import os
import time
from datetime import UTC, datetime, timedelta

import pytest
from configset_upgrades import upload, with_field
from faulty_storage import files_under
from published_runs import ALIAS, age_ledger, make_world
from small_run import card, index_all, make_another_run, quiet, score_all

from tinytags_tasks.errors import BadInputError, FinalError, MissingError
from tinytags_tasks.index.step import prepare_collection
from tinytags_tasks.publish.rollback import RollbackRequest, roll_back
from tinytags_tasks.store import layout
from tinytags_tasks.store.block_lease import embedding_leases
from tinytags_tasks.store.configsets import current_configset, read_configset
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.lease import Leases
from tinytags_tasks.store.protocol import temporary_name
from tinytags_tasks.store.run_records import Run
from tinytags_tasks.upkeep.prune import PruneRequest, plan_prune, prune_collections
from tinytags_tasks.upkeep.prune_embeddings import drop_embeddings, find_embeddings


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Three runs that were published one after the other."""
    world = make_world(tmp_path_factory.mktemp("world"))
    world.publish(*world.runs)
    return world


@pytest.fixture
def world(prepared, tmp_path):
    return prepared.copy(tmp_path / "store")


def prune(world, report=quiet, **request):
    request = PruneRequest(ALIAS, **request)
    return [
        found.run for found in prune_collections(request, storage=world.storage, solr=world.solr, report=report).drop
    ]


def reason(world, collection, **request):
    """Return why a collection stays; nothing may be dropped."""
    found = plan_prune(PruneRequest(ALIAS, keep=0, **request), storage=world.storage, solr=world.solr)
    assert collection not in [prunable.collection for prunable in found.drop]
    return found.kept[collection]


def index_anew(world, plan):
    """Do what `tinytags index RUN` does."""
    prepare_collection(plan.name, storage=world.storage, solr=world.solr)
    index_all(world.storage, plan, world.solr)


def test_what_is_live_and_the_one_before_stay(world):
    first, second, third = world.runs
    assert prune(world) == [first.name]
    assert world.solr.collections() == sorted([second.collection, third.collection])
    assert world.live() == third.collection


@pytest.mark.parametrize(("keep", "dropped"), [(0, 2), (1, 1), (2, 0), (9, 0)])
def test_as_many_are_kept_as_are_asked_for(world, keep, dropped):
    assert prune(world, keep=keep) == [run.name for run in world.runs[:dropped]]


def test_a_dropped_run_is_marked_and_its_records_and_scored_files_stay(world):
    first = world.runs[0]
    prune(world)
    marked = Run.load(world.storage, layout.run_file(first.name))
    assert marked.pruned >= "2024"
    assert marked.replaced(pruned="") == first
    assert len(world.storage.names(layout.scored_folder(first.name))) == first.blocks
    assert len(world.storage.names(layout.ledger_folder(first.name))) == first.blocks


def test_scored_files_go_only_when_asked(world):
    first = world.runs[0]
    lines = []
    assert prune(world, lines.append, scored=True) == [first.name]
    assert world.storage.names(layout.scored_folder(first.name)) == []
    assert f"dropped {first.collection} (11 documents) and the scored files of run {first.name} (0.0 MB)" in lines


def test_scored_files_of_a_run_that_was_pruned_before_can_go_later(world):
    first = world.runs[0]
    prune(world)
    lines = []
    assert prune(world, lines.append) == []
    assert prune(world, lines.append, scored=True) == [first.name]
    assert world.storage.names(layout.scored_folder(first.name)) == []
    assert any(line.startswith(f"dropped the scored files of run {first.name}") for line in lines)


def test_scored_files_of_a_run_that_was_never_indexed_stay(world):
    early = make_another_run(world.storage, 70, "2024-01-15T00:00:00+00:00")
    score_all(world.storage, early)
    age_ledger(world.storage, early)
    assert early.name not in prune(world, scored=True)
    assert len(world.storage.names(layout.scored_folder(early.name))) == early.blocks


def test_pruning_again_finds_nothing(world):
    prune(world)
    assert prune(world) == []


def test_looking_changes_nothing(world):
    before = world.outcome()
    found = plan_prune(PruneRequest(ALIAS, scored=True), storage=world.storage, solr=world.solr)
    assert [prunable.run for prunable in found.drop] == [world.runs[0].name]
    assert world.outcome() == before


def test_only_what_was_shown_is_dropped(world):
    assert prune(world, keep=0, runs=(world.runs[1].name,)) == [world.runs[1].name]
    assert world.runs[0].collection in world.solr.collections()


def test_what_was_rolled_back_may_go_and_what_a_rollback_leads_to_stays(world):
    _, second, third = world.runs
    roll_back(RollbackRequest(ALIAS), storage=world.storage, solr=world.solr, report=quiet)
    assert prune(world) == [third.name]
    assert world.live() == second.collection


def test_a_newer_run_that_waits_to_be_published_stays(world):
    newer = make_another_run(world.storage, 70, "2024-04-01T00:00:00+00:00")
    score_all(world.storage, newer)
    index_all(world.storage, newer, world.solr)
    age_ledger(world.storage, newer)
    assert reason(world, newer.collection) == "was never published, and is newer than what is live of its corpus"


def test_an_older_run_that_was_never_published_may_go(world):
    older = make_another_run(world.storage, 70, "2024-01-15T00:00:00+00:00")
    score_all(world.storage, older)
    index_all(world.storage, older, world.solr)
    age_ledger(world.storage, older)
    assert prune(world) == [world.runs[0].name, older.name]


def test_a_run_whose_ledger_changed_within_the_hour_stays(world):
    first, *_ = world.runs
    age_ledger(world.storage, first, (datetime.now(UTC) - timedelta(minutes=50)).isoformat(timespec="seconds"))
    assert "was written at 20" in reason(world, first.collection)
    age_ledger(world.storage, first, (datetime.now(UTC) - timedelta(minutes=70)).isoformat(timespec="seconds"))
    assert prune(world) == [first.name]


@pytest.mark.parametrize("lease", ["index.lease", "ledger/000003.lease", "leases/000003.lease"])
def test_a_run_with_a_live_lease_stays(world, lease):
    first, *_ = world.runs
    path = f"{layout.run_folder(first.name)}/{lease}"
    with Leases(world.storage).hold(path):
        assert f"which holds {path}" in reason(world, first.collection)
    assert prune(world) == [first.name]


def test_the_lease_of_one_of_the_dead_keeps_nothing(world):
    first, *_ = world.runs
    path = f"{layout.run_folder(first.name)}/index.lease"
    with Leases(world.storage).hold(path):
        content = world.storage.read(path)
    world.storage.write(path, content)
    assert prune(world) == [first.name]


def test_what_is_live_under_another_alias_stays(world):
    first, second, _ = world.runs
    world.solr.set_alias("test", first.collection)
    assert reason(world, first.collection) == "is live under test"
    assert prune(world, keep=0) == [second.name]


def test_what_another_alias_would_be_rolled_back_to_stays(world):
    first, _, third = world.runs
    world.publish(first, third, alias="test")
    found = plan_prune(PruneRequest(ALIAS), storage=world.storage, solr=world.solr)
    assert found.drop == ()
    assert found.kept[first.collection] == "was live under test before, and is kept for a rollback"


def test_an_alias_of_several_collections_keeps_each(world):
    first, second, _ = world.runs
    world.solr.alias_of["both"] = f"{first.collection},{second.collection}"
    assert prune(world, keep=0) == []


def test_collections_of_others_are_never_touched(world):
    first, *_ = world.runs
    world.solr.documents("customers")
    world.solr.documents("tinytags-pets-of-another-store")
    world.solr.configset_of[first.collection] = "theirs"
    assert reason(world, "customers") == "does not belong to a run of this store"
    assert reason(world, "tinytags-pets-of-another-store") == "does not belong to a run of this store"
    assert reason(world, first.collection) == "its configset theirs is not one of TinyTags"
    prune(world, keep=0)
    assert {"customers", "tinytags-pets-of-another-store", first.collection} <= set(world.solr.collections())


def test_configsets_go_when_no_collection_uses_them_any_longer(world, monkeypatch, tmp_path):
    first, second, third = world.runs
    old, older, waiting = (
        upload(world.solr, read_configset(with_field(tmp_path / name, name))) for name in ("old", "older", "waiting")
    )
    world.solr.configset_of = {first.collection: older, second.collection: old, third.collection: old}
    current = upload(world.solr, current_configset())
    world.solr.uploaded |= {"_default": None, "tinytags-custom": None}
    early = make_another_run(world.storage, 70)
    early.replaced(configset=waiting).save(world.storage, layout.run_file(early.name))
    found = plan_prune(PruneRequest(ALIAS), storage=world.storage, solr=world.solr)
    assert found.configsets == (older,)
    assert f"would drop configset {older}, which no collection uses" in found.lines("would drop")
    assert older in world.solr.uploaded, "showing changes nothing"
    lines = []
    assert prune(world, lines.append) == [first.name]
    assert f"dropped configset {older}, which no collection uses" in lines
    assert set(world.solr.uploaded) == {old, waiting, current, "_default", "tinytags-custom"}


def test_an_unused_configset_alone_is_worth_a_prune(world, tmp_path):
    unused = upload(world.solr, read_configset(with_field(tmp_path / "conf")))
    found = plan_prune(PruneRequest(ALIAS, keep=9), storage=world.storage, solr=world.solr)
    assert (found.configsets, found.is_empty) == ((unused,), False)


def test_a_configset_that_gets_a_collection_meanwhile_stays(world, monkeypatch, tmp_path):
    used = upload(world.solr, read_configset(with_field(tmp_path / "conf")))
    delete = world.solr.delete_configset

    def after_a_collection_was_made(name):
        world.solr.ensure_collection("tinytags-of-another-store", used)
        delete(name)

    monkeypatch.setattr(world.solr, "delete_configset", after_a_collection_was_made)
    prune(world)
    assert used in world.solr.uploaded


def test_an_alias_that_was_removed_keeps_what_it_pointed_at(world):
    world.solr.alias_of.clear()
    third = world.runs[2]
    assert reason(world, third.collection) == "was live under live, which now points at nothing"


def test_nothing_ever_published_keeps_everything(world):
    world.solr.alias_of.clear()
    world.storage.delete(layout.publications_folder(ALIAS))
    assert prune(world, keep=0) == []


def test_what_became_live_after_the_look_is_refused_by_solr(world, monkeypatch):
    first, *_ = world.runs
    delete = world.solr.delete_collection

    def after_a_hand_was_quicker(name):
        world.solr.set_alias("by-hand", first.collection)
        delete(name)

    monkeypatch.setattr(world.solr, "delete_collection", after_a_hand_was_quicker)
    with pytest.raises(FinalError, match="part of aliases"):
        prune(world)
    assert first.collection in world.solr.collections()


def test_single_blocks_of_a_pruned_run_are_refused_and_the_whole_run_comes_back(world):
    first, *_ = world.runs
    prune(world)
    marked = Run.load(world.storage, layout.run_file(first.name))
    with pytest.raises(
        MissingError, match=rf"{first.collection} was dropped by `tinytags prune` .*tinytags index {first.name}"
    ):
        marked.refuse_pruned()
    index_anew(world, first)
    world.publish(first)
    assert world.live() == first.collection
    Run.load(world.storage, layout.run_file(first.name)).refuse_pruned()


def test_a_run_that_is_indexed_again_is_not_pruned_meanwhile(world):
    first, *_ = world.runs
    prune(world)
    index_anew(world, first)
    assert "was written at" in reason(world, first.collection)


def test_fewer_than_none_cannot_be_kept():
    with pytest.raises(BadInputError, match="-1 collections cannot be kept"):
        PruneRequest(ALIAS, keep=-1)


def test_what_killed_writers_left_goes_after_a_day(world):
    first, _, third = world.runs
    old = [temporary_name(path) for path in (layout.scored_file(third.name, 1), layout.shard_file(third.corpus, 0))]
    young = temporary_name(layout.scored_file(third.name, 2))
    for path in (*old, young):
        world.storage.write(path, b"half a file")
    for path in old:
        os.utime(world.storage.root / path, (0, time.time() - 25 * 3600))
    before = files_under(world.storage.root)
    found = plan_prune(PruneRequest(ALIAS, keep=9), storage=world.storage, solr=world.solr)
    assert (found.drop, found.leftovers, found.leftover_bytes) == ((), 2, 22)
    assert found.lines("would drop") == ["would drop 2 temporary files of killed writers (0.0 MB)"]
    assert files_under(world.storage.root) == before, "showing changes nothing"
    done = prune_collections(PruneRequest(ALIAS, keep=9), storage=world.storage, solr=world.solr, report=quiet)
    assert (done.leftovers, done.leftover_bytes) == (2, 22)
    assert before.keys() - files_under(world.storage.root).keys() == set(old)
    assert first.collection in world.solr.collections()


# Embeddings


NET = "means-0123456789ab"


def embed_by(world, net=NET):
    """Write two blocks' files where embedding a corpus writes them."""
    corpus = world.runs[0].corpus
    for block in (0, 3):
        world.storage.write(layout.embeddings_file(corpus, net, block), b"embeddings")
    return layout.embeddings_folder(corpus, net)


def publish_reader_of(world, net):
    """Publish a model that reads a net's embeddings."""
    version = "reader-0123456789ab"
    card(version=version, features=net).save(world.storage, layout.card_file(version))


def test_embeddings_that_no_model_sees_are_shown_and_dropped_and_the_net_stays(world):
    folder = embed_by(world)
    world.storage.write(layout.net_file(NET), b"net")
    publish_reader_of(world, "another-0123456789ab")
    found = plan_prune(PruneRequest(ALIAS, keep=9), storage=world.storage, solr=world.solr)
    reason = "which no model sees and no run has as vectors"
    shown = f"would drop the embeddings of corpus pets by {NET} (2 blocks, 0.0 MB), {reason}"
    assert found.lines("would drop") == [shown]
    assert not found.is_empty
    assert len(world.storage.names(folder)) == 2, "showing changes nothing"
    lines = []
    prune(world, lines.append, keep=9)
    assert lines == [shown.replace("would drop", "dropped")]
    assert not world.storage.exists(folder)
    assert world.storage.exists(layout.net_file(NET))
    assert world.storage.exists(layout.corpus_file("pets"))
    assert plan_prune(PruneRequest(ALIAS, keep=9), storage=world.storage, solr=world.solr).is_empty


def test_embeddings_that_a_model_sees_stay(world):
    folder = embed_by(world)
    publish_reader_of(world, NET)
    prune(world, keep=0, scored=True)
    assert len(world.storage.names(folder)) == 2


def test_embeddings_stay_if_nobody_knows_what_a_model_sees(world):
    folder = embed_by(world)
    world.storage.write(layout.card_file("broken-0123456789ab"), b"{")
    assert (
        "a model's card cannot be read: "
        in plan_prune(PruneRequest(ALIAS, keep=9), storage=world.storage, solr=world.solr).kept["all embeddings"]
    )
    prune(world)
    assert len(world.storage.names(folder)) == 2


def test_embeddings_stay_while_somebody_embeds(world):
    folder = embed_by(world)
    for _ in embedding_leases("pets", NET).hold([1], storage=world.storage, report=quiet):
        found = plan_prune(PruneRequest(ALIAS, keep=9), storage=world.storage, solr=world.solr)
        assert "are being written by" in found.kept[f"the embeddings of corpus pets by {NET}"]
        prune(world)
        assert len(world.storage.names(folder)) == 3
    assert plan_prune(PruneRequest(ALIAS), storage=world.storage, solr=world.solr).embeddings


def test_only_embeddings_that_were_shown_are_dropped(world):
    first, second = embed_by(world), embed_by(world, "other-0123456789ab")
    prune(world, keep=9, embeddings=("pets/other-0123456789ab",))
    assert (world.storage.exists(first), world.storage.exists(second)) == (True, False)


def test_embeddings_of_blocks_that_a_corpus_no_longer_has_are_shown_and_dropped(world):
    folder = embed_by(world)
    publish_reader_of(world, NET)
    for gone in (6, 7, 11):  # it was ingested again with fewer images
        world.storage.write(layout.embeddings_file("pets", NET, gone), b"embeddings")
    found = plan_prune(PruneRequest(ALIAS, keep=9), storage=world.storage, solr=world.solr)
    shown = (
        f"would drop the embeddings of corpus pets by {NET} (3 blocks, 0.0 MB), whose blocks the corpus no longer has"
    )
    assert (found.lines("would drop"), found.is_empty) == ([shown], False)
    assert found.embeddings[0].name == f"pets/{NET}/6-7, 11"
    assert len(files_in(world, folder)) == 5, "showing changes nothing"
    lines = []
    prune(world, lines.append, keep=9)
    assert lines == [shown.replace("would drop", "dropped")]
    assert files_in(world, folder) == ["000000.parquet", "000003.parquet"]
    assert plan_prune(PruneRequest(ALIAS, keep=9), storage=world.storage, solr=world.solr).is_empty


def test_embeddings_beyond_a_corpus_whose_size_nobody_knows_stay(world):
    folder = embed_by(world)
    publish_reader_of(world, NET)
    world.storage.write(layout.embeddings_file("pets", NET, 6), b"embeddings")
    world.storage.delete(layout.corpus_file("pets"))  # as while it is ingested again
    prune(world, keep=9)
    assert len(files_in(world, folder)) == 3


def test_embeddings_of_a_block_that_is_back_since_they_were_found_stay(world, monkeypatch):
    folder = embed_by(world)
    publish_reader_of(world, NET)
    world.storage.write(layout.embeddings_file("pets", NET, 6), b"embeddings")
    (found,), _ = find_embeddings(world.storage)
    path = layout.corpus_file("pets")
    corpus = Corpus.load(world.storage, path)
    corpus.replaced(images=100).save(world.storage, path)
    drop_embeddings(found, world.storage)
    assert len(files_in(world, folder)) == 3
    corpus.save(world.storage, path)
    drop_embeddings(found, world.storage)
    assert len(files_in(world, folder)) == 2


def test_embeddings_of_gone_blocks_stay_while_somebody_embeds(world):
    folder = embed_by(world)
    publish_reader_of(world, NET)
    world.storage.write(layout.embeddings_file("pets", NET, 6), b"embeddings")
    (found,), _ = find_embeddings(world.storage)
    for _ in embedding_leases("pets", NET).hold([6], storage=world.storage, report=quiet):
        kept = plan_prune(PruneRequest(ALIAS, keep=9), storage=world.storage, solr=world.solr).kept
        assert "are being written by" in kept[f"the embeddings of corpus pets by {NET}"]
        drop_embeddings(found, world.storage)  # the writer came after the look
        assert len(files_in(world, folder)) == 3


def files_in(world, folder):
    return [name for name in world.storage.names(folder) if name.endswith(".parquet")]


def test_embeddings_half_dropped_by_a_killed_prune_are_gone_for_everybody(world, monkeypatch):
    folder, delete = embed_by(world), world.storage.delete
    monkeypatch.setattr(world.storage, "delete", lambda path: 1 / 0 if NET in path else delete(path))
    with pytest.raises(ZeroDivisionError):
        prune(world, keep=9)
    assert world.storage.names(folder) == []
    assert any("means-" in leftover.path for leftover in world.storage.leftovers(""))
