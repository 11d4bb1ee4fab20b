"""Start a process, know it again later, end it with all that it started."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import psutil

from tinytags_tasks.services.files import make_folder, write_atomically

_children: dict[int, subprocess.Popen[bytes]] = {}
"""Started by this very process, so that their exit codes can be collected."""

WITH_PARENT = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGTERM)
if os.getppid() != int(sys.argv[1]):
    sys.exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""


@dataclass(frozen=True)
class Launch:
    """A command and its whole environment."""

    command: tuple[str, ...]
    environment: Mapping[str, str]


@dataclass(frozen=True)
class Record:
    """What is written down about a process, enough never to take another one for it."""

    pid: int
    create_time: str
    started_at: float
    ready_after_seconds: float | None = None


def record_file(folder: Path) -> Path:
    """Return where an engine's process is recorded."""
    return folder / "process.json"


def log_file(folder: Path) -> Path:
    """Return where an engine's standard output and error go."""
    return folder / f"{folder.name}.log"


def read_record(folder: Path) -> Record | None:
    """Return the recorded process of an engine, None when there is none that can be read."""
    try:
        return Record(**json.loads(record_file(folder).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def mark_ready(folder: Path, record: Record) -> None:
    """Write down that an engine has answered."""
    ready = replace(record, ready_after_seconds=round(time.time() - record.started_at, 1))
    write_atomically(record_file(folder), json.dumps(asdict(ready)))


def start(launch: Launch, folder: Path, *, die_with_parent: bool = False) -> Record:
    """Start a process in its own session and record it.

    Parameters
    ----------
    folder
        Its working folder, log and record; the log of the start before is kept as ``.log.1``.
    die_with_parent
        End it when the calling *thread* ends (Linux ties this to the thread that forks).
    """
    log = log_file(make_folder(folder))
    if log.exists():
        log.replace(log.with_suffix(".log.1"))
    command = list(launch.command)
    if die_with_parent:
        command = [sys.executable, "-I", "-S", "-c", WITH_PARENT, str(os.getpid()), *command]
    with log.open("wb") as output:
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
    record = Record(child.pid, _create_time(child.pid), time.time())
    write_atomically(record_file(folder), json.dumps(asdict(record)))
    return record


def find(record: Record | None) -> psutil.Process | None:
    """Return the recorded process if it still runs; never another one that got its number."""
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
    """Return the exit code of a process that this one started, None when it is not known."""
    child = _children.get(record.pid)
    return None if child is None else child.poll()


def family(record: Record) -> list[psutil.Process]:
    """Return a recorded process and all that it started, also when it is dead itself and they are not."""
    leader = find(record)
    if leader is not None:
        try:
            return [leader, *leader.children(recursive=True)]
        except psutil.Error:
            return []
    try:
        if _create_time(record.pid) != record.create_time:
            return []  # a session keeps its leader's number from being given away: this one is a stranger's
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
    """End processes and all that they started; return whether all went by themselves within the grace time."""
    records = list(records)
    everyone = [process for record in records for process in family(record)]
    leaders = [process for record in records if (process := find(record)) is not None]
    for process in leaders:
        _signal(process, kill=False)
    willing = _wait(leaders, grace_seconds)
    left = {process for process in [*everyone, *(each for record in records for each in family(record))]}
    if willing:
        for process in left:
            _signal(process, kill=False)
        _wait(left, min(3.0, grace_seconds))
    for process in left:
        if not _is_over(process):
            _signal(process, kill=True)
    _wait(left, 10)
    return willing


def _wait(processes: Iterable[psutil.Process], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    waiting = list(processes)
    while waiting := [process for process in waiting if not _is_over(process)]:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _is_over(process: psutil.Process) -> bool:
    """Zombies count: whoever started them may never ask for their exit code."""
    if (child := _children.get(process.pid)) is not None:
        child.poll()
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def memory_bytes(record: Record) -> int:
    """Return the memory of a process and all that it started, shared pages counted once where the system tells."""
    total = 0
    for process in family(record):
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
    """Return when a process was made, as a text that does not move when the clock is set."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except FileNotFoundError:
        return str(psutil.Process(pid).create_time())
    return f"{boot}:{ticks}"
