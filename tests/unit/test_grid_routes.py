"""The block grid's routes: each requested without a user, without permissions, by a viewer and by an operator."""

import io
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from airflow_database import add_dag_run, add_plan, add_task, airflow_database, open_session, token
from fastapi.testclient import TestClient
from PIL import Image
from small_nets import NONE, embed, make_net_run
from small_run import CORPUS, SolrHere, index_all, make_run, pictures, score_all
from small_words import say, tag, takedown

from tinytags_tasks.errors import EngineDownError
from tinytags_tasks.parts import PROJECT_ROOT
from tinytags_tasks.settings import Settings
from tinytags_tasks.store import layout
from tinytags_tasks.store.local import LocalStorage
from tinytags_tasks.store.run_records import BlockState, Run

HERE = {"X-TinyTags-Grid": "1", "Sec-Fetch-Site": "same-origin"}
REPORT = "<!doctype html><title>Model</title><style>p { color: red; }</style>"
ASSETS = PROJECT_ROOT / "plugins" / "grid_page" / "assets"


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with airflow_database(tmp_path_factory.mktemp("airflow")):
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, database: None) -> SimpleNamespace:
    """A run whose blocks are indexed, worked on by one Dag run."""
    storage, solr = LocalStorage(tmp_path_factory.mktemp("store") / "store"), SolrHere()
    made = make_run(storage)
    storage.write(layout.report_file(made.model), REPORT.encode())
    score_all(storage, made)
    index_all(storage, made, solr)
    with open_session() as session:
        add_dag_run(session, "tinytags", "manual")
        groups = [{"run": made.name, "blocks": [0, 1, 2]}, {"run": made.name, "blocks": [3, 4, 5]}]
        add_plan(session, "tinytags", "manual", groups)
        add_task(session, "tinytags", "manual", "blocks", map_index=0, state="success")
    return SimpleNamespace(run=made, storage=storage, solr=solr)


@pytest.fixture
def clients(run: SimpleNamespace, tmp_path: Path) -> SimpleNamespace:
    settings = Settings(home=tmp_path, alias="live")
    return SimpleNamespace(settings=settings, storage=run.storage, solr=run.solr)


@pytest.fixture
def app(clients: SimpleNamespace) -> object:
    from grid_page.app import create_app

    return create_app(lambda: clients)


class Started:
    """Airflow's own functions that a route calls."""

    def __init__(self) -> None:
        self.triggered: list[tuple[str, dict]] = []
        self.cleared: list[tuple[str, object]] = []

    def trigger(self, dag: str, body: object, dag_bag: object, user: object, session: object, request: object):
        self.triggered.append((dag, body.conf))
        return SimpleNamespace(run_id="manual__1")

    def clear(self, *, dag_id: str, dag_bag: object, body: object, session: object, user: object) -> None:
        self.cleared.append((dag_id, body))


@pytest.fixture
def started(app: object, monkeypatch: pytest.MonkeyPatch) -> Started:
    from grid_page import actions

    calls = Started()
    monkeypatch.setattr(actions, "trigger_dag_run", calls.trigger)
    monkeypatch.setattr(actions, "post_clear_task_instances", calls.clear)
    return calls


def client(app: object, role: str | None) -> TestClient:
    return TestClient(app, headers={"Authorization": f"Bearer {token(role)}"})


def requests(app: object, run: Run) -> list[tuple[str, str]]:
    """Return the method and address of every route."""
    values = {"name": run.name, "block": "0", "position": "0"}
    found = []
    for route in app.routes:
        path = "/assets/grid.js" if route.path == "/assets/{name}" else route.path
        found += [(method, re.sub(r"{(\w+)}", lambda part: values[part[1]], path)) for method in route.methods]
    return found


def send(asked: TestClient, method: str, path: str) -> int:
    body = {"action": "backfill", "blocks": "3"}
    return asked.request(method, path, headers=HERE, json=body if method == "POST" else None).status_code


