"""Signing in with an OpenID provider: the whole way, what is refused on it, sessions, and the provider away."""

import base64
import logging
import re
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.cookies import SimpleCookie
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from argon2 import PasswordHasher
from fastapi import FastAPI, Request
from fastapi.testclient import TestClient
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from joserfc.jwk import RSAKey
from made_searches import use_store
from openid_provider import CLIENT, SECRET, FakeProvider, serving
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response

from tinytags_tasks.errors import BadInputError
from tinytags_tasks.search import account_file, scripts
from tinytags_tasks.search import sign_in as password_sign_in
from tinytags_tasks.search.error_pages import add_error_pages
from tinytags_tasks.search.forms import form_token
from tinytags_tasks.search.guard import add_guard
from tinytags_tasks.search.openid import discovery, exchange, flow
from tinytags_tasks.search.openid.door import make_door, own_address
from tinytags_tasks.search.openid.pages import add_routes
from tinytags_tasks.search.openid.people import recorded_name
from tinytags_tasks.search.openid.provider import read_provider
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


def test_a_person_signs_in_goes_on_to_where_they_wanted_and_signs_out(
    whole_page: Page, page: Page, provider: FakeProvider
) -> None:
    client = whole_page()
    assert client.get("/api/v1/health").status_code == 200

    asked = client.get("/search?tag=cat&q=a%20b")
    assert asked.status_code == 303
    offer = client.get(asked.headers["location"])
    assert offer.status_code == 200
    assert "Sign in with 127.0.0.1" in offer.text
    start = re.search(r'href="(/sign-in/start[^"]+)"', offer.text)[1]
    there = client.get(start.replace("&amp;", "&")).headers["location"]
    query = parse_qs(urlsplit(there).query)
    assert query["scope"] == ["openid profile email"]
    assert query["redirect_uri"] == ["http://testserver/sign-in/callback"]

    back = client.get(httpx.get(there).headers["location"])
    assert (back.status_code, back.headers["location"]) == (303, "/search?tag=cat&q=a%20b")
    assert client.get("/about").status_code == 200
    assert who(client) == "ada"
    assert list(client.cookies) == ["tinytags_session"]  # the attempt's is gone

    kept = client.cookies["tinytags_session"]
    token = re.search(r'name="token" value="([^"]+)"', client.get("/about").text)[1]
    out = client.post("/sign-out", data={"token": token})
    assert (out.status_code, out.headers["location"]) == (303, "/sign-in?out")
    assert "You are signed out" in client.get("/sign-in?out").text
    assert f"{provider.issuer}/leave?client_id={CLIENT}" in client.get("/sign-in?out").text
    assert not client.cookies
    client.cookies["tinytags_session"] = kept
    assert client.get("/about").status_code == 303, "a copy of the cookie has ended with the session"
    restarted = page()
    restarted.cookies["tinytags_session"] = kept
    assert restarted.get("/about").status_code == 303, "a restart does not bring it back"


def test_a_session_survives_a_restart(page: Page) -> None:
    client, restarted = page(), page()
    sign_in(client)
    restarted.cookies["tinytags_session"] = client.cookies["tinytags_session"]
    assert who(restarted) == "ada"


def test_other_settings_of_the_provider_end_sessions(page: Page) -> None:
    client = page()
    sign_in(client)
    changed = page(oidc_reviewers="others")
    changed.cookies["tinytags_session"] = client.cookies["tinytags_session"]
    assert changed.get("/about").status_code == 303


def test_a_session_ends_by_itself(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    client = page(oidc_session_minutes=1)
    sign_in(client)
    value = client.cookies["tinytags_session"]
    assert who(client) == "ada"
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 61)
    client.cookies["tinytags_session"] = value
    assert client.get("/about").status_code == 303


@pytest.mark.parametrize("change", [lambda v: v[:-2], lambda v: v.replace(".", ".e", 1), lambda v: "x", lambda v: "é"])
def test_a_cookie_that_somebody_made_lets_nobody_in(page: Page, change: Callable[[str], str]) -> None:
    client = page()
    sign_in(client)
    made = change(client.cookies["tinytags_session"])
    client.cookies.clear()
    answer = client.get("/about", headers={"Cookie": f"tinytags_session={made}".encode("latin-1")})
    assert answer.status_code == 303


