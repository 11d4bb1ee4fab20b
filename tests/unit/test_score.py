"""Planning and scoring: which images are kept, what is committed, and what a failure leaves."""

from dataclasses import replace
from hashlib import sha256
from types import SimpleNamespace

import pytest
from faulty_storage import MODES, FaultyStorage, Killed, files_under
from score_steps import ALL, block_tasks, expected_rows, rows, score, without_times
from small_run import (
    BLOCKS,
    CORPUS,
    MODEL,
    TAGS,
    UNREADABLE,
    VOTES,
    SparkHere,
    address_of,
    card,
    make_corpus,
    make_run,
    publish_model,
    quiet,
)

from tinytags_tasks.corpus.formats.tiny_images import IMAGE_BYTES
from tinytags_tasks.errors import BadInputError, CorruptError, FinalError, MissingError, TransientError
from tinytags_tasks.score import block as block_module
from tinytags_tasks.score import step, worker
from tinytags_tasks.score.block import score_block
from tinytags_tasks.score.plan import PlanRequest, latest_model, plan_run
from tinytags_tasks.store import layout
from tinytags_tasks.store.block_files import read_scored
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.ledger import add_up, list_runs, read_ledger
from tinytags_tasks.store.local import LocalStorage
from tinytags_tasks.store.run_records import BlockRecord, BlockState, Run


# Planning
def test_the_same_plan_is_the_same_run(storage):
    make_run(storage)
    before = files_under(storage.root)
    again = plan_run(PlanRequest(CORPUS, MODEL, 40, blocks_per_task=4), storage=storage)
    assert files_under(storage.root) == before
    assert again.groups == [(0, 1, 2, 3), (4, 5)]
    assert [run.name for run in list_runs(storage)] == [again.run]


def test_another_threshold_or_corpus_is_another_run(storage):
    first = make_run(storage)
    other = plan_run(PlanRequest(CORPUS, MODEL, 41), storage=storage)
    corpus = Corpus.load(storage, layout.corpus_file(CORPUS))
    corpus.replaced(digest="other bytes").save(storage, layout.corpus_file(CORPUS))
    third = plan_run(PlanRequest(CORPUS, MODEL, 40), storage=storage)
    assert len({first.name, other.run, third.run}) == 3
    assert len({run.collection for run in list_runs(storage)}) == 3


@pytest.mark.parametrize("threshold", [-1, 101])
def test_a_threshold_that_is_no_percentage_is_refused(threshold):
    with pytest.raises(BadInputError, match=f"threshold is {threshold}: it is a percentage, 0 to 100"):
        PlanRequest(CORPUS, MODEL, threshold)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"pixel_order": "column-major planes"}, "pixel order"),
        ({"height": 64}, "image size"),
        ({"channels": 1}, "size"),
    ],
)
def test_a_model_of_otherwise_prepared_images_is_refused_before_anything_is_written(storage, changes, what):
    make_corpus(storage)
    publish_model(storage, card(**changes))
    with pytest.raises(BadInputError, match=f"{MODEL} does not fit corpus {CORPUS}: its .*{what}"):
        plan_run(PlanRequest(CORPUS, MODEL), storage=storage)
    assert list_runs(storage) == []


def test_a_corpus_or_model_that_is_not_there_is_named(storage):
    with pytest.raises(MissingError, match=CORPUS):
        plan_run(PlanRequest(CORPUS, MODEL), storage=storage)
    make_corpus(storage)
    with pytest.raises(MissingError, match=MODEL):
        plan_run(PlanRequest(CORPUS, MODEL), storage=storage)


def test_the_latest_model_is_the_one_published_last(storage):
    with pytest.raises(MissingError, match="make one with `tinytags train`"):
        latest_model(CORPUS, storage)
    make_corpus(storage)
    publish_model(storage)
    card(version="another", created="2023-01-01T00:00:00+00:00").save(storage, layout.card_file("another"))
    assert latest_model(CORPUS, storage) == MODEL


# What is kept
@pytest.mark.parametrize("threshold", [0, 39, 40, 41, 50, 51, 100])
def test_exactly_the_images_from_the_threshold_up_are_kept(storage, threshold):
    run = make_run(storage, threshold=threshold)
    score(storage, run)
    assert rows(storage, run) == expected_rows(threshold)


