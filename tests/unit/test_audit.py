"""An audit finds lost and changed documents, and a backfill of what it found restores them."""

import pytest
import small_run
from small_run import (
    BLOCKS,
    SparkHere,
    address_of,
    index_all,
    make_another_run,
    make_run,
    quiet,
    score_all,
)

from tinytags_tasks.errors import BadInputError, CorruptError, MissingError
from tinytags_tasks.index import step as index_step
from tinytags_tasks.publish.step import reconcile_run
from tinytags_tasks.score import step as score_step
from tinytags_tasks.store import layout
from tinytags_tasks.store.block_files import read_scored, write_scored
from tinytags_tasks.store.ledger import read_ledger
from tinytags_tasks.store.run_records import BlockState
from tinytags_tasks.upkeep import rotation
from tinytags_tasks.upkeep.audit import AuditRequest, audit_run, last_audit
from tinytags_tasks.upkeep.backfill import BackfillRequest, plan_backfill


@pytest.fixture
def live(storage, solr):
    """A complete run that is live."""
    planned = make_run(storage)
    score_all(storage, planned)
    index_all(storage, planned, solr)
    solr.alias_of = {"live": planned.collection}
    return planned


def look(storage, solr, **options):
    return audit_run(AuditRequest(alias="live", **options), storage=storage, solr=solr, report=quiet)


def do(plan, storage, solr):
    """Do what a backfill planned."""
    for group in plan.groups:
        score_step.score_blocks(
            score_step.ScoreRequest(plan.run, group),
            storage=storage,
            address=address_of(storage),
            connect_spark=SparkHere(),
            report=quiet,
        )
        index_step.index_blocks(
            index_step.IndexRequest(plan.run, group, redo=True), storage=storage, solr=solr, report=quiet
        )


def choose(storage, solr, run, **choice):
    return plan_backfill(BackfillRequest(run.name, **choice), storage=storage, solr=solr, alias="live", report=quiet)


def change_record(storage, run, block, **changes):
    (record,) = read_ledger(storage, run, [block])
    record.replaced(**changes).save(storage, layout.ledger_file(run.name, block))


def lose_a_document(storage, run, solr):
    del solr.documents(run.collection)["pets:6"]


def change_a_tag(storage, run, solr):
    solr.documents(run.collection)["pets:6"]["tag"] = "gnu"


def change_a_picture(storage, run, solr):
    document = solr.documents(run.collection)["pets:6"]
    document["data"] = bytes(3_072)


def lose_a_picture(storage, run, solr):
    del solr.documents(run.collection)["pets:6"]["data"]


def add_a_stranger(storage, run, solr):
    solr.documents(run.collection)["pets:777"] = {**solr.documents(run.collection)["pets:6"], "id": "pets:777"}


def truncate_a_scored_file(storage, run, solr):
    path = layout.scored_file(run.name, 3)
    storage.write(path, storage.read(path)[:-5])


def exchange_a_scored_file(storage, run, solr):
    table, record = read_scored(storage, run.name, 3)
    write_scored(storage, table, record.replaced(host="another"))


def lose_a_scored_file(storage, run, solr):
    storage.delete(layout.scored_file(run.name, 3))


def claim_that_a_block_is_verified(storage, run, solr):
    solr.delete_block(run.collection, 3)
    solr.commit(run.collection)


def lose_a_record(storage, run, solr):
    storage.delete(layout.ledger_file(run.name, 3))


def miscount_a_record(storage, run, solr):
    change_record(storage, run, 3, kept=0, below=1)


DAMAGES = [
    (lose_a_document, "has 0 of 1 documents"),
    (change_a_tag, "has documents with ids or fields that differ from what was scored"),
    (change_a_picture, "document pets:6 has other bytes than the shard"),
    (lose_a_picture, "document pets:6 has other bytes than the shard"),
    (add_a_stranger, "has 2 of 1 documents"),
    (truncate_a_scored_file, "damaged"),
    (exchange_a_scored_file, "is not the one that was committed"),
    (lose_a_scored_file, "000003.parquet"),
    (claim_that_a_block_is_verified, "has 0 of 1 documents"),
    (lose_a_record, "is planned, not verified"),
    (miscount_a_record, "its record in the ledger is wrong: kept is 0, and must be 1, below is 1, and must be 0"),
]


ONLY_THE_RECORD = (lose_a_record, miscount_a_record)
"""Damages after which the scored file and the documents are good."""


def test_a_whole_run_is_found_whole(storage, solr, live):
    result = look(storage, solr)
    assert (result.run, result.problems, result.blocks) == (live.name, {}, BLOCKS)
    assert result.documents == solr.count(live.collection)
    assert result.sampled > 0
    assert last_audit(live.name, storage).problems == {}