@pytest.mark.parametrize(("scheme", "secure"), [("http", False), ("https", True)])
def test_cookies_are_hidden_from_scripts_and_other_sites(page: Page, scheme: str, secure: bool) -> None:
    client = page(f"{scheme}://testserver")
    start = client.get("/sign-in/start")
    back = client.get(httpx.get(start.headers["location"]).headers["location"])
    for answer, seconds in ((start, 600), (back, 480 * 60)):
        cookies = [SimpleCookie(line) for line in answer.headers.get_list("set-cookie")]
        cookie = next(value for found in cookies for value in found.values() if value["max-age"] != "0")
        assert cookie["httponly"]
        assert cookie["samesite"] == "lax"
        assert bool(cookie["secure"]) == secure
        assert int(cookie["max-age"]) == seconds


@pytest.mark.parametrize(
    ("roles", "role"),
    [
        ({"roles": ["staff"]}, "reader"),
        ({"roles": "checkers"}, "reviewer"),
        ({"roles": ["staff", "admins", 7, None]}, "operator"),
    ],
)
def test_roles_follow_from_the_claim(page: Page, provider: FakeProvider, roles: dict[str, Any], role: str) -> None:
    provider.claims |= roles
    client = page()
    sign_in(client)
    assert f'title="{role}"' in client.get("/about").text


def test_a_claim_can_be_inside_another_and_everybody_can_be_a_reader(page: Page, provider: FakeProvider) -> None:
    provider.claims["realm_access"] = {"roles": ["admins"]}
    client = page(oidc_role_claim="realm_access.roles")
    sign_in(client)
    assert 'title="operator"' in client.get("/about").text

    provider.claims |= {"realm_access": {"roles": ["*"]}, "sub": "2"}
    client = page(oidc_role_claim="realm_access.roles", oidc_readers="*", oidc_operators="admins")
    sign_in(client)
    assert 'title="reader"' in client.get("/about").text


def test_roles_that_only_userinfo_has_are_asked_for(page: Page, provider: FakeProvider) -> None:
    del provider.claims["roles"]
    provider.person = {"sub": "248289761001", "roles": ["admins"]}
    client = page()
    sign_in(client)
    assert 'title="operator"' in client.get("/about").text
    provider.person["sub"] = "another"
    refused(sign_in(page()), 400, "somebody else")


@pytest.mark.parametrize("roles", [[], ["guests"], "*", None, {"taggers": True}])
def test_somebody_without_a_role_is_not_let_in(page: Page, provider: FakeProvider, roles: object) -> None:
    provider.claims["roles"] = roles
    client = page()
    refused(sign_in(client), 403, "knows you as ada", "the claim roles", "To go in as somebody else")
    assert client.get("/about").status_code == 303


def test_what_is_recorded_is_the_subject_with_a_readable_name(settings: Settings, provider: FakeProvider) -> None:
    read = read_provider(settings)
    host = urlsplit(provider.issuer).netloc
    assert recorded_name({"sub": "7", "preferred_username": "ada"}, read) == f"ada (7 at {host})"
    assert recorded_name({"sub": "7", "name": "tinytags (1 at x)\u202e\n"}, read) == f"tinytags 1 at x (7 at {host})"
    assert recorded_name({"sub": "7"}, read) == f"somebody (7 at {host})"
    for subject in (None, "", 7, "a b", "x" * 256, "é"):
        with pytest.raises(exchange.RefusedError):
            recorded_name({"sub": subject}, read)


def _claim(**changes: object) -> Callable[[FakeProvider], None]:
    def prepare(provider: FakeProvider) -> None:
        provider.change = lambda claims: claims.update(changes)

    return prepare


def _without(name: str) -> Callable[[FakeProvider], None]:
    def prepare(provider: FakeProvider) -> None:
        provider.change = lambda claims: claims.pop(name)

    return prepare


def _none(provider: FakeProvider) -> None:
    provider.algorithm = "none"