def test_equal_votes_go_to_the_lowest_tag(storage):
    run = make_run(storage)
    score(storage, run)
    assert VOTES[5] == (4, 4, 2)
    assert rows(storage, run)[5] == ("cat", 4, 40)
    assert VOTES[6] == (2, 4, 4)
    assert rows(storage, run)[6] == ("dog", 4, 40)


@pytest.mark.parametrize("threshold", [0, 60])
def test_unreadable_images_are_counted_and_never_kept(storage, threshold):
    run = make_run(storage, threshold=threshold, unreadable=UNREADABLE)
    score(storage, run)
    assert rows(storage, run) == expected_rows(threshold, UNREADABLE)
    assert [record.unreadable for record in read_ledger(storage, run)] == [1, 0, 0, 0, 0, 1]


@pytest.mark.parametrize("threshold", [0, 40, 60, 100])
def test_every_image_is_accounted_for_in_every_block(storage, threshold):
    run = make_run(storage, threshold=threshold, unreadable=UNREADABLE)
    score(storage, run)
    records = read_ledger(storage, run)
    assert all(record.read == record.kept + record.below + record.unreadable for record in records)
    assert all(record.kept == sum(record.kept_by_tag.values()) for record in records)
    totals = add_up(records)
    assert (totals.read, totals.unreadable) == (len(VOTES), 2)
    assert totals.kept == len(expected_rows(threshold, UNREADABLE))
    kept_tags = [tag for tag, _, _ in expected_rows(threshold, UNREADABLE).values()]
    assert totals.kept_by_tag == {tag: kept_tags.count(tag) for tag in TAGS}
    assert totals.by_state == {"scored": BLOCKS}


def test_a_block_without_images_is_committed_too(storage):
    run = make_run(storage)
    (task,) = block_tasks(storage, run, [0])
    empty = replace(task, source=replace(task.source, images=0, sha256=sha256(b"").hexdigest()))
    record = score_block(empty, address_of(storage))
    assert (record.read, record.kept, record.below) == (0, 0, 0)
    assert read_scored(storage, run.name, 0)[0].num_rows == 0


# Everything can be run again
def test_committed_blocks_are_not_done_again(storage):
    run = make_run(storage)
    assert score(storage, run, [0, 2]).scored == 2
    before = files_under(storage.root)
    spark = SparkHere()
    result = score(storage, run, [0, 2], spark)
    assert (result.scored, result.blocks, spark.sessions) == (0, (0, 2), 0)
    assert files_under(storage.root) == before
    assert score(storage, run, ALL, spark).scored == 4
    assert spark.ran == 4


def test_the_ledger_is_mended_from_the_scored_file(storage):
    run = make_run(storage)
    score(storage, run)
    before = files_under(storage.root)
    storage.delete(layout.ledger_file(run.name, 1))
    storage.write(layout.ledger_file(run.name, 2), b"{")
    spark = SparkHere()
    assert score(storage, run, ALL, spark).scored == 0
    assert spark.sessions == 0
    assert files_under(storage.root) == before


def test_a_damaged_scored_file_without_a_record_is_scored_again(storage):
    run = make_run(storage)
    score(storage, run)
    storage.delete(layout.ledger_file(run.name, 1))
    storage.write(layout.scored_file(run.name, 1), b"")
    assert score(storage, run).scored == 1
    assert rows(storage, run) == expected_rows(40)


def test_leftovers_of_killed_workers_are_swept(storage):
    run = make_run(storage)
    storage.write(f"{layout.scored_folder(run.name)}/.000001.parquet.abc.tmp", b"half")
    score(storage, run)
    assert len(list((storage.root / layout.scored_folder(run.name)).iterdir())) == BLOCKS


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("fail_at", [1, 2])
def test_a_block_killed_at_any_write_and_run_again_is_as_if_never_killed(storage, tmp_path, monkeypatch, fail_at, mode):
    clean = LocalStorage(tmp_path / "clean" / "store")
    clean.root.parent.mkdir()
    score(clean, make_run(clean), [3])
    run = make_run(storage)
    with monkeypatch.context() as patch:
        patch.setattr(block_module, "open_store", lambda address: FaultyStorage(storage, fail_at, mode, Killed))
        with pytest.raises(Killed):
            score(storage, run, [3])
    spark = SparkHere()
    score(storage, run, [3], spark)
    assert spark.ran == (fail_at == 1 and mode != "after")
    found = without_times(files_under(storage.root / "runs"))
    assert found == without_times(files_under(clean.root / "runs"))


