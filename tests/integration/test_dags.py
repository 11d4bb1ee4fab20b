"""The Dags in the real Airflow: a trial, a run, blocks deleted, audited and done again, and what is refused."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import IMAGES, all_documents, wait_for

from tinytags_tasks.cli.follow import airflow_client
from tinytags_tasks.clients.airflow import AirflowClient
from tinytags_tasks.errors import FinalError
from tinytags_tasks.runtime import Runtime
from tinytags_tasks.settings import Settings
from tinytags_tasks.store import layout
from tinytags_tasks.store.ledger import read_ledger
from tinytags_tasks.store.model_records import ModelCard
from tinytags_tasks.store.models import model_version, publish_model
from tinytags_tasks.store.run_records import BlockState, Claim, Run

CORPUS = ALIAS = "by-dags"
BLOCKS = 6

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def client(airflow: Settings, tinytags_here: Command, pictures: dict[str, Path]) -> AirflowClient:
    added = tinytags_here(
        *("corpus", "add", CORPUS, str(pictures["corpus"]), "--format", "tiny-images"),
        *("--shard-images", "600", "--blocks-per-shard", str(BLOCKS // 2)),
    )
    assert added.returncode == 0, added.stderr
    client = airflow_client(Runtime(airflow))
    for dag in ("tinytags", "tinytags_backfill", "tinytags_audit", "tinytags_retag"):
        client.wait_for_dag(dag)
    return client


def end(client: AirflowClient, dag: str, dag_run: str) -> dict[str, str | None]:
    """Wait for a Dag run; return its tasks' states, those of mapped tasks by the names they gave themselves."""
    tasks = client.follow(dag, dag_run, lambda state, tasks: None)
    return {f"{task.task} {task.label}" if task.map_index >= 0 else task.task: task.state for task in tasks}


def start(client: AirflowClient, dag: str, parameters: dict[str, object]) -> str:
    client.unpause(dag)  # some are created paused
    return client.trigger(dag, parameters)


def trigger(client: AirflowClient, dag: str, **parameters: object) -> dict[str, str | None]:
    return end(client, dag, start(client, dag, parameters))


@pytest.fixture(scope="module")
def trial(client: AirflowClient, runtime: Runtime, model: str) -> tuple[dict[str, str | None], Run]:
    """A run of two blocks: the states of its tasks, and the run."""
    parameters = {"corpus": CORPUS, "model": model, "blocks": "0, 4", "blocks_per_task": 1, "alias": ALIAS}
    dag_run = client.trigger("tinytags", parameters)
    states = end(client, "tinytags", dag_run)
    name = client.result("tinytags", dag_run, "reconcile")["run"]
    return states, Run.load(runtime.storage, layout.run_file(name))


@pytest.fixture(scope="module")
def published(client: AirflowClient, trial: tuple[dict[str, str | None], Run], model: str) -> tuple[Run, str]:
    """The same run completed, triggered twice at once: the run, and why the second one failed."""
    parameters = {"corpus": CORPUS, "model": model, "blocks_per_task": 3, "alias": ALIAS}
    dag_runs = [client.trigger("tinytags", parameters) for _ in range(2)]
    refused = []
    for dag_run in dag_runs:
        try:
            end(client, "tinytags", dag_run)
        except FinalError as error:
            refused.append(str(error))
    (reason,) = refused
    return trial[1], reason


def test_a_trial_does_its_blocks_alone_and_publishes_nothing(
    trial: tuple[dict[str, str | None], Run], runtime: Runtime
) -> None:
    states, run = trial
    assert {name: state for name, state in states.items() if name.startswith(("blocks", "reconcile", "publish"))} == {
        "blocks shard 0, block 0": "success",
        "blocks shard 1, block 4": "success",
        "reconcile": "success",
        "publish": "skipped",
    }
    records = read_ledger(runtime.storage, run)
    assert [record.block for record in records if record.state is BlockState.VERIFIED] == [0, 4]


def test_of_two_runs_on_one_corpus_one_is_refused_and_the_other_publishes(
    published: tuple[Run, str], runtime: Runtime
) -> None:
    run, reason = published
    assert f"check: BadInputError: corpus {CORPUS} is being tagged by run" in reason
    assert runtime.solr.aliases()[ALIAS] == run.collection
    records = read_ledger(runtime.storage, run)
    assert sum(record.read for record in records) == IMAGES
    assert {record.state for record in records} == {BlockState.VERIFIED}


def test_a_run_that_is_still_going_on_is_joined_by_the_same_command(
    client: AirflowClient, tinytags_here: Command, published: tuple[Run, str], model: str
) -> None:
    """As after a power cut, when Airflow goes on by itself and a person gives the command again."""
    nothing = dict.fromkeys(("labelled", "test", "other"), "")
    parameters = {
        "corpus": CORPUS,
        "new_files": "leave",
        "model": model,
        "features": "general32",
        "head": "logistic",
        "none": "yes",
        "reviews": "yes",
        "similar": "auto",
        "trees": 10,
        "depth": 10,
        "threshold": 40,
        "publish": "no",
        **nothing,
    }
    dag_run = client.trigger("tinytags", {**parameters, "blocks_per_task": 3})
    followed = tinytags_here("run", CORPUS, "--model", model, "--blocks-per-task", "3", "--no-publish")
    assert followed.returncode == 0, followed.stderr
    assert f"run {dag_run} has the same parameters and has not ended: joining it" in followed.stderr
    assert published[0].name in followed.stdout
    assert client.unfinished_runs("tinytags") == {}


