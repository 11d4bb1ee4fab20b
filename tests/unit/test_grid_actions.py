"""Acting on blocks from the grid: only from its own page, only on what there is, and written into Airflow's log."""

import json
from types import SimpleNamespace

import pytest
import test_grid_routes
from airflow_database import open_session, token
from fastapi.testclient import TestClient
from sqlalchemy import delete, select
from test_grid_routes import HERE, Started, client

database, run, clients = test_grid_routes.database, test_grid_routes.run, test_grid_routes.clients
app, started = test_grid_routes.app, test_grid_routes.started


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Sec-Fetch-Site": "same-origin"},
        {"X-TinyTags-Grid": "0", "Sec-Fetch-Site": "same-origin"},
        {"X-TinyTags-Grid": "1", "Sec-Fetch-Site": "cross-site"},
        {"X-TinyTags-Grid": "1", "Sec-Fetch-Site": "same-site"},
        {"X-TinyTags-Grid": "1", "Sec-Fetch-Site": "none"},
        {"X-TinyTags-Grid": "1", "Origin": "http://evil.example"},
        {"X-TinyTags-Grid": "1", "Origin": "http://testserver.evil.example"},
        {"X-TinyTags-Grid": "1", "Origin": "null"},
        {"X-TinyTags-Grid": "1"},
    ],
)
def test_another_sites_request_with_the_cookie_changes_nothing(
    app: object, run: SimpleNamespace, started: Started, headers: dict[str, str]
) -> None:
    browser = TestClient(app, cookies={"_token": token("op")})
    for path in ("actions", "blocks/0/clear"):
        body = {"action": "delete", "blocks": "0-5"}
        assert browser.post(f"/api/runs/{run.run.name}/{path}", json=body, headers=headers).status_code == 403
    assert (started.triggered, started.cleared) == ([], [])


@pytest.mark.parametrize("headers", [HERE, {"X-TinyTags-Grid": "1", "Origin": "http://testserver"}])
def test_the_pages_own_request_with_the_cookie_is_heard(
    app: object, run: SimpleNamespace, started: Started, headers: dict[str, str]
) -> None:
    browser = TestClient(app, cookies={"_token": token("op")})
    body = {"action": "delete", "blocks": "5, 0-1, 1"}
    answer = browser.post(f"/api/runs/{run.run.name}/actions", json=body, headers=headers)
    assert answer.status_code == 200
    assert answer.json()["link"] == "../dags/tinytags_backfill/runs/manual__1"
    assert started.triggered == [
        ("tinytags_backfill", {"run": run.run.name, "blocks": "0-1, 5", "action": "delete"}),
    ]


def test_behind_a_proxy_that_sends_its_own_host_the_address_of_airflows_setting_counts(
    app: object, run: SimpleNamespace, started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    def act(origin: str) -> int:
        browser = TestClient(app, "http://10.0.0.7:8080", cookies={"_token": token("op")})
        headers = {"X-TinyTags-Grid": "1", "Origin": origin, "X-Forwarded-Host": origin.partition("://")[2]}
        body = {"action": "delete", "blocks": "5"}
        return browser.post(f"/api/runs/{run.run.name}/actions", json=body, headers=headers).status_code

    assert act("http://pictures.lan:81") == 403
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "http://pictures.lan:81/airflow")
    assert act("http://pictures.lan:81") == 200
    assert act("http://10.0.0.7:8080") == 200
    for other in ("http://pictures.lan", "https://pictures.lan:81", "http://evil.example:81", "null"):
        assert act(other) == 403


@pytest.mark.parametrize(
    "body",
    [
        {"action": "drop", "blocks": "1"},
        {"action": "delete", "blocks": ""},
        {"action": "delete", "blocks": "  "},
        {"action": "delete", "blocks": "6"},
        {"action": "delete", "blocks": "all"},
        {"action": "delete"},
    ],
)
def test_what_names_no_blocks_of_the_run_is_refused(
    app: object, run: SimpleNamespace, started: Started, body: dict[str, str]
) -> None:
    answer = client(app, "op").post(f"/api/runs/{run.run.name}/actions", json=body, headers=HERE)
    assert answer.status_code in (400, 422)
    assert started.triggered == []


def test_nothing_is_queued_behind_a_paused_dag(app: object, run: SimpleNamespace, started: Started) -> None:
    from airflow.models.dag import DagModel
    from airflow.models.dagbundle import DagBundleModel

    with open_session() as session:
        session.add(DagBundleModel(name="here"))
        session.flush()
        session.add(DagModel(dag_id="tinytags_backfill", bundle_name="here", is_paused=True))
        session.commit()
    body = {"action": "backfill", "blocks": "1"}
    answer = client(app, "op").post(f"/api/runs/{run.run.name}/actions", json=body, headers=HERE)
    with open_session() as session:
        session.execute(delete(DagModel))
        session.commit()
    assert (answer.status_code, started.triggered) == (409, [])
    assert "paused" in answer.json()["detail"]


def test_actions_are_written_into_the_audit_log(app: object, run: SimpleNamespace, started: Started) -> None:
    from airflow.models.log import Log

    asked = client(app, "op")
    asked.post(f"/api/runs/{run.run.name}/actions", json={"action": "backfill", "blocks": "4"}, headers=HERE)
    asked.post(f"/api/runs/{run.run.name}/blocks/1/clear", headers=HERE)
    with open_session() as session:
        backfill, clear = session.scalars(select(Log).order_by(Log.id.desc()).limit(2)).all()[::-1]
    assert (backfill.event, backfill.owner, backfill.dag_id, backfill.run_id) == (
        "tinytags_grid.backfill",
        "a op",
        "tinytags_backfill",
        "manual__1",
    )
    assert json.loads(backfill.extra)["blocks"] == "4"
    assert (clear.event, clear.dag_id, clear.run_id, clear.task_id, clear.map_index) == (
        "tinytags_grid.clear",
        "tinytags",
        "manual",
        "blocks",
        0,
    )


def test_clearing_clears_the_mapped_task_of_the_block_and_what_follows(
    app: object, run: SimpleNamespace, started: Started
) -> None:
    asked = client(app, "op")
    assert asked.post(f"/api/runs/{run.run.name}/blocks/2/clear", headers=HERE).status_code == 200
    ((dag, body),) = started.cleared
    assert (dag, body.dag_run_id, body.task_ids) == ("tinytags", "manual", [("blocks", 0)])
    assert (body.dry_run, body.only_failed, body.include_downstream, body.prevent_running_task) == (
        False,
        False,
        True,
        True,
    )


def test_a_block_that_no_task_worked_on_cannot_be_cleared(app: object, run: SimpleNamespace, started: Started) -> None:
    answer = client(app, "op").post(f"/api/runs/{run.run.name}/blocks/5/clear", headers=HERE)
    assert answer.status_code == 409
    assert "backfill" in answer.json()["detail"]
    assert started.cleared == []
