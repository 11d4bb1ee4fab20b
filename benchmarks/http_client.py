"""A client for load: some connections that stay open, and little work per answer, so that the server is measured."""

import asyncio
import base64
from types import TracebackType
from urllib.parse import urlsplit

_STALE = (ConnectionError, asyncio.IncompleteReadError)


class LoadClient:
    """Asks one server, as one browser does.

    Parameters
    ----------
    address
        Of the server, such as ``http://127.0.0.1:8765``.
    login
        Name and password.
    connections
        Connections at once at most.
    """

    def __init__(self, address: str, login: tuple[str, str], connections: int) -> None:
        server = urlsplit(address)
        self._host, self._port = server.hostname or "", server.port or 80
        token = base64.b64encode(":".join(login).encode()).decode()
        self._rest = f" HTTP/1.1\r\nHost: {server.netloc}\r\nAuthorization: Basic {token}\r\nAccept: */*\r\n\r\n"
        self._turns = asyncio.Semaphore(connections)
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def __aenter__(self) -> "LoadClient":
        """Return the client; connections are opened when they are needed."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close all connections."""
        for _, writer in self._idle:
            writer.close()

    async def get(self, path: str) -> bytes:
        """Return the body of an answer.

        Raises
        ------
        RuntimeError
            If its status is not 200.
        """
        request = f"GET {path}{self._rest}".encode()
        async with self._turns:
            while self._idle:
                try:
                    return await self._ask(path, request, *self._idle.pop())
                except _STALE:  # the server closes what was idle for long
                    continue
            return await self._ask(path, request, *await asyncio.open_connection(self._host, self._port))

    async def _ask(
        self, path: str, request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bytes:
        writer.write(request)
        status, *fields = (await reader.readuntil(b"\r\n\r\n")).lower().split(b"\r\n")
        length = next(int(field[15:]) for field in fields if field.startswith(b"content-length:"))
        body = await reader.readexactly(length)
        if status.split()[1] != b"200":
            raise RuntimeError(f"{path}: {status.decode()}: {body[:300]!r}")
        self._idle.append((reader, writer))
        return body
