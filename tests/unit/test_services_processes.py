"""Processes: recognised again, ended with their children, never mistaken for another."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from tinytags_tasks.services import processes
from tinytags_tasks.services.processes import Launch

FOREVER = "import time; time.sleep(600)"
WITH_CHILD = f"""
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", {FOREVER!r}])
print(child.pid, flush=True)
time.sleep(600)
"""


def python(code: str) -> Launch:
    return Launch((sys.executable, "-c", code), dict(os.environ))


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def start_with_child(folder: Path) -> tuple[processes.Record, int]:
    record = processes.start(python(WITH_CHILD), folder)
    wait_for(lambda: processes.log_file(folder).read_text().strip())
    return record, int(processes.log_file(folder).read_text())


def test_a_started_process_is_found_by_its_record(tmp_path: Path) -> None:
    record = processes.start(python(FOREVER), tmp_path / "engine")
    try:
        found = processes.find(processes.read_record(tmp_path / "engine"))
        assert found is not None and found.pid == record.pid
    finally:
        processes.stop([record], grace_seconds=5)
    assert processes.find(record) is None


def test_another_process_with_the_same_number_is_left_alone(tmp_path: Path) -> None:
    stranger = subprocess.Popen([sys.executable, "-c", FOREVER], start_new_session=True)
    record = processes.Record(stranger.pid, "another boot:1", time.time())
    try:
        assert processes.find(record) is None
        processes.stop([record], grace_seconds=1)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_stopping_ends_children_too(tmp_path: Path) -> None:
    record, child = start_with_child(tmp_path / "engine")
    processes.stop([record], grace_seconds=5)
    assert not is_alive(child)


def test_children_that_outlived_a_killed_engine_are_ended(tmp_path: Path) -> None:
    record, child = start_with_child(tmp_path / "engine")
    os.kill(record.pid, 9)
    wait_for(lambda: processes.find(record) is None)
    assert is_alive(child)
    processes.stop([record], grace_seconds=5)
    assert not is_alive(child)


def test_a_process_that_ignores_the_request_is_killed_after_the_grace_time(tmp_path: Path) -> None:
    code = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True);" + FOREVER
    record = processes.start(python(code), tmp_path / "engine")
    wait_for(lambda: processes.log_file(tmp_path / "engine").read_text())
    assert not processes.stop([record], grace_seconds=0.3)
    assert processes.find(record) is None


def test_the_log_of_the_start_before_is_kept(tmp_path: Path) -> None:
    folder = tmp_path / "engine"
    for text in ("first", "second"):
        record = processes.start(python(f"print({text!r})"), folder)
        wait_for(lambda record=record: processes.find(record) is None)  # type: ignore[misc]
    assert (folder / "engine.log").read_text() == "second\n"
    assert (folder / "engine.log.1").read_text() == "first\n"


def test_what_an_engine_writes_is_private(tmp_path: Path) -> None:
    record = processes.start(python("open('made', 'w')"), tmp_path / "engine")
    wait_for(lambda: processes.find(record) is None)
    for path in (tmp_path / "engine" / "made", tmp_path / "engine" / "engine.log", tmp_path / "engine"):
        assert path.stat().st_mode & 0o077 == 0


def test_an_exit_code_is_known(tmp_path: Path) -> None:
    record = processes.start(python("raise SystemExit(7)"), tmp_path / "engine")
    wait_for(lambda: processes.find(record) is None)
    assert processes.exit_code(record) == 7


def test_a_record_that_cannot_be_read_is_no_record(tmp_path: Path) -> None:
    processes.record_file(tmp_path).write_text('{"pid": 1, "surprise": 2}')
    assert processes.read_record(tmp_path) is None


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_an_engine_tied_to_its_parent_ends_when_that_is_killed(tmp_path: Path) -> None:
    code = f"""
import sys, time
from pathlib import Path
from tinytags_tasks.services import processes
launch = processes.Launch((sys.executable, "-c", {FOREVER!r}), {{}})
processes.start(launch, Path({str(tmp_path / "engine")!r}), die_with_parent=True)
time.sleep(600)
"""
    parent = subprocess.Popen([sys.executable, "-c", code])
    wait_for(lambda: processes.read_record(tmp_path / "engine"))
    record = processes.read_record(tmp_path / "engine")
    assert record is not None
    time.sleep(0.3)  # until it has asked the kernel
    parent.kill()
    parent.wait()
    wait_for(lambda: processes.find(record) is None)


def test_a_ready_mark_is_kept_with_the_record(tmp_path: Path) -> None:
    record = processes.start(python(FOREVER), tmp_path / "engine")
    try:
        processes.mark_ready(tmp_path / "engine", replace(record, started_at=time.time() - 3))
        read = processes.read_record(tmp_path / "engine")
        assert read is not None and read.ready_after_seconds == pytest.approx(3, abs=0.5)
        assert processes.find(read) is not None
    finally:
        processes.stop([record], grace_seconds=5)