def _public_key_as_secret(provider: FakeProvider) -> None:
    provider.algorithm = "HS256"
    provider.signing_key = provider.key.as_pem(private=False)


def _client_secret(provider: FakeProvider) -> None:
    provider.algorithm = "HS256"
    provider.signing_key = SECRET.encode()


def _another_key(provider: FakeProvider) -> None:
    provider.signing_key = provider.other_key


def _no_id_token(provider: FakeProvider) -> None:
    provider.token_answer = JSONResponse({"access_token": "access-token"})


def _garbage(provider: FakeProvider) -> None:
    provider.token_answer = JSONResponse({"id_token": "token-text.e.e"})


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        (_claim(nonce="another"), "nonce of its ID token"),
        (_without("nonce"), "nonce of its ID token"),
        (_claim(aud="another"), "aud of its ID token"),
        (_claim(aud=[CLIENT, "another"]), "azp of its ID token"),
        (_claim(azp="another"), "azp of its ID token"),
        (_without("aud"), "aud of its ID token"),
        (_claim(iss="https://evil.example"), "iss of its ID token"),
        (_claim(exp=int(time.time()) - 120), "has expired"),
        (_claim(iat=int(time.time()) + 3600), "iat of its ID token"),
        (_claim(nbf=int(time.time()) + 3600), "nbf of its ID token"),
        (_claim(exp="soon"), "exp of its ID token"),
        (_without("exp"), "exp of its ID token"),
        (_claim(at_hash="AAAA"), "at_hash of its ID token"),
        (_claim(sub=""), ""),
        (_none, "not signed in a way"),
        (_public_key_as_secret, "not signed in a way"),
        (_client_secret, "not signed in a way"),
        (_another_key, "not signed with a key"),
        (_no_id_token, "no ID token"),
        (_garbage, "cannot be read"),
    ],
)
def test_a_token_that_is_wrong_lets_nobody_in(
    page: Page, provider: FakeProvider, prepare: Callable[[FakeProvider], None], words: str
) -> None:
    prepare(provider)
    client = page()
    refused(sign_in(client), 400, words)
    assert client.get("/about").status_code == 303


def test_a_new_key_of_the_provider_is_fetched(page: Page, provider: FakeProvider) -> None:
    client = page()
    sign_in(client)
    provider.rotate()
    client.cookies.clear()
    assert sign_in(client).status_code == 303
    assert provider.asked.count("/keys") == 2
    assert provider.asked.count("/.well-known/openid-configuration") == 1


def test_an_answer_without_this_browsers_attempt_is_refused(page: Page) -> None:
    back = come_back(page())
    refused(page().get(back), 400, "not begun in this browser")
    client = page()
    come_back(client)
    refused(client.get("/sign-in/callback?code=code-0&state=another"), 400, "not begun in this browser")
    refused(client.get("/sign-in/callback"), 400, "not begun in this browser")


def test_an_answer_counts_once(page: Page) -> None:
    client = page()
    back = come_back(client)
    kept = dict(client.cookies)
    assert client.get(back).status_code == 303
    client.cookies.clear()
    for name, value in kept.items():
        client.cookies[name] = value
    refused(client.get(back), 400, "finished already")


def test_a_code_that_was_redeemed_elsewhere_is_refused(page: Page, provider: FakeProvider) -> None:
    client = page()
    back = come_back(client)
    provider.codes.clear()
    refused(client.get(back), 400, "used before, or is too old")


def test_two_tabs_can_sign_in_at_once_and_an_old_attempt_makes_room(page: Page) -> None:
    client = page()
    backs = [come_back(client) for _ in range(8)]
    assert len(client.cookies) <= 5
    assert client.get(backs[-2]).status_code == client.get(backs[-1]).status_code == 303


def test_an_answer_of_another_issuer_is_refused(page: Page, provider: FakeProvider) -> None:
    provider.answer_change = {"iss": "https://evil.example"}
    refused(sign_in(page()), 400, "it is not from")
    provider.discovery_change = {"authorization_response_iss_parameter_supported": True}
    provider.answer_change = {}
    refused(sign_in(page()), 400, "it is not from")
    provider.answer_change = {"iss": provider.issuer}
    assert sign_in(page()).status_code == 303


