"""What Dags share: errors for Airflow, and claims of corpora."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dag_context
import numpy as np
import pytest

from tinytags_tasks.corpus.definition import CorpusDefinition
from tinytags_tasks.corpus.definitions import share_definition
from tinytags_tasks.corpus.demo.make import write_labelled_parquet
from tinytags_tasks.corpus.sources.files import SourceFiles
from tinytags_tasks.errors import (
    BadInputError,
    CorruptError,
    EngineDownError,
    FinalError,
    MissingError,
    TransientError,
)
from tinytags_tasks.store.local import LocalStorage

dags_folder, context = dag_context.dags_folder, dag_context.context


def test_a_final_error_fails_a_task_at_once_and_a_transient_one_is_left_to_the_retries() -> None:
    from airflow.sdk.exceptions import AirflowFailException
    from tinytags_airflow import errors_for_airflow

    @errors_for_airflow
    def work(error: Exception) -> None:
        raise error

    with pytest.raises(AirflowFailException, match="BadInputError: block 9 is out of range"):
        work(BadInputError("block 9 is out of range"))
    with pytest.raises(TransientError):
        work(TransientError("a worker was killed"))


def test_a_failed_audit_describes_some_of_its_findings_and_counts_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    import tinytags_audit
    from airflow.sdk.exceptions import AirflowFailException
    from tinytags_audit import MOST_PROBLEMS, conclude, judge

    monkeypatch.setattr(tinytags_audit, "_not_audited", list)
    monkeypatch.setattr(tinytags_audit, "read_form", lambda: {"repair": True})
    damaged = [f"shard {shard}: gone" for shard in range(MOST_PROBLEMS + 7)]
    audited = {"run": "pets-1", "path": "runs/pets-1/audits/000001.json", "problems": {}, "input_problems": damaged}
    with pytest.raises(AirflowFailException) as raised:
        conclude.function([{**audited, "run": "birds-1", "input_problems": []}, audited])
    told = str(raised.value)
    assert told.count(": gone") == MOST_PROBLEMS
    assert "and 7 more, which runs/pets-1/audits/000001.json lists" in told
    with pytest.raises(AirflowFailException, match="shard 0: gone; no block is redone") as raised:
        conclude.function([{**audited, "input_problems": damaged[:1]}])
    assert "more" not in str(raised.value)
    assert conclude.function([{**audited, "input_problems": []}]) is None
    differs = {**audited, "run": "birds-1", "problems": {"3": "is gone"}, "input_problems": []}
    assert judge.function([audited, differs]) == [{"run": "birds-1", "select": "audit"}], "others are repaired"
    monkeypatch.setattr(tinytags_audit, "_not_audited", lambda: ["runs/pets-2/run.json: damaged"])
    with pytest.raises(AirflowFailException, match="pets-2/run"):
        conclude.function([differs])


def test_a_second_run_on_one_corpus_is_refused_while_the_first_runs(storage: LocalStorage) -> None:
    from tinytags_claim import claim_corpus

    def everyone_runs(dag: str, dag_run: str) -> bool:
        return True

    claim_corpus("pets", ("tinytags", "one"), storage=storage, is_running=everyone_runs)
    claim_corpus("pets", ("tinytags", "one"), storage=storage, is_running=everyone_runs)  # as a retry does
    claim_corpus("birds", ("tinytags", "two"), storage=storage, is_running=everyone_runs)
    with pytest.raises(BadInputError, match="corpus pets is being tagged by run one of tinytags: wait until"):
        claim_corpus("pets", ("tinytags", "two"), storage=storage, is_running=everyone_runs)


def test_a_claim_ends_with_its_dag_run(storage: LocalStorage) -> None:
    from tinytags_claim import claim_corpus, corpus_owner

    asked = []

    def nobody_runs(dag: str, dag_run: str) -> bool:
        asked.append((dag, dag_run))
        return False

    claim_corpus("pets", ("tinytags", "one"), storage=storage, is_running=nobody_runs)
    claim_corpus("pets", ("tinytags_retag", "two"), storage=storage, is_running=nobody_runs)
    assert asked == [("tinytags", "one")]
    assert corpus_owner("pets", storage=storage, is_running=lambda *_: True) == ("tinytags_retag", "two")
    assert corpus_owner("pets", storage=storage, is_running=nobody_runs) is None


def test_of_many_who_claim_a_corpus_after_a_run_that_ended_one_gets_it(storage: LocalStorage) -> None:
    from tinytags_claim import claim_corpus, corpus_owner

    claim_corpus("pets", ("tinytags", "ended"), storage=storage, is_running=lambda *_: True)
    together = threading.Barrier(8)

    def others_run(dag: str, dag_run: str) -> bool:
        if dag_run == "ended":
            together.wait()  # all have seen the same old claim before any writes its own
            return False
        return True

    def claim(number: int) -> str:
        try:
            claim_corpus("pets", ("tinytags", str(number)), storage=storage, is_running=others_run)
        except BadInputError:
            return "refused"
        return str(number)

    with ThreadPoolExecutor(8) as threads:
        outcomes = list(threads.map(claim, range(8)))
    (winner,) = set(outcomes) - {"refused"}
    assert outcomes.count("refused") == 7
    assert corpus_owner("pets", storage=storage, is_running=others_run) == ("tinytags", winner)


def test_claims_of_long_ago_go(storage: LocalStorage) -> None:
    from tinytags_claim import claim_corpus, corpus_owner

    for week in range(30):
        claim_corpus("pets", ("tinytags_retag", str(week)), storage=storage, is_running=lambda *_: False)
    assert len(storage.names("claims/pets")) == 10
    assert corpus_owner("pets", storage=storage, is_running=lambda *_: True) == ("tinytags_retag", "29")


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"corpus": "birds"}, "birds.toml: no such corpus is defined"),
        ({"blocks": "5-3"}, "'5-3' runs backwards"),
        ({"publish": "gate"}, "the gate has no limit"),
        ({"gate_documents": 90}, "yes ignores them: choose gate"),
        ({"gate_precision": 0}, "yes ignores them: choose gate"),
        ({"gate_measured_precision": 80}, "yes ignores them: choose gate"),
        ({"tags": "cat,dog"}, "there are no labelled images: name these, or clear Tags"),
        ({"labelled": "gone.parquet"}, "gone.parquet: no such file"),
        ({"labelled": "memory://sets/gone"}, "memory://sets/gone: no such file"),
        ({"labelled": "numbers.parquet"}, "its labels are numbers without names; name them with --tags"),
        ({"labelled": "numbers.parquet", "tags": "cat"}, "tags are 'cat': give two or more names"),
        ({"labelled": "numbers.parquet", "tags": "cat,dog", "test": "gone.parquet"}, "gone.parquet: no such file"),
    ],
)
def test_choices_that_cannot_be_followed_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, choice: dict[str, Any], message: str
) -> None:
    from tinytags_checks import refuse_contradictions

    clients = SimpleNamespace(
        settings=SimpleNamespace(corpora_folder=tmp_path),
        storage=LocalStorage(tmp_path / "store"),
        files_at=SourceFiles,
    )
    limits = ("gate_documents", "gate_precision", "gate_measured_precision")
    texts = dict.fromkeys(("corpus", "blocks", "model", "labelled", "test", "other", "tags"), "")
    fine = {**texts, "publish": "yes", **dict.fromkeys(limits)}
    refuse_contradictions(fine, clients)
    write_labelled_parquet(tmp_path / "numbers.parquet", np.zeros((2, 4, 4, 3), np.uint8), np.array([0, 1]), ())
    monkeypatch.chdir(tmp_path)
    refuse_contradictions(fine | {"labelled": "numbers.parquet", "tags": "cat,dog"}, clients)
    with pytest.raises(BadInputError, match=message):
        refuse_contradictions(fine | choice, clients)


def test_a_model_and_blocks_are_looked_up_before_any_work(
    storage: LocalStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tinytags_suggestions
    from small_run import BLOCKS, CORPUS, MODEL, make_run
    from tinytags_checks import refuse_unknown

    make_run(storage)
    share_definition(CorpusDefinition(name="birds", source="/birds", format="folder"), storage)
    remembered: list[dict[str, list[str]]] = []
    monkeypatch.setattr(tinytags_suggestions, "_remember", remembered.append)
    clients = SimpleNamespace(storage=storage, settings=SimpleNamespace(corpora_folder=tmp_path))
    fine = {"corpus": CORPUS, "model": "", "blocks": "", "features": "general32"}
    refuse_unknown(fine | {"model": MODEL, "blocks": f"0-{BLOCKS - 1}"}, clients)
    refuse_unknown(fine | {"corpus": "not-ingested-yet", "blocks": "99", "features": "pixels"}, clients)
    refuse_unknown(fine | {"model": MODEL, "features": "not-used"}, clients)
    with pytest.raises(MissingError, match=f"model forest-no does not exist .there are: {MODEL}"):
        refuse_unknown(fine | {"model": "forest-no"}, clients)
    with pytest.raises(BadInputError, match=f"block {BLOCKS} is out of range"):
        refuse_unknown(fine | {"blocks": str(BLOCKS)}, clients)
    with pytest.raises(FinalError, match="dino"):
        refuse_unknown(fine | {"features": "dino"}, clients)
    assert remembered[-1] == {"corpora": ["birds"], "models": [MODEL], "nets": []}, "what forms suggest on any host"
    assert storage.names("nets") == []  # nothing is written before the checks are over


@pytest.fixture
def group(storage: LocalStorage, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The task ``blocks`` on a run whose model sees a net's embeddings, with stages that a test can let fail."""
    import small_nets
    import tinytags_blocks
    from small_run import BLOCKS

    from tinytags_tasks.embed import step as embedding
    from tinytags_tasks.index import step as indexing
    from tinytags_tasks.score import step as scoring

    run = small_nets.make_net_run(storage)
    there = SimpleNamespace(run=run, storage=storage, unembeddable={}, calls=[])

    def embed_blocks(request: Any, **_: Any) -> None:
        there.calls.append(("embed", request.corpus, request.net, request.blocks))
        small_nets.embed(storage, sorted(set(request.blocks) - set(there.unembeddable)))
        for error in there.unembeddable.values():
            raise error

    monkeypatch.setattr(embedding, "embed_blocks", embed_blocks)
    monkeypatch.setattr(scoring, "score_blocks", lambda request, **_: there.calls.append(("score", request.blocks)))
    monkeypatch.setattr(indexing, "index_blocks", lambda request, **_: there.calls.append(("index", request.blocks)))
    monkeypatch.setattr(tinytags_blocks, "asdict", lambda result: {})
    monkeypatch.setattr(tinytags_blocks, "get_current_context", dict)
    clients = SimpleNamespace(storage=storage, solr=None, store_address=None, connect_spark=None, onnx_providers=())
    monkeypatch.setattr(tinytags_blocks, "runtime", lambda: clients)
    blocks = tinytags_blocks.embed_score_and_index().function
    there.task = lambda: blocks({"run": run.name, "blocks": list(range(BLOCKS)), "name": "all"})
    return there