def test_an_audit_finds_what_was_deleted_and_has_it_done_again(
    client: AirflowClient, published: tuple[Run, str], runtime: Runtime
) -> None:
    run, _ = published
    url = runtime.settings.address("solr_url")
    before = all_documents(url, run.collection)
    states = trigger(client, "tinytags_backfill", run=run.name, blocks="1", action="delete")
    assert (states["delete"], states["reconcile"]) == ("success", "skipped")
    assert {document["block"] for document in all_documents(url, run.collection).values()} == {0, 2, 3, 4, 5}
    audit = start(client, "tinytags_audit", {"run": run.name, "sample": 10, "repair": True})
    end(client, "tinytags_audit", audit)
    assert client.result("tinytags_audit", audit, "judge") == [{"run": run.name, "select": "audit"}]
    path = f"/api/v2/dags/tinytags_audit/dagRuns/{audit}/taskInstances/backfill/xcomEntries/trigger_run_id"
    repaired = end(client, "tinytags_backfill", client._ask("GET", path, map_index=0)["value"])
    assert repaired["blocks shard 0, block 1"] == "success"
    after = all_documents(url, run.collection)
    for document in (*before.values(), *after.values()):
        document.pop("_version_", None)
    assert after == before


def test_an_index_that_has_the_model_is_not_tagged_again(
    client: AirflowClient, published: tuple[Run, str], model: str
) -> None:
    states = trigger(client, "tinytags_retag", alias=ALIAS, model=model)
    assert (states["choose"], states["publish"]) == ("success", "skipped")


@pytest.fixture(scope="module")
def newer_model(model: str, runtime: Runtime) -> str:
    """Publish the same forest under another version."""
    storage = runtime.storage
    onnx = storage.read(layout.model_file(model))
    newer = ModelCard.load(storage, layout.card_file(model)).replaced(version=model_version("other", onnx))
    publish_model(newer, onnx, "", storage)
    return newer.version


def test_a_trial_of_retagging_is_compared_and_not_published(
    client: AirflowClient, published: tuple[Run, str], runtime: Runtime, newer_model: str
) -> None:
    run, _ = published
    trial = start(client, "tinytags_retag", {"alias": ALIAS, "model": newer_model, "blocks": "1, 3"})
    end(client, "tinytags_retag", trial)
    found = client.result("tinytags_retag", trial, "publish", 0)
    kept = sum(record.kept for record in read_ledger(runtime.storage, run, (1, 3)))
    assert found["published"] is False
    assert found["comparison"] == {"same": kept, "changed": 0, "gained": 0, "lost": 0, "reason": ""}
    assert found["totals"]["blocks"] == 2
    assert runtime.solr.aliases()[ALIAS] == run.collection


def test_retagging_waits_while_another_run_tags_the_corpus(
    client: AirflowClient, published: tuple[Run, str], runtime: Runtime, newer_model: str
) -> None:
    storage = runtime.storage
    client._ask("PATCH", "/api/v2/dags/tinytags_prune", {"is_paused": True})  # so that its run stays queued
    queued = client._ask("POST", "/api/v2/dags/tinytags_prune/dagRuns", {"logical_date": None})["dag_run_id"]
    Claim(dag="tinytags_prune", dag_run=queued).save(storage, layout.claim_file(CORPUS, 1_000))
    retag = start(client, "tinytags_retag", {"alias": ALIAS, "model": newer_model})
    try:
        states = wait_for(
            lambda: {task.state for task in client.task_states("tinytags_retag", retag)},
            lambda states: "up_for_reschedule" in states,
        )
    finally:
        client._ask("PATCH", f"/api/v2/dags/tinytags_retag/dagRuns/{retag}", {"state": "failed"})
        client._ask("DELETE", f"/api/v2/dags/tinytags_prune/dagRuns/{queued}")
        storage.delete(layout.claim_file(CORPUS, 1_000))
    assert "up_for_reschedule" in states
    assert "success" not in states


@pytest.mark.parametrize(
    ("dag", "parameters", "message"),
    [
        ("tinytags", {"corpus": CORPUS, "blocks": "6"}, "check: BadInputError: block 6 is out of range"),
        ("tinytags_backfill", {"run": "{run}"}, "plan: BadInputError: choose blocks by their numbers"),
    ],
)
def test_what_cannot_be_done_fails_in_the_first_task(
    client: AirflowClient, published: tuple[Run, str], dag: str, parameters: dict[str, str], message: str
) -> None:
    parameters = {name: value.format(run=published[0].name) for name, value in parameters.items()}
    with pytest.raises(FinalError, match=message):
        trigger(client, dag, **parameters)


def test_a_number_out_of_range_is_refused_by_the_form(client: AirflowClient) -> None:
    with pytest.raises(FinalError, match="120 is greater than the maximum of 100"):
        client.trigger("tinytags", {"corpus": CORPUS, "threshold": 120})
