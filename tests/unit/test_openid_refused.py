"""Signing in with an OpenID provider: tokens and answers that let nobody in."""

import time
from collections.abc import Callable

import openid_pages
import pytest
from openid_pages import BASIC, Page, come_back, refused, sign_in
from openid_provider import CLIENT, SECRET, FakeProvider
from starlette.responses import JSONResponse

from tinytags_tasks.search.openid.door import own_address

served, provider, settings, page = openid_pages.served, openid_pages.provider, openid_pages.settings, openid_pages.page


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
