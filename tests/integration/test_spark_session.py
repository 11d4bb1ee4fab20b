"""The session that TinyTags shares on a Spark Connect server: its workers stay, and what a client left running ends."""

import os
import signal
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from conftest import hdfs_client

from tinytags_tasks.clients import spark as spark_module
from tinytags_tasks.doctor import spark as doctor_spark
from tinytags_tasks.doctor.spark import examine_spark
from tinytags_tasks.runtime import Runtime


def daemon_of(spark: Any) -> int:
    """Return the process id of the Python daemon that a session's workers come from."""

    def ask(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import os

        for _ in batches:
            yield pa.record_batch([pa.array([os.getppid()])], names=["daemon"])

    (row,) = spark.range(0, 1, 1, numPartitions=1).mapInArrow(ask, "daemon long").collect()
    return row.daemon


def test_sessions_one_after_another_and_at_once_share_their_workers(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    session_address, now = spark_module.session_address, datetime.now(UTC)  # a new hour may begin in between
    monkeypatch.setattr(spark_module, "session_address", lambda url, at: session_address(url, now))
    first, second = runtime.connect_spark(), runtime.connect_spark()
    try:
        daemon = daemon_of(first)
        first.stop()
        assert daemon_of(second) == daemon
    finally:
        second.stop()
    third = runtime.connect_spark()
    try:
        assert daemon_of(third) == daemon
    finally:
        third.stop()


def test_a_job_that_is_interrupted_ends_at_the_server(runtime: Runtime, tmp_path: Path) -> None:
    sign = tmp_path / "alive"

    def linger(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for turn in range(600):
                sign.write_text(str(turn))
                time.sleep(0.1)
            yield batch

    def interrupt_when_it_runs() -> None:
        while not sign.exists():
            time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGINT)

    spark = runtime.connect_spark()
    # Tests that a shell started in the background ignore this signal.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=interrupt_when_it_runs, daemon=True).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            spark.range(0, 1, 1, numPartitions=1).mapInArrow(linger, "id long").collect()
    finally:
        signal.signal(signal.SIGINT, before)
        spark.stop()
    deadline = time.monotonic() + 20
    while True:
        seen = sign.read_text()
        time.sleep(1)
        if sign.read_text() == seen:
            break
        assert time.monotonic() < deadline


def test_a_session_that_the_server_closed_is_replaced(runtime: Runtime) -> None:
    closed = runtime.connect_spark()
    closed.release_session_on_close = True
    closed.stop()
    other = runtime.connect_spark()
    try:
        assert other.session_id != closed.session_id
        assert daemon_of(other) > 0
    finally:
        other.stop()


def test_the_doctor_lets_executors_and_spark_itself_use_the_store(runtime: Runtime) -> None:
    found = {finding.subject: finding for finding in examine_spark(runtime)}
    assert {subject: finding.verdict for subject, finding in found.items()} == dict.fromkeys(
        ("version", "executors", "clock", "store", "tables"), "ok"
    )
    assert f"in {runtime.settings.address('hdfs_url')}/" in found["tables"].text
    assert not [name for name in hdfs_client(runtime).list("") if "doctor" in name]


def test_the_doctor_does_not_wait_for_a_name_node_that_is_silent_to_spark(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor_spark, "JOB_SECONDS", 3.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"hdfs://127.0.0.1:{silent.getsockname()[1]}"
        storage = Runtime(runtime.settings.model_copy(update={"hdfs_url": url})).storage
        spark = runtime.connect_spark()
        try:
            (found,) = doctor_spark._store_of_spark(spark, storage)
        finally:
            spark.stop()
    assert (found.subject, found.verdict) == ("tables", "fails")
    assert f"Spark itself cannot use {url}/" in found.text
    assert "no end within 3 s of writing and reading a table" in found.text
    assert "correct TINYTAGS_HDFS_URL" in found.remedy
