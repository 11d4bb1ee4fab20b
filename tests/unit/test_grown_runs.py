"""Runs of a corpus that has grown: only what is new is scored, and what was said of old pictures goes on counting."""

import numpy as np
import pytest
from faulty_storage import MODES, FaultyStorage, Killed, files_under
from published_runs import ALIAS
from score_steps import rows, without_times
from small_run import (
    BLOCKS_PER_SHARD,
    CORPUS,
    MODEL,
    SHARD_IMAGES,
    VOTES,
    SolrHere,
    SparkHere,
    address_of,
    card,
    index_all,
    picture,
    pictures,
    publish_model,
    quiet,
    score_all,
)
from small_words import tag, takedown

from tinytags_tasks.corpus.definition import make_definition
from tinytags_tasks.correct.apply import apply_corrections
from tinytags_tasks.errors import CorruptError
from tinytags_tasks.ingest.standing import is_untagged
from tinytags_tasks.ingest.step import ingest_corpus
from tinytags_tasks.publish.diff import DiffRequest, compare_runs
from tinytags_tasks.publish.proposal import describe_publication
from tinytags_tasks.publish.rollback import RollbackRequest, roll_back
from tinytags_tasks.publish.step import PublishRequest, publish_run, reconcile_run
from tinytags_tasks.review.words import say
from tinytags_tasks.score.plan import PlanRequest, plan_run
from tinytags_tasks.score.step import ScoreRequest, needed_embeddings, score_blocks
from tinytags_tasks.store import layout
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.ledger import add_up, read_ledger
from tinytags_tasks.store.local import LocalStorage
from tinytags_tasks.store.run_identity import check_run, corpus_of_run, load_run, rebuild_run
from tinytags_tasks.store.run_records import BlockState, Run
from tinytags_tasks.upkeep.audit import AuditRequest, audit_run
from tinytags_tasks.upkeep.retag import RetagRequest, plan_retags

NEW_VOTES = ((9, 1, 0), (0, 8, 2), (1, 2, 7))


@pytest.fixture
def storage(tmp_path):
    storage = LocalStorage(tmp_path / "store")
    publish_model(storage)
    grow(storage, "b.bin", pictures())
    return storage


def grow(storage, name, images):
    """Add a file to the corpus' source, and append it; the first time, the corpus is made."""
    folder = storage.root.with_name("source")
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(images.tobytes())
    fields = {"source": str(folder), "format": "raw", "shard_images": SHARD_IMAGES}
    definition = make_definition(CORPUS, {**fields, "blocks_per_shard": BLOCKS_PER_SHARD})
    return ingest_corpus(definition, storage=storage, grow=True, report=quiet)


def grow_by_new(storage):
    return grow(storage, "a.bin", np.stack([picture(votes) for votes in NEW_VOTES]))


def plan(storage, report=quiet):
    name = plan_run(PlanRequest(CORPUS, MODEL, 40), storage=storage, report=report).run
    return Run.load(storage, layout.run_file(name))


def score(storage, run, **options):
    request = ScoreRequest(run.name, tuple(range(run.blocks)), **options)
    address = address_of(getattr(storage, "inner", storage))
    return score_blocks(request, storage=storage, address=address, connect_spark=SparkHere(), report=quiet)


def test_a_grown_corpus_gets_another_run_that_scores_only_its_new_blocks(storage):
    old = plan(storage)
    score_all(storage, old)
    grow_by_new(storage)
    lines = []
    new = plan(storage, lines.append)
    assert (new.name != old.name, new.images, new.blocks) == (True, len(VOTES) + 3, old.blocks + 3)
    assert any(
        "11 images in 6 blocks were planned for run" in line and "3 images in 3 blocks are new" in line
        for line in lines
    )
    scored = score(storage, new)
    assert (scored.scored, scored.taken_over) == (3, 6)
    kept = rows(storage, new, range(new.blocks))
    assert {at: kept[at] for at in kept if at < len(VOTES)} == rows(storage, old)
    assert [kept[len(VOTES) + at] for at in range(3)] == [("cat", 9, 90), ("dog", 8, 80), ("emu", 7, 70)]


