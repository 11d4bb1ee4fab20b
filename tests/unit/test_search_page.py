"""The search page's routes, with and without the password, over searches that a test prepares."""

import base64
import io
import re
from dataclasses import replace
from pathlib import Path

import made_searches
import numpy as np
import pytest
from fastapi.testclient import TestClient
from made_searches import IMAGE, PAGE, VALUES, Answer, basic, use_store, with_values
from PIL import Image
from small_run import make_run, pictures

from tinytags_tasks.errors import BadInputError, CorruptError, EngineDownError, MissingError, TinyTagsError
from tinytags_tasks.search.page import create_app
from tinytags_tasks.search.request import SearchRequest
from tinytags_tasks.search.searches import Searches
from tinytags_tasks.settings import Settings
from tinytags_tasks.store import layout
from tinytags_tasks.store.local import LocalStorage

answer = made_searches.answer
reader = made_searches.reader
settings = made_searches.settings
store = made_searches.store
stranger = made_searches.stranger


@pytest.mark.parametrize("path", ["/", "/api/search", "/style.css", "/docs", "/openapi.json", "/nowhere", "/healthz/"])
@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Basic",
        "Basic !!!",
        "Bearer " + basic("tinytags:pässword").removeprefix("Basic "),
        basic("tinytags:"),
        basic("tinytags:wrong"),
        basic("other:pässword"),
        basic("tinytags:pässword "),
    ],
)
def test_every_route_asks_who_is_there(
    stranger: TestClient, answer: Answer, path: str, authorization: str | None
) -> None:
    asked = answer(PAGE)
    headers = {} if authorization is None else {"Authorization": authorization}
    response = stranger.get(path, headers=headers, follow_redirects=False)
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"].startswith("Basic ")
    assert "cat" not in response.text
    assert not asked


@pytest.mark.parametrize("host", ["here/healthz?", "here/healthz#", "here:80/healthz?x="])
def test_a_host_header_cannot_pass_for_the_health_route(stranger: TestClient, answer: Answer, host: str) -> None:
    answer(PAGE)
    assert stranger.get("/api/search", headers={"Host": host}).status_code == 401


def test_health_is_for_everyone_and_says_only_ok(stranger: TestClient) -> None:
    response = stranger.get("/healthz")
    assert (response.status_code, response.text) == (200, "ok")


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/openapi.json"])
def test_no_description_of_the_routes_is_served(reader: TestClient, path: str) -> None:
    assert reader.get(path).status_code == 404


def test_without_a_password_there_is_no_page(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="TINYTAGS_SEARCH_PASSWORD"):
        create_app(Settings(home=tmp_path, search_password=None))


def test_an_empty_password_opens_nothing(settings: Settings) -> None:
    (settings.secrets_folder / "search_password").write_text("\n")
    with pytest.raises(BadInputError, match="empty"):
        create_app(settings)


def test_the_report_of_a_model_is_served_without_scripts(
    reader: TestClient, stranger: TestClient, store: LocalStorage
) -> None:
    store.write(layout.report_file("forest-12ab"), "<p>Säbel</p>".encode())
    links = ["/models/forest-12ab/report", "/models/forest-34cd/report"]
    shown = reader.get(links[0])
    assert (shown.status_code, shown.text) == (200, "<p>Säbel</p>")
    policy = shown.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:")
    assert "sandbox" in policy
    assert stranger.get(links[0]).status_code == 401
    without = reader.get(links[1])
    assert without.status_code == 404
    assert "model forest-34cd has no report" in without.text
    assert reader.get("/models/..%2f..%2fsecrets/report").status_code in (400, 404)
    assert reader.get("/models/A!/report").status_code == 400


def test_the_pages_policy_allows_only_our_own_scripts_and_no_frames(reader: TestClient, answer: Answer) -> None:
    answer(PAGE)
    response = reader.get("/")
    policy = response.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "script-src 'self';" in policy
    assert response.headers["X-Frame-Options"] == "DENY"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Referrer-Policy"] == "same-origin"
    assert response.headers["Cache-Control"] == "no-store"
    assert re.findall(r"<script[^>]*>(?!</script>)|<script(?! src=\"/scripts/)", response.text) == []
    assert "style=" not in response.text


