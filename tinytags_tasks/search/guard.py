"""Asks each request who is there, before any route runs, so that no route can forget to."""

import base64
import binascii
import logging
from collections.abc import Awaitable, Callable

from anyio import CapacityLimiter, to_thread
from fastapi import FastAPI, Request, Response
from fastapi.responses import PlainTextResponse

from tinytags_tasks.errors import BadInputError
from tinytags_tasks.search.accounts import Account
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


def add_guard(app: FastAPI, sign_in: SignIn) -> None:
    """Ask for the name and password of an account on every route but those that say that the process lives."""
    limiter = CapacityLimiter(_AT_ONCE)

    @app.middleware("http")
    async def guard(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        # Not request.url: that is built from the Host header, which a stranger writes.
        if own_path(request.scope) in OPEN:
            response = await call_next(request)
        else:
            try:
                account = await _account(request, sign_in, limiter)
                request.state.account = account
                response = await call_next(request) if account else _ask(request)
            except TooManyFailuresError as error:
                response = _refuse(request, str(error), 429)
                response.headers["Retry-After"] = str(FAILURE_SECONDS)
            except BadInputError as error:  # a stranger need not know why
                _log.error("nobody can sign in: %s", error)
                response = _refuse(request, "Nobody can sign in right now; the log of the search page says why.", 503)
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)  # a model's report has a policy of its own
        return response


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