@pytest.mark.parametrize("fail_at", [1, 2])
@pytest.mark.parametrize("mode", MODES)
def test_a_block_whose_commit_fails_is_named_and_a_retry_succeeds(storage, monkeypatch, fail_at, mode):
    run = make_run(storage)
    with monkeypatch.context() as patch:
        patch.setattr(block_module, "open_store", lambda address: FaultyStorage(storage, fail_at, mode))
        with pytest.raises(TransientError, match=rf"run {run.name}: scoring failed for blocks 3: .*fault {mode}"):
            score(storage, run, [3])
    (failed,) = read_ledger(storage, run, [3])
    assert failed.state is BlockState.FAILED
    assert f"fault {mode}" in failed.reason
    score(storage, run, [3])
    (record,) = read_ledger(storage, run, [3])
    assert (record.state, record.reason) == (BlockState.SCORED, "")
    assert rows(storage, run, [3]) == {6: ("dog", 4, 40)}


def test_what_a_killed_worker_committed_is_left_when_spark_tries_its_blocks_again(storage, monkeypatch):
    run = make_run(storage)
    score(storage, run, [0, 1, 2])
    before = files_under(storage.root / "runs")
    storage.delete(layout.ledger_file(run.name, 1))  # it was killed between the file and the record
    storage.delete(layout.scored_file(run.name, 2))
    scored = []
    monkeypatch.setattr(worker, "score_block", lambda task, address: scored.append(task.source.block))
    outcomes = worker.score_tasks(block_tasks(storage, run, [0, 1, 2]), address_of(storage), is_retried=True)
    assert scored == [2]
    assert [(outcome.block, outcome.reason) for outcome in outcomes] == [(0, ""), (1, ""), (2, "")]
    after = files_under(storage.root / "runs")
    assert {path: after[path] for path in after if "000002" not in path} == {
        path: before[path] for path in before if "000002" not in path
    }


@pytest.mark.parametrize("attempt", [0, 1])
def test_the_step_tells_workers_whether_spark_tries_again(storage, monkeypatch, attempt):
    run = make_run(storage)
    told = []

    def note(tasks, address, *, is_retried):
        told.append(is_retried)
        return [worker.Outcome(task.source.block) for task in tasks]

    monkeypatch.setattr(step, "score_tasks", note)
    monkeypatch.setattr(step.TaskContext, "get", lambda: SimpleNamespace(attemptNumber=lambda: attempt))
    score(storage, run)
    assert told == [attempt > 0]


@pytest.mark.parametrize(("images", "partitions"), [(1, 6), (2, 6), (6, 2), (1_000, 1)])
def test_a_spark_task_takes_as_many_blocks_as_are_worth_it(storage, monkeypatch, images, partitions):
    monkeypatch.setattr(step, "_BYTES_PER_SPARK_TASK", images * IMAGE_BYTES)
    run = make_run(storage)
    spark = SparkHere()
    score(storage, run, ALL, spark)
    assert (spark.partitions, spark.ran) == (partitions, BLOCKS)
    assert rows(storage, run) == expected_rows(40)


@pytest.fixture
def failing(monkeypatch):
    """Make some blocks fail, each with its own error."""

    def fail(errors: dict[int, Exception]) -> None:
        def sometimes(task, address):
            if task.source.block in errors:
                raise errors[task.source.block]
            return score_block(task, address)

        monkeypatch.setattr(worker, "score_block", sometimes)

    return fail


def test_a_failing_block_does_not_undo_the_others(storage, failing):
    run = make_run(storage)
    failing({1: CorruptError("a bad byte"), 4: CorruptError("a bad byte"), 5: MissingError("no shard")})
    spark = SparkHere()
    with pytest.raises(FinalError, match=rf"run {run.name}: scoring failed for blocks 1, 4-5: a bad byte; no shard$"):
        score(storage, run, ALL, spark)
    assert spark.stopped == 1
    records = read_ledger(storage, run)
    assert [record.block for record in records if record.state is BlockState.FAILED] == [1, 4, 5]
    assert [record.reason for record in records if record.reason] == ["a bad byte", "a bad byte", "no shard"]
    assert rows(storage, run, [0, 2, 3]) == {at: row for at, row in expected_rows(40).items() if at in (0, 1, 4, 5, 6)}


