"""Asks each request who is there, before any route runs, so that no route can forget to."""

import base64
import binascii
from collections.abc import Awaitable, Callable

from fastapi import FastAPI, Request, Response
from fastapi.responses import PlainTextResponse
from starlette.concurrency import run_in_threadpool

from tinytags_tasks.search.accounts import Account

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self' data:; style-src 'self'; script-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # without any, browsers hide the origin of our own forms, too
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def add_guard(app: FastAPI, sign_in: Callable[[str, str], Account | None]) -> None:
    """Ask for a name and password on every route but ``/healthz``.

    Parameters
    ----------
    app
        The application.
    sign_in
        Returns the account with a name and password; None if there is none.
    """

    @app.middleware("http")
    async def guard(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        # Not request.url: that is built from the Host header, which a stranger writes.
        is_open = request.scope["path"] == "/healthz"
        account = None if is_open else await _account(request, sign_in)
        if is_open or account:
            request.state.account = account
            response = await call_next(request)
        else:
            response = PlainTextResponse(
                "Please give the name and password of an account of the search page.\n",
                status_code=401,
                headers={"WWW-Authenticate": 'Basic realm="TinyTags search", charset="UTF-8"'},
            )
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)  # a model's report has a policy of its own
        return response


async def _account(request: Request, sign_in: Callable[[str, str], Account | None]) -> Account | None:
    scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
    try:
        name, _, password = base64.b64decode(credentials, validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        return None
    return await run_in_threadpool(sign_in, name, password) if scheme.lower() == "basic" else None
