"""An OpenID provider that is away or answers as none, and what of its settings cannot be used."""

import base64
import logging
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path

import openid_pages
import pytest
from joserfc.jwk import RSAKey
from openid_pages import BASIC, Page, come_back, refused, sign_in, who
from openid_provider import CLIENT, SECRET, FakeProvider
from starlette.responses import JSONResponse, PlainTextResponse, Response

from tinytags_tasks.errors import BadInputError
from tinytags_tasks.search.openid import discovery, exchange, flow

served, provider, settings, page = openid_pages.served, openid_pages.provider, openid_pages.settings, openid_pages.page


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
    may_end = threading.Event()

    def slowly() -> Response:
        may_end.wait(60)
        return JSONResponse({})

    provider.answers["/.well-known/openid-configuration"] = slowly
    begin = time.monotonic()
    assert page().get("/sign-in/start").status_code == 503
    assert time.monotonic() - begin < 50
    may_end.set()
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