@pytest.mark.parametrize(("damage", "problem"), DAMAGES, ids=[damage.__name__ for damage, _ in DAMAGES])
def test_what_is_lost_or_changed_is_found_and_a_backfill_mends_it(storage, solr, live, damage, problem):
    before = {name: dict(document) for name, document in solr.documents(live.collection).items()}
    damage(storage, live, solr)
    result = look(storage, solr, sample=10_000)
    assert result.wrong == (3,)
    assert problem in result.problems[3]
    plan = choose(storage, solr, live, select="audit")
    assert (plan.all_blocks, plan.was_live) == ((3,), True)
    assert plan.rebuilt == ((3,) if damage in ONLY_THE_RECORD else ())
    do(plan, storage, solr)
    assert look(storage, solr).problems == {}
    assert solr.documents(live.collection) == before
    reconcile_run(live.name, storage=storage, solr=solr, report=quiet)


def test_documents_of_no_block_are_found_and_only_a_person_deletes_them(storage, solr, live):
    solr.documents(live.collection)["pets:777"] = {"id": "pets:777", "block": 99, "position": 777}
    result = look(storage, solr)
    assert result.problems == {99: "1 documents, and corpus pets has no such block"}
    plan = choose(storage, solr, live, select="audit")  # as the Dag does
    assert (plan.blocks, plan.groups) == ((), [])
    assert "pets:777" in solr.documents(live.collection)
    choose(storage, solr, live, select="audit", delete_foreign=True)
    assert look(storage, solr).problems == {}


def test_documents_that_a_scored_file_supports_are_never_deleted(storage, solr, live):
    solr.documents(live.collection)["pets:777"] = {"id": "pets:777", "block": 99, "position": 777}
    storage.write(layout.scored_file(live.name, 99), storage.read(layout.scored_file(live.name, 3)))
    look(storage, solr)
    with pytest.raises(BadInputError, match="nothing to backfill"):
        choose(storage, solr, live, select="audit", delete_foreign=True)
    assert "pets:777" in solr.documents(live.collection)


def test_each_audit_is_kept_and_the_last_one_counts(storage, solr, live):
    lose_a_document(storage, live, solr)
    first = look(storage, solr)
    index_all(storage, live, solr)
    second = look(storage, solr)
    assert (first.path, second.path) == (layout.audit_file(live.name, 1), layout.audit_file(live.name, 2))
    assert last_audit(live.name, storage).problems == {}


def test_some_blocks_can_be_audited_alone(storage, solr, live):
    lose_a_document(storage, live, solr)
    assert look(storage, solr, blocks=(1, 2)).problems == {}
    assert look(storage, solr, blocks=(2, 3)).wrong == (3,)
    with pytest.raises(BadInputError, match="block 6 is out of range"):
        look(storage, solr, blocks=(6,))


def test_a_run_that_is_not_live_can_be_audited_by_its_name(storage, solr, live):
    other = make_another_run(storage, 60)
    score_all(storage, other)
    solr.visible[other.collection] = {}
    assert set(look(storage, solr, run=other.name).problems) == set(range(BLOCKS))


def test_without_documents_nothing_is_sampled(storage, solr, live):
    assert look(storage, solr, sample=0).sampled == 0
    with pytest.raises(BadInputError, match="--sample is -1"):
        look(storage, solr, sample=-1)


def test_nothing_live_and_no_collection_are_told_with_the_remedy(storage, solr, live):
    solr.alias_of = {}
    with pytest.raises(MissingError, match="alias live points at nothing: publish a run"):
        look(storage, solr)
    solr.alias_of = {"live": "of-others"}
    with pytest.raises(MissingError, match="collection of-others is live under live, but not of a run of this store"):
        look(storage, solr)
    del solr.visible[live.collection]
    for doing in (lambda: look(storage, solr, run=live.name), lambda: choose(storage, solr, live, blocks="3")):
        with pytest.raises(MissingError, match=rf"does not exist; .*tinytags index {live.name}"):
            doing()


# The rotation


def test_as_many_audits_as_a_rotation_has_compare_every_picture(monkeypatch, storage, solr, live):
    for audits in (1, 2, 3, 5, 9, 30):
        monkeypatch.setattr(rotation, "AUDITS", audits)
        found = [look(storage, solr)]
        while found[-1].pictures_percent < 100:
            found.append(look(storage, solr))
        assert len(found) <= audits
        assert sum(result.sampled for result in found) == solr.count(live.collection)


@pytest.mark.parametrize("name", [f"pets:{position}" for position in range(11)])
def test_a_rotation_finds_a_changed_byte_wherever_it_is_and_goes_on_when_it_is_repaired(storage, solr, live, name):
    document = solr.documents(live.collection)[name]
    good, document["data"] = document["data"], bytes(3_072)
    found = [look(storage, solr) for _ in range(12)]
    problems = {problem for result in found for problem in result.problems.values()}
    assert problems == {f"document {name} has other bytes than the shard"}
    assert found[-1].problems  # it is not passed over
    document["data"] = good
    assert all(look(storage, solr).problems == {} for _ in range(11))


def test_a_deep_audit_compares_every_picture_and_begins_the_rotation_anew(storage, solr, live):
    look(storage, solr)
    found = look(storage, solr, is_deep=True)
    assert (found.sampled, found.pictures_percent) == (solr.count(live.collection), 100.0)
    assert look(storage, solr, sample=2).pictures_percent == pytest.approx(100 * 2 / 11)


