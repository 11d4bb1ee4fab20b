"""Kerberos over HTTP (SPNEGO): a ticket goes to a server that asks for one, and the server proves who it is.

``requests-gssapi`` is not used: if the server must prove itself, it refuses what comes without a ticket, as answers to
a cookie and those of DataNodes do; threads share its logins; and it hides why there is no ticket.

GSSAPI finds the tickets that ``kinit`` got, or gets its own by the keytab that ``KRB5_CLIENT_KTNAME`` names. What is
said is in https://www.rfc-editor.org/rfc/rfc4559
"""

import base64
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import requests

from tinytags_tasks.errors import BadInputError

_TICKET_REMEDY = (
    "get a ticket by `kinit` and keep it renewed (`k5start`), or name a keytab in KRB5_CLIENT_KTNAME; `klist` shows "
    "what there is"
)
_NAME_REMEDY = "write the server's full name in its address, by which Kerberos knows it"
_SPNEGO = "1.3.6.1.5.5.2"
_PROOF = re.compile(r"\bNegotiate\s+([A-Za-z0-9+/]+=*)", re.IGNORECASE)
_KDC_AWAY = "Cannot contact any KDC"
_UNKNOWN_SERVER = "not found in Kerberos database"


class KerberosError(requests.RequestException):
    """There is no ticket, or one side does not accept what the other shows; the message has the remedy."""


class KdcAwayError(KerberosError):
    """The server that issues tickets does not answer."""


def asks_for_ticket(headers: Mapping[str, str]) -> bool:
    """Return whether a server that refuses a request would accept it with a ticket."""
    return re.search(r"\bNegotiate\b", headers.get("www-authenticate") or "", re.IGNORECASE) is not None


class Handshake:
    """One login to a server.

    Parameters
    ----------
    host
        The server's name, for which the ticket is.

    Attributes
    ----------
    authorization
        The header with the ticket.

    Raises
    ------
    BadInputError
        If the package's extra is not installed.
    KerberosError
        If no ticket for the server can be had.
    """

    def __init__(self, host: str) -> None:
        gssapi = load_gssapi()
        self._host, self._error = host, gssapi.exceptions.GSSError
        try:
            self._context = gssapi.SecurityContext(
                name=gssapi.Name(f"HTTP@{host}", gssapi.NameType.hostbased_service),
                creds=gssapi.Credentials(usage="initiate"),
                mech=gssapi.OID.from_int_seq(_SPNEGO),
                flags=(gssapi.RequirementFlag.mutual_authentication,),
                usage="initiate",
            )
            ticket = self._context.step()
        except self._error as error:
            raise _without_ticket(error, f"{host} asks for a Kerberos ticket, and there is none for it") from error
        self.authorization = f"Negotiate {base64.b64encode(ticket).decode()}"

    def verify(self, status: int, headers: Mapping[str, str]) -> None:
        """Check the answer to the ticket.

        Parameters
        ----------
        status, headers
            Of the response.

        Raises
        ------
        KerberosError
            If the ticket was refused, or the server does not prove that it is who the ticket is for.
        """
        proof = _PROOF.search(headers.get("www-authenticate") or "")
        if status == requests.codes.unauthorized or (proof is None and status == requests.codes.forbidden):
            raise KerberosError(
                f"{self._host} does not accept the Kerberos ticket (it answers {status}); compare both clocks, and "
                f"have its keytab for HTTP/{self._host} checked"
            )
        if proof is None and (status >= 500 or status == requests.codes.too_many_requests):
            return  # a proxy's answer, after which the same is asked again
        try:
            if proof is not None:
                self._context.step(base64.b64decode(proof[1]))
            is_proven = bool(self._context.complete)
        except (self._error, ValueError):
            is_proven = False
        if not is_proven:
            raise KerberosError(
                f"{self._host} took the Kerberos ticket but does not prove that it is HTTP/{self._host}; another "
                "server may answer in its place, or a proxy drops the header WWW-Authenticate"
            )


class Negotiate(requests.auth.AuthBase):
    """Logs a session of ``requests`` in wherever it is asked to; each request by itself, so that threads may share it.

    Raises
    ------
    BadInputError
        If the package's extra is not installed.
    """

    def __init__(self) -> None:
        load_gssapi()

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Have the response looked at."""
        request.register_hook("response", self._answer)  # type: ignore[no-untyped-call]
        return request

    def _answer(self, refusal: requests.Response, **options: Any) -> requests.Response:  # noqa: ANN401 - as it calls it
        """Repeat a request that was refused for want of a ticket; the ticket does not follow redirects."""
        if refusal.status_code != requests.codes.unauthorized or not asks_for_ticket(refusal.headers):
            return refusal
        if not isinstance(refusal.request.body, bytes | str | None):  # the bytes of a file, which are gone
            return refusal
        handshake = Handshake(urlsplit(refusal.url).hostname or "")
        refusal.content  # noqa: B018 - reads the response, so that its connection is used again
        refusal.close()
        repeated = refusal.request.copy()
        repeated.headers["Authorization"] = handshake.authorization
        answer: requests.Response = refusal.connection.send(repeated, **options)
        answer.history.append(refusal)
        handshake.verify(answer.status_code, answer.headers)
        return answer


def find_ticket() -> tuple[str, float]:
    """Return whose ticket there is, and for how many seconds it is valid.

    Raises
    ------
    BadInputError
        If the package's extra is not installed.
    KerberosError
        If there is none that is valid.
    """
    gssapi = load_gssapi()
    try:
        found = gssapi.Credentials(usage="initiate")
        return str(found.name), float(found.lifetime or 0)
    except gssapi.exceptions.GSSError as error:
        raise _without_ticket(error, "there is no valid Kerberos ticket") from error


def load_gssapi() -> Any:  # noqa: ANN401 - an extra
    """Return the package ``gssapi``.

    Raises
    ------
    BadInputError
        If it is not installed.
    """
    try:
        import gssapi
    except ImportError as error:
        raise BadInputError(
            "Kerberos needs the package gssapi, which is not installed or lacks its library: pip install "
            f"'tinytags[kerberos]', with a C compiler and libkrb5-dev ({error})"
        ) from error
    return gssapi


def asked_without_kerberos(host: str) -> KerberosError:
    """Return the error for a server that asks for a ticket although Kerberos is not set."""
    return KerberosError(
        f"{host} asks for Kerberos: install tinytags[kerberos], and set TINYTAGS_HDFS_KERBEROS=1 for the store's HDFS "
        "(in Airflow, the extra `kerberos` of its connection), or `kerberos = true` among a corpus' options"
    )


def _without_ticket(error: Any, problem: str) -> KerberosError:  # noqa: ANN401 - gssapi's
    codes = ((error.min_code, False), (error.maj_code, True))
    reasons = [reason.strip("\0 ") for code, is_major in codes for reason in error.get_all_statuses(code, is_major)]
    reason = next((reason for reason in reasons if reason not in ("", "Success")), type(error).__name__)
    if reason.startswith(_KDC_AWAY):
        return KdcAwayError(f"{reason}; check `kdc` in krb5.conf (KRB5_CONFIG), and that it runs")
    remedy = _NAME_REMEDY if _UNKNOWN_SERVER in reason else _TICKET_REMEDY
    return KerberosError(f"{problem} ({reason}): {remedy}")