@pytest.mark.parametrize(
    ("error", "status", "shown"),
    [("access_denied", 403, "(access_denied)"), ("server_error", 400, "(server_error)"), ("<b>", 400, "(an error)")],
)
def test_what_the_provider_refuses_is_said(
    page: Page, provider: FakeProvider, error: str, status: int, shown: str
) -> None:
    provider.answer_change = {"error": error, "error_description": "token-text"}
    refused(sign_in(page()), status, shown)


@pytest.mark.parametrize(
    "to",
    [
        "https://evil.example/",
        "//evil.example",
        "/\\evil.example",
        "/\t/evil.example",
        "\\\\evil.example",
        "javascript:alert(1)",
        "/ /evil.example",
        "/é",
        "",
        "/" + "x" * 2000,
    ],
)
def test_nobody_is_sent_on_to_another_site(page: Page, to: str) -> None:
    assert own_address(to) == "/"
    client = page()
    assert sign_in(client, to).headers["location"] == "/"
    assert "evil" not in client.get("/sign-in", params={"to": to}).text
    assert client.get("/sign-in-with-password", params={"to": to}, headers=BASIC).headers["location"] == "/"


def test_behind_a_proxy_people_come_back_to_its_address(page: Page, provider: FakeProvider) -> None:
    trusted = {"search_trusted_proxies": "127.0.0.1", "search_base_path": "/tags"}
    forwarded = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "pictures.example"}
    client = TestClient(page(**trusted).app, headers=HTML, follow_redirects=False, client=("127.0.0.1", 5))

    asked = client.get("/tags/about", headers=forwarded)
    assert asked.headers["location"] == "/tags/sign-in?to=/about"
    start = client.get("/tags/sign-in/start?to=/about", headers=forwarded)
    cookie = start.headers["set-cookie"]
    assert "Path=/tags;" in cookie
    assert "Secure" in cookie
    back = httpx.get(start.headers["location"]).headers["location"]
    assert back.startswith("https://pictures.example/tags/sign-in/callback?")

    path = back.removeprefix("https://pictures.example")
    done = client.get(path, headers={**forwarded, "Cookie": cookie.partition(";")[0]})
    assert (done.status_code, done.headers["location"]) == (303, "/tags/about")
    assert provider.token_requests[-1]["redirect_uri"] == "https://pictures.example/tags/sign-in/callback"

    stranger = page(**trusted).get("/tags/sign-in/start", headers=forwarded)
    assert "redirect_uri=http%3A%2F%2Ftestserver%2Ftags" in stranger.headers["location"]


def test_names_and_passwords_go_on_beside_it(page: Page) -> None:
    client = page()
    assert client.get("/about", headers=BASIC).status_code == 200
    assert client.get("/sign-in-with-password?to=/about", headers=BASIC).headers["location"] == "/about"
    asked = client.get("/sign-in-with-password?to=/about")
    assert (asked.status_code, asked.headers["www-authenticate"][:5]) == (401, "Basic")
    wrong = client.get("/about", headers={"Authorization": "Basic d3Jvbmc6d3Jvbmc="})
    assert (wrong.status_code, wrong.headers["www-authenticate"][:5]) == (401, "Basic")

    bare = TestClient(client.app, follow_redirects=False)
    for path in ("/about", "/api/v1/tags", "/api/search"):
        assert bare.get(path).headers["www-authenticate"].startswith("Basic")


def test_a_login_that_is_sent_counts_and_not_the_session(page: Page) -> None:
    client = page()
    sign_in(client)
    assert client.get("/about", headers={"Authorization": "Basic d3Jvbmc6d3Jvbmc="}).status_code == 401
    assert "Sign out" not in client.get("/about", headers=BASIC).text


@pytest.mark.parametrize("path", ["/api/v1/tags", "/images/x.png", "/scripts/keys.js"])
def test_pictures_and_scripts_of_an_old_page_open_no_window_for_a_password(page: Page, path: str) -> None:
    answer = page().get(path, headers={"Accept": "image/*", "Sec-Fetch-Mode": "no-cors"})
    assert answer.status_code == 401
    assert "Basic" not in answer.headers["www-authenticate"]
    assert "/sign-in" in answer.text


