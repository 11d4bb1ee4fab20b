"""The search page below a path, behind proxies that keep the path, strip it, or name it in a header."""

import html
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urljoin, urlsplit

import pytest
from argon2 import PasswordHasher
from fastapi.testclient import TestClient
from review_world import CORPUS, RUN, make_reviewed_run
from small_run import SolrHere
from starlette.types import ASGIApp, Receive, Scope, Send

from tinytags_tasks.errors import BadInputError
from tinytags_tasks.search import account_file
from tinytags_tasks.search import page as page_module
from tinytags_tasks.search.accounts import Role
from tinytags_tasks.search.page import create_app
from tinytags_tasks.search.query import SearchPage
from tinytags_tasks.search.searches import Searches
from tinytags_tasks.settings import Settings

BASE = "/tags"
OUTSIDE = "https://pictures.example"
LOGIN = ("ann", "correct horse")


class Proxy:
    """Serves an application below a path, and nothing else; the application sees an address of the inside."""

    def __init__(self, app: ASGIApp, strips: bool, headers: dict[str, str]) -> None:
        self.app, self.strips, self.headers = app, strips, headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            assert scope["path"].startswith(f"{BASE}/"), f"{scope['path']} leads out of the base path"
            kept = [(name, value) for name, value in scope["headers"] if name != b"host"]
            added = {"host": "10.0.0.7:8765", **self.headers}
            headers = kept + [(name.encode(), value.encode()) for name, value in added.items()]
            path = scope["path"].removeprefix(BASE) if self.strips else scope["path"]
            scope = {**scope, "path": path, "headers": headers, "scheme": "http", "client": ("10.0.0.1", 4000)}
        await self.app(scope, receive, send)


SAYS_ALL = {"x-forwarded-prefix": BASE, "x-forwarded-proto": "https", "x-forwarded-host": "pictures.example"}
SAYS_HOST = {"x-forwarded-proto": "https", "x-forwarded-host": "pictures.example"}


