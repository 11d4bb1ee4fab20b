"""The only WebHDFS client, for the store and for sources in HDFS.

https://hadoop.apache.org/docs/stable/hadoop-project-dist/hadoop-hdfs/WebHDFS.html
"""

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import quote, urlsplit

import requests
import urllib3
from hdfs import Client, HdfsError, InsecureClient, TokenClient

from tinytags_tasks.errors import BadInputError
from tinytags_tasks.secrecy import without_password
from tinytags_tasks.store.hdfs_errors import RedirectFailedError, is_missing
from tinytags_tasks.store.kerberos import Negotiate, asked_without_kerberos, asks_for_ticket

CONNECT_SECONDS = 10.0

_BYTES = {"content-type": "application/octet-stream"}
"""HttpFS takes no other type."""

_ELSEWHERE = ("RetriableException", "StandbyException")
"""If a NameNode responds with one of these, another NameNode may accept the request."""


_UNSUPPORTED = ("IllegalArgumentException", "UnsupportedOperationException")
"""The exceptions of servers that do not know an operation."""


@dataclass(frozen=True)
class ListedPart:
    """A part of a folder's listing: names with what HDFS says of each, and whether more follow."""

    entries: list[tuple[str, dict[str, Any]]]
    is_more: bool


_REPEATS: dict[str, Any] = {"total": None, "connect": 2, "read": 2, "redirect": 0, "status": 0, "other": 0}


class _Repeats(urllib3.Retry):
    """Repeats a request whose connection was refused or reset.

    A request that was sent may have been carried out, so only those are repeated that may be carried out twice: all GET
    operations read, and a second DELETE finds nothing. A timeout has taken long enough.
    """

    def __init__(self, **options: Any) -> None:  # noqa: ANN401 - urllib3 copies itself with its own options
        super().__init__(**{**_REPEATS, "allowed_methods": ("GET", "DELETE"), "backoff_factor": 0.3, **options})

    def increment(self, *arguments: Any, **named: Any) -> Self:  # noqa: ANN401 - as urllib3 calls it
        """Count a failure; raise it if the request is not to be repeated."""
        error = named.get("error")
        if isinstance(error, urllib3.exceptions.TimeoutError) and not isinstance(error, _REFUSED):
            raise urllib3.exceptions.MaxRetryError(named["_pool"], "", error) from error
        return super().increment(*arguments, **named)


_REFUSED = urllib3.exceptions.NewConnectionError


class _Session(requests.Session):
    """Tells a DataNode that does not answer apart from a NameNode, in place of which another one may be asked."""

    def resolve_redirects(self, *arguments: Any, **named: Any) -> Iterator[requests.Response]:  # noqa: ANN401
        """Follow redirects."""
        try:
            yield from super().resolve_redirects(*arguments, **named)
        except (requests.ConnectionError, requests.Timeout) as error:
            raise RedirectFailedError(str(error), request=error.request) from error