def test_only_what_signing_in_needs_is_open(page: Page) -> None:
    client = page()
    for path in ("/sign-in", "/style.css", "/scripts/search.css", "/healthz", "/api/v1/health"):
        assert client.get(path).status_code in (200, 404), path
    for path in ("/", "/search", "/sign-in/", "/sign-in/x", "/scripts/keys.js", "/sign-out", "/api/docs"):
        assert client.get(path).status_code in (303, 401), path
    posted = client.post("/corrections", data={"token": "x"})
    assert posted.status_code == 401
    assert "sign in at /sign-in in another tab" in posted.text


def test_forms_of_other_sites_are_refused_with_a_session_too(page: Page) -> None:
    client = page()
    sign_in(client)
    assert client.post("/sign-out", data={"token": "made up"}).status_code == 403
    token = re.search(r'name="token" value="([^"]+)"', client.get("/about").text)[1]
    answer = client.post("/sign-out", data={"token": token}, headers={"Sec-Fetch-Site": "cross-site"})
    assert answer.status_code == 403
    assert who(client) == "ada"


def test_without_a_provider_everything_is_as_before(page: Page) -> None:
    client = page(oidc_issuer=None)
    assert client.get("/about").headers["www-authenticate"].startswith("Basic")
    assert client.get("/sign-in", headers=BASIC).status_code == 404
    assert client.get("/style.css").status_code == 401


@pytest.mark.parametrize(
    "answer",
    [
        lambda: PlainTextResponse("token-text", 500),
        lambda: PlainTextResponse("token-text", 200),
        lambda: JSONResponse(["token-text"]),
        lambda: JSONResponse({"issuer": "https://another.example"}),
        lambda: JSONResponse({"big": "x" * exchange.MOST_BYTES}),
        lambda: Response(b"x", headers={"Content-Encoding": "gzip"}),
        lambda: Response(status_code=302, headers={"Location": "http://127.0.0.1:1/"}),
    ],
)
def test_a_provider_that_does_not_answer_as_one_lets_nobody_in(
    page: Page, provider: FakeProvider, answer: Callable[[], Response], caplog: pytest.LogCaptureFixture
) -> None:
    provider.answers["/.well-known/openid-configuration"] = answer
    client = page()
    for _ in range(2):
        away = client.get("/sign-in/start?to=/about")
        assert away.status_code == 503
        assert away.headers["retry-after"]
        assert "does not answer" in away.text
        assert "token-text" not in away.text + caplog.text
    assert provider.asked.count("/.well-known/openid-configuration") == 1, "it is not asked at once again"
    assert client.get("/about", headers=BASIC).status_code == 200
    assert "nobody can sign in with" in caplog.text


@pytest.mark.parametrize("path", ["/token", "/keys"])
def test_a_provider_that_goes_away_on_the_way_lets_nobody_in(page: Page, provider: FakeProvider, path: str) -> None:
    client = page()
    back = come_back(client)
    provider.answers[path] = lambda: PlainTextResponse("away", 502)
    answer = client.get(back)
    assert answer.status_code == 503
    assert "Try it again" in answer.text
    assert client.get("/about").status_code == 303


def test_a_provider_that_is_slow_or_gone_is_given_up(
    page: Page, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "TOTAL_SECONDS", 0.3)

    def slowly() -> Response:
        time.sleep(1)
        return JSONResponse({})

    provider.answers["/.well-known/openid-configuration"] = slowly
    begin = time.monotonic()
    assert page().get("/sign-in/start").status_code == 503
    assert time.monotonic() - begin < 1
    assert page(oidc_issuer="http://127.0.0.1:1").get("/sign-in/start").status_code == 503


def test_who_stays_signed_in_does_not_need_the_provider(page: Page, provider: FakeProvider) -> None:
    client = page()
    sign_in(client)
    before = len(provider.asked)
    assert who(client) == "ada"
    assert len(provider.asked) == before


