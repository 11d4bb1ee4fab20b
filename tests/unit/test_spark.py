"""The id of the session that is shared on a Spark Connect server."""

import os
import shutil
import subprocess
import sys
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from pyspark.errors.exceptions.connect import SparkConnectGrpcException

import tinytags_tasks
from tinytags_tasks import clients, errors, secrecy
from tinytags_tasks.clients.spark import connect_spark, session_address, spark_errors
from tinytags_tasks.clients.spark_address import SparkAddress
from tinytags_tasks.errors import BadInputError, EngineDownError, TransientError, WaitError

NOON = datetime(2025, 6, 1, 12, 0, tzinfo=UTC)


def session_of(url: str, at: datetime = NOON) -> str:
    return session_address(SparkAddress.parse(url), at).parameters["session_id"]


def test_within_an_hour_everybody_gets_the_same_session():
    assert session_of("sc://a:1") == session_of("sc://a:1", NOON + timedelta(minutes=59, seconds=59))


@pytest.mark.parametrize(
    ("url", "at"),
    [("sc://a:1", NOON + timedelta(hours=1)), ("sc://a:1", NOON + timedelta(days=1)), ("sc://b:1", NOON)],
)
def test_another_hour_or_server_is_another_session(url, at):
    assert session_of(url, at) != session_of("sc://a:1")


def test_code_that_changed_anywhere_in_the_package_is_another_session(tmp_path):
    # a worker keeps the code that it has imported
    package = tmp_path / "tinytags_tasks"
    shutil.copytree(Path(clients.__file__).parent, package / "clients")
    for module in (tinytags_tasks, errors, secrecy):
        shutil.copy(module.__file__, package)
    block = package / "score" / "block.py"
    block.parent.mkdir()
    asked = (
        "from datetime import UTC, datetime\n"
        "from tinytags_tasks.clients.spark import SparkAddress, session_address\n"
        "at = datetime(2025, 6, 1, 12, 0, tzinfo=UTC)\n"
        "print(session_address(SparkAddress.parse('sc://a:1'), at).parameters['session_id'])"
    )

    def session(code):
        block.write_text(code)
        os.utime(block, (0, 0))  # files of a wheel may all have the same time
        done = subprocess.run((sys.executable, "-c", asked), cwd=tmp_path, capture_output=True, text=True, check=True)
        return uuid.UUID(done.stdout.strip())

    before = session("VERSION = 1\n")
    assert session("VERSION = 2\n") != before
    assert session("VERSION = 1\n") == before


def test_an_error_does_not_tell_the_token():
    with pytest.raises(EngineDownError) as caught:
        connect_spark("sc://127.0.0.1:1/;token=secret", "another")
    assert "secret" not in str(caught.value)
    assert "another" not in str(caught.value)


def test_a_session_that_the_user_names_is_left():
    named = SparkAddress.parse("sc://a:1/;session_id=0d7c7d0e-7bd5-4b0e-8fb3-5f35bb1b6c3b")
    assert session_address(named, NOON) == named


@pytest.mark.parametrize("url", ["", "http://a:1", "sc://", "a:15002"])
def test_what_is_no_address_of_spark_is_refused(url):
    with pytest.raises(BadInputError, match="is not a Spark Connect address: write sc://host:15002"):
        connect_spark(url)


def test_a_server_that_is_away_is_told_with_the_remedy():
    with pytest.raises(EngineDownError, match=r"sc://127\.0\.0\.1:1: Spark does not answer; see `tinytags status`"):
        connect_spark("sc://127.0.0.1:1")


def failure(message: str, code: grpc.StatusCode = grpc.StatusCode.INTERNAL, condition: str | None = None) -> Exception:
    return SparkConnectGrpcException(
        message=message, errorClass=condition, messageParameters={} if condition else None, grpc_status_code=code
    )


@pytest.mark.parametrize(
    "error",
    [
        failure("failed to connect to all addresses", grpc.StatusCode.UNAVAILABLE),
        failure("RPC deadline exceeded", grpc.StatusCode.DEADLINE_EXCEEDED),
        failure(
            "[INVALID_HANDLE.SESSION_CHANGED] the server was restarted", condition="INVALID_HANDLE.SESSION_CHANGED"
        ),
        failure("Job 3 cancelled because SparkContext was shut down"),
        failure("Cannot call methods on a stopped SparkContext."),
        failure("SparkContext has been shutdown"),
        failure("[INVALID_HANDLE.SESSION_NOT_FOUND] no session", condition="INVALID_HANDLE.SESSION_NOT_FOUND"),
        failure("[INVALID_HANDLE.SESSION_CLOSED] it was closed", condition="INVALID_HANDLE.SESSION_CLOSED"),
        failure("[INVALID_HANDLE.OPERATION_NOT_FOUND] unknown", condition="INVALID_HANDLE.OPERATION_NOT_FOUND"),
        failure("the maximum number of retries has been exceeded", condition="RETRIES_EXCEEDED"),
        failure("Socket closed", grpc.StatusCode.UNKNOWN),
    ],
)
def test_a_server_that_goes_away_in_mid_job_is_waited_for(error):
    with (
        pytest.raises(EngineDownError, match="Spark went away while scoring blocks 3") as raised,
        spark_errors("scoring blocks 3"),
    ):
        raise error
    assert raised.value.awaited == "Spark"


def test_an_exception_of_a_worker_is_said_with_its_end() -> None:
    message = (
        "\n  An exception was thrown from the Python worker. Please see the stack trace below.\n"
        'Traceback (most recent call last):\n  File "worker.py", line 1, in main\n    raise FileNotFoundError(self)\n'
        "FileNotFoundError: /net/card.json\n\n\nJVM stacktrace:\norg.apache.spark.SparkException\n"
    )
    with (
        pytest.raises(TransientError, match=r"^Spark failed while embedding: FileNotFoundError: /net/card\.json; see"),
        spark_errors("embedding"),
    ):
        raise failure(message)


@pytest.mark.parametrize(
    "message", ["Job aborted: ExecutorLostFailure (executor 1 exited)", "Python worker exited unexpectedly (crashed)"]
)
def test_a_job_that_fails_while_the_server_lives_counts_as_a_failure(message):
    with (
        pytest.raises(TransientError, match="Spark failed while scoring blocks 3") as raised,
        spark_errors("scoring blocks 3"),
    ):
        raise failure(message)
    assert not isinstance(raised.value, WaitError)
