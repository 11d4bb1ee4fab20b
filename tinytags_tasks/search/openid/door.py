"""What the guard asks of the provider's side: whose session a request has, and where strangers are sent."""

import re
import time
from urllib.parse import quote

from cachetools import TTLCache
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response

from tinytags_tasks.search.accounts import Account, Role
from tinytags_tasks.search.openid.cookies import SESSION_COOKIE, EndedSessions, Signer, put, remove
from tinytags_tasks.search.openid.flow import Flow
from tinytags_tasks.search.openid.provider import Provider, read_provider
from tinytags_tasks.search.problems import is_v1, problem_response
from tinytags_tasks.search.proxies import own_path, url
from tinytags_tasks.settings import Settings

SIGN_IN = "/sign-in"
START = "/sign-in/start"
CALLBACK = "/sign-in/callback"
WITH_PASSWORD = "/sign-in-with-password"  # noqa: S105 - an address
"""Not below ``/sign-in/``: a browser sends a login by itself only beside and below the address that asked for it."""

_OPEN = frozenset({SIGN_IN, START, CALLBACK, "/style.css", "/scripts/search.css"})
_REMEMBERED_SECONDS = 60
_OWN = re.compile(r"/(?!/)[!-\[\]-~]*")
"""Not ``//host``, and nothing that browsers read as a slash, or leave out."""

_LONGEST_PATH = 1500
"""A longer address is not come back to: browsers keep cookies of 4 KB only."""


class Door:
    """Lets people with a session pass.

    Parameters
    ----------
    provider
        Who they sign in with.
    key
        The page's own key, which lasts as long as sessions should.
    ended
        The sessions that were ended.
    """

    def __init__(self, provider: Provider, key: bytes, ended: EndedSessions) -> None:
        self.provider = provider
        self.flow = Flow(provider)
        self.attempts = Signer(key, b"attempt\n" + provider.digest)
        self._sessions = Signer(key, b"session\n" + provider.digest)
        self._ended = ended
        self._known: TTLCache[str, tuple[Account, int]] = TTLCache(10_000, _REMEMBERED_SECONDS)

    def is_open(self, path: str) -> bool:
        """Return whether strangers may ask for a path, because they sign in there."""
        return path in _OPEN

    def account(self, request: Request) -> Account | None:
        """Return the account of a request's session; None if it has none."""
        value = request.cookies.get(SESSION_COOKIE)
        if not value or "authorization" in request.headers:  # a login that was sent is what counts
            return None
        if (known := self._known.get(value)) is None:
            if (said := self._sessions.read(value)) is None:
                return None
            account = Account(str(said["who"]), Role[str(said["role"])], session=str(said["session"]))
            known = self._known[value] = (account, int(said["exp"]))
        account, until = known
        return None if until <= time.time() or account.session in self._ended else account

    def let_in(self, request: Request, response: Response, account: Account) -> None:
        """Begin the session of an account."""
        said = {"who": account.name, "role": account.role.name, "session": account.session}
        seconds = self.provider.session_seconds
        put(request, response, SESSION_COOKIE, self._sessions.sign(said, seconds), seconds)

    def let_out(self, request: Request, response: Response, account: Account) -> None:
        """End the session of an account, for whoever may have a copy of its cookie, too."""
        if account.session:
            self._ended.add(account.session, int(time.time()) + self.provider.session_seconds)
        remove(request, response, SESSION_COOKIE)

    def ask(self, request: Request) -> Response | None:
        """Return what a stranger gets who uses a browser; None for programs, which need a name and password."""
        path = own_path(request.scope)
        if "authorization" in request.headers or path == WITH_PASSWORD:
            return None
        is_page = request.method in ("GET", "HEAD") and "text/html" in request.headers.get("accept", "")
        if is_page and not path.startswith("/api/v1"):
            query = request.scope.get("query_string", b"").decode("latin-1")
            to = quote(path) + (f"?{query}" if query else "")
            return RedirectResponse(url(request, f"{SIGN_IN}?to={quote(to, safe='/')}"), 303)
        if "sec-fetch-mode" not in request.headers:
            return None
        # A browser that was asked for a name and password here would show a window for each picture of a page.
        message = (
            f"You are not signed in, or no longer: sign in at {url(request, SIGN_IN)} in another tab, then try again."
        )
        headers = {"WWW-Authenticate": 'Cookie realm="TinyTags search"'}
        if is_v1(request):
            return problem_response(request, 401, message, headers=headers)
        return PlainTextResponse(f"{message}\n", 401, headers)


def own_address(to: str) -> str:
    """Return an address of ours to go on to; the first page for any other."""
    return to if len(to) <= _LONGEST_PATH and _OWN.fullmatch(to) else "/"


def make_door(settings: Settings, key: bytes) -> Door | None:
    """Return the door to the provider of the settings; None if they name none.

    Raises
    ------
    BadInputError
        If a setting cannot be used.
    """
    provider = read_provider(settings)
    return Door(provider, key, EndedSessions(settings.secrets_folder / "ended_sessions")) if provider else None
