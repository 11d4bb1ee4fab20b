"""What the command line tells Airflow about a new model, and which Dag run it follows."""

from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from small_run import MODEL, publish_model

from tinytags_tasks.cli import follow, stages
from tinytags_tasks.clients.airflow import AirflowClient, TaskState
from tinytags_tasks.corpus.sources.files import SourceFiles
from tinytags_tasks.errors import BadInputError, MissingError, TransientError
from tinytags_tasks.store.local import LocalStorage


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, bytes]]:
    """The requests that an Airflow with two assets received."""
    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append((request.method, request.url.path, request.content))
        if request.url.path == "/auth/token":
            return httpx.Response(201, json={"access_token": "t"})
        assets = [{"id": 7, "name": "tinytags_model_of_mine"}, {"id": 8, "name": "tinytags_model"}]
        return httpx.Response(200, json={"assets": assets})

    client = AirflowClient("http://airflow", "admin", "secret")
    client._http = httpx.Client(base_url="http://airflow", transport=httpx.MockTransport(answer))
    monkeypatch.setattr(follow, "airflow_client", lambda runtime: client)
    monkeypatch.setattr(follow.ModelCard, "load", lambda storage, path: SimpleNamespace(figures={"model": "forest-1"}))
    return asked


def runtime(airflow_url: str | None) -> SimpleNamespace:
    settings = SimpleNamespace(airflow_url=airflow_url, airflow_page="http://public")
    return SimpleNamespace(settings=settings, storage=None)


def test_airflow_is_told_of_a_new_model(asked: list[tuple[str, str, bytes]]) -> None:
    said: list[str] = []
    follow.tell_of_model(runtime("http://airflow"), "forest-1", report=said.append)
    assert asked[-1] == ("POST", "/api/v2/assets/events", b'{"asset_id":8,"extra":{"model":"forest-1"}}')
    assert said == ["told Airflow about the model: tinytags_retag starts unless it is paused"]


def test_nobody_is_told_where_no_airflow_is_known(asked: list[tuple[str, str, bytes]]) -> None:
    said: list[str] = []
    follow.tell_of_model(runtime(None), "forest-1", report=said.append)
    assert (asked, said) == ([], [])


