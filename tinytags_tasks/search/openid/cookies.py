"""Signed cookies: of an attempt to sign in, for minutes, and of a session, for hours; and which sessions have ended.

A cookie holds no token of the provider. It can be read by its owner, and made by nobody else.
"""

import fcntl
import hmac
import logging
import os
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import OctKey
from starlette.requests import Request
from starlette.responses import Response

from tinytags_tasks.private_files import make_folder, write_atomically

ATTEMPT_SECONDS = 600
"""How long somebody may take at the provider."""

SESSION_COOKIE = "tinytags_session"

_ATTEMPT_COOKIE = "tinytags_sign_in_"
_MOST_ATTEMPTS = 5
_ALGORITHM = "HS256"
_ENDED = re.compile(r"([A-Za-z0-9_-]{8,64}) ([0-9]{1,12})")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Attempt:
    """What has to be known when somebody comes back from the provider.

    Attributes
    ----------
    verifier
        PKCE's: only who has it can redeem the code.
    redirect_uri
        Where the provider sends people back to.
    to
        Our own path to go on to.
    """

    state: str
    nonce: str
    verifier: str
    redirect_uri: str
    to: str


class Signer:
    """Signs what a cookie says, and reads it.

    Parameters
    ----------
    key
        Our own key.
    purpose
        What is signed for one purpose is nothing for another.
    """

    def __init__(self, key: bytes, purpose: bytes) -> None:
        self._key = OctKey.import_key(hmac.digest(key, b"cookie\n" + purpose, "sha256"))

    def sign(self, said: Mapping[str, Any], seconds: int) -> str:
        """Return a cookie's value, which is good for so many seconds."""
        claims = {**said, "exp": int(time.time()) + seconds}
        return jwt.encode({"alg": _ALGORITHM}, claims, self._key, algorithms=[_ALGORITHM])

    def read(self, value: str) -> dict[str, Any] | None:
        """Return what a cookie says; None if it is not from us, or too old."""
        try:
            claims = jwt.decode(value, self._key, algorithms=[_ALGORITHM]).claims
        except (JoseError, ValueError, TypeError):
            return None
        return claims if int(claims["exp"]) > time.time() else None


def keep_attempt(request: Request, response: Response, attempt: Attempt, signer: Signer) -> None:
    """Let a browser keep an attempt; each has a cookie of its own, because people have several tabs."""
    names = [name for name in request.cookies if name.startswith(_ATTEMPT_COOKIE)]
    for name in names[: -(_MOST_ATTEMPTS - 1)]:  # browsers send the oldest first
        remove(request, response, name)
    value = signer.sign(vars(attempt), ATTEMPT_SECONDS)
    put(request, response, _attempt_cookie(attempt.state), value, ATTEMPT_SECONDS)


def find_attempt(request: Request, state: str, signer: Signer) -> Attempt | None:
    """Return the attempt of a state; None if this browser has none."""
    said = signer.read(request.cookies.get(_attempt_cookie(state), ""))
    if said is None or not hmac.compare_digest(str(said["state"]).encode(), state.encode()):
        return None
    del said["exp"]
    return Attempt(**said)


def forget_attempt(request: Request, response: Response, state: str) -> None:
    """Remove the cookie of an attempt."""
    remove(request, response, _attempt_cookie(state))


def put(request: Request, response: Response, name: str, value: str, seconds: int) -> None:
    """Set a cookie that scripts cannot read, and that other sites' forms do not carry."""
    response.set_cookie(name, value, max_age=seconds, **_where(request))


def remove(request: Request, response: Response, name: str) -> None:
    """Remove a cookie."""
    response.delete_cookie(name, **_where(request))


class EndedSessions:
    """Remembers sessions that were ended before their time, over restarts, until that time.

    Parameters
    ----------
    path
        The file, with a line for each: its id, and when it would have ended.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._ended = self._read()

    def __contains__(self, session: str) -> bool:
        """Return whether a session was ended."""
        return session in self._ended

    def add(self, session: str, until: int) -> None:
        """End a session; from now on it is none."""
        self._ended[session] = until
        try:
            make_folder(self._path.parent)
            with os.fdopen(os.open(self._path.parent / ".ended_sessions.lock", os.O_RDWR | os.O_CREAT, 0o600)) as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                self._ended = {**self._read(), **_current(self._ended)}
                write_atomically(self._path, "".join(f"{name} {end}\n" for name, end in self._ended.items()))
        except OSError as error:  # it has ended all the same, until a restart
            _log.error("that a session has ended cannot be written into %s: %s", self._path, error)

    def _read(self) -> dict[str, int]:
        try:
            lines = self._path.read_text().splitlines()
        except (OSError, UnicodeDecodeError):
            return {}
        return _current({match[1]: int(match[2]) for line in lines if (match := _ENDED.fullmatch(line))})


def new_secret() -> str:
    """Return what nobody guesses: a state, a nonce, the id of a session."""
    return secrets.token_urlsafe(32)


def _current(ended: Mapping[str, int]) -> dict[str, int]:
    return {session: until for session, until in ended.items() if until > time.time()}


def _attempt_cookie(state: str) -> str:
    return _ATTEMPT_COOKIE + re.sub(r"[^A-Za-z0-9_-]", "", state)[:8]


def _where(request: Request) -> dict[str, Any]:
    return {
        "path": request.scope.get("root_path") or "/",
        "httponly": True,
        "samesite": "lax",  # strict ones would not come along on the way back from the provider
        "secure": request.scope["scheme"] == "https",
    }
