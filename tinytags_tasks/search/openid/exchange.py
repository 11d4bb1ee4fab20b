"""Requests to the provider: bounded in time, size and number, and never redirected."""

import json
import logging
from collections.abc import Mapping
from typing import Any

import anyio
import httpx

from tinytags_tasks.errors import BadInputError, EngineDownError

TOTAL_SECONDS = 10
"""How long one request may take, with everything."""

MOST_BYTES = 512 * 1024
_AT_ONCE = 4

_log = logging.getLogger(__name__)


class ProviderAwayError(EngineDownError):
    """The provider does not answer, or not as a provider does; the log has the reason."""


class RefusedError(BadInputError):
    """Somebody is not let in.

    Parameters
    ----------
    message
        Our own words on why, which the page shows.
    status
        The answer's status.
    """

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class Exchange:
    """Sends requests to one provider.

    Parameters
    ----------
    name
        What the provider is called in errors.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._limiter = anyio.CapacityLimiter(_AT_ONCE)
        self._verify: Any = None

    async def get(self, address: str, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Return the JSON object at an address.

        Raises
        ------
        ProviderAwayError
            If there is none.
        """
        status, answer = await self._ask("GET", address, headers or {}, "")
        if status != 200:
            raise self.away(f"{address} answered {status}")
        return answer

    async def post(self, address: str, headers: Mapping[str, str], body: str) -> tuple[int, dict[str, Any]]:
        """Send a form, and return the answer's status and JSON object.

        Raises
        ------
        ProviderAwayError
            If it answers with a status of 500 or more, or no JSON object.
        """
        return await self._ask("POST", address, headers, body)

    def away(self, reason: str) -> ProviderAwayError:
        """Log why the provider cannot be used, and return the error to raise, which does not say it."""
        _log.error("nobody can sign in with %s: %s", self._name, reason)
        return ProviderAwayError(f"{self._name} does not answer as it should; the log of the search page says why")

    async def _ask(
        self, method: str, address: str, headers: Mapping[str, str], body: str
    ) -> tuple[int, dict[str, Any]]:
        # Unpacked answers could be any number of times larger than MOST_BYTES.
        sent = {**headers, "Accept": "application/json", "Accept-Encoding": "identity"}
        try:
            with anyio.fail_after(TOTAL_SECONDS):
                async with (
                    self._limiter,
                    self._client() as client,
                    client.stream(method, address, headers=sent, content=body.encode()) as response,
                ):
                    content = await self._read(response)
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
            raise self.away(f"{address}: {type(error).__name__} {error}") from error
        if response.status_code >= 500 or response.status_code == 429:
            raise self.away(f"{address} answered {response.status_code}")
        try:
            answer = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise self.away(f"{address} answered {response.status_code}, and no JSON") from error
        if not isinstance(answer, dict):
            raise self.away(f"{address} answered no JSON object")
        return response.status_code, answer

    async def _read(self, response: httpx.Response) -> bytes:
        if response.headers.get("content-encoding", "identity") != "identity":
            raise self.away(f"{response.url} answered in an encoding that was not asked for")
        content = bytearray()
        async for chunk in response.aiter_raw():
            content += chunk
            if len(content) > MOST_BYTES:
                raise self.away(f"{response.url} answered more than {MOST_BYTES:,} bytes")
        return bytes(content)

    def _client(self) -> httpx.AsyncClient:
        if self._verify is None:
            self._verify = httpx.create_ssl_context()  # reading the authorities' certificates takes a while
        return httpx.AsyncClient(verify=self._verify, timeout=TOTAL_SECONDS, follow_redirects=False)
