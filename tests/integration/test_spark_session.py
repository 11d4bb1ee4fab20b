"""The session that TinyTags shares on a Spark Connect server: its workers stay, and what a client left running ends."""

import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tinytags_tasks.clients import spark as spark_module
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
