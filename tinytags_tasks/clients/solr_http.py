"""One user's requests to Solr over a few kept-alive connections, and the only place that maps Solr's errors.

The pipeline's :class:`~tinytags_tasks.clients.solr.SolrClient` has one of these as the admin and one as the writer; the
search page has its own as the reader. The errors that are defined here are leaves of the tree in
:mod:`tinytags_tasks.errors`: only who asks Solr need tell them from other final errors.
"""

import base64
import random
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote, unquote, urlencode, urlsplit

import orjson
import urllib3

from tinytags_tasks.errors import BadInputError, EngineDownError, FinalError, MissingError, TransientError
from tinytags_tasks.settings import Login, SolrRole

CONNECTIONS = 2
"""Kept-alive connections that updates are posted over; more gained nothing on two cores."""

PAUSES_SECONDS = (0.5, 1, 2, 4, 8)
"""How long to wait before each new attempt, unless told otherwise."""

FORM = "application/x-www-form-urlencoded"

_BUSY = {429, 503, 504}


class ForbiddenError(FinalError):
    """The user may not do that, or the collection does not exist: of one, Solr tells most users 403, not 404."""


class UndefinedFieldError(FinalError):
    """A query names a field that the collection's schema lacks, such as one added after the collection was made.

    Parameters
    ----------
    message
        What went wrong.
    field
        The field's name.
    """

    def __init__(self, message: str, field: str) -> None:
        super().__init__(message)
        self.field = field


class NotSolrError(FinalError):
    """Something else answers at Solr's address."""