def test_an_airflow_that_does_not_answer_fails_nothing(
    asked: list[tuple[str, str, bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        follow, "airflow_client", lambda runtime: AirflowClient("http://127.0.0.1:9", "admin", "secret")
    )
    said: list[str] = []
    follow.tell_of_model(runtime("http://127.0.0.1:9"), "forest-1", report=said.append)
    (line,) = said
    assert line.startswith(
        "Airflow could not be told about the model, so trigger tinytags_retag to tag with it (http://127.0.0.1:9"
    )


ASKED = {"corpus": "pets", "model": "", "features": "general32", "head": "logistic", "threshold": 40, "publish": "yes"}


@pytest.mark.parametrize(
    ("unfinished", "joined"),
    [
        ({}, ""),
        ({"earlier": {**ASKED, "threshold": 50}}, ""),
        ({"trial": {**ASKED, "blocks": "0, 4"}}, ""),
        ({"other": {**ASKED, "corpus": "others"}, "same": {**ASKED}}, "same"),
        ({"by-the-form": {**ASKED, "model": None, "blocks": None}}, "by-the-form"),
        ({"for-others": {**ASKED, "alias": "staging"}}, ""),
        ({"on-pixels": {**ASKED, "features": "pixels", "head": "forest"}}, ""),
        ({"of-before-nets": {name: value for name, value in ASKED.items() if name not in ("features", "head")}}, ""),
    ],
)
def test_a_run_with_the_same_parameters_that_has_not_ended_is_joined(
    unfinished: dict[str, dict[str, object]], joined: str
) -> None:
    client = SimpleNamespace(unfinished_runs=lambda dag: unfinished)
    assert follow._unfinished_run(client, ASKED) == joined


def test_unfinished_runs_are_those_that_are_running_or_queued() -> None:
    runs = {"running": [{"dag_run_id": "b", "conf": {"corpus": "pets"}}], "queued": [{"dag_run_id": "c", "conf": None}]}

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/auth/token":
            return httpx.Response(201, json={"access_token": "t"})
        return httpx.Response(200, json={"dag_runs": runs[request.url.params["state"]], "total_entries": 1})

    client = AirflowClient("http://airflow", "admin", "secret")
    client._http = httpx.Client(base_url="http://airflow", transport=httpx.MockTransport(answer))
    assert client.unfinished_runs("tinytags") == {"b": {"corpus": "pets"}, "c": {}}


@pytest.fixture
def triggered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[dict[str, object]]:
    """The parameters that `tinytags run` triggers the Dag with."""
    triggered = []
    clients = SimpleNamespace(
        storage=LocalStorage(tmp_path),
        settings=SimpleNamespace(corpora_folder=tmp_path, similar="auto"),
        files_at=SourceFiles,
    )
    monkeypatch.setattr(stages, "clients", lambda: clients)
    monkeypatch.setattr(follow, "follow_run", lambda runtime, parameters, report, unpause: triggered.append(parameters))
    return triggered


def test_run_asks_for_the_net_that_ships_unless_another_choice_is_made(triggered: list[dict[str, object]]) -> None:
    stages.run()
    stages.run(features="pixels", head="forest", none=False)
    chosen = [tuple(asked[field] for field in ("features", "head", "none")) for asked in triggered]
    assert chosen == [("general32", "logistic", "yes"), ("pixels", "forest", "no")]


def test_run_refuses_what_is_not_there_before_it_triggers_anything(
    triggered: list[dict[str, object]], tmp_path: Path
) -> None:
    with pytest.raises(BadInputError, match="--head is 'tree': choose forest or logistic"):
        stages.run(head="tree")
    with pytest.raises(MissingError, match="dino: no such net"):
        stages.run(features="dino")
    with pytest.raises(MissingError, match="forest-000000000001: no such model"):
        stages.run(model="forest-000000000001")
    assert not triggered
    publish_model(LocalStorage(tmp_path))
    stages.run(model=MODEL, features="dino")  # a model has features of its own
    assert [asked["model"] for asked in triggered] == [MODEL]


@pytest.mark.parametrize("is_demo", [True, False])
def test_a_run_ends_with_what_to_do_next(is_demo: bool) -> None:
    said = follow._next_step(SimpleNamespace(name="pets-1"), is_demo=is_demo)
    assert said.startswith("next: measure precision")
    assert said.endswith("`tinytags precision pets-1`")
    assert ("`tinytags demo review`" in said) is is_demo


def task(name: str, state: str, label: str = "-1") -> TaskState:
    return TaskState(name, -1, label, state, 1, 1.0, None)


def test_progress_says_what_waits_also_before_the_first_stage() -> None:
    lines: list[str] = []
    show = follow._line_printer(lines.append)
    check = task("check", "up_for_reschedule")
    blocks = [task("blocks", "up_for_reschedule", "0-3 (waiting for Solr since 10:02 UTC)"), task("blocks", "success")]
    show("running", [check])
    show("running", [task("check", "success"), *blocks])
    assert [line.partition("s  ")[2] for line in lines] == [
        "check (1 waiting, see `tinytags status`)",
        "blocks 1/2 (1 waiting for Solr since 10:02 UTC)",
    ]


@pytest.fixture
def operated(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """The requests that an Airflow whose Dag is paused received."""
    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append((request.method, request.url.path))
        if request.url.path == "/auth/token":
            return httpx.Response(201, json={"access_token": "t"})
        if request.url.path.endswith("/dagRuns"):
            return httpx.Response(500, text="no further")
        return httpx.Response(200, json={"is_paused": True})

    client = AirflowClient("http://airflow", "admin", "secret")
    client._http = httpx.Client(base_url="http://airflow", transport=httpx.MockTransport(answer))
    monkeypatch.setattr(follow, "airflow_client", lambda runtime: client)
    return asked


def test_a_dag_that_an_operator_paused_stays_so_and_nothing_is_triggered(operated: list[tuple[str, str]]) -> None:
    with pytest.raises(BadInputError, match=r"is paused, .* at http://public/dags/tinytags, or .*--unpause"):
        follow.follow_run(runtime("http://airflow"), ASKED, report=print)
    assert {method for method, path in operated if path != "/auth/token"} == {"GET"}


def test_a_dag_is_un_paused_if_a_person_says_so(operated: list[tuple[str, str]]) -> None:
    with pytest.raises(TransientError, match="no further"):
        follow.follow_run(runtime("http://airflow"), ASKED, report=print, unpause=True)
    assert ("PATCH", "/api/v2/dags/tinytags") in operated
