"""The search page with an OpenID provider, and somebody who signs in, for tests."""

import base64
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from argon2 import PasswordHasher
from fastapi import FastAPI, Request
from fastapi.testclient import TestClient
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from made_searches import use_store
from openid_provider import CLIENT, SECRET, FakeProvider, serving
from starlette.responses import HTMLResponse

from tinytags_tasks.search import account_file, scripts
from tinytags_tasks.search import sign_in as password_sign_in
from tinytags_tasks.search.error_pages import add_error_pages
from tinytags_tasks.search.forms import form_token
from tinytags_tasks.search.guard import add_guard
from tinytags_tasks.search.openid.door import make_door
from tinytags_tasks.search.openid.pages import add_routes
from tinytags_tasks.search.page import TEMPLATES, create_app
from tinytags_tasks.search.proxies import add_proxies, url
from tinytags_tasks.search.sign_in import SignIn
from tinytags_tasks.settings import Settings
from tinytags_tasks.store.local import LocalStorage

HTML = {"Accept": "text/html,*/*", "Sec-Fetch-Mode": "navigate"}


BASIC = {"Authorization": "Basic " + base64.b64encode("tinytags:pässword".encode()).decode()}


KEY = "a key that lasts"


@pytest.fixture(scope="module")
def served() -> Iterator[FakeProvider]:
    with serving(FakeProvider()) as provider:
        yield provider


@pytest.fixture
def provider(served: FakeProvider) -> FakeProvider:
    served.reset()
    return served


@pytest.fixture
def settings(provider: FakeProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for module in (account_file, password_sign_in):
        monkeypatch.setattr(module, "HASHER", PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
    (tmp_path / "secrets").mkdir(mode=0o700)
    for name, content in (("oidc_client_secret", SECRET), ("search_form_key", KEY)):
        path = tmp_path / "secrets" / name
        path.write_text(content)
        path.chmod(0o600)
    return Settings(
        home=tmp_path,
        search_password="pässword",
        oidc_issuer=provider.issuer,
        oidc_client_id=CLIENT,
        oidc_readers="staff",
        oidc_reviewers="taggers, checkers",
        oidc_operators="admins",
    )


Page = Callable[..., TestClient]


@pytest.fixture
def page(settings: Settings) -> Page:
    """Makes applications with the search page's guard and ways in, and with one page behind them."""

    def make(base_url: str = "http://testserver", **changes: object) -> TestClient:
        changed = settings.model_copy(update=changes)
        app = FastAPI()
        app.state.form_key = KEY.encode()
        door = make_door(changed, KEY.encode())
        add_guard(app, SignIn(changed), door)
        templates = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined)
        add_error_pages(app, templates)
        scripts.add_routes(app, SimpleNamespace(templates=templates))

        @app.get("/about")
        def about(request: Request) -> HTMLResponse:
            found = templates.get_template("base.html")
            account, token = request.state.account, form_token(request)
            return HTMLResponse(found.render(account=account, token=token, url=partial(url, request)))

        if door:
            add_routes(app, door, templates)
        add_proxies(app, changed)
        return TestClient(app, base_url=base_url, headers=HTML, follow_redirects=False)

    return make


@pytest.fixture
def whole_page(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Page:
    """Makes the search page itself."""
    use_store(LocalStorage(tmp_path / "store"), monkeypatch)
    return lambda: TestClient(create_app(settings), headers=HTML, follow_redirects=False)


def come_back(client: TestClient, to: str = "/about") -> str:
    """Go to the provider, and return the address that it sends the browser back to."""
    start = client.get("/sign-in/start", params={"to": to})
    assert start.status_code == 303, start.text
    return httpx.get(start.headers["location"]).headers["location"]


def sign_in(client: TestClient, to: str = "/about") -> httpx.Response:
    return client.get(come_back(client, to))


def refused(answer: httpx.Response, status: int, *words: str) -> None:
    """Check that somebody is not let in, by a page that says why and has no text of a token."""
    text = re.sub(r"<[^>]+>", "", answer.text)
    assert answer.status_code == status, text
    assert answer.headers["content-type"].startswith("text/html")
    assert "tinytags_session" not in answer.headers.get("set-cookie", "")
    for word in words:
        assert word in text
    assert not re.search(r"token-text|access-token|code-\d|eyJ", answer.text)
    assert "Try again" in text


def who(client: TestClient) -> str:
    """Return the name that forms are signed for: whose page it is."""
    found = re.search(r"Sign out ([^<]+)<", client.get("/about").text)
    return found[1] if found else ""