def test_every_route_is_known(app: object, run: SimpleNamespace) -> None:
    assert sorted(requests(app, run.run)) == [
        ("GET", "/"),
        ("GET", "/api/history"),
        ("GET", "/api/runs"),
        ("GET", f"/api/runs/{run.run.name}"),
        ("GET", f"/api/runs/{run.run.name}/blocks/0"),
        ("GET", f"/api/runs/{run.run.name}/blocks/0/images"),
        ("GET", f"/api/runs/{run.run.name}/cells"),
        ("GET", f"/api/runs/{run.run.name}/images/0.png"),
        ("GET", f"/api/runs/{run.run.name}/report"),
        ("GET", "/assets/grid.js"),
        ("POST", f"/api/runs/{run.run.name}/actions"),
        ("POST", f"/api/runs/{run.run.name}/blocks/0/clear"),
    ]


def test_every_route_asks_who_calls_and_what_they_may(app: object, run: SimpleNamespace, started: Started) -> None:
    nobody = TestClient(app)
    answers = {
        (method, path): tuple(
            send(asked, method, path)
            for asked in (nobody, client(app, None), client(app, "viewer"), client(app, "user"), client(app, "op"))
        )
        for method, path in requests(app, run.run)
    }
    expected = {"GET": (401, 403, 200, 200, 200), "POST": (401, 403, 403, 200, 200)}
    assert answers == {(method, path): expected[method] for method, path in answers}


def test_none_of_the_tags_is_counted_and_the_page_knows_whether_to_show_it(
    run: SimpleNamespace, clients: SimpleNamespace, app: object, tmp_path: Path
) -> None:
    viewer = client(app, "viewer")
    assert viewer.get(f"/api/runs/{run.run.name}").json()["has_none"] is False
    assert viewer.get(f"/api/runs/{run.run.name}/cells").json()["totals"]["none"] == 0
    clients.storage = LocalStorage(tmp_path / "other")
    made = make_net_run(clients.storage)
    embed(clients.storage)
    score_all(clients.storage, made)
    assert viewer.get(f"/api/runs/{made.name}").json()["has_none"] is True
    totals = viewer.get(f"/api/runs/{made.name}/cells").json()["totals"]
    assert totals["read"] == totals["kept"] + totals["below"] + totals["none"] + totals["unreadable"] == 11
    assert totals["none"] == len(NONE)
    assert viewer.get(f"/api/runs/{made.name}/blocks/4").json()["record"]["none"] == 1


def test_a_forged_token_is_refused(app: object) -> None:
    forged = TestClient(app, headers={"Authorization": "Bearer " + token("op")[:-3] + "abc"})
    assert forged.get("/api/runs").status_code == 403


def cells(asked: TestClient, run: Run, **query: object) -> dict:
    return asked.get(f"/api/runs/{run.name}/cells", params=query).json()


def test_only_changed_cells_are_sent_again(app: object, run: SimpleNamespace) -> None:
    from grid_page.watch import STATES

    asked = client(app, "viewer")
    first = cells(asked, run.run)
    assert (first["is_whole"], first["blocks"], first["read"]) == (True, list(range(6)), 6)
    assert {STATES[state] for state in first["states"]} == {"verified"}
    again = cells(asked, run.run, mark=first["mark"], since=first["revision"])
    assert (again["is_whole"], again["blocks"]) == (False, [])
    assert cells(asked, run.run, mark="another process'", since=first["revision"])["blocks"] == list(range(6))
    assert cells(asked, run.run, mark=first["mark"], since=99)["blocks"] == list(range(6))


