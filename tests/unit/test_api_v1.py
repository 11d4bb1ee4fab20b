"""The API: what it answers, its problems, conditional requests, limits, and who may use it from where."""

import base64
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from fastapi.testclient import TestClient
from solr_of_pages import DOCUMENT, SolrOfPages

from tinytags_tasks.errors import BadInputError
from tinytags_tasks.search import forms, readiness
from tinytags_tasks.search import page as page_module
from tinytags_tasks.search.api_models import Image
from tinytags_tasks.search.embedder import MOST_AT_ONCE, MOST_PICTURE_BYTES
from tinytags_tasks.search.images import read_document
from tinytags_tasks.search.page import create_app
from tinytags_tasks.search.rate_limit import Buckets
from tinytags_tasks.settings import Settings
from tinytags_tasks.store.local import LocalStorage

LOGIN = "Basic " + base64.b64encode(b"tinytags:pass").decode()
PROBLEM = "application/problem+json"


@pytest.fixture
def solr() -> Iterator[SolrOfPages]:
    found = SolrOfPages()
    yield found
    found.shutdown()
    found.server_close()


@pytest.fixture
def make(tmp_path: Path, solr: SolrOfPages, monkeypatch: pytest.MonkeyPatch) -> Callable[..., TestClient]:
    """Return what makes a client of the API with settings."""
    clients = SimpleNamespace(storage=LocalStorage(tmp_path / "store"), solr=SimpleNamespace(aliases=dict))
    monkeypatch.setattr(page_module, "Runtime", lambda *_, **__: clients)
    usual = {"home": tmp_path, "search_password": "pass", "solr_url": solr.url}

    def make(login: str | None = LOGIN, **settings: Any) -> TestClient:
        client = TestClient(create_app(Settings(**{**usual, **settings})), raise_server_exceptions=False)
        client.headers.update({"Authorization": login} if login else {})
        return client

    return make


@pytest.fixture
def api(make: Callable[..., TestClient]) -> TestClient:
    return make()


def problem(answer: Any, status: int) -> dict[str, Any]:
    """Return the problem that an answer is."""
    assert (answer.status_code, answer.headers["content-type"]) == (status, PROBLEM), answer.text
    found = answer.json()
    assert found["status"] == status
    assert found["title"] and found["detail"] and found["type"].startswith("/api/docs#")
    return found


def test_a_search_answers_with_images_and_cursors(api: TestClient) -> None:
    answer = api.get("/api/v1/search?tag=cat&confidence=40&rows=10")
    assert answer.status_code == 200
    found = answer.json()
    assert found["total"] == 1
    assert found["next_cursor"] is None
    assert found["images"] == [
        {
            "id": "demo:7",
            "corpus": "demo",
            "position": 7,
            "block": 0,
            "tag": "cat",
            "confidence": 70,
            "votes": 7,
            "keyword": "tabby",
            "model": "forest-12ab",
            "corrected": None,
            "precision": None,
            "picture": "/api/v1/images/demo:7.png",
        }
    ]
    assert answer.headers["server-timing"].startswith("search;dur=")


def test_facets_and_tags_are_counts(api: TestClient) -> None:
    facets = api.get("/api/v1/facets?tag=cat").json()
    assert facets["tags"] == [{"tag": "cat", "images": 1}]
    assert facets["confidences"] == [{"confidence": 70, "images": 1}]
    assert (facets["models"], facets["corpora"]) == (["forest-12ab"], ["demo"])
    assert api.get("/api/v1/tags").json() == {"total": 1, "tags": [{"tag": "cat", "images": 1}]}


def test_an_empty_parameter_counts_as_absent(api: TestClient) -> None:
    assert api.get("/api/v1/search?tag=&confidence=&block=&keyword=&cursor=&rows=").status_code == 200


def test_what_did_not_change_is_not_sent_again(api: TestClient) -> None:
    first = api.get("/api/v1/search")
    etag = first.headers["etag"]
    assert first.headers["cache-control"] == "private, no-cache"
    for known in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        again = api.get("/api/v1/search", headers={"If-None-Match": known})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    for other in ('"other"', "", etag.strip('"')):
        assert api.get("/api/v1/search", headers={"If-None-Match": other}).status_code == 200
    assert api.get("/api/v1/tags", headers={"If-None-Match": etag}).status_code == 200


