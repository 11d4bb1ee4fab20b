"""How many requests to the API an account may make a minute.

An account has a bucket of as many requests as it may make a minute, which fills evenly. Answers say how much is left
in the fields ``RateLimit-Policy`` and ``RateLimit`` of the IETF's draft (draft-ietf-httpapi-ratelimit-headers-10).
"""

import math
import threading
import time
from dataclasses import dataclass

from cachetools import LRUCache
from fastapi import FastAPI
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tinytags_tasks.search.accounts import Account
from tinytags_tasks.search.problems import is_v1, problem_response
from tinytags_tasks.settings import Settings

WINDOW_SECONDS = 60
_MOST_ACCOUNTS = 10_000


@dataclass(frozen=True)
class Allowance:
    """What is left after a request; ``is_refused`` if it was one too many."""

    is_refused: bool
    left: int
    seconds: int


class Buckets:
    """Counts requests by account.

    Parameters
    ----------
    most
        Requests a minute, at least 1.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._left: LRUCache[str, tuple[float, float]] = LRUCache(_MOST_ACCOUNTS)

    def take(self, account: str, now: float | None = None) -> Allowance:
        """Count a request now; ``seconds`` is until the bucket is full, or until it has a request again."""
        now = time.monotonic() if now is None else now
        rate = self._most / WINDOW_SECONDS
        with self._lock:
            left, then = self._left.get(account, (float(self._most), now))
            left = min(float(self._most), left + (now - then) * rate)
            is_refused = left < 1
            left -= 0 if is_refused else 1
            self._left[account] = (left, now)
        missing = 1 - left if is_refused else self._most - left
        return Allowance(is_refused, int(left), max(1, math.ceil(missing / rate)))


def add_rate_limit(app: FastAPI, settings: Settings) -> None:
    """Limit requests as the settings say; call it before the guard is added, so that it runs after it."""
    if settings.search_rate_limit:
        app.add_middleware(RateLimit, most=settings.search_rate_limit)


class RateLimit:
    """Refuses an account's requests to the API that are too many; runs after the guard, which knows the account."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app = app
        self._most = most
        self._buckets = Buckets(most)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        account: Account | None = scope.get("state", {}).get("account")
        if scope["type"] != "http" or account is None or not is_v1(request := Request(scope)):
            await self._app(scope, receive, send)
            return
        allowed = self._buckets.take(account.name)
        fields = {
            "RateLimit-Policy": f'"account";q={self._most};w={WINDOW_SECONDS}',
            "RateLimit": f'"account";r={allowed.left};t={allowed.seconds}',
        }
        if allowed.is_refused:
            message = f"{account.name} may make {self._most:,} requests a minute: go on in {allowed.seconds} s"
            refusal = problem_response(request, 429, message, headers={**fields, "Retry-After": str(allowed.seconds)})
            await refusal(scope, receive, send)
            return

        async def send_with_fields(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(raw=list(message.get("headers", ())))
                headers.update(fields)
                message = {**message, "headers": headers.raw}
            await send(message)

        await self._app(scope, receive, send_with_fields)
