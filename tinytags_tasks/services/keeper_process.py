"""The keeper as a process of a home: started, stopped, and what it says of itself."""

import json
import os
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tinytags_tasks.errors import FinalError
from tinytags_tasks.parts import python_path
from tinytags_tasks.private_files import make_folder, write_atomically
from tinytags_tasks.services import processes
from tinytags_tasks.services.engine import engine_folder
from tinytags_tasks.services.engine_secrets import KEEPER_SECRETS
from tinytags_tasks.services.files import last_lines
from tinytags_tasks.services.processes import Launch, Record
from tinytags_tasks.settings import Settings

NAME = "keeper"

START_SECONDS = 30.0
STOP_SECONDS = 60.0
"""If it is just starting an engine, it ends after that."""


@dataclass
class History:
    """How often an engine was started again since it is wanted, and why."""

    restarts: int = 0
    restarted_at: float | None = None
    reason: str = ""
    """Why it was started again, or will be."""
    failures: int = 0
    """In a row: without a good run between them."""
    next_try_at: float | None = None
    log_end: str = ""


@dataclass
class KeeperState:
    """What a keeper knows."""

    pid: int | None = None
    in_foreground: bool = False
    """Whether others, such as systemd, look after the keeper: then ``down`` lets it run, with nothing to do."""
    looked_at: float = 0
    engines: dict[str, History] = field(default_factory=dict)


def folder(settings: Settings) -> Path:
    """Return the keeper's folder."""
    return engine_folder(settings, NAME)


def log_file(settings: Settings) -> Path:
    """Return the log with what the keeper did; of a keeper in the foreground, whoever started it has the log."""
    return processes.log_file(folder(settings))


def read_state(settings: Settings) -> KeeperState:
    """Return what the keeper wrote last; nothing if that cannot be read."""
    try:
        stored = json.loads(_state_file(settings).read_text())
        engines = {name: History(**history) for name, history in stored.pop("engines").items()}
        return KeeperState(**stored, engines=engines)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return KeeperState()


def write_state(settings: Settings, state: KeeperState) -> None:
    """Replace what the keeper wrote."""
    make_folder(folder(settings))
    write_atomically(_state_file(settings), json.dumps(asdict(state), indent=2))


def running(settings: Settings) -> Record | None:
    """Return the record of the keeper if it runs."""
    record = processes.read_record(folder(settings))
    return record if processes.find(record) is not None else None


def _is_in_foreground(settings: Settings) -> bool:
    """Return whether a keeper runs that others, such as systemd, look after: they stop it, and start it again."""
    return running(settings) is not None and read_state(settings).in_foreground


def is_started(settings: Settings) -> bool:
    """Return whether a keeper was started, and not stopped since; it may have died."""
    return processes.read_record(folder(settings)) is not None


def start(settings: Settings, *, die_with_parent: bool) -> bool:
    """Start the keeper in place of the one that runs, with the environment of this process; return whether it did.

    The caller holds the lock of the home. A keeper in the foreground is left alone.

    Raises
    ------
    FinalError
        If it ends while it is starting.
    """
    if _is_in_foreground(settings):
        return False
    stop(settings)
    flags = ("--die-with-parent",) if die_with_parent else ()
    launch = Launch((sys.executable, "-m", "tinytags_tasks.services.keeper", *flags), environment(settings))
    record = processes.start(launch, folder(settings), die_with_parent=die_with_parent)
    deadline = time.monotonic() + START_SECONDS
    while read_state(settings).pid != record.pid:
        if processes.find(record) is None or time.monotonic() > deadline:
            processes.stop_alone(record, grace_seconds=0)
            processes.record_file(folder(settings)).unlink(missing_ok=True)
            log = log_file(settings)
            raise FinalError(f"the keeper did not start; {log} ends with:\n{last_lines(log)}")
        time.sleep(0.05)
    return True


def stop(settings: Settings) -> None:
    """Stop the keeper, unless others look after it in the foreground."""
    record = processes.read_record(folder(settings))
    if record is None or _is_in_foreground(settings):
        return
    processes.stop_alone(record, grace_seconds=STOP_SECONDS)  # its children are engines
    processes.record_file(folder(settings)).unlink(missing_ok=True)


def forget(settings: Settings) -> None:
    """Delete what a keeper wrote, unless it runs."""
    if running(settings) is None:
        _state_file(settings).unlink(missing_ok=True)


def environment(settings: Settings) -> dict[str, str]:
    """Return the environment for a keeper: that of this process, with absolute paths.

    It has the secrets that an engine may need, and no others.
    """
    variables = KEEPER_SECRETS.of(os.environ)
    paths = {
        f"TINYTAGS_{name.upper()}": str(value)
        for name in Settings.model_fields
        if isinstance(value := getattr(settings, name), Path) and f"TINYTAGS_{name.upper()}" in variables
    }
    return {
        **variables,
        **{name: str(Path(path).expanduser().absolute()) for name, path in paths.items()},
        "TINYTAGS_HOME": str(settings.home),
        "PYTHONPATH": python_path(),
        "PYTHONUNBUFFERED": "1",
    }


def _state_file(settings: Settings) -> Path:
    return folder(settings) / "state.json"