class WebHdfs:
    """A client of one HDFS.

    It leaves the exceptions of the ``hdfs`` package and of ``requests`` to :mod:`tinytags_tasks.store.hdfs_errors`.

    Parameters
    ----------
    url
        The NameNode's HTTP address; several addresses are separated by semicolons.
    root
        The folder that relative paths are relative to.
    user
        The HDFS user; empty means the user of the operating system.
    token
        A delegation token, instead of a user.
    kerberos
        Whether the ticket of whoever runs this is shown where one is asked for, instead of a user.
    acting_for
        The user to act for, if the authenticated user is allowed to.
    verify, certificate
        See ``verify`` and ``cert`` of ``requests.Session``; ``SSL_CERT_FILE`` names an authority of one's own.

    Attributes
    ----------
    client
        The client of the ``hdfs`` package, for every operation that it has a method for.
    """

    def __init__(
        self,
        url: str,
        *,
        root: str = "/",
        user: str = "",
        token: str = "",
        kerberos: bool = False,
        acting_for: str | None = None,
        verify: bool | str = True,
        certificate: str | None = None,
        answer_seconds: float = 120.0,
    ) -> None:
        session = _Session()
        session.trust_env = False  # do not use a proxy from the environment
        session.verify = (os.environ.get("SSL_CERT_FILE") or True) if verify is True else verify
        session.cert = certificate
        adapter = requests.adapters.HTTPAdapter(pool_connections=8, pool_maxsize=8, max_retries=_Repeats())
        session.mount("http://", adapter)
        session.mount("https://", adapter)
        session.hooks["response"].append(_refuse_error_page)
        logging.getLogger("hdfs.client").setLevel(logging.WARNING)  # one line per request would bury everything else
        logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # so would a warning for each repetition
        self._timeout_seconds = (CONNECT_SECONDS, answer_seconds)
        options = {"root": root, "proxy": acting_for, "timeout": self._timeout_seconds, "session": session}
        self._session = session
        self._answered = ""  # which of several NameNodes; it is asked first
        self.client: Any
        if token:
            self.client = TokenClient(url, token, **options)
        elif kerberos:
            session.auth = Negotiate()
            self.client = Client(url, **options)
        else:
            self.client = InsecureClient(url, user=user or None, **options)

    def read(self, path: str, offset: int = 0, length: int | None = None) -> bytes:
        """Return bytes of a file; fewer if the file ends before."""
        if length == 0:
            return b""
        try:
            with self.client.read(path, offset=offset, length=length) as reader:
                return bytes(reader.read())
        except HdfsError as error:
            if "out of the range" not in str(error):
                raise
            return b""
        except requests.HTTPError as error:
            # HttpFS does not say why it cannot read behind the end of a file.
            is_unexplained = error.response.status_code == requests.codes.server_error
            if not is_unexplained or offset < self.client.status(path)["length"]:
                raise
            return b""

    def write(
        self, path: str, content: Iterator[bytes | memoryview], *, overwrite: bool, copies: int | None = None
    ) -> None:
        """Write a file: the NameNode says where, and the content goes there.

        Parameters
        ----------
        path, content
            The file, and its bytes in parts.
        overwrite
            Whether a file that exists is replaced.
        copies
            How many copies HDFS keeps of it; None leaves it to HDFS, as does a folder with erasure coding.

        Raises
        ------
        BadInputError
            If the server does not say where.
        """
        replication = {} if copies is None else {"replication": str(copies)}
        answer = self._ask("PUT", "CREATE", path, overwrite=str(overwrite), **replication)
        target = answer.headers.get("location") or _location_in(answer)
        if not target:
            raise BadInputError(
                f"{without_password(self.client.url)}: answers a request to write with {answer.status_code} "
                f"{answer.reason}, and says nothing of where the bytes go (no Location); set TINYTAGS_WEBHDFS_URL to "
                "the NameNode or to Knox, with the gateway's path"
            )
        body: Any = content  # requests sends any bytes-like chunks
        stored = self._session.put(target, data=body, timeout=self._timeout_seconds, headers=_BYTES)
        if not stored.ok:
            raise _hdfs_error(stored)

    def find(self, path: str) -> dict[str, Any] | None:
        """Return what HDFS knows of a file or folder; None only if HDFS says that it does not exist.

        The ``hdfs`` package's ``status(strict=False)`` takes most refusals for that, too.
        """
        try:
            return dict(self.client.status(path))
        except HdfsError as error:
            if not is_missing(error):
                raise
            return None

    def list_part(self, path: str, after: str = "") -> "ListedPart":
        """Return the names in a folder that follow a name, in the order of their bytes: as many as HDFS lists at once.

        A server that does not list in parts lists all.

        Parameters
        ----------
        path
            The folder.
        after
            The name; empty begins with the first one.
        """
        # A NameNode knows the parameter in lower case only, HttpFS as it is documented.
        after_name = {"startafter": after, "startAfter": after} if after else {}
        try:
            answer = self.call("GET", "LISTSTATUS_BATCH", path, **after_name)
        except HdfsError as error:
            if getattr(error, "exception", "") not in _UNSUPPORTED:
                raise
            return ListedPart(self.client.list(path, status=True), is_more=False)
        listing = answer["DirectoryListing"]
        statuses = listing["partialListing"]["FileStatuses"]["FileStatus"]
        entries = [(str(status["pathSuffix"]), status) for status in statuses]
        if after and entries and entries[0][0].encode() <= after.encode():  # it would begin again for ever
            return ListedPart(self.client.list(path, status=True), is_more=False)
        return ListedPart(entries, is_more=int(listing["remainingEntries"]) > 0)

    def call(self, method: str, operation: str, path: str, **parameters: str) -> dict[str, Any]:
        """Call an operation of the NameNode that the ``hdfs`` package has no method for.

        Parameters
        ----------
        method
            The HTTP method.
        operation, path
            The operation's name, and the path that it applies to.
        parameters
            Further parameters of the operation.

        Returns
        -------
        dict
            The JSON of the response; empty if it has none, such as after a rename with options.

        Raises
        ------
        hdfs.HdfsError
            If HDFS rejects the call; ``exception`` is the name of Hadoop's exception.
        """
        answer = self._ask(method, operation, path, **parameters)
        return dict(answer.json()) if answer.content else {}

    def _ask(self, method: str, operation: str, path: str, **parameters: str) -> requests.Response:
        """Return the first response of a NameNode that is not an error; see :meth:`call`."""
        failure: Any = None
        for url in sorted(self.client.urls, key=lambda url: url != self._answered):
            try:
                answer = self._session.request(
                    method,
                    f"{url.rstrip('/')}/webhdfs/v1{quote(self.client.resolve(path), '/= ')}",
                    params={"op": operation, **parameters},
                    timeout=self._timeout_seconds,
                    headers=_BYTES,
                    allow_redirects=operation != "CREATE",
                )
            except (requests.ConnectionError, requests.Timeout) as error:
                failure = error
                continue
            if answer.ok:
                self._answered = url
                return answer
            failure = _hdfs_error(answer)
            if failure.exception not in _ELSEWHERE:
                break
        raise failure or ValueError(f"{without_password(self.client.url)!r} does not name a NameNode")


def _hdfs_error(answer: requests.Response) -> Any:  # noqa: ANN401 - hdfs has no types
    """Return the error in a response of HDFS."""
    try:
        remote = answer.json()["RemoteException"]
        return HdfsError(remote["message"], exception=remote["exception"])
    except (ValueError, LookupError, TypeError):
        return HdfsError(f"{answer.status_code} {answer.reason}")


def _location_in(answer: requests.Response) -> str:
    """Return where the bytes of a file go, from the body of a response: some gateways do not redirect."""
    try:
        return str(answer.json()["Location"])
    except (ValueError, LookupError, TypeError):
        return ""


def _refuse_error_page(answer: requests.Response, **_: Any) -> None:  # noqa: ANN401
    """Raise an error page that is not from HDFS; the client would mistake it for a response or for a file's bytes.

    Kerberos has answered a 401 before this sees it.
    """
    if answer.status_code < 400:
        return
    if answer.status_code == requests.codes.unauthorized and asks_for_ticket(answer.headers):
        raise asked_without_kerberos(without_password(urlsplit(answer.url).netloc))
    if b"RemoteException" not in answer.content:
        answer.raise_for_status()
    if answer.status_code == requests.codes.unauthorized:  # of which the client would not say why
        raise _hdfs_error(answer)
