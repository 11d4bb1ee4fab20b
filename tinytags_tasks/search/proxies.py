"""The search page behind a proxy: below a path, and at another address than the one it listens on.

The base path is the setting ``search_base_path``. A proxy of ``search_trusted_proxies`` may instead name it with
``X-Forwarded-Prefix``, and say with ``X-Forwarded-Proto``, ``-Host``, ``-Port`` and ``-For`` what was asked, and by
whom. From anybody else these headers mean nothing. The proxy may hand paths on with the base path or without it.
"""

import ipaddress
import re
from collections.abc import Callable, MutableMapping
from typing import Any

from fastapi import FastAPI
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from tinytags_tasks.errors import BadInputError
from tinytags_tasks.settings import Settings

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_BASE_PATH = re.compile(r"(/(?!\.{1,2}(/|$))[A-Za-z0-9._~-]+){1,10}")
_HOP = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::[0-9]{1,5})?|([0-9.]+)(?::[0-9]{1,5})?|([0-9A-Fa-f:.]+)")
_HOST = re.compile(r"([A-Za-z0-9.-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(:[0-9]{1,5})?")
_PORT = re.compile(r"[0-9]{1,5}")
_PORTS = {"http": "80", "https": "443"}


def url(request: HTTPConnection, path: str) -> str:
    """Return a path of ours, such as ``/search?tag=cat``, as a browser has to ask for it: below the base path."""
    return f"{request.scope.get('root_path', '')}{path}"


def is_own_origin(request: HTTPConnection, origin: str) -> bool:
    """Return whether an origin, as a browser names it, is that of a request's own address.

    A port may be named in one and left out in the other.
    """
    scheme, _, asked = origin.lower().partition("://")
    own = request.headers.get("host", "").lower()
    if scheme not in _PORTS:
        return False
    return asked == own or _with_port(asked, scheme) == _with_port(own, request.scope["scheme"])


def _with_port(host: str, scheme: str) -> str:
    match = _HOST.fullmatch(host)
    return host if not match or match[2] else f"{host}:{_PORTS.get(scheme, '')}"


def own_path(scope: MutableMapping[str, Any]) -> str:
    """Return the path of a request without the base path: the path of a route."""
    return str(scope["path"]).removeprefix(scope.get("root_path", ""))


def add_proxies(app: FastAPI, settings: Settings) -> None:
    """Serve below the base path, and believe the trusted proxies; call it last, so that it runs first.

    Raises
    ------
    BadInputError
        If a setting cannot be used.
    """
    base_path = checked_base_path(settings.search_base_path or "")
    taken = {_first(path) for route in app.routes if (path := getattr(route, "path", ""))}
    if base_path and _first(base_path) in taken - {""}:
        raise BadInputError(
            f"TINYTAGS_SEARCH_BASE_PATH: {base_path} is an address of the search page itself: use another one"
        )
    app.add_middleware(
        _Proxies,
        base_path=base_path,
        trusted=parse_networks(settings.search_trusted_proxies or ""),
        taken=frozenset(taken - {""}),
    )


def checked_base_path(text: str) -> str:
    """Return a base path without a slash at its end; empty for none.

    Raises
    ------
    BadInputError
        If it is no path.
    """
    path = text.strip().rstrip("/")
    if path and not _BASE_PATH.fullmatch(path):
        raise BadInputError(f"TINYTAGS_SEARCH_BASE_PATH: {text[:100]!r} is no path: write one such as /tags")
    return path


def _first(path: str) -> str:
    """Return the first part of a path."""
    return path.split("/")[1]


def parse_networks(text: str) -> tuple[Network, ...]:
    """Return addresses and networks that are written with commas between.

    Raises
    ------
    BadInputError
        If one is neither.
    """
    try:
        return tuple(ipaddress.ip_network(part.strip()) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise BadInputError(
            f"TINYTAGS_SEARCH_TRUSTED_PROXIES: {error}: write addresses and networks with commas between, "
            "such as 127.0.0.1,10.0.0.0/8"
        ) from error


class _Proxies:
    """Puts the base path into ``root_path``, and what a trusted proxy says into the rest of the scope."""

    def __init__(self, app: ASGIApp, base_path: str, trusted: tuple[Network, ...], taken: frozenset[str]) -> None:
        self._app = app
        self._base_path = base_path
        self._trusted = trusted
        self._taken = taken

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":  # the scope itself is changed, so that whoever reports a failure sees it, too
            base_path = self._base_path or scope.get("root_path", "")
            if self._is_trusted((scope.get("client") or ("",))[0]):
                prefix = _believe(scope, self._is_trusted)
                # One that is an address of ours is none, as in the setting: that address could not be asked for.
                if prefix and _first(prefix) not in self._taken:
                    base_path = prefix
            path = scope["path"]
            if path == base_path or path.startswith(f"{base_path}/"):
                path = path.removeprefix(base_path)
            scope["root_path"] = base_path
            scope["path"] = base_path + (path or "/")
        await self._app(scope, receive, send)

    def _is_trusted(self, peer: str) -> bool:
        if not self._trusted or (address := _address(peer)) is None:
            return False
        return any(address in network for network in self._trusted)


def _address(hop: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the address of a hop, which some proxies write with a port; None if it has none."""
    match = _HOP.fullmatch(hop.strip())
    if not match:
        return None
    try:
        address = ipaddress.ip_address(match[1] or match[2] or match[3])
    except ValueError:
        return None
    # One and the same machine, whether it was reached by IPv6 or not.
    return getattr(address, "ipv4_mapped", None) or address


def _believe(scope: Scope, is_trusted: Callable[[str], bool]) -> str:
    """Take what a trusted proxy says into the scope, and return its prefix; what makes no sense is left out."""
    headers = Headers(scope=scope)
    if (proto := _as_asked(headers, "proto").lower()) in _PORTS:
        scope["scheme"] = proto
    if asked := _HOST.fullmatch(host := _as_asked(headers, "host")):
        port = _as_asked(headers, "port")
        if not asked[2] and _PORT.fullmatch(port) and port != _PORTS.get(scope["scheme"]):
            host = f"{host}:{port}"
        changed = MutableHeaders(raw=list(scope["headers"]))
        changed["host"] = host
        scope["headers"] = changed.raw
    hops = [hop for line in headers.getlist("x-forwarded-for") for hop in line.split(",") if hop.strip()]
    # The nearest that is not one of our proxies: whatever is before it was written by whom we do not know.
    # What is no address counts for the proxy: else each request could bring another, and be nobody's guess.
    if address := _address(next((hop for hop in reversed(hops) if not is_trusted(hop)), "")):
        scope["client"] = (str(address), 0)
    prefix = headers.get("x-forwarded-prefix", "").rstrip("/")
    return prefix if _BASE_PATH.fullmatch(prefix) else ""


def _as_asked(headers: Headers, name: str) -> str:
    """Return what the outermost proxy says: those behind it add what they see themselves."""
    return headers.get(f"x-forwarded-{name}", "").partition(",")[0].strip()
