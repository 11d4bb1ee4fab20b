"""Every answer of the search page has the same headers, the server's own refusals included; and no page is huge."""

import socket
import threading
from collections.abc import Iterator
from dataclasses import replace

import made_searches
import pytest
import uvicorn
from fastapi.testclient import TestClient
from made_searches import PAGE, Answer, basic

from tinytags_tasks.search.guard import HEADERS
from tinytags_tasks.search.page import create_app
from tinytags_tasks.search.request import MOST_ASKED_TAGS
from tinytags_tasks.search.server import SafeProtocol
from tinytags_tasks.settings import Settings

answer = made_searches.answer
reader = made_searches.reader
settings = made_searches.settings
store = made_searches.store


@pytest.fixture
def port(settings: Settings) -> Iterator[int]:
    """The search page, served as its engine serves it."""
    listening = socket.create_server(("127.0.0.1", 0))
    page = create_app(settings.model_copy(update={"search_cors_origins": "https://elsewhere.example"}))
    config = uvicorn.Config(page, http=SafeProtocol, ws="none", log_level="critical", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    yield listening.getsockname()[1]
    server.should_exit = True
    thread.join()


def asked(port: int, request: str) -> tuple[str, dict[str, str]]:
    """Return the status line and the headers of an answer, with names in lower case."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(request.encode())
        head = b""
        while b"\r\n\r\n" not in head and (part := connection.recv(65_536)):
            head += part
    status, *lines = head.decode("latin-1").partition("\r\n\r\n")[0].split("\r\n")
    return status, {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}


def test_every_answer_has_the_headers_of_a_page(port: int) -> None:
    login = f"Host: x\r\nAuthorization: {basic('tinytags:pässword')}\r\nConnection: close\r\n\r\n"
    upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x\r\n"
    preflight = "Origin: https://elsewhere.example\r\nAccess-Control-Request-Method: GET\r\n"
    for request, expected in (
        (f"GET /search?tag={'a' * 70_000} HTTP/1.1\r\n{login}", "400"),
        ("no request\r\n\r\n", "400"),
        (f"GET /nowhere HTTP/1.1\r\n{login}", "404"),
        (f"DELETE /search HTTP/1.1\r\n{login}", "405"),
        (f"HEAD /healthz HTTP/1.1\r\n{login}", "405"),
        (f"GET /?tag=cat HTTP/1.1\r\n{login}", "30"),
        ("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "401"),
        (f"GET /nowhere HTTP/1.1\r\n{upgrade}{login}", "404"),
        (f"OPTIONS /api/v1/search HTTP/1.1\r\n{preflight}{login}", "200"),
    ):
        status, headers = asked(port, request)
        assert status.startswith(f"HTTP/1.1 {expected}"), (request[:60], status)
        lacking = [name for name, value in HEADERS.items() if headers.get(name.lower()) != value]
        assert not lacking, (request[:60], lacking)


@pytest.mark.parametrize("address", ["/", "/search"])
@pytest.mark.parametrize("repeated", ["tag=", "tag=cat", "tag={}", "tag=" + "a" * 60 + "{}", "word={}", "q={}"])
def test_a_parameter_that_is_repeated_900_times_makes_no_large_page(
    reader: TestClient, answer: Answer, address: str, repeated: str
) -> None:
    answer(replace(PAGE, tag_counts={"cat": 4, **{f"tag {number}": number for number in range(100)}}))
    query = "&".join(repeated.format(number) for number in range(900))
    answered = reader.get(f"{address}?{query}")
    assert answered.status_code in (200, 400)
    assert len(answered.content) < 1_000_000


def test_as_many_tags_as_may_be_asked_for_make_no_large_page(reader: TestClient, answer: Answer) -> None:
    answer(replace(PAGE, tag_counts={f"{number:0100}": 1 for number in range(1_000)}))
    query = "&".join(f"tag={number:0100}" for number in range(MOST_ASKED_TAGS))
    answered = reader.get(f"/search?{query}")
    assert answered.status_code == 200
    assert len(answered.content) < 2_000_000
