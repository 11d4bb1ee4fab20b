"""Start a process, recognise it later, and stop it with all its child processes."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import psutil

from tinytags_tasks.private_files import make_folder, write_atomically

_children: dict[int, subprocess.Popen[bytes]] = {}
"""Processes that this process started, so that their exit codes can be collected."""

WITH_PARENT = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGTERM)
if os.getppid() != int(sys.argv[1]):
    sys.exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""


@dataclass(frozen=True)
class Launch:
    """A command and its complete environment."""

    command: tuple[str, ...]
    environment: Mapping[str, str]


@dataclass(frozen=True)
class Record:
    """What is recorded about a process: enough never to mistake another one for it."""

    pid: int
    create_time: str
    started_at: float
    ready_after_seconds: float | None = None


def record_file(folder: Path) -> Path:
    """Return the path of the record of an engine's process."""
    return folder / "process.json"


def log_file(folder: Path) -> Path:
    """Return the path of the log with an engine's standard output and error."""
    return folder / f"{folder.name}.log"


def read_record(folder: Path) -> Record | None:
    """Return the recorded process of an engine; None if there is no readable record."""
    try:
        return Record(**json.loads(record_file(folder).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def mark_ready(folder: Path, record: Record) -> None:
    """Record that an engine is ready."""
    ready = replace(record, ready_after_seconds=round(time.time() - record.started_at, 1))
    write_atomically(record_file(folder), json.dumps(asdict(ready)))


def start(launch: Launch, folder: Path, *, die_with_parent: bool = False) -> Record:
    """Start a process in its own session and record it.

    Parameters
    ----------
    launch
        The command and its environment.
    folder
        Its working folder, with its log and record; the log of the previous start is kept as ``.log.1``.
    die_with_parent
        End it when the calling *thread* ends (in Linux, the thread that forks counts as the parent).
    """
    log = log_file(make_folder(folder))
    if log.exists():
        log.replace(log.with_suffix(".log.1"))
    command = list(launch.command)
    if die_with_parent:
        command = [sys.executable, "-I", "-S", "-c", WITH_PARENT, str(os.getpid()), *command]
    with log.open("ab") as output:  # appending, so that the file can be emptied while the process writes
        log.chmod(0o600)
        child = subprocess.Popen(
            command,
            cwd=folder,
            env=dict(launch.environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            umask=0o077,
        )
    _children[child.pid] = child
    try:
        return _record(child.pid, folder)
    except BaseException:  # the disk is full: without a record, nobody would ever find the process again
        child.kill()
        child.wait()
        raise


def record_this(folder: Path) -> Record:
    """Record the process that calls this, so that others can find and stop it."""
    return _record(os.getpid(), make_folder(folder))


def _record(pid: int, folder: Path) -> Record:
    record = Record(pid, _create_time(pid), time.time())
    write_atomically(record_file(folder), json.dumps(asdict(record)))
    return record


def find(record: Record | None) -> psutil.Process | None:
    """Return the recorded process if it is still running; never another one that got its process id."""
    if record is None:
        return None
    if (child := _children.get(record.pid)) is not None:
        child.poll()
    try:
        process = psutil.Process(record.pid)
        if process.status() == psutil.STATUS_ZOMBIE or _create_time(record.pid) != record.create_time:
            return None
    except (psutil.Error, OSError):
        return None
    return process


def exit_code(record: Record) -> int | None:
    """Return the exit code of a process that this process started; None if it is unknown."""
    child = _children.get(record.pid)
    return None if child is None else child.poll()


def family(record: Record) -> list[psutil.Process]:
    """Return a recorded process and all its descendants, even if it has ended and they have not."""
    leader = find(record)
    if leader is not None:
        try:
            return [leader, *leader.children(recursive=True)]
        except psutil.Error:
            return []
    try:
        if _create_time(record.pid) != record.create_time:
            return []  # the id of a session's leader is not reused while the session lives: this is another process
    except (psutil.Error, OSError):
        pass
    orphans = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == record.pid and process.status() != psutil.STATUS_ZOMBIE:
                orphans.append(process)
        except (psutil.Error, OSError):
            continue
    return orphans


def stop(records: Iterable[Record], *, grace_seconds: float) -> bool:
    """Stop processes and their descendants; return whether the processes ended by themselves in the grace period."""
    records = list(records)
    everyone = [process for record in records for process in family(record)]
    leaders = [process for record in records if (process := find(record)) is not None]
    for process in leaders:
        _signal(process, kill=False)
    ended = _wait(leaders, grace_seconds)
    left = {process for process in [*everyone, *(each for record in records for each in family(record))]}
    if ended:
        for process in left:
            _signal(process, kill=False)
        _wait(left, min(3.0, grace_seconds))
    for process in left:
        if not _has_ended(process):
            _signal(process, kill=True)
    _wait(left, 10)
    return ended


def stop_alone(record: Record, *, grace_seconds: float) -> None:
    """Stop a process and none of its descendants."""
    leader = find(record)
    if leader is None:
        return
    _signal(leader, kill=False)
    if not _wait([leader], grace_seconds):
        _signal(leader, kill=True)
        _wait([leader], 10)


def _wait(processes: Iterable[psutil.Process], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    waiting = list(processes)
    while waiting := [process for process in waiting if not _has_ended(process)]:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _has_ended(process: psutil.Process) -> bool:
    """Return whether a process has ended. Zombies count: their parent may never collect their exit code."""
    if (child := _children.get(process.pid)) is not None:
        child.poll()
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def memory_bytes(record: Record, *, alone: bool = False) -> int:
    """Return the memory of a process and its descendants, with shared pages counted once if the system allows."""
    total = 0
    for process in filter(None, [find(record)]) if alone else family(record):
        try:
            memory = process.memory_full_info()
            total += getattr(memory, "pss", memory.rss)
        except psutil.Error:
            continue
    return total


def _signal(process: psutil.Process, *, kill: bool) -> None:
    try:
        if kill:
            process.kill()
        else:
            process.terminate()
    except psutil.NoSuchProcess:
        pass


def _create_time(pid: int) -> str:
    """Return when a process was created, in a form that does not change when the clock is set."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except FileNotFoundError:
        return str(psutil.Process(pid).create_time())
    return f"{boot}:{ticks}"