class SolrHttp:
    """Sends one user's requests.

    Parameters
    ----------
    url
        Solr's address, such as ``http://host:8983/solr``. Messages show it without a password in it.
    role
        Whose requests these are: a message about a wrong password names that user's settings.
    login
        User and password; None where Solr does not ask who calls, or where the address has both.
    pauses_seconds
        How long to wait before each new attempt after a request that found Solr busy or away; empty tries once.
    timeout_seconds
        How long an answer may take.
    connections
        How many requests may be under way at once; others wait for their turn.
    explain_forbidden
        Given the path of a request that Solr forbids and the error, returns the error to raise instead; a transient one
        is tried again.
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
        explain_forbidden: Callable[[str, ForbiddenError], TransientError | FinalError] | None = None,
    ) -> None:
        parts = urlsplit(url.rstrip("/"))
        self.url = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
        self._role = role
        if login is None and parts.username is not None:
            login = unquote(parts.username), unquote(parts.password or "")
        self._login = login
        self._pauses_seconds = pauses_seconds
        self._explain_forbidden = explain_forbidden
        self._pool = urllib3.PoolManager(
            maxsize=connections, block=True, retries=False, timeout=urllib3.Timeout(connect=5, read=timeout_seconds)
        )

    def request(
        self, path: str, parameters: Mapping[str, object] | None = None, body: bytes | None = None, mime: str = ""
    ) -> dict[str, Any]:
        """Send one request, again while Solr is busy or away, and return its JSON answer.

        Parameters
        ----------
        path
            What is asked, below Solr's address; with its own parameters where there is a body.
        parameters
            Of a request without a body; the answer is asked for in JSON.
        body, mime
            What is posted, and its type.

        Raises
        ------
        EngineDownError, TransientError
            If it stayed away, or busy.
        MissingError
            If the collection does not exist.
        ForbiddenError
            If the user may not do that; for most users, also when the collection does not exist.
        BadInputError
            If Solr does not know the user, or has another password.
        UndefinedFieldError
            If a query names a field that the collection lacks.
        NotSolrError
            If the answer is not Solr's.
        FinalError
            If Solr refuses the request for another reason.
        """
        problem: TransientError | None = None
        for pause in (0.0, *self._pauses_seconds):
            time.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311 - spreads writers, keeps no secret
            try:
                return self._request_once(path, parameters, body, mime)
            except TransientError as error:
                problem = error
        assert problem is not None  # noqa: S101 - the loop ran at least once
        raise problem

    def select(self, collection: str, parameters: Mapping[str, object]) -> dict[str, Any]:
        """Search a collection or alias; a parameter's value may be a list. Posted, so that it may be of any length.

        Raises the errors of :meth:`request`.
        """
        form = urlencode({"wt": "json", **parameters}, doseq=True).encode()
        return self.request(f"{quote(collection)}/select", body=form, mime=FORM)

    def _request_once(
        self, path: str, parameters: Mapping[str, object] | None, body: bytes | None, mime: str
    ) -> dict[str, Any]:
        headers = {"Content-Type": mime} if mime else {}
        query = "" if body is not None else "?" + urlencode({"wt": "json", **(parameters or {})})
        try:
            response = self._pool.request(
                "GET" if body is None else "POST",
                f"{self.url}/{path}{query}",
                body=body,
                headers=headers | (basic_authorization(self._login) if self._login else {}),
            )
        except urllib3.exceptions.HTTPError as error:
            raise EngineDownError(
                f"{self.url}: Solr does not answer; see `tinytags status`, start it with `tinytags up` "
                f"or check TINYTAGS_SOLR_URL ({type(error).__name__})"
            ) from error
        answer = _json_object(response.data)
        if response.status == 200:
            if answer is None:
                raise NotSolrError(f"{self.url}/{path}: the answer is not Solr's; check TINYTAGS_SOLR_URL")
            return answer
        problem = (answer or {}).get("error")
        told = problem.get("msg") if isinstance(problem, dict) else problem
        reason = str(told or (answer or {}).get("exception") or response.reason)[:500]
        refusal = self._error(response.status, f"{self.url}/{path}: Solr answers {response.status} ({reason})", reason)
        if self._explain_forbidden and isinstance(refusal, ForbiddenError):
            raise self._explain_forbidden(path, refusal) from refusal
        raise refusal

    def _error(self, status: int, message: str, reason: str) -> TransientError | FinalError:
        """Return the error that an answer other than 200 stands for."""
        if status == 401:
            return BadInputError(unknown_user(self.url, self._role, self._login))
        if status == 404:
            return MissingError(f"{message}; is there such a collection?")
        if status == 403 and "read-only" in reason:
            return FinalError(f"{message}; make it writable again: MODIFYCOLLECTION with readOnly=false")
        if status == 403:
            return ForbiddenError(f"{message}; the user {self._login[0] if self._login else ''!r} may not do that")
        if status in _BUSY or status >= 500 or status == 409:
            return TransientError(message)
        if field := undefined_field(reason):
            return UndefinedFieldError(message, field)
        return FinalError(message)


def undefined_field(reason: str) -> str:
    """Return the field that a query names and the collection lacks, from what Solr says; empty when it says no such."""
    found = re.search(r"undefined field:? \"?([A-Za-z_]\w*)", reason, re.IGNORECASE)
    return found[1] if found else ""


def basic_authorization(login: Login) -> dict[str, str]:
    """Return the header that tells Solr who asks; RFC 7617, in UTF-8 as Solr reads it."""
    return {"Authorization": "Basic " + base64.b64encode(":".join(login).encode()).decode()}


def unknown_user(url: str, role: SolrRole, login: Login | None) -> str:
    """Return what to do about a Solr that answers 401."""
    variable = f"TINYTAGS_SOLR_{role.upper()}"
    if login is None:
        return f"{url}: Solr asks who calls: set {variable}_USER and {variable}_PASSWORD"
    return (
        f"{url}: Solr does not let the user {login[0]!r} in with this password: correct {variable}_USER and "
        f"{variable}_PASSWORD, or, of the embedded Solr, `tinytags down solr` and `tinytags up solr`"
    )


def _json_object(content: bytes) -> dict[str, Any] | None:
    """Return a JSON object; None when the content is something else."""
    try:
        found = orjson.loads(content)  # orjson: five times as fast, and a block's rows are a megabyte
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
