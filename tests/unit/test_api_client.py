"""The API's Python client, against the real API: types, cursors, limits and errors."""

import io
from collections.abc import Callable
from typing import Any

import httpx
import PIL.Image
import pytest
import test_api_v1
from fastapi.testclient import TestClient

from tinytags_tasks.errors import BadInputError, CorruptError, EngineDownError, MissingError
from tinytags_tasks.search import client as client_module
from tinytags_tasks.search.client import Client, picture_type

solr = test_api_v1.solr
make = test_api_v1.make


def connect(http: httpx.Client, password: str = "pass", pauses: list[float] | None = None) -> Client:
    slept = [] if pauses is None else pauses
    return Client("http://testserver", "tinytags", password, http=http, sleep=slept.append)


def test_answers_have_the_types_of_the_api(make: Callable[..., TestClient]) -> None:
    with connect(make()) as tinytags:
        (image,) = tinytags.search(tag=["cat"], confidence=40)
        assert (image.id, image.tag, image.confidence) == ("demo:7", "cat", 70)
        assert tinytags.search_page(rows=10).total == 1
        assert [(one.tag, one.images) for one in tinytags.facets(tag=["cat"]).tags] == [("cat", 1)]
        assert tinytags.tags().total == 1
        assert list(tinytags.models()) == list(tinytags.runs()) == []


def test_what_is_wrong_or_missing_is_said_in_the_servers_words(make: Callable[..., TestClient]) -> None:
    tinytags = connect(make())
    with pytest.raises(BadInputError, match="confidence: Input should be less than or equal to 100"):
        tinytags.search_page(confidence=101)
    with pytest.raises(BadInputError, match="colour: Extra inputs are not permitted"):
        tinytags.facets(colour="red")
    with pytest.raises(BadInputError, match="is no picture's id"):
        tinytags.image("demo")
    with pytest.raises(MissingError, match="no run gone"):
        tinytags.image("demo:7", run="gone")
    with pytest.raises(MissingError):
        tinytags.similar("demo:7")
    with pytest.raises(BadInputError):
        connect(make(login=None), password="wrong").tags()


def test_a_limit_that_takes_too_long_is_an_error(
    make: Callable[..., TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    tinytags = connect(make(search_rate_limit=1), pauses=pauses)
    tinytags.tags()
    monkeypatch.setattr(client_module, "PATIENCE_SECONDS", 10.0)  # the next one is free after a minute
    with pytest.raises(EngineDownError, match="may make 1 requests a minute"):
        tinytags.tags()
    assert pauses == []


def png() -> bytes:
    sink = io.BytesIO()
    PIL.Image.new("RGB", (8, 8)).save(sink, "PNG")
    return sink.getvalue()


def test_every_address_of_the_description_has_a_method(make: Callable[..., TestClient]) -> None:
    described = {
        (method.upper(), path.format(id="demo:7"))
        for path, methods in make().get("/api/openapi.json").json()["paths"].items()
        for method in methods
    }
    asked = set()

    def note(request: httpx.Request) -> httpx.Response:
        asked.add((request.method, request.url.path))
        return httpx.Response(404)

    tinytags = connect(httpx.Client(transport=httpx.MockTransport(note)))
    calls: list[Callable[[], Any]] = [
        *(tinytags.health, tinytags.ready, tinytags.tags, tinytags.search_page, tinytags.facets),
        *(lambda: list(tinytags.search()), lambda: list(tinytags.models()), lambda: list(tinytags.runs())),
        *(lambda: tinytags.image("demo:7"), lambda: tinytags.picture("demo:7")),
        *(lambda: tinytags.similar("demo:7"), lambda: tinytags.similar_to_picture(png())),
    ]
    for call in calls:
        with pytest.raises(MissingError):
            call()
    assert asked == described
    public = {name for name in vars(Client) if not name.startswith("_")}
    assert len(calls) == len(public)


def test_a_picture_is_sent_as_what_it_is_and_with_what_narrows_the_search() -> None:
    sent: list[httpx.Request] = []

    def note(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        return httpx.Response(
            200, json={"total": 0, "images": [], "next_cursor": None, "previous_cursor": None, "moved": False}
        )

    tinytags = connect(httpx.Client(transport=httpx.MockTransport(note)))
    assert tinytags.similar_to_picture(png(), tag=["cat"], rows=7) == []
    (request,) = sent
    assert (request.method, request.url.path) == ("POST", "/api/v1/similar")
    assert request.url.params.multi_items() == [("tag", "cat"), ("rows", "7")]
    assert (request.headers["content-type"], request.content) == ("image/png", png())
    with pytest.raises(BadInputError, match="this is no JPEG, PNG or WebP file"):
        tinytags.similar_to_picture(b"GIF89a")
    with pytest.raises(BadInputError, match="colour: Extra inputs are not permitted"):
        tinytags.similar_to_picture(png(), colour="red")
    assert len(sent) == 1


@pytest.mark.parametrize(
    ("head", "kind"),
    [(b"\xff\xd8\xff\xe0", "image/jpeg"), (b"RIFF\0\0\0\0WEBPVP8 ", "image/webp"), (png(), "image/png")],
)
def test_the_type_of_a_picture_is_read_from_its_bytes(head: bytes, kind: str) -> None:
    assert picture_type(head) == kind


def test_a_picture_that_nothing_can_be_compared_with_is_refused_in_the_servers_words(
    make: Callable[..., TestClient],
) -> None:
    tinytags = connect(make())
    assert (tinytags.health().status, tinytags.ready().status) == ("ok", "ready")
    with pytest.raises(BadInputError, match="leave out run"):
        tinytags.similar_to_picture(png(), run="some")
    with pytest.raises(MissingError):
        tinytags.similar_to_picture(png())


def answering(*answers: httpx.Response) -> httpx.Client:
    left = list(answers)
    return httpx.Client(transport=httpx.MockTransport(lambda _: left.pop(0)))


def test_it_waits_as_long_as_it_is_told_and_reads_on_from_page_to_page() -> None:
    pauses: list[float] = []
    image: dict[str, Any] = {
        "id": "demo:1",
        "corpus": "demo",
        "position": 1,
        "block": 0,
        "tag": "cat",
        "confidence": 90,
        "votes": 9,
        "keyword": None,
        "model": "m",
        "corrected": None,
        "precision": None,
        "picture": "/p",
    }
    page = {"total": 2, "images": [image], "previous_cursor": None, "moved": False}
    http = answering(
        httpx.Response(429, headers={"Retry-After": "7"}),
        httpx.Response(200, json={**page, "next_cursor": "on"}),
        httpx.Response(503),
        httpx.Response(200, json={**page, "next_cursor": None}),
    )
    assert [one.id for one in connect(http, pauses=pauses).search()] == ["demo:1", "demo:1"]
    assert pauses == [7.0, 5.0]


def test_something_else_at_the_address_is_said_so() -> None:
    with pytest.raises(CorruptError, match="this is no TinyTags"):
        connect(answering(httpx.Response(200, json={"a": 1}))).tags()
    with pytest.raises(BadInputError, match="answered 302"):
        connect(answering(httpx.Response(302, headers={"Location": "https://elsewhere.example"}))).tags()