@pytest.mark.parametrize(
    "path", ["search", "facets", "tags", "models", "runs", "ready", "images/demo:7", "nowhere", ""]
)
def test_strangers_are_told_to_sign_in(make: Callable[..., TestClient], path: str) -> None:
    for login in (None, "Basic !!!", "Basic " + base64.b64encode(b"tinytags:wrong").decode()):
        answer = make(login).get(f"/api/v1/{path}")
        assert problem(answer, 401)["title"] == "Please sign in"
        assert answer.headers["www-authenticate"].startswith("Basic ")


def test_anybody_may_ask_whether_the_process_lives(make: Callable[..., TestClient]) -> None:
    assert make(None).get("/api/v1/health").json() == {"status": "ok"}
    assert make(None).get("/api/docs").status_code == make(None).get("/api/openapi.json").status_code == 401


def test_a_parameter_that_is_wrong_is_named(api: TestClient) -> None:
    found = problem(api.get("/api/v1/search?confidence=101&rows=x&colour=red"), 400)
    assert {one["name"] for one in found["errors"]} == {"confidence", "rows", "colour"}
    assert "rows: must be a whole number, 0 or more" in found["detail"]
    assert "given twice" in problem(api.get("/api/v1/search?block=1&block=2"), 400)["detail"]
    assert "first" in problem(api.get("/api/v1/search?confidence=80&max_confidence=70"), 400)["detail"]
    assert "id" in problem(api.get("/api/v1/images/demo"), 400)["detail"]


def test_an_address_or_a_method_that_there_is_not_is_a_problem(api: TestClient) -> None:
    problem(api.get("/api/v1/nowhere"), 404)
    assert problem(api.post("/api/v1/search"), 405)["type"] == "/api/docs#wrong-method"
    assert api.post("/api/v1/search").headers["allow"] == "GET"


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, {"error": {"msg": "java.lang.NullPointerException at org.apache.solr", "code": 500}}),
        (400, {"error": {"msg": "org.apache.solr.search.SyntaxError: Cannot parse", "code": 400}}),
        (503, {"error": {"msg": "no servers hosting shard", "code": 503}}),
        (200, {"nothing": "of org.apache.solr"}),
    ],
)
def test_what_an_engine_says_stays_in_the_log(
    api: TestClient, solr: SolrOfPages, status: int, body: dict[str, Any]
) -> None:
    solr.failure = status, body
    answer = api.get("/api/v1/search")
    found = problem(answer, answer.status_code)
    assert answer.status_code in (500, 503)
    for word in ("apache", "java", "Syntax", "shard", "127.0.0.1", "Error"):
        assert word not in json.dumps(found)


def test_while_solr_is_away_searches_say_when_to_try_again(make: Callable[..., TestClient]) -> None:
    away = make(solr_url="http://127.0.0.1:9/solr")
    for path in ("search", "facets", "tags", "ready"):
        answer = away.get(f"/api/v1/{path}")
        assert problem(answer, 503)["title"] == "Search is unavailable right now"
        assert answer.headers["retry-after"] == "10"
    assert away.get("/api/v1/health").status_code == 200