def test_a_group_is_embedded_then_scored_then_indexed(group: SimpleNamespace) -> None:
    from small_nets import HALF_NET

    every = tuple(range(group.run.blocks))
    group.task()
    assert group.calls == [
        ("embed", group.run.corpus, HALF_NET, every),
        ("score", every),
        ("index", every),
    ]


def test_a_block_that_cannot_be_embedded_fails_with_the_reason_and_does_not_hold_up_the_others(
    group: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    from tinytags_tasks.score import worker
    from tinytags_tasks.store.ledger import read_ledger
    from tinytags_tasks.store.run_records import BlockState

    monkeypatch.setattr(worker, "unsettled_blocks", lambda run, blocks, storage: (2,))
    group.unembeddable = {2: CorruptError("block 2 is not what was ingested")}
    with pytest.raises(AirflowFailException, match="block 2 is not what was ingested"):
        group.task()
    others = tuple(block for block in range(group.run.blocks) if block != 2)
    assert group.calls[1:] == [("score", others), ("index", others)]
    failed = [record for record in read_ledger(group.storage, group.run) if record.state is BlockState.FAILED]
    assert [(record.block, record.reason) for record in failed] == [(2, "block 2 is not what was ingested")]


def test_an_embedding_that_a_retry_can_mend_is_left_to_the_retry(group: SimpleNamespace) -> None:
    group.unembeddable = {2: TransientError("a worker was killed")}
    with pytest.raises(TransientError):
        group.task()
    assert [call[0] for call in group.calls] == ["embed"]


def test_a_block_is_not_failed_while_its_group_waits_for_spark(
    group: SimpleNamespace, context: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import tinytags_waits
    from airflow.sdk.exceptions import AirflowRescheduleException

    from tinytags_tasks.store.ledger import read_ledger
    from tinytags_tasks.store.run_records import BlockState

    monkeypatch.setattr(tinytags_waits.time, "sleep", lambda seconds: None)
    group.unembeddable = {2: EngineDownError("Spark does not answer", "Spark")}
    with pytest.raises(AirflowRescheduleException):
        group.task()
    assert context["waiting"].startswith(" (waiting for Spark since ")
    assert BlockState.FAILED not in {record.state for record in read_ledger(group.storage, group.run)}


def test_a_scored_file_that_a_backfill_deletes_before_it_is_indexed_is_waited_for(
    group: SimpleNamespace, context: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import tinytags_waits
    from airflow.sdk.exceptions import AirflowFailException, AirflowRescheduleException

    from tinytags_tasks.index import step as indexing
    from tinytags_tasks.score import worker

    def index_blocks(*_: Any, **__: Any) -> None:
        raise MissingError("block 2 is not scored")

    monkeypatch.setattr(indexing, "index_blocks", index_blocks)
    monkeypatch.setattr(tinytags_waits.time, "sleep", lambda seconds: None)
    with pytest.raises(AirflowRescheduleException):
        group.task()
    assert context["waiting"].startswith(" (waiting for another writer since ")
    monkeypatch.setattr(worker, "unsettled_blocks", lambda run, blocks, storage: ())
    with pytest.raises(AirflowFailException, match="block 2 is not scored"):
        group.task()


@pytest.fixture
def retagging(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SimpleNamespace:
    """The Dag ``tinytags_retag`` with live indexes that a test names."""
    import tinytags_retag

    from tinytags_tasks.index import step as indexing
    from tinytags_tasks.score import plan
    from tinytags_tasks.settings import Settings
    from tinytags_tasks.upkeep import retag

    form = {"model": "", "alias": "", "corpus": "", "blocks": "", "blocks_per_task": 5}
    kept: dict[str, Any] = {}
    there = SimpleNamespace(live=[], form=form, claimed=[], choose=tinytags_retag.choose.function)
    ti = SimpleNamespace(xcom_push=kept.__setitem__, xcom_pull=lambda task_ids, key: kept.get(key))
    there.context = {"ti": ti, "run_id": "manual__1", "params": form}
    there.others = lambda planned: tinytags_retag.others.function(planned)

    def plan_retags(request: Any, **_: Any) -> Any:
        due = [
            retag.Retag(alias, f"{corpus}-1", corpus, "forest-2", 40, "solr", "auto", "newer")
            for alias, corpus in there.live
            if request.alias in ("", alias) and request.corpus in ("", corpus)
        ]
        return retag.RetagResult(tuple(due), {})

    clients = SimpleNamespace(storage=None, solr=None, settings=Settings(home=tmp_path))
    monkeypatch.setattr(retag, "plan_retags", plan_retags)
    monkeypatch.setattr(plan, "plan_run", lambda request, **_: SimpleNamespace(run=f"{request.corpus}-2"))
    monkeypatch.setattr(indexing, "prepare_collection", lambda *_, **__: None)
    for name, value in {
        "read_form": lambda: form,
        "runtime": lambda: clients,
        "remember_models": lambda clients: [],
        "get_current_context": lambda: there.context,
        "_claim_or_wait": lambda corpus, storage: there.claimed.append(corpus),
        "most_groups": lambda: 2,
    }.items():
        monkeypatch.setattr(tinytags_retag, name, value)
    return there


def test_of_several_indexes_each_is_tagged_again_by_a_run_of_its_own(retagging: SimpleNamespace) -> None:
    retagging.live = [("tinytags", "birds"), ("tinytags", "pets"), ("test", "pets")]
    assert retagging.choose() == []
    assert retagging.claimed == [], "nothing waits for all of them"
    started = retagging.others([])
    assert [(one["conf"]["alias"], one["conf"]["corpus"]) for one in started] == retagging.live[:2], "as Airflow maps"
    assert len({one["trigger_run_id"] for one in started}) == 2
    assert retagging.others([]) == started
    retagging.form.update(started[1]["conf"])
    (planned,) = retagging.choose()
    assert (planned["run"], planned["live_run"], retagging.claimed) == ("pets-2", "pets-1", ["pets"])
    assert retagging.others([planned]) == []


def test_one_index_that_is_due_is_tagged_again_at_once(retagging: SimpleNamespace) -> None:
    assert (retagging.choose(), retagging.others([])) == ([], [])
    retagging.live = [("tinytags", "birds")]
    (planned,) = retagging.choose()
    assert (planned["run"], retagging.claimed) == ("birds-2", ["birds"])


@pytest.mark.parametrize(
    ("publish", "blocks", "is_asked"), [("ask", "", True), ("ask", "3", False), ("yes", "", False), ("gate", "", False)]
)
def test_a_person_is_asked_if_the_form_says_so_and_not_about_a_trial(
    monkeypatch: pytest.MonkeyPatch, publish: str, blocks: str, is_asked: bool
) -> None:
    import tinytags
    from airflow.sdk.exceptions import AirflowSkipException

    from tinytags_tasks.publish import proposal

    clients = SimpleNamespace(storage=None, solr=None, settings=SimpleNamespace(search_page="http://search"))
    monkeypatch.setattr(tinytags, "runtime", lambda: clients)
    monkeypatch.setattr(tinytags, "read_form", lambda: {"publish": publish, "blocks": blocks, "alias": "photos"})
    monkeypatch.setattr(
        proposal, "describe_publication", lambda run, alias, *, search_url, **_: f"{run} {alias} {search_url}"
    )
    if is_asked:
        assert tinytags.propose.function({"run": "pets-1"}) == "pets-1 photos http://search"
    else:
        with pytest.raises(AirflowSkipException):
            tinytags.propose.function({"run": "pets-1"})


def test_a_no_or_no_answer_in_time_leaves_the_run_unpublished(monkeypatch: pytest.MonkeyPatch) -> None:
    import tinytags
    from airflow.providers.standard.operators import hitl
    from airflow.sdk.exceptions import TaskAwaitingInput

    ask = tinytags.tinytags().get_task("ask")
    asked: dict[str, Any] = {}
    monkeypatch.setattr(hitl, "upsert_hitl_detail", lambda **detail: asked.update(detail))
    context = {"task_instance": SimpleNamespace(id="1"), "ti": None, "task": ask}
    with pytest.raises(TaskAwaitingInput) as waits:
        ask.execute(context)
    assert waits.value.timeout == timedelta(hours=72)
    assert (asked["options"], asked["defaults"]) == (["Approve", "Reject"], ["Reject"])
    skipped: list[str] = []
    monkeypatch.setattr(ask, "skip", lambda ti, tasks: skipped.extend(task.task_id for task in tasks))
    for answer, left_out in (("Approve", []), ("Reject", ["publish"])):
        event = {"chosen_options": [answer], "params_input": {}, "responded_at": datetime.now(UTC)}
        ask.execute_complete(context, {**event, "responded_by_user": None})
        assert skipped == left_out


def test_as_many_tasks_are_mapped_as_airflow_is_configured_for(monkeypatch: pytest.MonkeyPatch) -> None:
    from tinytags_blocks import most_groups

    from tinytags_tasks.blocks import group_blocks

    monkeypatch.setenv("AIRFLOW__CORE__MAX_MAP_LENGTH", "7")
    groups = group_blocks(range(100), 1, most_groups())
    assert len(groups) == 7
    assert [block for group in groups for block in group] == list(range(100))


@pytest.mark.parametrize("stored", [None, "[]", "not JSON"])
def test_forms_suggest_nothing_where_airflow_knows_nothing(monkeypatch: pytest.MonkeyPatch, stored: str | None) -> None:
    import tinytags_suggestions

    monkeypatch.setattr("sys.argv", ["airflow", "dag-processor"])
    monkeypatch.setattr(tinytags_suggestions, "_seen", tinytags_suggestions._seen.__wrapped__)
    if stored is not None:
        monkeypatch.setenv("AIRFLOW_VAR_TINYTAGS_SUGGESTIONS", stored)
    assert tinytags_suggestions.model_versions() == []
    assert tinytags_suggestions.net_names() == ["general32", "pixels"]