def test_a_block_that_lost_documents_is_told(
    app: object, run: SimpleNamespace, clients: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from grid_page import watch

    monkeypatch.setattr(watch, "REFRESH_SECONDS", 0)
    counts = clients.solr.count_by_block(run.run.collection)
    clients.solr = SimpleNamespace(count_by_block=lambda collection: counts | {2: counts[2] - 1})
    asked = client(app, "viewer")
    while cells(asked, run.run)["counts"].get("missing") != 1:
        pass
    assert asked.get(f"/api/runs/{run.run.name}/blocks/2").json()["state"] == "missing"


def test_solr_that_is_down_is_told_and_costs_no_cell(
    app: object, run: SimpleNamespace, clients: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from grid_page import watch

    def refuse(*arguments: object) -> None:
        raise EngineDownError("Solr does not answer")

    monkeypatch.setattr(watch, "REFRESH_SECONDS", 0)
    clients.solr = SimpleNamespace(count_by_block=refuse, aliases=refuse)
    asked = client(app, "viewer")
    while not (found := cells(asked, run.run))["problems"]:
        pass
    assert found["problems"] == ["Documents in Solr cannot be counted: Solr does not answer"]
    assert found["counts"] == {"verified": 6}
    assert "Solr does not answer" in asked.get("/api/runs").json()["live"]["problem"]


def test_a_run_that_is_pruned_while_it_is_watched_is_told(
    app: object, run: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from grid_page import watch

    monkeypatch.setattr(watch, "REFRESH_SECONDS", 0)
    asked = client(app, "viewer")
    assert cells(asked, run.run)["problems"] == []
    run.run.replaced(pruned="2026-01-01").save(run.storage, layout.run_file(run.run.name))
    problems = cells(asked, run.run)["problems"]
    run.run.save(run.storage, layout.run_file(run.run.name))
    assert problems == ["The collection was dropped by `tinytags prune` (2026-01-01)."]


def test_the_latest_runs_are_offered_and_all_are_counted(
    app: object, run: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from grid_page import watch

    monkeypatch.setattr(watch, "RUNS_SHOWN", 2)
    older = [run.run.replaced(name=name, created=f"2020-01-0{day}") for day, name in enumerate(("b", "a"), start=1)]
    for one in older:
        one.save(run.storage, layout.run_file(one.name))
    run.storage.write("runs/half-planned/ledger/000000.json", b"{}")
    asked = client(app, "viewer")
    found = asked.get("/api/runs").json()
    is_found = asked.get("/api/runs/b").status_code
    for name in ("b", "a", "half-planned"):
        run.storage.delete(layout.run_folder(name))
    assert [one["name"] for one in found["runs"]] == [run.run.name, "a"]
    assert found["known"] == 3
    assert is_found == 200


def test_a_run_whose_record_is_damaged_hides_no_other_run(app: object, run: SimpleNamespace) -> None:
    run.storage.write(layout.run_file("damaged-run"), b"{")
    found = client(app, "viewer").get("/api/runs").json()
    run.storage.delete(layout.run_folder("damaged-run"))
    assert [one["name"] for one in found["runs"]] == [run.run.name]
    (problem,) = found["damaged"]
    assert "tinytags audit damaged-run --repair" in problem


def test_a_store_that_is_down_keeps_the_last_cells(
    app: object, run: SimpleNamespace, clients: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from grid_page import watch

    def refuse(self: object, seconds: float) -> None:
        raise EngineDownError("HDFS does not answer")

    monkeypatch.setattr(watch, "REFRESH_SECONDS", 0)
    asked = client(app, "viewer")
    cells(asked, run.run)
    monkeypatch.setattr(watch.LedgerReader, "update", refuse)
    found = cells(asked, run.run)
    assert found["problems"] == ["The ledger cannot be read, so older figures are shown: HDFS does not answer"]
    assert found["counts"] == {"verified": 6}


def test_a_cell_tells_its_record_and_the_log_of_its_task(app: object, run: SimpleNamespace) -> None:
    asked = client(app, "viewer")
    cells(asked, run.run)
    cell = asked.get(f"/api/runs/{run.run.name}/blocks/1").json()
    assert (cell["record"]["state"], cell["record"]["block"]) == (BlockState.VERIFIED, 1)
    assert cell["task"] == {
        "state": "success",
        "attempt": 1,
        "log": "../dags/tinytags/runs/manual/tasks/blocks/mapped/0?try_number=1",
    }
    assert cell["may_clear"] is False
    operator = client(app, "op").get(f"/api/runs/{run.run.name}/blocks/1").json()
    assert operator["may_clear"] is True


def test_the_images_of_a_block_are_the_kept_ones_and_come_as_png(app: object, run: SimpleNamespace) -> None:
    asked = client(app, "viewer")
    page = asked.get(f"/api/runs/{run.run.name}/blocks/0/images").json()
    assert [(image["position"], image["label"]) for image in page["images"]] == [(0, "cat, 100 %"), (1, "dog, 60 %")]
    assert page["images"][1]["details"] == "6 votes · block 0 · image 1"
    answer = asked.get(f"/api/runs/{run.run.name}/images/1.png")
    assert answer.headers["content-type"] == "image/png"
    shown = Image.open(io.BytesIO(answer.content))
    assert shown.tobytes() == pictures()[1].tobytes()
    assert asked.get(f"/api/runs/{run.run.name}/images/11.png").status_code == 400


def test_pictures_that_were_taken_down_are_not_shown_and_a_persons_tag_is(app: object, run: SimpleNamespace) -> None:
    asked = client(app, "viewer")
    images = f"/api/runs/{run.run.name}"
    say(run.storage, tag(0, "yak"), takedown(1))
    try:
        assert asked.get(f"{images}/cells").json()["totals"]["taken_down"] == 0  # of no document yet
        page = asked.get(f"{images}/blocks/0/images").json()
        assert [(image["position"], image["label"]) for image in page["images"]] == [(0, "yak, 100 %")]
        assert asked.get(f"{images}/images/1.png").status_code == 404
        say(run.storage, takedown(0))
        assert asked.get(f"{images}/blocks/0/images").json() == {"total": 0, "images": []}
    finally:
        run.storage.delete(layout.review_log_folder(CORPUS))


def test_images_of_a_corpus_that_was_ingested_anew_are_not_shown(app: object, run: SimpleNamespace) -> None:
    changed = run.run.replaced(name="pets-other", corpus_digest="0" * 64)
    changed.save(run.storage, layout.run_file(changed.name))
    asked = client(app, "viewer")
    for path in ("blocks/0/images", "images/0.png"):
        answer = asked.get(f"/api/runs/{changed.name}/{path}")
        assert (answer.status_code, "ingested again" in answer.json()["detail"]) == (500, True)
    run.storage.delete(layout.run_file(changed.name))


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/runs/none-such", 404),
        ("/api/runs/..%2F..%2Fetc", 404),
        ("/api/runs/A%20B/cells", 400),
        ("/assets/grid.html", 404),
        ("/assets/..%2Fapp.py", 404),
        ("/docs", 404),
        ("/openapi.json", 404),
    ],
)
def test_what_is_not_there_is_not_found(app: object, path: str, status: int) -> None:
    assert client(app, "viewer").get(path).status_code == status


def test_the_run_of_a_dag_run_is_told(app: object, run: SimpleNamespace) -> None:
    asked = client(app, "viewer")
    found = asked.get("/api/runs", params={"dag": "tinytags", "dag_run": "manual"}).json()
    assert found["of_dag_run"] == run.run.name
    assert found["may_trigger"] is False
    assert client(app, "op").get("/api/runs").json()["may_trigger"] is True


def test_every_answer_forbids_what_the_page_does_not_need(app: object) -> None:
    for path in ("/", "/assets/grid.js", "/api/runs"):
        headers = client(app, "viewer").get(path).headers
        assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'; style-src 'self'")
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"


def test_the_report_of_a_runs_model_is_a_page_that_may_run_nothing(app: object, run: SimpleNamespace) -> None:
    answer = client(app, "viewer").get(f"/api/runs/{run.run.name}/report")
    assert answer.text == REPORT
    assert answer.headers["content-type"].startswith("text/html")
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:")
    assert "script" not in policy
    assert "sandbox" in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "/report`, run.model)" in (ASSETS / "grid.js").read_text()


def test_the_page_reads_nothing_as_markup_and_loads_nothing_from_elsewhere() -> None:
    for path in ASSETS.iterdir():
        text = path.read_text()
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text)
        assert not re.search(r"https?://|//cdn", text), path
        if path.suffix == ".html":
            assert not re.search(r"<script>|\son\w+=|style=", text)


def test_the_page_has_a_sign_and_a_colour_for_each_state() -> None:
    from grid_page.watch import STATES

    looks = (ASSETS / "cells.js").read_text()
    signs = dict(re.findall(r'^  (\w+): {{ glyph: "(.*?)"'.replace("{{", "{"), looks, re.MULTILINE))
    assert list(signs) == list(STATES)
    assert len(set(signs.values())) == len(STATES)
    colours = re.findall(r'\[data-state="(\w+)"\] { background: ([^;]+);', (ASSETS / "grid.css").read_text())
    assert [state for state, _ in colours] == list(STATES)
    assert len({colour for _, colour in colours}) == len(STATES)