def test_a_failure_that_nobody_thought_of_is_a_problem_too(
    make: Callable[..., TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(readiness.Readiness, "check", fail)
    for base in ("", "/tags"):
        answer = make(search_base_path=base).get(f"{base}/api/v1/ready")
        assert answer.status_code == 500
        assert answer.json()["type"] == f"{base}/api/docs#failed"
        assert "secret" not in answer.text
        assert (answer.headers["cache-control"], answer.headers["x-frame-options"]) == ("no-store", "DENY")


def test_it_is_ready_when_solr_answers(api: TestClient, solr: SolrOfPages, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "KEPT_SECONDS", 0.0)
    assert api.get("/api/v1/ready").json() == {"status": "ready"}
    solr.failure = 404, {"error": {"msg": "not found", "code": 404}}
    answer = TestClient(create_app(api.app.state.context.settings), headers={"Authorization": LOGIN}).get(
        "/api/v1/ready"
    )
    assert "nothing is published yet" in problem(answer, 503)["detail"]


def test_it_is_not_ready_when_solr_hangs(api: TestClient, solr: SolrOfPages, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "LONGEST_SECONDS", -1.0)
    problem(api.get("/api/v1/ready"), 503)


def test_an_account_may_make_so_many_requests_a_minute(make: Callable[..., TestClient]) -> None:
    client = make(search_rate_limit=3)
    first = client.get("/api/v1/tags")
    assert first.headers["ratelimit-policy"] == '"account";q=3;w=60'
    assert first.headers["ratelimit"] == '"account";r=2;t=20'
    assert [client.get("/api/v1/tags").status_code for _ in range(3)] == [200, 200, 429]
    refused = client.get("/api/v1/search")
    assert "go on in" in problem(refused, 429)["detail"]
    assert 1 <= int(refused.headers["retry-after"]) <= 20
    assert client.get("/search").status_code == 200  # pages are no programs
    assert client.get("/api/v1/health").status_code == 200
    assert "ratelimit" not in make(search_rate_limit=0).get("/api/v1/tags").headers


def test_a_bucket_fills_evenly_and_belongs_to_one_account() -> None:
    buckets = Buckets(60)
    assert [buckets.take("ann", 0.0).is_refused for _ in range(61)] == [False] * 60 + [True]
    assert not buckets.take("bob", 0.0).is_refused
    assert not buckets.take("ann", 1.0).is_refused
    assert buckets.take("ann", 1.5).is_refused
    assert [buckets.take("ann", 1000.0).is_refused for _ in range(61)].count(False) == 60


def test_other_origins_may_not_use_it_unless_a_setting_names_them(make: Callable[..., TestClient]) -> None:
    ours = {"Origin": "https://pictures.example"}
    asks = {**ours, "Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization"}
    shut = make()
    assert "access-control-allow-origin" not in shut.get("/api/v1/tags", headers=ours).headers
    assert make(None).options("/api/v1/tags", headers=asks).status_code == 401

    opened = make(None, search_cors_origins="https://pictures.example, http://localhost:3000")
    before = opened.options("/api/v1/tags", headers=asks)
    assert before.status_code == 200
    assert before.headers["access-control-allow-origin"] == "https://pictures.example"
    assert "authorization" in before.headers["access-control-allow-headers"].lower()
    assert "access-control-allow-credentials" not in before.headers
    answer = opened.get("/api/v1/tags", headers={**ours, "Authorization": LOGIN})
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, "https://pictures.example")
    assert (
        "access-control-allow-origin" not in opened.get("/api/v1/tags", headers={"Origin": "https://x.example"}).headers
    )
    assert opened.options("/search", headers=asks).status_code == 401
    assert "access-control-allow-origin" not in opened.get("/search", headers={**ours, "Authorization": LOGIN}).headers


@pytest.mark.parametrize("origins", ["*", "null", "pictures.example", "https://pictures.example/", "ftp://x.example"])
def test_an_origin_that_is_none_is_refused(make: Callable[..., TestClient], origins: str) -> None:
    with pytest.raises(BadInputError, match="TINYTAGS_SEARCH_CORS_ORIGINS"):
        make(search_cors_origins=origins)


def test_the_api_describes_itself_for_programs_and_people(make: Callable[..., TestClient]) -> None:
    client = make(search_base_path="/tags")
    described = client.get("/tags/api/openapi.json").json()
    assert described["servers"] == [{"url": "/tags"}]
    assert set(described["paths"]) >= {
        f"/api/v1/{path}"
        for path in (
            "similar",
            "search",
            "facets",
            "images/{id}",
            "images/{id}.png",
            "tags",
            "models",
            "runs",
            "health",
            "ready",
        )
    }
    assert "422" not in json.dumps(described)
    page = client.get("/tags/api/docs")
    assert page.status_code == 200
    assert "<script" not in page.text and "http://" not in page.text and "https://" not in page.text
    for path in described["paths"]:
        assert f"<code>/tags{path}</code>" in page.text
    assert 'action="/tags/api/v1/search"' in page.text
    assert 'id="not-valid"' in page.text


def test_similar_images_are_of_what_is_live(api: TestClient) -> None:
    assert "to" in problem(api.get("/api/v1/similar"), 400)["detail"]
    assert "no picture" in problem(api.get("/api/v1/similar?to=demo"), 400)["detail"]
    assert "leave out run" in problem(api.get("/api/v1/similar?to=demo:7&run=r"), 400)["detail"]
    assert "not published" in problem(api.get("/api/v1/similar?to=gone:7"), 404)["detail"]


def test_an_upload_is_a_picture_that_no_form_of_another_site_can_send(api: TestClient) -> None:
    def send(content: bytes, mime: str) -> Any:
        return api.post("/api/v1/similar", content=content, headers={"Content-Type": mime})

    for mime in ("", "text/plain", "multipart/form-data", "application/x-www-form-urlencoded"):
        assert "Content-Type: image/jpeg" in problem(send(b"x", mime), 400)["detail"]
    assert "smaller picture" in problem(send(bytes(MOST_PICTURE_BYTES + 1), "image/png"), 400)["detail"]
    assert "no vectors" in problem(send(b"x", "image/png; charset=x"), 404)["detail"]


def test_only_a_few_uploads_are_in_memory_at_once(api: TestClient) -> None:
    embedder = api.app.state.context.embedder  # type: ignore[attr-defined]
    with ExitStack() as others:
        for _ in range(MOST_AT_ONCE):
            others.enter_context(embedder.place())
        too_large = bytes(MOST_PICTURE_BYTES + 1)  # would be refused as such if it were read
        busy = api.post("/api/v1/similar", content=too_large, headers={"Content-Type": "image/png"})
        assert "too many pictures" in problem(busy, 503)["detail"]
        form = api.post("/similar", files={"picture": too_large})
        assert (form.status_code, "too many pictures" in form.text) == (503, True)
    for _ in range(MOST_AT_ONCE + 1):  # each place is given back, whatever becomes of a picture
        free = api.post("/api/v1/similar", content=b"x", headers={"Content-Type": "image/png"})
        assert "no vectors" in problem(free, 404)["detail"]


def test_an_upload_that_never_ends_gives_its_place_back(api: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forms, "BODY_SECONDS", 0.1)
    sent: list[Any] = []

    async def trickle() -> Any:
        await anyio.sleep(0.02)
        return {"type": "http.request", "body": b"x", "more_body": True}

    async def send(message: Any) -> None:
        sent.append(message)

    asked = {
        "type": "http",
        "method": "POST",
        "path": "/api/v1/similar",
        "query_string": b"",
        "headers": [(b"authorization", LOGIN.encode()), (b"content-type", b"image/png"), (b"host", b"testserver")],
        "client": ("testclient", 1),
        "scheme": "http",
        "server": ("testserver", 80),
    }
    anyio.run(api.app, asked, trickle, send)
    assert sent[0]["status"] == 408
    embedder = api.app.state.context.embedder  # type: ignore[attr-defined]
    with ExitStack() as places:
        for _ in range(MOST_AT_ONCE):
            places.enter_context(embedder.place())


def test_a_picture_of_a_chosen_run_is_looked_for_there(api: TestClient) -> None:
    for path in ("/api/v1/images/demo:7", "/api/v1/images/demo:7.png"):
        assert "no run gone-0123456789ab" in problem(api.get(f"{path}?run=gone-0123456789ab"), 404)["detail"]
    image = read_document(DOCUMENT, False)
    assert Image.of(image, {}, "/tags", "a run").picture == "/tags/api/v1/images/demo:7.png?run=a+run"
    assert Image.of(image, {}, "/tags").picture == "/tags/api/v1/images/demo:7.png"


def test_models_and_runs_are_listed_a_page_at_a_time(
    make: Callable[..., TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tinytags_tasks.search import api_v1
    from tinytags_tasks.store.run_records import Run

    made = [
        Run(
            name=f"run{number}",
            corpus="demo",
            corpus_digest="d",
            model="m-1",
            threshold=40,
            images=9,
            blocks=1,
            collection=f"c{number}",
            created=f"2026-01-0{number}",
        )
        for number in range(1, 6)
    ]
    monkeypatch.setattr(api_v1, "list_runs", lambda *_, **__: made)
    client = make()
    names, cursor = [], ""
    while True:
        page = client.get(f"/api/v1/runs?rows=2&cursor={cursor}").json()
        names += [run["name"] for run in page["runs"]]
        if not (cursor := page["next_cursor"]):
            break
    assert names == ["run5", "run4", "run3", "run2", "run1"]
    assert "begin again" in problem(client.get("/api/v1/runs?cursor=gone"), 400)["detail"]
    assert client.get("/api/v1/models").json() == {"models": [], "next_cursor": None}