def test_what_is_taken_over_equals_what_would_be_scored(storage, tmp_path):
    score_all(storage, plan(storage))
    grow_by_new(storage)
    new = plan(storage)
    score(storage, new)
    taken = files_under(storage.root)
    score(storage, new, redo=True)
    again = files_under(storage.root)
    own = [path for path in again if path.startswith(f"runs/{new.name}/")]
    assert without_times({path: taken[path] for path in own}) == without_times({path: again[path] for path in own})


@pytest.mark.parametrize("mode", MODES)
def test_taking_over_that_was_killed_anywhere_is_completed(storage, mode):
    score_all(storage, plan(storage))
    grow_by_new(storage)
    new = plan(storage)
    for call in range(1, 40):
        try:
            score(FaultyStorage(storage, call, mode, Killed), new)
        except Killed:
            storage.delete(f"runs/{new.name}/leases")
            continue
        break
    score(storage, new)
    records = read_ledger(storage, new)
    assert [record.state for record in records] == [BlockState.SCORED] * 9
    assert add_up(records).read == 14


def test_a_damaged_or_removed_file_of_the_earlier_run_is_scored_instead(storage):
    old = plan(storage)
    score_all(storage, old)
    grow_by_new(storage)
    new = plan(storage)
    storage.write(layout.scored_file(old.name, 0), b"damaged")
    storage.delete(layout.scored_file(old.name, 1))
    scored = score(storage, new)
    assert (scored.scored, scored.taken_over) == (5, 4)


def test_without_an_earlier_run_everything_is_scored(storage):
    grow_by_new(storage)
    assert score(storage, plan(storage)).scored == 9


def test_a_run_of_another_threshold_is_not_taken_over(storage):
    other = plan_run(PlanRequest(CORPUS, MODEL, 90), storage=storage).run
    score_all(storage, Run.load(storage, layout.run_file(other)))
    grow_by_new(storage)
    assert plan(storage).earlier == ""


def test_old_and_new_run_are_both_whole_and_published_counts_agree(storage):
    solr, old = SolrHere(), plan(storage)
    score_all(storage, old)
    index_all(storage, old, solr)
    grow_by_new(storage)
    new = plan(storage)
    score(storage, new)
    index_all(storage, new, solr)
    read = [reconcile_run(run.name, storage=storage, solr=solr, report=quiet).read for run in (old, new)]
    assert read == [11, 14]
    for run in (old, new):
        found = audit_run(AuditRequest(run.name), storage=storage, solr=solr, report=quiet)
        assert not (found.problems or found.input_problems)
    ids = [set(solr.documents(run.collection)) for run in (old, new)]
    assert ids[1] - ids[0] == {f"{CORPUS}:{at}" for at in (11, 12, 13)}


def test_runs_before_and_after_a_growth_are_compared_in_the_blocks_that_both_have(storage):
    old = plan(storage)
    score_all(storage, old)
    grow_by_new(storage)
    new = plan(storage)
    score(storage, new)
    lines = []
    found = compare_runs(DiffRequest(old.name, new.name), storage=storage, report=lines.append)
    assert lines == [f"3 images are in {new.name} alone, because the corpus grew"]
    assert (found.images, found.changed, found.gained, found.lost) == (11, 0, 0, 0)


def test_a_runs_record_is_checked_and_rebuilt_by_the_growth_that_it_is_of(storage):
    runs = [plan(storage)]
    for name, votes in (("c.bin", NEW_VOTES[:1]), ("d.bin", NEW_VOTES[1:])):
        grow(storage, name, np.stack([picture(one) for one in votes]))
        runs.append(plan(storage))
    assert [load_run(run.name, storage).images for run in runs] == [11, 12, 14]
    assert [corpus_of_run(run, storage).images for run in runs] == [11, 12, 14]
    corpus = Corpus.load(storage, layout.corpus_file(CORPUS))
    for run in runs:
        rebuilt = rebuild_run(run.name, storage)
        assert (rebuilt.images, rebuilt.blocks, rebuilt.growth) == (run.images, run.blocks, run.growth)
    with pytest.raises(CorruptError, match="images is 12, and must be 14"):
        check_run(runs[2].replaced(images=12), corpus)
    with pytest.raises(CorruptError, match="do not make its name"):
        check_run(runs[2].replaced(growth=""), corpus)


