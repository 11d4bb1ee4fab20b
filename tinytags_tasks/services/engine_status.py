"""The state of the embedded engines and of their keeper."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from tinytags_tasks.secrecy import without_password
from tinytags_tasks.services import control, keeper_process, processes
from tinytags_tasks.services.control import external_addresses, is_external, known_context
from tinytags_tasks.services.engine import Context, Engine, Group
from tinytags_tasks.services.files import last_lines
from tinytags_tasks.services.keeper_process import History
from tinytags_tasks.services.starting import engine_log
from tinytags_tasks.services.wanted import read_wanted
from tinytags_tasks.settings import Settings

SILENT_SECONDS = 180.0
"""A keeper that has looked at nothing for so long hangs: its checks take a minute at most."""


@dataclass(frozen=True)
class EngineStatus:
    """The state of one engine, or of the keeper."""

    name: str
    state: Literal["running", "starting", "unready", "dead", "stopped", "external", "away"]
    """``unready`` was ready and does not answer; ``external`` is one of the user's own, ``away`` such a one
    that does not answer."""
    pid: int | None = None
    address: str | None = None
    log: Path | None = None
    memory_bytes: int | None = None
    detail: str = ""
    restarts: int = 0
    """How often the keeper started it again since it is wanted."""
    restarted_at: str | None = None
    restart_reason: str = ""
    """Why it was started again, or will be."""
    failures: int = 0
    """In a row: without a good run between them."""
    next_try_at: str | None = None

    @property
    def is_kept(self) -> bool:
        """Whether it is one that a keeper looks after: ``up`` started it, and nobody stopped it."""
        return self.state not in ("stopped", "external", "away")

    @property
    def works(self) -> bool:
        """Whether nothing needs to be done about it; it may be starting, or be stopped on purpose."""
        return self.state not in ("dead", "unready", "away")


def status(settings: Settings) -> list[EngineStatus]:
    """Return the state of each engine, after those that it depends on; the last one is the keeper, if there is one."""
    settings = control.with_absolute_home(settings)
    external = external_addresses()
    context = known_context(settings)
    wanted = read_wanted(settings)
    kept = keeper_process.read_state(settings)
    with ThreadPoolExecutor(8) as pool:
        waiting = [
            pool.submit(_status_of, group, engine, context, external, group.name in wanted)
            for group in control.GROUPS
            for engine in group.engines
        ]
        engines = [_with_history(each.result(), kept.engines.get(each.result().name)) for each in waiting]
    keeper = _status_of_keeper(settings)
    return engines if keeper is None else [*engines, keeper]


def _status_of(
    group: Group, engine: Engine, context: Context, external: dict[str, str], is_wanted: bool
) -> EngineStatus:
    address = getattr(context.settings, engine.address) if engine.address else None
    address = address and without_password(address)
    if is_external(group, external):
        problem = group.unreachable(context.settings)
        state: Literal["away", "external"] = "away" if problem else "external"
        return EngineStatus(engine.name, state, address=address, detail=problem or "answers")
    log = engine_log(context, engine)
    record = processes.read_record(context.folder(engine.name))
    if record is None and not is_wanted:
        return EngineStatus(engine.name, "stopped", log=log if log.exists() else None)
    if record is None or processes.find(record) is None:
        return EngineStatus(engine.name, "dead", address=address, log=log, detail=last_lines(log, 5))
    reason = engine.unready(context)
    was_ready = record.ready_after_seconds is not None
    return EngineStatus(
        engine.name,
        "running" if reason is None else "unready" if was_ready else "starting",
        pid=record.pid,
        address=address,
        log=log,
        memory_bytes=processes.memory_bytes(record),
        detail=reason or (f"ready after {record.ready_after_seconds:g} s" if was_ready else ""),
    )


def _with_history(engine: EngineStatus, history: History | None) -> EngineStatus:
    if history is None or not engine.is_kept:
        return engine
    return replace(
        engine,
        # A later start has moved the log that tells why.
        detail=history.log_end if engine.state == "dead" and history.log_end else engine.detail,
        restarts=history.restarts,
        restarted_at=_time(history.restarted_at),
        restart_reason=history.reason,
        failures=history.failures,
        next_try_at=_time(history.next_try_at),
    )


def _status_of_keeper(settings: Settings) -> EngineStatus | None:
    record = processes.read_record(keeper_process.folder(settings))
    if record is None:
        return None
    log = keeper_process.log_file(settings)
    if processes.find(record) is None:
        return EngineStatus(keeper_process.NAME, "dead", log=log, detail=last_lines(log, 5))
    state = keeper_process.read_state(settings)
    detail = "starts engines again that end or hang" if state.engines else "has no engine to look after"
    hangs = (silent := time.time() - max(state.looked_at, record.started_at)) > SILENT_SECONDS
    if hangs:
        detail = f"has looked at no engine for {silent:.0f} s: `tinytags up --keep` replaces it"
    return EngineStatus(
        keeper_process.NAME,
        "unready" if hangs else "running",
        pid=record.pid,
        log=None if state.in_foreground else log,
        memory_bytes=processes.memory_bytes(record, alone=True),
        detail=detail,
    )


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