def sources(text: str) -> list[Image.Image]:
    """Return the pictures of a page."""
    found = re.findall(r'src="data:image/png;base64,([^"]+)"', text)
    return [Image.open(io.BytesIO(base64.b64decode(encoded))) for encoded in found]


def test_the_api_gives_large_images_whole(reader: TestClient, answer: Answer) -> None:
    answer(replace(PAGE, images=(replace(IMAGE, image=np.zeros((400, 500, 3), dtype=np.uint8)),)))
    found = reader.get("/api/search?pixels=1").json()["images"][0]
    assert [picture.size for picture in sources(f'src="{found["png"]}"')] == [(500, 400)]
    assert found["keyword"] == "Säbelzahntiger"


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (EngineDownError("Solr does not answer at http://there"), 503, "an engine behind the search page does not"),
        (MissingError("nothing is published yet: run `tinytags run`"), 404, "nothing is published yet"),
        (BadInputError("no such cursor"), 400, "no such cursor"),
        (CorruptError("foreign documents"), 500, "its log says why"),
    ],
)
def test_an_error_is_a_page_or_json_of_its_status(
    reader: TestClient, answer: Answer, error: TinyTagsError, status: int, told: str
) -> None:
    answer(error)
    page, api = reader.get("/"), reader.get("/api/search")
    assert page.status_code == api.status_code == status
    assert told in page.text and told in api.json()["error"]
    assert "Traceback" not in page.text
    if status >= 500:  # what an engine says, and where it is, is in the log
        assert str(error) not in page.text + api.text and "there" not in api.text
    assert page.headers["X-Frame-Options"] == "DENY"


def test_a_fault_of_ours_shows_no_traceback(
    settings: Settings, reader: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a secret detail")

    monkeypatch.setattr(Searches, "page", fail)
    client = TestClient(create_app(settings), raise_server_exceptions=False, headers=dict(reader.headers))
    response = client.get("/")
    assert response.status_code == 500
    assert "secret" not in response.text


def test_the_api_says_which_image_is_out_of_reach_and_why(
    reader: TestClient, store: LocalStorage, answer: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> bytes:
        raise EngineDownError("HDFS does not answer: run `tinytags up`")

    monkeypatch.setattr(store, "read", away)
    answer(replace(PAGE, images=(replace(IMAGE, image=None, is_in_store=True), IMAGE)))
    assert reader.get("/search").status_code == 200
    out_of_reach, shown = reader.get("/api/search?pixels=1").json()["images"]
    assert out_of_reach["png"] is None
    assert "tinytags up" in out_of_reach["missing"]
    assert "missing" not in shown


def test_an_image_of_the_store_is_given_like_any_other(
    settings: Settings, answer: Answer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    storage = LocalStorage(tmp_path / "store")
    run = make_run(storage)
    use_store(storage, monkeypatch)
    in_store = with_values(id="pets:6", corpus=run.corpus, block=3, position=6)
    answer(replace(PAGE, images=(replace(in_store, image=None, is_in_store=True),)))
    client = TestClient(create_app(settings), headers={"Authorization": basic("tinytags:pässword")})
    found = client.get("/api/search?pixels=1").json()["images"][0]
    (shown,) = sources(f'src="{found["png"]}"')
    np.testing.assert_array_equal(np.asarray(shown.convert("RGB")), pictures()[6])


def test_the_api_gives_pixels_only_when_asked(reader: TestClient, answer: Answer) -> None:
    asked = answer(replace(PAGE, next_cursor="A"))
    without = reader.get("/api/search?tag=cat&cursor=*").json()
    assert asked[0] == SearchRequest(tags=("cat",), rows=60)
    assert without["total"] == 250
    assert without["next_cursor"] == "A"
    assert without["images"][0]["id"] == "demo:1234"
    assert without["confidences"] == {"40": 50, "70": 200}
    assert without["images"][0] == VALUES | {"accuracy": 70, "precision": None}
    assert "png" not in without["images"][0]
    assert reader.get("/api/search?pixels=1").json()["images"][0]["png"].startswith("data:image/png;base64,")
