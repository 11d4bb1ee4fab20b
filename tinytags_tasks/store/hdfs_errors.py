"""What the failures of WebHDFS mean: the file is missing, access is refused, HDFS is away, or a call failed."""

import http.client
import socket
from collections.abc import Sequence
from urllib.parse import urlsplit

import requests
import urllib3
from hdfs import HdfsError

from tinytags_tasks.errors import (
    EngineDownError,
    FinalError,
    MissingError,
    TinyTagsError,
    TransientError,
    causes,
    refused_certificate,
)
from tinytags_tasks.secrecy import without_secrets
from tinytags_tasks.store.kerberos import KdcAwayError, KerberosError

HDFS = "HDFS"

_UNREPORTED = (
    "no DataNode that runs has reported a block of it: HDFS was just started, or a DataNode is away; if it stays so, "
    "the block is lost (`hdfs fsck / -list-corruptfileblocks` names its file)"
)
_UNREACHED = "a DataNode does not reach the NameNode"

_AWAY = {
    "SafeModeException": "the NameNode is in safe mode: it is starting, or misses blocks, or its disk is almost full",
    "RetriableException": "the NameNode cannot answer yet",
    "StandbyException": "no NameNode is active",
    "ServerTooBusyException": "the NameNode is overloaded",
    "NotReplicatedYetException": "a block is not written yet",
    "BlockMissingException": _UNREPORTED,
    **dict.fromkeys(
        (
            *(
                "ConnectException",
                "ConnectTimeoutException",
                "EOFException",
                "SocketException",
                "SocketTimeoutException",
            ),
            *("ClosedChannelException", "InterruptedIOException", "NoRouteToHostException"),
        ),
        _UNREACHED,
    ),
}
"""What Hadoop's exceptions say of an HDFS that cannot work at the moment."""

_AWAY_SIGNS = {
    # Before Hadoop 3.4, and since then
    "nodes contain this block": _UNREPORTED,
    "Block could not be located": _UNREPORTED,
    "Could not obtain block": _UNREPORTED,
    "Could not obtain the last block locations": _UNREPORTED,
    "Namesystem has not been initialized": "the NameNode is starting",
    "NameNode still not started": "the NameNode is starting",
    "Not ready to serve the block pool": "a DataNode is starting",
    "Failed on local exception": _UNREACHED,
    "failed on connection exception": _UNREACHED,
    "failed on socket timeout exception": _UNREACHED,
    "Connection reset by peer": _UNREACHED,
}
"""What the messages of a plain ``IOException`` contain if HDFS cannot work at the moment."""

AWAY_STATUSES = {429, 502, 503, 504}
"""HTTP statuses of a server that is overloaded or starting, or whose proxy does not reach it."""

FORBIDDEN_STATUSES = {401, 403, 407}

_FORBIDDEN = {
    "AccessControlException",
    "AuthenticationException",
    "AuthorizationException",
    "InvalidToken",
    "SecurityException",
}

_FINAL = {"InvalidPathException"}

_QUOTAS = {
    "DSQuotaExceededException": "the folder's quota of bytes is used up",
    "NSQuotaExceededException": "the folder's quota of files and folders is used up",
}


_COPIES = "Requested replication factor of"
"""What the message of a plain ``IOException`` contains if the cluster allows fewer copies, or demands more."""


class RedirectFailedError(requests.RequestException):
    """What a NameNode or a gateway redirects to does not answer."""


def translate(
    error: HdfsError | requests.RequestException | urllib3.exceptions.HTTPError, where: str, urls: Sequence[str]
) -> TinyTagsError:
    """Return what an error of the client means.

    Parameters
    ----------
    error
        As the client raised it.
    where
        The address of what was asked for.
    urls
        The addresses of the NameNodes or of their gateway.
    """
    strip_secrets(error)
    if isinstance(error, HdfsError):
        return _refused(error, where)
    if isinstance(error, KdcAwayError):
        return EngineDownError(f"{where}: {error}", HDFS)
    if isinstance(error, KerberosError):
        return FinalError(f"{where}: {error}")
    if refused := refused_certificate(error, where, HDFS):
        return refused
    if isinstance(error, requests.ConnectionError | requests.Timeout | RedirectFailedError):
        node = problem_of_datanode(error, urls)
        host = _asked_host(error)
        which = f" at {host}, the last of {len(urls)} addresses" if host and len(urls) > 1 else ""
        remedy = node or (
            f"HDFS does not answer{which}; see `tinytags status`, start it with `tinytags up` or check "
            "TINYTAGS_WEBHDFS_URL"
        )
        return EngineDownError(f"{where}: {remedy} ({reason(error)})", HDFS)
    response = error.response if isinstance(error, requests.HTTPError) else None
    status = 0 if response is None else response.status_code
    if status in AWAY_STATUSES:
        return EngineDownError(f"{where}: HDFS does not answer ({reason(error)})", HDFS)
    if status in FORBIDDEN_STATUSES:
        return FinalError(
            f"{where}: HDFS or its gateway refuses access ({reason(error)}); check TINYTAGS_WEBHDFS_URL and "
            "TINYTAGS_HDFS_USER, or ask its administrator"
        )
    return TransientError(f"{where}: the connection to HDFS broke ({reason(error)})")