def test_an_audit_of_chosen_blocks_leaves_the_rotation_as_it_is(storage, solr, live):
    first = look(storage, solr, sample=4).pictures_percent
    assert look(storage, solr, blocks=(1, 2)).pictures_percent is None
    assert look(storage, solr, sample=0).pictures_percent == first


def test_a_damaged_record_of_an_audit_does_not_stop_the_next_one(storage, solr, live):
    look(storage, solr, sample=4)
    path = look(storage, solr, sample=1).path
    storage.write(path, b"{")
    assert look(storage, solr, sample=1).pictures_percent == pytest.approx(100 * 5 / 11)


def test_a_damaged_shard_is_told_and_its_blocks_stay_good(storage, solr, live):
    path = layout.shard_file("pets", 0)
    stored = bytearray(storage.read(path))
    stored[3_072 * 2] ^= 1  # in block 1
    storage.write(path, bytes(stored))
    found = look(storage, solr, is_deep=True)
    assert found.problems == {}
    (problem,) = found.input_problems
    assert f"{path}: block 1 " in problem
    assert {record.state for record in read_ledger(storage, live)} == {BlockState.VERIFIED}


def test_another_model_file_is_told_and_no_block_is_blamed(storage, solr, live):
    storage.write(layout.model_file(live.model), b"another model")
    found = look(storage, solr)
    assert found.problems == {}
    assert "model.onnx: is not the model that was published" in found.input_problems[0]


# What a backfill chooses


def test_blocks_are_chosen_by_their_numbers(storage, solr, live):
    solr.alias_of = {}
    plan = choose(storage, solr, live, blocks="4, 0-1", blocks_per_task=2)
    assert (plan.blocks, plan.groups, plan.was_live) == ((0, 1, 4), [(0, 1), (4,)], False)


def test_blocks_are_chosen_by_their_state(storage, solr, live):
    change_record(storage, live, 4, state=BlockState.FAILED, reason="a bad byte")
    lose_a_document(storage, live, solr)
    lose_a_scored_file(storage, live, solr)
    storage.delete(layout.scored_file(live.name, 5))
    assert choose(storage, solr, live, select="failed").blocks == (4,)
    assert choose(storage, solr, live, select="missing").blocks == (3, 4, 5)


@pytest.mark.parametrize("choice", [{}, {"blocks": "3", "select": "failed"}, {"blocks": " "}])
def test_both_ways_to_choose_or_none_are_refused(choice):
    with pytest.raises(BadInputError, match="choose blocks by their numbers, such as 3,17-20, or by one of: failed"):
        BackfillRequest("pets", **choice)


def test_an_unknown_selection_is_refused():
    with pytest.raises(BadInputError, match="'lost' selects nothing: use one of failed, missing, audit"):
        BackfillRequest("pets", select="lost")


@pytest.mark.parametrize(
    ("select", "message"),
    [("failed", "no block is failed"), ("missing", "no block is missing"), ("audit", "no block was found wrong")],
)
def test_an_empty_selection_is_refused(storage, solr, live, select, message):
    look(storage, solr)
    with pytest.raises(BadInputError, match=f"run {live.name}: {message}.* nothing to backfill"):
        choose(storage, solr, live, select=select)


def test_a_run_that_was_never_audited_says_so(storage, solr, live):
    with pytest.raises(MissingError, match=f"was never audited: run `tinytags audit {live.name}`"):
        choose(storage, solr, live, select="audit")


def test_a_pruned_run_is_not_backfilled(storage, solr, live):
    live.replaced(pruned="2024-05-01T00:00:00+00:00").save(storage, layout.run_file(live.name))
    with pytest.raises(MissingError, match=r"was dropped by `tinytags prune` \(2024-05-01"):
        choose(storage, solr, live, blocks="3")


@pytest.mark.parametrize("blocks", ["7", "4-2", "x", "3,-1"])
def test_wrong_block_numbers_are_refused(storage, solr, live, blocks):
    with pytest.raises(BadInputError):
        choose(storage, solr, live, blocks=blocks)


def test_a_damaged_audit_is_told(storage, solr, live):
    path = look(storage, solr).path
    storage.write(path, storage.read(path)[:30])
    with pytest.raises(CorruptError, match=path):
        choose(storage, solr, live, select="audit")


def test_a_corpus_that_was_ingested_again_from_other_images_costs_the_live_run_no_scored_file(
    storage, solr, live, monkeypatch
):
    storage.delete(layout.corpus_file(small_run.CORPUS))
    storage.delete(layout.corpus_folder(small_run.CORPUS))
    monkeypatch.setattr(small_run, "VOTES", tuple(reversed(small_run.VOTES)))
    small_run.make_corpus(storage)
    scored = storage.sizes(layout.scored_folder(live.name))
    for doing in (lambda: look(storage, solr), lambda: choose(storage, solr, live, blocks="3")):
        with pytest.raises(CorruptError, match=f"not the one that run {live.name} was planned on; .*tinytags run"):
            doing()
    assert storage.sizes(layout.scored_folder(live.name)) == scored
