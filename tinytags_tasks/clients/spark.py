"""Spark Connect: opens sessions, and translates Spark's errors into ours."""

import logging
import socket
import uuid
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

import grpc
from pyspark.errors import AnalysisException, ParseException, PySparkException
from pyspark.errors.exceptions.connect import SparkConnectGrpcException
from pyspark.sql import SparkSession
from pyspark.sql.connect.client.retries import DefaultPolicy
from pyspark.sql.connect.session import SparkSession as ConnectSession
from pyspark.util import inheritable_thread_target

from tinytags_tasks.clients.spark_address import SparkAddress
from tinytags_tasks.clients.spark_workers import code_hash, compare_versions, explain_worker, ready_workers
from tinytags_tasks.errors import BadInputError, EngineDownError, FinalError, TransientError

SPARK = "Spark"

_AWAY_CODES = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)

_STOPPED = (
    "SparkContext was shut down",
    "SparkContext has been shutdown",
    "stopped SparkContext",
    "SparkContext is stopped",
    "LiveListenerBus is stopped",
    "RpcEnv already stopped",
    "Socket closed",
    "Connection reset by peer",
)
"""What a server says that is being stopped, or a connection that it has closed."""

_GONE = ("INVALID_HANDLE.", "NO_ACTIVE_SESSION", "RETRIES_EXCEEDED")
"""The conditions, or their beginning, of a server that was restarted and of one that no retry has reached."""

P = ParamSpec("P")
R = TypeVar("R")

ConnectSpark = Callable[[], Any]
"""Opens a Spark session; a step calls it only if there is work, because a session's first job takes seconds."""


def connect_spark(url: str, token: str = "", archive: Path | None = None, *, send_code: bool = False) -> Any:  # noqa: ANN401 - pyspark's Connect session has no common base with types
    """Join the session that all of TinyTags shares on a Spark Connect server for an hour; the caller must stop it.

    Every executor starts new Python processes for every session, and Spark never ends them. With one session per task,
    a run of 400 tasks would spend ten minutes on that and keep 6 GB occupied (docs/adr/0009-shared-spark-session.md).

    Parameters
    ----------
    url
        The server's address, which may include a token.
    token
        The token that the server requires; empty if it requires none.
    archive
        See :func:`~tinytags_tasks.clients.spark_workers.ready_workers`.
    send_code
        Whether executors that lack this version of the package's code get it.

    Raises
    ------
    BadInputError
        If the address is not one of Spark Connect, or the server rejects the token.
    FinalError
        If the server or its executors' Python cannot run our jobs, or executors have another version of our code.
    EngineDownError
        If nothing answers there.
    """
    session = open_session(url, token)
    try:
        with spark_errors("asking for Spark's version"):
            if difference := compare_versions(session.version):
                logging.getLogger("tinytags").warning(difference)
            ready_workers(session, archive, send_code=send_code)
    except BaseException:
        session.stop()
        raise
    return session


def open_session(url: str, token: str = "") -> Any:  # noqa: ANN401
    """Join the shared session as :func:`connect_spark` does, without asking what its executors run."""
    address = SparkAddress.parse(url).with_default("token", token).with_plain_token()
    server = address.server  # the rest of the address may contain secrets
    try:  # the client itself would retry for ten minutes
        socket.create_connection((address.host, address.port), timeout=10).close()
    except OSError as error:
        raise EngineDownError(
            f"{server}: Spark does not answer; see `tinytags status`, start it with `tinytags up` "
            f"or check TINYTAGS_SPARK_URL ({error})",
            SPARK,
        ) from error
    logging.getLogger("pyspark.sql.connect.logging").setLevel(logging.ERROR)
    with spark_errors("opening a session"):
        try:
            return _join(session_address(address, datetime.now(UTC)))
        except PySparkException as error:
            if "UNAUTHENTICATED" in str(error):
                raise BadInputError(f"{server}: Spark rejects the token: correct TINYTAGS_SPARK_TOKEN") from error
            if error.getCondition() != "INVALID_HANDLE.SESSION_CLOSED":
                raise
            # The server closes idle sessions before the default hour is over, and never reopens one.
            return _join(address.with_default("session_id", str(uuid.uuid4())))


def session_address(address: SparkAddress, at: datetime) -> SparkAddress:
    """Return a server's address with the id of the session that is shared there during the hour of ``at``.

    Workers keep the code that they imported, so changed code gets a new session.
    """
    session = uuid.uuid5(uuid.NAMESPACE_URL, f"{address} {at:%Y-%m-%d %H} {code_hash()}")
    return address.with_default("session_id", str(session))


def _join(address: SparkAddress) -> Any:  # noqa: ANN401
    session = SparkSession.builder.remote(str(address)).create()
    # By default, calls to a dead server are retried for ten minutes; our own retries begin after ten seconds.
    session.client.set_retry_policies([DefaultPolicy(max_retries=5, max_backoff=5_000)])
    session.release_session_on_close = False  # closing it would end the work of others
    tag = f"tinytags-{uuid.uuid4()}"
    session.addTag(tag)

    def leave() -> None:
        """Cancel what this client left running, and disconnect."""
        with suppress(PySparkException, grpc.RpcError):  # a server that is down runs nothing
            session.interruptTag(tag)
        type(session).stop(session)

    session.stop = leave
    try:
        session.version  # noqa: B018 - the first call opens it
    except (PySparkException, grpc.RpcError):
        leave()  # a channel that is still open when Python exits can block it forever
        raise
    return session


def in_thread(session: Any, work: Callable[P, R]) -> Callable[P, R]:  # noqa: ANN401
    """Return work for another thread that uses a session as this thread does.

    MLlib's client asks the thread for its session; and the session's tag is known there, so that leaving cancels what
    the thread runs.
    """
    if not isinstance(session, ConnectSession):  # only sessions of Spark Connect belong to a thread
        return work
    return cast("Callable[P, R]", inheritable_thread_target(session)(work))


@contextmanager
def spark_errors(doing: str) -> Generator[None]:
    """Translate Spark's exceptions into ours; ``doing`` says what was being done."""
    try:
        yield
    except (AnalysisException, ParseException) as error:
        raise FinalError(f"Spark rejected {doing}: {_first_line(error)}") from error
    except (PySparkException, grpc.RpcError) as error:
        if is_away(error):
            raise EngineDownError(f"Spark went away while {doing}: {_first_line(error)}", SPARK) from error
        if lacking := explain_worker(str(error)):
            raise FinalError(f"Spark failed while {doing}: {lacking}") from error
        raise TransientError(f"Spark failed while {doing}: {_first_line(error)}; see the log of `spark`") from error


def is_away(error: Exception) -> bool:
    """Tell whether Spark Connect is down, or was restarted and does not know the session any more."""
    if isinstance(error, grpc.RpcError):
        return cast("grpc.Call", error).code() in _AWAY_CODES or any(sign in str(error) for sign in _STOPPED)
    if not isinstance(error, PySparkException):
        return False
    code = error.getGrpcStatusCode() if isinstance(error, SparkConnectGrpcException) else None
    return (
        code in _AWAY_CODES
        or (error.getCondition() or "").startswith(_GONE)
        or any(sign in str(error) for sign in _STOPPED)
    )


def _first_line(error: Exception) -> str:
    """Return what an error says, in a line: of an exception in a Python worker, the end of its traceback."""
    _, is_traceback, below = str(error).partition("Traceback (most recent call last):\n")
    said = [line for line in below.partition("\n\n")[0].splitlines() if line[:1].strip()]
    if is_traceback and said:
        return said[-1][:500]
    return (str(error).strip() or type(error).__name__).splitlines()[0][:500]
