"""A small OpenID provider on a free port, which signs real tokens with RSA keys of its own, and can be made to lie."""

import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlencode

import uvicorn
from joserfc import jwt
from joserfc.jwk import RSAKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

CLIENT = "tinytags"
SECRET = "s3cret of the client"


class FakeProvider:
    """Lets one person in at once; a test says who they are, and what is wrong with the answer."""

    def __init__(self) -> None:
        self.issuer = ""
        self._keys_made = [RSAKey.generate_key(2048, {"kid": kid, "use": "sig"}) for kid in ("first", "second")]
        self.reset()

    def reset(self) -> None:
        self.key, self.other_key = self._keys_made
        self.signing_key: Any = self.key
        self.algorithm = "RS256"
        self.claims: dict[str, Any] = {"sub": "248289761001", "preferred_username": "ada", "roles": ["taggers"]}
        self.person: dict[str, Any] = {"sub": "248289761001"}
        self.change: Callable[[dict[str, Any]], None] = lambda claims: None
        self.answer_change: dict[str, str] = {}
        self.discovery_change: dict[str, Any] = {}
        self.token_answer: Response | None = None
        self.answers: dict[str, Callable[[], Response]] = {}
        self.codes: dict[str, dict[str, str]] = {}
        self.asked: list[str] = []
        self.token_requests: list[dict[str, str]] = []

    def app(self) -> Starlette:
        routes = {
            "/.well-known/openid-configuration": self._discovery,
            "/authorize": self._authorize,
            "/keys": self._keys,
            "/person": self._person,
        }
        found = [Route(path, self._counted(path, answer)) for path, answer in routes.items()]
        return Starlette(routes=[*found, Route("/token", self._counted("/token", self._token), methods=["POST"])])

    def _counted(self, path: str, answer: Callable[[Request], Any]) -> Callable[[Request], Any]:
        async def count(request: Request) -> Response:
            self.asked.append(path)
            return self.answers[path]() if path in self.answers else await answer(request)

        return count

    async def _discovery(self, request: Request) -> Response:
        return JSONResponse(
            {
                "issuer": self.issuer,
                "authorization_endpoint": f"{self.issuer}/authorize",
                "token_endpoint": f"{self.issuer}/token",
                "jwks_uri": f"{self.issuer}/keys",
                "userinfo_endpoint": f"{self.issuer}/person",
                "end_session_endpoint": f"{self.issuer}/leave",
                "id_token_signing_alg_values_supported": ["RS256", "HS256", "none"],
                **self.discovery_change,
            }
        )

    async def _authorize(self, request: Request) -> Response:
        asked = dict(request.query_params)
        assert asked["response_type"] == "code"
        assert asked["code_challenge_method"] == "S256"
        code = f"code-{len(self.codes)}"
        self.codes[code] = asked
        answer = {"code": code, "state": asked["state"], **self.answer_change}
        return RedirectResponse(f"{asked['redirect_uri']}?{urlencode(answer)}", 302)

    async def _keys(self, request: Request) -> Response:
        return JSONResponse({"keys": [self.key.as_dict(private=False)]})

    async def _person(self, request: Request) -> Response:
        assert request.headers["authorization"] == "Bearer access-token"
        return JSONResponse(self.person)

    async def _token(self, request: Request) -> Response:
        sent = {name: str(value) for name, value in (await request.form()).items()}
        self.token_requests.append({**sent, "authorization": request.headers.get("authorization", "")})
        if self.token_answer:
            return self.token_answer
        asked = self.codes.pop(sent.get("code", ""), None)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(sent["code_verifier"].encode()).digest()).decode()
        if (
            asked is None
            or asked["redirect_uri"] != sent["redirect_uri"]
            or asked["code_challenge"] != challenge.rstrip("=")
        ):
            return JSONResponse({"error": "invalid_grant", "error_description": "token-text"}, 400)
        now = int(time.time())
        claims = {
            **{"iss": self.issuer, "aud": CLIENT, "iat": now, "exp": now + 300, "nonce": asked["nonce"]},
            **self.claims,
        }
        self.change(claims)
        return JSONResponse({"access_token": "access-token", "token_type": "Bearer", "id_token": self._sign(claims)})

    def _sign(self, claims: dict[str, Any]) -> str:
        header = {"alg": self.algorithm, "kid": self.key.kid}
        if self.algorithm in ("none", "HS256"):  # by hand, because the library refuses to sign like this
            signed = ".".join(_encoded(json.dumps(part).encode()) for part in (header, claims))
            signature = hmac.digest(self.signing_key, signed.encode(), "sha256") if self.algorithm == "HS256" else b""
            return f"{signed}.{_encoded(signature)}"
        return jwt.encode(header, claims, self.signing_key, algorithms=[self.algorithm])

    def rotate(self) -> None:
        """Sign with another key from now on; the old one is no longer published."""
        self.key = self.signing_key = self.other_key


def _encoded(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).decode().rstrip("=")


@contextmanager
def serving(provider: FakeProvider) -> Iterator[FakeProvider]:
    """Serve it on loopback."""
    server = uvicorn.Server(uvicorn.Config(provider.app(), port=0, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    provider.issuer = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    try:
        yield provider
    finally:
        server.should_exit = True
        thread.join(10)
