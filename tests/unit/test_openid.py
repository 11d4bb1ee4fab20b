"""Signing in with an OpenID provider: the whole way, sessions, roles, and passwords beside it."""

import re
import time
from collections.abc import Callable
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import openid_pages
import pytest
from fastapi.testclient import TestClient
from openid_pages import BASIC, HTML, Page, refused, sign_in, who
from openid_provider import CLIENT, FakeProvider

from tinytags_tasks.search.openid import exchange
from tinytags_tasks.search.openid.people import recorded_name
from tinytags_tasks.search.openid.provider import read_provider
from tinytags_tasks.settings import Settings

served, provider, settings, page = openid_pages.served, openid_pages.provider, openid_pages.settings, openid_pages.page
whole_page = openid_pages.whole_page


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