def _refused(error: HdfsError, where: str) -> TinyTagsError:
    exception = getattr(error, "exception", None) or ""
    message = str(error).splitlines()[0] if str(error) else exception
    if is_missing(error):
        return MissingError(f"{where}: no such file in the store")
    if problem := away(exception, str(error)):
        return EngineDownError(f"{where}: {problem} ({message})", HDFS)
    if quota := _QUOTAS.get(exception):
        return FinalError(f"{where}: {quota} ({message}); free some, or have the quota raised (`hdfs dfsadmin`)")
    if _COPIES in message:
        return FinalError(f"{where}: HDFS rejected this ({message}); correct TINYTAGS_HDFS_REPLICATION")
    if is_forbidden(error) or exception in _FINAL:
        return FinalError(f"{where}: HDFS rejected this ({message}); ask its administrator")
    return TransientError(f"{where}: HDFS failed ({message})")


def is_missing(error: HdfsError) -> bool:
    """Return whether HDFS says that the file does not exist."""
    exception = getattr(error, "exception", None) or ""
    told = "does not exist" in str(error).split("\n")[0] and exception not in {*_FORBIDDEN, *_AWAY}
    return exception == "FileNotFoundException" or told


def is_forbidden(error: HdfsError) -> bool:
    """Return whether HDFS refuses access."""
    return (getattr(error, "exception", None) or "") in _FORBIDDEN


def away(exception: str, message: str) -> str:
    """Return why HDFS cannot work at the moment; empty if it can, and an operation failed.

    Parameters
    ----------
    exception, message
        The name of Hadoop's exception, and its message.
    """
    if "minReplication nodes" in message or "Failed to find datanode" in message:
        if "There are 0 datanode(s) running" in message:
            return "no DataNode is running, so HDFS cannot store a block"
        return "the disk is full: no DataNode has room for a block"
    if "safe mode" in message.lower():
        return _AWAY["SafeModeException"]
    if exception == "SecurityException" and "StandbyException" in message:  # how a standby refuses a token
        return _AWAY["StandbyException"]
    if problem := _AWAY.get(exception):
        return problem
    return next((problem for sign, problem in _AWAY_SIGNS.items() if sign in message), "")


def strip_secrets(error: Exception) -> None:
    """Take the queries of addresses out of an error and its causes, which a task's log shows.

    With Kerberos, the address of a DataNode has a token that opens HDFS.
    """
    for cause in causes(error):
        cause.args = tuple(without_secrets(part) if isinstance(part, str) else part for part in cause.args)


def problem_of_datanode(error: requests.RequestException, urls: Sequence[str]) -> str:
    """Return which DataNode could not be reached, and what to do; empty if it was the NameNode or its gateway.

    The NameNode redirects to DataNodes by the names that they have in its own network.
    """
    host = _asked_host(error)
    if not host or host in map(_host, urls):
        return ""
    if any(isinstance(cause, socket.gaierror | urllib3.exceptions.NameResolutionError) for cause in causes(error)):
        return (
            f"the name of the DataNode {host}, to which the NameNode redirects, cannot be resolved here; add it to the "
            "DNS or to /etc/hosts, or set dfs.datanode.hostname to a name that is known here"
        )
    return f"the DataNode {host}, to which the NameNode redirects, does not answer; check that it runs"


def _asked_host(error: requests.RequestException) -> str:
    return _host(str(error.request.url)) if error.request is not None else ""


def _host(url: str) -> str:
    return urlsplit(url).netloc.rpartition("@")[2]


def reason(error: Exception) -> str:
    """Return the innermost cause of a connection error, without the object addresses that requests prints."""
    *_, cause = causes(error)
    return f"{type(cause).__name__}: {cause}"


def received_bytes(error: urllib3.exceptions.HTTPError) -> int:
    """Return how many bytes of a response arrived before it stopped."""
    partial = next((cause.partial for cause in error.args if isinstance(cause, http.client.IncompleteRead)), 0)
    return len(partial) if isinstance(partial, bytes) else int(partial)