def test_one_failure_that_a_retry_may_mend_makes_the_whole_worth_a_retry(storage, failing):
    run = make_run(storage)
    failing({1: CorruptError("a bad byte"), 2: TransientError("HDFS is away")})
    with pytest.raises(TransientError, match="for blocks 1-2: HDFS is away; a bad byte"):
        score(storage, run)


def test_a_retry_does_only_the_failed_block_and_counts_its_attempts(storage, failing):
    run = make_run(storage)
    failing({2: TransientError("HDFS is away")})
    for _ in range(2):
        with pytest.raises(TransientError):
            score(storage, run)
    failing({})
    spark = SparkHere()
    assert score(storage, run, ALL, spark).scored == 1
    assert spark.ran == 1
    assert [record.attempts for record in read_ledger(storage, run)] == [1, 1, 3, 1, 1, 1]
    assert {record.state for record in read_ledger(storage, run)} == {BlockState.SCORED}
    assert rows(storage, run) == expected_rows(40)


def test_a_block_that_spark_returns_nothing_for_is_worth_a_retry(storage):
    class LosesTheLast(SparkHere):
        def collect(self):
            return super().collect()[:-1]

    run = make_run(storage)
    with pytest.raises(TransientError, match="for blocks 5: Spark returned no result for it"):
        score(storage, run, ALL, LosesTheLast())


def test_a_session_is_stopped_when_its_job_fails(storage):
    class Breaks(SparkHere):
        def collect(self):
            raise Killed

    spark = Breaks()
    with pytest.raises(Killed):
        score(storage, make_run(storage), ALL, spark)
    assert (spark.sessions, spark.stopped) == (1, 1)


@pytest.mark.parametrize("block", [-1, BLOCKS])
def test_a_block_that_the_run_does_not_have_is_refused(storage, block):
    run = make_run(storage)
    with pytest.raises(BadInputError, match=f"block {block} is out of range: run {run.name} has blocks 0 to 5"):
        score(storage, run, [0, block])


def test_a_run_that_was_never_planned_is_missing(storage):
    with pytest.raises(MissingError, match="none: no such run; `tinytags runs` lists the runs"):
        step.score_blocks(
            step.ScoreRequest("none", (0,)),
            storage=storage,
            address=address_of(storage),
            connect_spark=SparkHere(),
            report=quiet,
        )


# The ledger
def test_a_block_without_a_record_is_planned_and_a_damaged_record_failed(storage):
    run = make_run(storage)
    score(storage, run, [0, 1])
    storage.write(layout.ledger_file(run.name, 1), b"{}")
    states = [record.state for record in read_ledger(storage, run)]
    assert states == [BlockState.SCORED, BlockState.FAILED] + [BlockState.PLANNED] * 4
    assert add_up(read_ledger(storage, run)).read == 2


def test_runs_are_listed_by_when_they_were_planned(storage):
    run = make_run(storage)
    for name, created in (("b", "2020-01-01"), ("a", "2021-01-01")):
        run.replaced(name=name, created=created).save(storage, layout.run_file(name))
    assert [found.name for found in list_runs(storage)] == ["b", "a", run.name]


def test_a_record_keeps_what_an_older_version_wrote():
    assert BlockRecord.model_validate({"run": "r", "block": 1, "state": "scored", "gone": 5}).documents is None


def test_a_run_says_when_its_model_learned_from_images_prepared_otherwise(storage):
    make_corpus(storage)
    publish_model(storage, card(preparation="shrunk by a Lanczos filter"))
    run = Run.load(storage, layout.run_file(plan_run(PlanRequest(CORPUS, MODEL), storage=storage).run))
    assert "column-major" in run.description
    assert "those that the model learned from: shrunk by a Lanczos filter" in run.description


def test_a_run_says_nothing_when_model_and_corpus_were_prepared_alike(storage):
    corpus = make_corpus(storage)
    publish_model(storage, card(preparation=corpus.preparation))
    run = Run.load(storage, layout.run_file(plan_run(PlanRequest(CORPUS, MODEL), storage=storage).run))
    assert run.description == corpus.description
