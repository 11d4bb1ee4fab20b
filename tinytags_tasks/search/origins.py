"""Which other sites' scripts may use the API: none, unless the setting ``search_cors_origins`` names them."""

import re

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from tinytags_tasks.errors import BadInputError
from tinytags_tasks.search.guard import with_headers
from tinytags_tasks.search.problems import is_v1
from tinytags_tasks.settings import Settings

_ORIGIN = re.compile(r"https?://[a-z0-9.-]{1,253}(:[0-9]{1,5})?")
_METHODS = ("GET", "POST")
_FIELDS = ("ETag", "RateLimit", "RateLimit-Policy", "Retry-After", "Server-Timing")
_KEPT_SECONDS = 600


def parse_origins(text: str) -> tuple[str, ...]:
    """Return origins that are written with commas between.

    Raises
    ------
    BadInputError
        If one is none.
    """
    origins = tuple(part.strip() for part in text.split(",") if part.strip())
    for origin in origins:
        if not _ORIGIN.fullmatch(origin):
            raise BadInputError(
                f"TINYTAGS_SEARCH_CORS_ORIGINS: {origin[:100]!r} is no origin: write origins with commas between, "
                "such as https://pictures.example,http://localhost:3000"
            )
    return origins


def add_other_origins(app: FastAPI, settings: Settings) -> None:
    """Open the API to the origins of the settings; call it after the guard is added, so that it runs before it.

    Raises
    ------
    BadInputError
        If the setting cannot be used.
    """
    if origins := parse_origins(settings.search_cors_origins or ""):
        app.add_middleware(OtherOrigins, origins=origins)


class OtherOrigins:
    """Lets scripts of other sites use the API with the login that they send; a browser's own is never used.

    A browser asks first, without a login, so this runs before the guard.
    """

    def __init__(self, app: ASGIApp, origins: tuple[str, ...]) -> None:
        self._app = app
        self._open = CORSMiddleware(
            app,
            allow_origins=origins,
            allow_methods=_METHODS,
            allow_headers=("Authorization", "Content-Type", "If-None-Match"),
            expose_headers=_FIELDS,
            max_age=_KEPT_SECONDS,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        is_open = scope["type"] == "http" and is_v1(Request(scope))
        # What the middleware answers by itself, the guard never sees.
        await (self._open(scope, receive, with_headers(send)) if is_open else self._app(scope, receive, send))