def test_a_wrong_secret_is_for_the_log(page: Page, provider: FakeProvider, caplog: pytest.LogCaptureFixture) -> None:
    provider.token_answer = JSONResponse({"error": "invalid_client", "error_description": "token-text"}, 401)
    answer = sign_in(page())
    assert answer.status_code == 503
    assert "invalid_client: check TINYTAGS_OIDC_CLIENT_ID" in caplog.text
    assert "token-text" not in caplog.text


def test_no_secret_or_token_is_logged(page: Page, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        client = page()
        sign_in(client)
    assert not re.search(rf"{SECRET}|{base64.b64encode(SECRET.encode()).decode()}|access-token|eyJ", caplog.text)


def test_too_many_attempts_of_an_address_have_to_wait(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "MOST_FAILURES", 2)
    client = page()
    for _ in range(2):
        assert client.get("/sign-in/callback?state=x").status_code == 400
    answer = sign_in(client)
    refused(answer, 429, "wait 5 minutes")
    assert answer.headers["retry-after"] == "300"


@pytest.mark.parametrize(
    ("offered", "where"),
    [
        (None, "authorization"),
        (["client_secret_post"], "client_secret"),
        (["none", "client_secret_basic"], "authorization"),
    ],
)
def test_the_secret_goes_where_the_provider_wants_it(
    page: Page, provider: FakeProvider, offered: list[str] | None, where: str
) -> None:
    provider.discovery_change = {"token_endpoint_auth_methods_supported": offered} if offered else {}
    assert sign_in(page()).status_code == 303
    sent = provider.token_requests[-1]
    assert sent[where] == (SECRET if where == "client_secret" else sent["authorization"])
    if where == "authorization":
        plain = base64.b64decode(sent["authorization"].removeprefix("Basic ")).decode()
        assert plain == f"{CLIENT}:s3cret+of+the+client"
        assert "client_secret" not in sent


def test_a_client_without_a_secret_proves_itself_by_pkce(page: Page, provider: FakeProvider, tmp_path: Path) -> None:
    (tmp_path / "secrets" / "oidc_client_secret").unlink()
    assert sign_in(page()).status_code == 303
    sent = provider.token_requests[-1]
    assert (sent["client_id"], sent["authorization"]) == (CLIENT, "")


def test_keys_of_other_kinds_do_not_matter() -> None:
    good = RSAKey.generate_key(2048, {"kid": "good"}).as_dict(private=False)
    others = [{"kty": "oct", "k": "c2VjcmV0"}, {"kty": "new"}, {"kty": "RSA"}, "x", {**good, "use": "enc"}]
    assert [key.kid for key in discovery._read_keys([*others, good])] == ["good"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"oidc_issuer": "http://login.example"}, "TINYTAGS_OIDC_ISSUER"),
        ({"oidc_issuer": "login.example"}, "TINYTAGS_OIDC_ISSUER"),
        ({"oidc_issuer": "https://a:b@login.example"}, "TINYTAGS_OIDC_ISSUER"),
        ({"oidc_issuer": "https://login.example?x=1"}, "TINYTAGS_OIDC_ISSUER"),
        ({"oidc_issuer": "https://login.example:x"}, "TINYTAGS_OIDC_ISSUER"),
        ({"oidc_client_id": None}, "TINYTAGS_OIDC_CLIENT_ID"),
        ({"oidc_scopes": "profile"}, "TINYTAGS_OIDC_SCOPES"),
        ({"oidc_readers": None, "oidc_reviewers": " ,", "oidc_operators": None}, "TINYTAGS_OIDC_READERS"),
        ({"oidc_client_secret_file": Path("/absent")}, "TINYTAGS_OIDC_CLIENT_SECRET_FILE"),
    ],
)
def test_settings_that_cannot_be_used_are_named(page: Page, changes: dict[str, object], message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        page(**changes)


def test_a_secret_that_others_can_read_is_not_used(page: Page, tmp_path: Path) -> None:
    path = tmp_path / "secrets" / "oidc_client_secret"
    path.chmod(0o640)
    with pytest.raises(BadInputError, match="chmod 600"):
        page()
    path.chmod(0o600)
    path.write_text("\n")
    with pytest.raises(BadInputError, match="is empty"):
        page()
