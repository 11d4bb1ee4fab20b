"""Sends one user's requests to Solr over a few kept-alive connections, and translates Solr's errors.

The pipeline's :class:`~tinytags_tasks.clients.solr.SolrClient` uses one as the admin and one as the writer; the search
page has its own as the reader. The errors defined here are leaves of the tree in :mod:`tinytags_tasks.errors`: only
callers of Solr need to distinguish them from other final errors.
"""

import base64
import random
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import quote, unquote, urlencode, urlsplit

import orjson
import urllib3

from tinytags_tasks.clients import javabin_answer
from tinytags_tasks.errors import (
    BadInputError,
    EngineDownError,
    FinalError,
    MissingError,
    TransientError,
    refused_certificate,
)
from tinytags_tasks.settings import Login, SolrRole

CONNECTIONS = 2
"""How many connections updates are posted over; on two cores, more were no faster."""

PAUSES_SECONDS = (0.5, 1, 2, 4, 8)
"""How long to wait before each retry, by default."""

Answer = TypeVar("Answer")

FORM = "application/x-www-form-urlencoded"

SOLR = "Solr"

_BUSY = {429, 502, 503, 504}
"""Overloaded, loading its cores, without its ZooKeeper, or behind a proxy that does not reach it."""

_AWAY = (
    "SolrCore is loading",
    "SolrCoreInitializ",
    "ZooKeeper",
    "KeeperErrorCode = ConnectionLoss",
    "KeeperErrorCode = Session expired",
    "No registered leader",
    "says we are the leader",
    "no servers hosting shard",
    "No live SolrServers",
    "no live nodes",
    "No active replicas",
    "Server refused connection",
    "occurred when talking to server",
    "Timeout occurred while waiting response from server",
    "Connection refused",
    "Connection reset",
    "ClosedChannelException",
    "CoreContainer is either not initialized or shutting down",
    "CoreContainer is shutting down",
)
"""What a Solr without its ZooKeeper, without a leader or another node, or that is starting or stopping, says besides a
status of 500 to 599."""

_NO_ROOM = "No space left on device"


class ForbiddenError(FinalError):
    """The user lacks permission, or the collection does not exist: for that, Solr answers most users 403, not 404."""


class UndefinedFieldError(FinalError):
    """A query names a field that the collection's schema lacks, such as one added after the collection was created.

    Parameters
    ----------
    message
        The error message.
    field
        The field's name.
    """

    def __init__(self, message: str, field: str) -> None:
        super().__init__(message)
        self.field = field


class NotSolrError(FinalError):
    """Something other than Solr answers at Solr's address."""


