"""Spark Connect: a session from an address, and its errors as ours."""

import logging
import socket
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import grpc
from pyspark.errors import AnalysisException, ParseException, PySparkException
from pyspark.sql import SparkSession
from pyspark.sql.connect.client.retries import DefaultPolicy

from tinytags_tasks.errors import BadInputError, EngineDownError, FinalError, TransientError

ConnectSpark = Callable[[], Any]
"""Opens a Spark session when it is called: three seconds that a step without work need not spend."""


def connect_spark(url: str) -> Any:  # noqa: ANN401 - pyspark's Connect session has no common base with types
    """Open a session on a Spark Connect server.

    Raises
    ------
    BadInputError
        When the address is none.
    EngineDownError
        When nothing answers there.
    """
    parts = urlsplit(url)
    if parts.scheme != "sc" or not parts.hostname:
        raise BadInputError(f"{url!r} is no Spark Connect address: write sc://host:15002")
    try:  # the client itself would try for ten minutes
        socket.create_connection((parts.hostname, parts.port or 15002), timeout=10).close()
    except OSError as error:
        raise EngineDownError(
            f"{url}: Spark does not answer; see `tinytags status`, start it with `tinytags up` "
            f"or check TINYTAGS_SPARK_URL ({error})"
        ) from error
    logging.getLogger("pyspark.sql.connect.logging").setLevel(logging.ERROR)
    with spark_errors("opening a session"):
        session = SparkSession.builder.remote(url).create()
        # By default a call to a server that died is tried for ten minutes; our own retries come after ten seconds.
        session.client.set_retry_policies([DefaultPolicy(max_retries=5, max_backoff=5_000)])
        return session


@contextmanager
def spark_errors(doing: str) -> Generator[None]:
    """Turn Spark's exceptions into ours; ``doing`` says what was being done."""
    try:
        yield
    except (AnalysisException, ParseException) as error:
        raise FinalError(f"Spark refuses {doing}: {_first_line(error)}") from error
    except (PySparkException, grpc.RpcError) as error:
        raise TransientError(f"Spark failed at {doing}: {_first_line(error)}; see the log of `spark`") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:500]
