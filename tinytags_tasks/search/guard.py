"""Asks each request who is there, before any route runs, so that no route can forget to."""

import base64
import binascii
import logging
from collections.abc import Iterable

from anyio import CapacityLimiter, to_thread
from fastapi import FastAPI, Request, Response
from fastapi.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tinytags_tasks.errors import BadInputError
from tinytags_tasks.search.accounts import Account
from tinytags_tasks.search.openid.door import Door
from tinytags_tasks.search.problems import HEALTH, is_v1, problem_response
from tinytags_tasks.search.proxies import own_path
from tinytags_tasks.search.sign_in import FAILURE_SECONDS, SignIn, TooManyFailuresError

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self' data:; style-src 'self'; script-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # without any, browsers hide the origin of our own forms, too
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}

OPEN = ("/healthz", HEALTH)
"""What strangers may ask."""

_log = logging.getLogger(__name__)
_AT_ONCE = 2
"""Passwords that are verified at once: each needs 64 MB; other requests do not wait for these."""

_RAW_HEADERS = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]


def add_guard(app: FastAPI, sign_in: SignIn, door: Door | None = None) -> None:
    """Ask for the name and password of an account on every route but those that say that the process lives.

    With a door, a session of the OpenID provider's will do, too.
    """
    app.add_middleware(_Guard, sign_in=sign_in, door=door)


class _Guard:
    """Lets accounts pass, and gives every answer the headers that it lacks; plain ASGI, which thumbnails need."""

    def __init__(self, app: ASGIApp, sign_in: SignIn, door: Door | None) -> None:
        self._app = app
        self._sign_in = sign_in
        self._door = door
        self._limiter = CapacityLimiter(_AT_ONCE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":  # the page has no websockets
            await self._app(scope, receive, send)
            return

        refusal = await self._refusal(Request(scope))
        await (self._app if refusal is None else refusal)(scope, receive, with_headers(send))

    async def _refusal(self, request: Request) -> Response | None:
        """Return the answer to whom may not pass; None lets a request pass, with its account in its state."""
        # Not request.url: that is built from the Host header, which a stranger writes.
        path = own_path(request.scope)
        if path in OPEN or (self._door and self._door.is_open(path)):
            return None
        try:
            account = await _account(request, self._sign_in, self._limiter)
        except TooManyFailuresError as error:
            response = _refuse(request, str(error), 429)
            response.headers["Retry-After"] = str(FAILURE_SECONDS)
            return response
        except BadInputError as error:  # a stranger need not know why
            _log.error("nobody can sign in: %s", error)
            return _refuse(request, "Nobody can sign in right now; the log of the search page says why.", 503)
        if account is None and self._door:
            account = self._door.account(request)
        request.state.account = account
        if account:
            return None
        return (self._door and self._door.ask(request)) or _ask(request)


def with_headers(send: Send) -> Send:
    """Return what sends an answer with the headers that it lacks."""

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": _with_headers(message.get("headers", ()))}
        await send(message)

    return send_with_headers


def _with_headers(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return an answer's headers with those that it lacks; a model's report has a policy of its own."""
    own = list(headers)
    names = {name.lower() for name, _ in own}
    return own + [header for header in _RAW_HEADERS if header[0] not in names]


async def _account(request: Request, sign_in: SignIn, limiter: CapacityLimiter) -> Account | None:
    scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
    try:
        name, _, password = base64.b64decode(credentials, validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        return None
    if scheme.lower() != "basic":
        return None
    peer = request.client.host if request.client else ""
    return sign_in.remembered(name, password) or await to_thread.run_sync(
        sign_in.verify, name, password, peer, limiter=limiter
    )


def _ask(request: Request) -> Response:
    response = _refuse(request, "Please give the name and password of an account of the search page.", 401)
    response.headers["WWW-Authenticate"] = 'Basic realm="TinyTags search", charset="UTF-8"'
    return response


def _refuse(request: Request, message: str, status: int) -> Response:
    if is_v1(request):
        return problem_response(request, status, message)
    return PlainTextResponse(f"{message}\n", status_code=status)