class SolrHttp:
    """Sends one user's requests.

    Parameters
    ----------
    url
        Solr's address, such as ``http://host:8983/solr``. Messages show it without a password.
    role
        The role of the user: a message about a wrong password names that user's settings.
    login
        User and password; None if Solr requires no authentication, or if the address contains them.
    pauses_seconds
        How long to wait before each retry of a request for which Solr was busy or down; empty never retries.
    timeout_seconds
        How long a response may take.
    connections
        How many requests may be in progress at once; others wait.
    turn_seconds
        How long these wait at most; None waits for as long as it takes.
    explain_refused
        Takes the path of a request that Solr forbids, or whose collection it does not find, and the error, and returns
        the error to raise instead; a transient one is retried.
    """

    def __init__(
        self,
        url: str,
        role: SolrRole,
        login: Login | None = None,
        *,
        pauses_seconds: Sequence[float] = PAUSES_SECONDS,
        timeout_seconds: float = 180,
        connections: int = CONNECTIONS,
        turn_seconds: float | None = None,
        explain_refused: Callable[[str, ForbiddenError | MissingError], TransientError | FinalError] | None = None,
    ) -> None:
        parts = urlsplit(url.rstrip("/"))
        self.url = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
        self._role = role
        if login is None and parts.username is not None:
            login = unquote(parts.username), unquote(parts.password or "")
        self._login = login
        self._pauses_seconds = pauses_seconds
        self._explain_refused = explain_refused
        self._turn_seconds = turn_seconds
        self._pool = urllib3.PoolManager(
            maxsize=connections, block=True, retries=False, timeout=urllib3.Timeout(connect=5, read=timeout_seconds)
        )

    def request(
        self, path: str, parameters: Mapping[str, object] | None = None, body: bytes | None = None, mime: str = ""
    ) -> dict[str, Any]:
        """Send a request, retry it while Solr is busy or down, and return the response.

        Parameters
        ----------
        path
            The path below Solr's address; with parameters of its own if there is a body, such as the response format:
            JSON or javabin.
        parameters
            The parameters of a request without a body; the response format, JSON, is added.
        body, mime
            What to post, and its type.

        Raises
        ------
        EngineDownError
            If Solr is still down, still busy, or still without room on its disk, after the last retry.
        TransientError
            If it still fails otherwise.
        MissingError
            If the collection does not exist.
        ForbiddenError
            If the user lacks permission; for most users, also if the collection does not exist.
        BadInputError
            If Solr does not know the user, or the password is wrong.
        UndefinedFieldError
            If a query names a field that the collection lacks.
        NotSolrError
            If the response is not from Solr.
        FinalError
            If Solr rejects the request for another reason, or its certificate is not valid.
        """
        return self._repeated(lambda: self._request_once(path, parameters, body, mime))

    def text(self, path: str, parameters: Mapping[str, object]) -> str:
        """Send a request as :meth:`request` does, whose response is neither JSON nor javabin.

        Raises the errors of :meth:`request`.
        """
        return self._repeated(lambda: self._answer(path, parameters, None, "").data.decode(errors="replace"))

    def _repeated(self, ask: Callable[[], Answer]) -> Answer:
        problem: TransientError | None = None
        for pause in (0.0, *self._pauses_seconds):
            time.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311 - spreads writers out; not for security
            try:
                return ask()
            except TransientError as error:
                problem = error
        assert problem is not None  # noqa: S101 - the loop ran at least once
        raise problem

    def select(self, collection: str, parameters: Mapping[str, object]) -> dict[str, Any]:
        """Search a collection or alias; a parameter's value may be a list. It is posted, so it may have any length.

        Raises the errors of :meth:`request`.
        """
        form = urlencode({"wt": "json", **parameters}, doseq=True).encode()
        return self.request(f"{quote(collection)}/select", body=form, mime=FORM)

    def _request_once(
        self, path: str, parameters: Mapping[str, object] | None, body: bytes | None, mime: str
    ) -> dict[str, Any]:
        response = self._answer(path, parameters, body, mime)
        answer = _mapping(response.data)
        if answer is None:
            raise NotSolrError(f"{self.url}/{path}: the response is not from Solr; check TINYTAGS_SOLR_URL")
        return answer

    def _answer(
        self, path: str, parameters: Mapping[str, object] | None, body: bytes | None, mime: str
    ) -> urllib3.BaseHTTPResponse:
        """Return a response with status 200; raise the error that another one means."""
        headers = {"Content-Type": mime} if mime else {}
        query = "" if body is not None else "?" + urlencode({"wt": "json", **(parameters or {})})
        try:
            response = self._pool.request(
                "GET" if body is None else "POST",
                f"{self.url}/{path}{query}",
                body=body,
                headers=headers | (basic_authorization(self._login) if self._login else {}),
                pool_timeout=self._turn_seconds,
            )
        except urllib3.exceptions.HTTPError as error:
            if refused := refused_certificate(error, self.url, SOLR):
                raise refused from error
            raise EngineDownError(
                f"{self.url}: Solr does not answer; see `tinytags status`, start it with `tinytags up` "
                f"or check TINYTAGS_SOLR_URL ({type(error).__name__})",
                SOLR,
            ) from error
        if response.status == 200:
            return response
        answer = _mapping(response.data)
        problem = (answer or {}).get("error")
        detail = problem.get("msg") if isinstance(problem, dict) else problem
        reason = str(detail or (answer or {}).get("exception") or response.reason)[:500]
        refusal = self._error(response.status, f"{self.url}/{path}: Solr answers {response.status} ({reason})", reason)
        if self._explain_refused and isinstance(refusal, ForbiddenError | MissingError):
            raise self._explain_refused(path, refusal) from refusal
        raise refusal

    def _error(self, status: int, message: str, reason: str) -> TransientError | FinalError:
        """Return the error for a response with a status other than 200."""
        if status == 401:
            return BadInputError(unknown_user(self.url, self._role, self._login))
        if status == 404:
            return MissingError(f"{message}; does the collection exist?")
        if status == 403 and "read-only" in reason:
            return FinalError(f"{message}; make it writable again: MODIFYCOLLECTION with readOnly=false")
        if status == 403:
            return ForbiddenError(f"{message}; the user {self._login[0] if self._login else ''!r} lacks permission")
        if _NO_ROOM in reason:
            return EngineDownError(f"{message}: Solr's disk is full; make room on it", SOLR)
        if status in _BUSY or (status >= 500 and any(sign in reason for sign in _AWAY)):
            return EngineDownError(f"{message}; Solr cannot work now", SOLR)
        if status >= 500 or status == 409:
            return TransientError(message)
        if field := undefined_field(reason):
            return UndefinedFieldError(message, field)
        return FinalError(message)


def undefined_field(reason: str) -> str:
    """Return the unknown field that Solr's error message names; empty if it names none."""
    found = re.search(
        r"(?:undefined field:? \"?|sort param field can't be found: )([A-Za-z_]\w*)", reason, re.IGNORECASE
    )
    return found[1] if found else ""


def basic_authorization(login: Login) -> dict[str, str]:
    """Return the header that authenticates a user; RFC 7617, in UTF-8 as Solr expects it."""
    return {"Authorization": "Basic " + base64.b64encode(":".join(login).encode()).decode()}


def unknown_user(url: str, role: SolrRole, login: Login | None) -> str:
    """Return the message for a 401 from Solr."""
    variable = f"TINYTAGS_SOLR_{role.upper()}"
    if login is None:
        return f"{url}: Solr requires authentication: set {variable}_USER and {variable}_PASSWORD"
    return (
        f"{url}: Solr does not accept the user {login[0]!r} with this password: correct {variable}_USER and "
        f"{variable}_PASSWORD, or, for the embedded Solr, run `tinytags down solr` and `tinytags up solr`"
    )


def _mapping(content: bytes) -> dict[str, Any] | None:
    """Return the mapping that a response in JSON or javabin holds; None if the content is something else."""
    read = javabin_answer.read_answer if content.startswith(javabin_answer.VERSION) else orjson.loads
    try:
        found = read(content)  # orjson is five times as fast as json, and a block's rows are a megabyte
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