@pytest.fixture(
    params=[
        ({"search_base_path": BASE, "search_trusted_proxies": "10.0.0.0/8"}, False, SAYS_HOST),
        ({"search_base_path": f"{BASE}/", "search_trusted_proxies": "10.0.0.1"}, True, SAYS_HOST),
        ({"search_trusted_proxies": "192.0.2.1, 10.0.0.0/8"}, True, SAYS_ALL),
    ],
    ids=["kept", "stripped", "named"],
)
def behind(request: pytest.FixtureRequest, make: Callable[..., Any]) -> TestClient:
    settings, strips, headers = request.param
    return TestClient(Proxy(make(**settings), strips, headers), OUTSIDE)


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Return what makes the application with settings; Ann is a reviewer."""
    storage = make_reviewed_run(tmp_path, monkeypatch)
    monkeypatch.setattr(page_module, "Runtime", lambda settings, **_: SimpleNamespace(storage=storage, solr=SolrHere()))
    monkeypatch.setattr(account_file, "HASHER", PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
    found = SearchPage(250, (), {"cat": 250}, {40: 250}, ("model",), (CORPUS,), None, 0.0)
    monkeypatch.setattr(Searches, "page", lambda *_: found)
    account_file.AccountFile(Settings(home=tmp_path, search_password="pass")).add(LOGIN[0], Role.REVIEWER, LOGIN[1])
    return lambda **settings: create_app(Settings(home=tmp_path, search_password="pass", **settings))


def addresses(page: Any) -> set[str]:
    """Return what a page links to, loads and sends forms to, as a browser reads it."""
    found = re.findall(r'\b(?:href|src|action|formaction)="([^"]*)"', page.text)
    return {urljoin(str(page.url), html.unescape(one)) for one in found if not one.startswith("data:")}


def test_all_that_pages_lead_to_is_below_the_base_path(behind: TestClient) -> None:
    behind.auth = LOGIN
    seen: set[str] = set()
    to_visit = [f"{OUTSIDE}{BASE}/"]
    while to_visit:
        address = to_visit.pop()
        if (path := urlsplit(address)._replace(query="", fragment="").geturl()) in seen:
            continue
        seen.add(path)
        page = behind.get(address)  # the proxy fails the test if a redirect leads out
        assert page.status_code not in (401, 500), address
        if page.headers["content-type"].startswith("text/html"):
            to_visit += addresses(page)
    for path in ("/", "/style.css", "/review", f"/review/{RUN}", f"/review/{RUN}/one", f"/review/{RUN}/wall"):
        assert f"{OUTSIDE}{BASE}{path}" in seen
    assert any(path.startswith(f"{OUTSIDE}{BASE}/pictures/{CORPUS}/") for path in seen)


def test_a_browser_without_fetch_metadata_may_send_forms(behind: TestClient) -> None:
    behind.auth = LOGIN
    page = behind.get(f"{BASE}/review/{RUN}/one")
    fields = dict(re.findall(r'<input type="hidden" name="([^"]*)" value="([^"]*)">', page.text))
    sent = {**fields, "answer": "unclear"}
    for origin, status in ((OUTSIDE, 303), ("https://elsewhere.example", 403)):
        answer = behind.post(f"{BASE}/review/{RUN}/look", data=sent, headers={"Origin": origin}, follow_redirects=False)
        assert answer.status_code == status
        assert status == 403 or answer.headers["location"].startswith(f"{BASE}/review/{RUN}/one?")


def test_only_healthz_is_for_strangers_below_the_base_path_too(behind: TestClient) -> None:
    assert behind.get(f"{BASE}/healthz").status_code == 200
    for path in ("/", "/search", "/style.css", "/healthz/", f"{BASE}/healthz/x"):
        assert behind.get(f"{BASE}{path}").status_code == 401


def test_the_scripts_know_the_base_path(behind: TestClient) -> None:
    behind.auth = LOGIN
    assert f'data-base="{BASE}"' in behind.get(f"{BASE}/").text
    assert f'data-base="{BASE}"' in behind.get(f"{BASE}/nowhere").text


def test_a_stranger_says_nothing_with_headers(make: Callable[..., Any]) -> None:
    client = TestClient(make(search_trusted_proxies="10.0.0.0/8"), "http://inside:8765", client=("192.0.2.9", 1))
    client.auth = LOGIN
    page = client.get("/nowhere", headers=SAYS_ALL)
    assert 'data-base=""' in page.text
    away = client.get("/corrections/", headers=SAYS_ALL, follow_redirects=False)
    assert away.headers["location"] == "http://inside:8765/corrections"


def test_a_prefix_that_is_no_path_is_left_out(make: Callable[..., Any]) -> None:
    client = TestClient(make(search_trusted_proxies="10.0.0.1"), client=("10.0.0.1", 1))
    client.auth = LOGIN
    no_paths = ("//evil.example", "/a/../b", "https://evil.example", '/"><script>', "/a b", "tags")
    for prefix in (*no_paths, "/search", "/api/v1"):  # the last two are addresses of the page itself
        page = client.get("/nowhere", headers={"X-Forwarded-Prefix": prefix, "X-Forwarded-Host": 'a"b'})
        assert 'data-base=""' in page.text


def test_wrong_passwords_count_for_the_address_behind_the_proxy(make: Callable[..., Any]) -> None:
    client = TestClient(make(search_trusted_proxies="10.0.0.0/8"), client=("10.0.0.1", 1))

    def ask(password: str, forwarded: str) -> int:
        return client.get("/", auth=("ann", password), headers={"X-Forwarded-For": forwarded}).status_code

    for _ in range(10):
        assert ask("wrong", "198.51.100.1, 192.0.2.1, 10.0.0.2") == 401
    # What stands further left was written by whoever asked, so another name there is no other address.
    assert ask("wrong", "198.51.100.99, 192.0.2.1") == 429
    assert ask(LOGIN[1], "192.0.2.77") == 200


@pytest.mark.parametrize(
    "forms",
    [
        ["192.0.2.1", "192.0.2.1:4711", "::ffff:192.0.2.1", "[::ffff:192.0.2.1]:80"],
        ["2001:db8::1", "[2001:db8::1]", "[2001:DB8:0::1]:443"],
        ["unknown", "<script>", "a" * 500, "1.2.3"],  # none is an address: all of them count for the proxy
    ],
)
def test_an_address_is_the_same_however_a_proxy_writes_it(make: Callable[..., Any], forms: list[str]) -> None:
    client = TestClient(make(search_trusted_proxies="10.0.0.0/8"), client=("::ffff:10.0.0.1", 1))

    def ask(number: int) -> int:
        lines = [("X-Forwarded-For", f"198.51.100.{number}"), ("X-Forwarded-For", forms[number % len(forms)])]
        return client.get("/", auth=("ann", "wrong"), headers=lines).status_code

    assert [ask(number) for number in range(11)] == [401] * 10 + [429]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("search_base_path", "/search"),
        ("search_base_path", "/api/tags"),
        ("search_base_path", "tags"),
        ("search_base_path", "//tags"),
        ("search_base_path", "/ta gs"),
        ("search_base_path", "/tags/../x"),
        ("search_base_path", "https://pictures.example/tags"),
        ("search_trusted_proxies", "proxy"),
        ("search_trusted_proxies", "10.0.0.1/8"),
        ("search_trusted_proxies", "*"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(tmp_path: Path, name: str, value: str) -> None:
    with pytest.raises(BadInputError, match=f"TINYTAGS_{name.upper()}"):
        create_app(Settings(home=tmp_path, search_password="pass", **{name: value}))