@pytest.fixture
def grown(storage):
    """Return the store, Solr, and two whole runs: of the corpus before and after it grew; the first is live."""
    solr, runs = SolrHere(), []
    for is_grown in (False, True):
        if is_grown:
            grow_by_new(storage)
        run = plan(storage)
        score(storage, run)
        index_all(storage, run, solr)
        runs.append(run)
    publish(storage, solr, runs[0])
    return storage, solr, *runs


def speak(storage, *words):
    say(Corpus.load(storage, layout.corpus_file(CORPUS)), words, by="ann", storage=storage, report=quiet)


def publish(storage, solr, run):
    publish_run(PublishRequest(run.name, ALIAS), storage=storage, solr=solr, report=quiet)


def test_what_was_said_before_a_corpus_grew_counts_in_the_runs_before_and_after(storage):
    solr, old = SolrHere(), plan(storage)
    score_all(storage, old)
    index_all(storage, old, solr)
    speak(storage, takedown(7), tag(0, "dog"))
    grow_by_new(storage)
    new = plan(storage)
    score(storage, new)
    index_all(storage, new, solr)
    apply_corrections(old, storage=storage, solr=solr, report=quiet)
    for run in (old, new):
        found = solr.documents(run.collection)
        assert f"{CORPUS}:7" not in found
        assert (found[f"{CORPUS}:0"]["tag"], found[f"{CORPUS}:0"]["corrected"]) == ("dog", 1)
        assert reconcile_run(run.name, storage=storage, solr=solr, report=quiet).taken_down == 1


def test_what_is_said_of_old_and_new_pictures_is_seen_wherever_they_are(grown):
    storage, solr, old, new = grown
    speak(storage, takedown(2), takedown(12))
    for run in (old, new):
        apply_corrections(run, storage=storage, solr=solr, report=quiet)
    left = [set(solr.documents(run.collection)) for run in (old, new)]
    assert left[0].isdisjoint({f"{CORPUS}:2"}) and left[1].isdisjoint({f"{CORPUS}:2", f"{CORPUS}:12"})
    assert reconcile_run(old.name, storage=storage, solr=solr, report=quiet).taken_down == 1
    assert reconcile_run(new.name, storage=storage, solr=solr, report=quiet).taken_down == 2


def test_a_corpus_that_grew_is_due_to_be_tagged_again_until_that_is_live(grown):
    storage, solr, old, new = grown
    found = plan_retags(RetagRequest(), storage=storage, solr=solr, report=quiet)
    assert [due.reason for due in found.due] == [f"corpus {CORPUS} has 3 images that run {old.name} does not have"]
    publish(storage, solr, new)
    assert plan_retags(RetagRequest(), storage=storage, solr=solr, report=quiet).due == ()


def test_who_decides_on_a_publication_reads_how_many_images_are_in_one_run_alone(grown):
    storage, solr, _, new = grown
    said = describe_publication(new.name, ALIAS, storage=storage, solr=solr, report=quiet)
    assert f"3 images are in {new.name} alone, because the corpus grew." in said


def test_a_rollback_leads_to_the_run_before_the_growth_and_lasts(grown):
    storage, solr, old, new = grown
    publish(storage, solr, new)
    roll_back(RollbackRequest(ALIAS), storage=storage, solr=solr, report=quiet)
    assert solr.alias_of[ALIAS] == old.collection
    found = plan_retags(RetagRequest(), storage=storage, solr=solr, report=quiet)
    assert (found.due, list(found.skipped)) == ((), [ALIAS])


def test_blocks_that_can_be_taken_over_need_no_embeddings(storage):
    old = plan(storage)
    score_all(storage, old)
    grow_by_new(storage)
    new = plan(storage)
    card(features="net-0123456789ab").save(storage, layout.card_file(MODEL))
    request = ScoreRequest(new.name, tuple(range(new.blocks)))
    assert needed_embeddings(request, storage=storage) == ("net-0123456789ab", (6, 7, 8))
    storage.delete(layout.scored_file(old.name, 2))
    assert needed_embeddings(request, storage=storage) == ("net-0123456789ab", (2, 6, 7, 8))


def test_a_corpus_is_untagged_from_its_growth_until_a_run_of_it_is_planned(storage):
    plan(storage)
    assert not is_untagged(CORPUS, storage)
    grow_by_new(storage)
    assert is_untagged(CORPUS, storage)
    plan(storage)
    assert not is_untagged(CORPUS, storage)
