"""Bring the embedded engines up and down, and tell how they are."""

import json
import queue
import threading
import time
from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tinytags_tasks.errors import BadInputError, EngineDownError, FinalError, TransientError
from tinytags_tasks.services import airflow, hdfs, processes, search, solr, spark
from tinytags_tasks.services.engine import Context, Engine, Group, engine_folder
from tinytags_tasks.services.files import last_lines, locked, make_folder, write_atomically
from tinytags_tasks.services.ports import PortChooser
from tinytags_tasks.services.processes import Launch, Record
from tinytags_tasks.settings import ADDRESSES, Settings

GROUPS: tuple[Group, ...] = (hdfs.GROUP, solr.GROUP, spark.GROUP, airflow.GROUP, search.GROUP)

Report = Callable[[str], None]
Recorded = dict[str, dict[str, int]]


@dataclass(frozen=True)
class EngineStatus:
    """How one engine is."""

    name: str
    state: Literal["running", "starting", "dead", "stopped", "external"]
    pid: int | None = None
    address: str | None = None
    log: Path | None = None
    memory_bytes: int | None = None
    detail: str = ""


class _Stopped(Exception):
    """Another engine failed: give up."""


class _Starter:
    """Starts processes in the thread that called ``up``.

    ``die_with_parent`` ends a process when the thread that forked it ends: that must not be a worker's.
    """

    def __init__(self, *, die_with_parent: bool) -> None:
        self.stopped = threading.Event()
        self.started: dict[Path, Record] = {}
        self._die_with_parent = die_with_parent
        self._asked: queue.Queue[tuple[Launch, Path, Future[Record]]] = queue.Queue()

    def start(self, launch: Launch, folder: Path) -> Record:
        """Ask for a process, from a worker's thread."""
        answer: Future[Record] = Future()
        self._asked.put((launch, folder, answer))
        while not self.stopped.is_set():
            with suppress(TimeoutError):
                return answer.result(timeout=0.2)
        raise _Stopped

    def serve(self, seconds: float) -> None:
        """Start what was asked for, in the caller's thread."""
        with suppress(queue.Empty):
            launch, folder, answer = self._asked.get(timeout=seconds)
            try:
                record = processes.start(launch, folder, die_with_parent=self._die_with_parent)
            except OSError as error:
                answer.set_exception(FinalError(f"cannot start {launch.command[0]}: {error}"))
            else:
                self.started[folder] = record
                answer.set_result(record)


def up(
    settings: Settings,
    *,
    engines: Collection[str] | None = None,
    report: Report = print,
    standard_ports: bool = True,
    die_with_parent: bool = False,
) -> Settings:
    """Start the engines that do not run, wait until each can be used, and record their addresses.

    Parameters
    ----------
    settings
        Where their home is. An engine whose address is in the environment is not started, only asked.
    engines
        Which groups: ``hdfs``, ``solr``, ``spark``, ``airflow``, ``search``; all when None.
    report
        Told of each step, one line a call, from several threads.
    standard_ports
        Prefer the ports that users of these engines expect; else take any that are free.
    die_with_parent
        End the engines when the calling thread ends: for tests.

    Returns
    -------
    Settings
        ``settings`` with the address of every engine that runs.

    Raises
    ------
    FinalError
        When an engine ends while starting, with the last lines of its log.
    TransientError
        When one is not ready in time, or an external one does not answer.
    """
    settings = _with_absolute_home(settings)
    groups = _chosen(engines)
    external = external_addresses()
    began = time.monotonic()

    def tell(text: str) -> None:
        report(f"{time.monotonic() - began:6.1f} s  {text}")

    with (
        locked(settings.home, report),
        PortChooser(use_standard=standard_ports) as chooser,
    ):
        ports = _choose_ports(settings, chooser, groups, external)
        addresses = {name: url for group in GROUPS for name, url in _addresses(group, ports, external).items()}
        context = Context(settings.model_copy(update=addresses), ports, tell)
        for group in groups:
            if _is_external(group, external):
                if (problem := group.unreachable(context.settings)) is not None:
                    raise EngineDownError(f"{group.name} is external, as told by the environment: {problem}")
                tell(f"{group.name}: external, answers")
        _start_all([group for group in groups if not _is_external(group, external)], context, die_with_parent)
        return _record_addresses(settings, ports, external)


def down(
    settings: Settings,
    *,
    engines: Collection[str] | None = None,
    report: Report = print,
    grace_seconds: float = 20,
) -> None:
    """End the embedded engines of a home, and nothing else.

    Parameters
    ----------
    engines
        Which groups, all when None.
    grace_seconds
        How long they may take before they are killed.
    """
    settings = _with_absolute_home(settings)
    if not settings.home.exists():
        report(f"nothing was ever started in {settings.home}")
        return
    with locked(settings.home, report):
        records = {
            engine.name: record
            for group in _chosen(engines)
            for engine in group.engines
            if (record := processes.read_record(engine_folder(settings, engine.name))) is not None
        }
        running = [name for name, record in records.items() if processes.find(record)]
        report(f"stopping {', '.join(running)}" if running else "no engine is running")
        if not processes.stop(records.values(), grace_seconds=grace_seconds):
            report(f"some did not end within {grace_seconds:g} s and were killed")
        for name in records:
            processes.record_file(engine_folder(settings, name)).unlink(missing_ok=True)
        _record_addresses(settings, _read_ports(settings), external_addresses())


def status(settings: Settings) -> list[EngineStatus]:
    """Return how each engine is, in the order in which they depend on each other."""
    settings = _with_absolute_home(settings)
    external = external_addresses()
    ports = _read_ports(settings)
    addresses = {name: url for group in GROUPS for name, url in _addresses(group, ports, external).items()}
    context = Context(settings.model_copy(update=addresses), ports)
    with ThreadPoolExecutor(8) as pool:
        waiting = [
            pool.submit(_status_of, group, engine, context, external) for group in GROUPS for engine in group.engines
        ]
        return [each.result() for each in waiting]


def external_addresses() -> dict[str, str]:
    """Return the addresses that the environment sets: those engines are somebody else's."""
    told = Settings()
    external = {name: url for name in ADDRESSES if (url := getattr(told, name))}
    if ("webhdfs_url" in external) != ("hdfs_url" in external):
        raise BadInputError("set both TINYTAGS_WEBHDFS_URL and TINYTAGS_HDFS_URL, or neither")
    return external


def _with_absolute_home(settings: Settings) -> Settings:
    return settings.model_copy(update={name: getattr(settings, name).absolute() for name in ("home", "cache")})


def _chosen(engines: Collection[str] | None) -> list[Group]:
    names = [group.name for group in GROUPS]
    if unknown := sorted(set(engines or ()) - set(names)):
        raise BadInputError(f"no such engine: {', '.join(unknown)}; there are {', '.join(names)}")
    return [group for group in GROUPS if engines is None or group.name in engines]


def _is_external(group: Group, external: dict[str, str]) -> bool:
    return any(name in external for name in group.settings)


def _is_running(settings: Settings, engine: Engine) -> bool:
    return processes.find(processes.read_record(engine_folder(settings, engine.name))) is not None


def _addresses(group: Group, ports: Recorded, external: dict[str, str]) -> dict[str, str]:
    if _is_external(group, external):
        return {name: external[name] for name in group.settings}
    try:
        return group.addresses(ports)
    except KeyError:  # it was never started
        return {}


def _ports_file(settings: Settings) -> Path:
    return settings.home / "services" / "ports.json"


def _read_ports(settings: Settings) -> Recorded:
    try:
        ports: Recorded = json.loads(_ports_file(settings).read_text())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise BadInputError(f"{_ports_file(settings)} is damaged ({error}): delete it") from error
    return ports


def _choose_ports(
    settings: Settings, chooser: PortChooser, groups: Collection[Group], external: dict[str, str]
) -> Recorded:
    """Return a port for everything, also for what is not started now: Airflow is told of all of them."""
    recorded = _read_ports(settings)
    may_move = not any(_is_running(settings, engine) for group in GROUPS for engine in group.engines)
    chosen: Recorded = {}
    for group in GROUPS:
        if _is_external(group, external):
            continue
        for engine in group.engines:
            known = recorded.get(engine.name, {})
            settled = bool(known) and (group not in groups or _is_running(settings, engine))
            chosen[engine.name] = (
                known
                if settled
                else {
                    port.name: chooser.choose(port, known.get(port.name), may_move=may_move, owner=engine.name)
                    for port in engine.ports
                }
            )
    make_folder(_ports_file(settings).parent)
    write_atomically(_ports_file(settings), json.dumps(recorded | chosen, indent=2))
    return chosen


def _record_addresses(settings: Settings, ports: Recorded, external: dict[str, str]) -> Settings:
    """Write down where the running engines are, and return the settings that say so."""
    embedded: dict[str, str] = {}
    for group in GROUPS:
        if not _is_external(group, external) and any(_is_running(settings, engine) for engine in group.engines):
            embedded |= _addresses(group, ports, external)
    write_atomically(settings.addresses_file, json.dumps(embedded, indent=2))
    return settings.model_copy(update=dict.fromkeys(ADDRESSES) | embedded | external)


def _start_all(groups: Collection[Group], context: Context, die_with_parent: bool) -> None:
    starter = _Starter(die_with_parent=die_with_parent)
    try:
        with ThreadPoolExecutor(max(1, len(groups))) as pool:
            waiting = [pool.submit(_bring_up, group, context, starter) for group in groups]
            try:
                while not all(each.done() for each in waiting):
                    starter.serve(0.1)
                    if any(each.done() and each.exception() for each in waiting):
                        starter.stopped.set()
            finally:
                starter.stopped.set()
        failures = [failure for each in waiting if (failure := each.exception()) is not None]
        for failure in sorted(failures, key=lambda failure: isinstance(failure, _Stopped)):
            raise failure
    finally:
        _kill_unready(starter, context)


def _kill_unready(starter: _Starter, context: Context) -> None:
    unready = {
        folder: record
        for folder, record in starter.started.items()
        if (now := processes.read_record(folder)) is None or now.ready_after_seconds is None
    }
    if unready:
        processes.stop(unready.values(), grace_seconds=3)
        for folder in unready:
            processes.record_file(folder).unlink(missing_ok=True)
        context.report(f"ended {len(unready)} that did not become ready")


def _bring_up(group: Group, context: Context, starter: _Starter) -> None:
    missing = [engine for engine in group.engines if not _is_running(context.settings, engine)]
    if missing:
        group.prepare(context)
    for engine in missing:
        _start_engine(engine, context, starter)
    waiting = list(group.engines)
    began = time.monotonic()
    while waiting:
        for engine in list(waiting):
            reason = engine.unready(context)
            record = processes.read_record(context.folder(engine.name))
            if record is None or processes.find(record) is None:
                if engine in missing:
                    raise FinalError(_obituary(context, engine, record))
                missing.append(engine)  # it was dying when it was taken for a running one
                group.prepare(context)
                _start_engine(engine, context, starter)
            elif reason is None:
                waiting.remove(engine)
                if record.ready_after_seconds is None:
                    processes.mark_ready(context.folder(engine.name), record)
                at = f" at {getattr(context.settings, engine.address)}" if engine.address else ""
                context.report(f"{engine.name}: {'ready' if engine in missing else 'already runs'}{at}")
            elif time.monotonic() - began > engine.timeout_seconds:
                raise TransientError(
                    f"{engine.name} is not ready after {engine.timeout_seconds:g} s: {reason}. See its log, "
                    f"{processes.log_file(context.folder(engine.name))}; `tinytags down` ends it"
                )
        if waiting and starter.stopped.wait(0.2):
            raise _Stopped


def _start_engine(engine: Engine, context: Context, starter: _Starter) -> None:
    folder = context.folder(engine.name)
    if (dead := processes.read_record(folder)) is not None:
        processes.stop([dead], grace_seconds=0)  # what it left running
    starter.start(engine.launch(context), folder)


def _log(context: Context, engine: Engine) -> Path:
    """Return the log that says most: what an engine printed, or else its own."""
    folder = context.folder(engine.name)
    printed = processes.log_file(folder)
    own = folder / engine.own_log if engine.own_log else printed
    return own if own.exists() and not (printed.exists() and printed.stat().st_size) else printed


def _obituary(context: Context, engine: Engine, record: Record | None) -> str:
    log = _log(context, engine)
    code = None if record is None else processes.exit_code(record)
    how = "ended" if code is None else f"ended with exit code {code}"
    return f"{engine.name} {how} while starting; {log} ends with:\n{last_lines(log)}"


def _status_of(group: Group, engine: Engine, context: Context, external: dict[str, str]) -> EngineStatus:
    address = getattr(context.settings, engine.address) if engine.address else None
    if _is_external(group, external):
        detail = group.unreachable(context.settings) or "answers"
        return EngineStatus(engine.name, "external", address=address, detail=detail)
    log = _log(context, engine)
    record = processes.read_record(context.folder(engine.name))
    if record is None:
        return EngineStatus(engine.name, "stopped", log=log if log.exists() else None)
    if processes.find(record) is None:
        return EngineStatus(engine.name, "dead", address=address, log=log, detail=last_lines(log, 5))
    reason = engine.unready(context)
    was_ready = record.ready_after_seconds is not None
    return EngineStatus(
        engine.name,
        "running" if reason is None or was_ready else "starting",
        pid=record.pid,
        address=address,
        log=log,
        memory_bytes=processes.memory_bytes(record),
        detail=reason or (f"ready after {record.ready_after_seconds:g} s" if was_ready else ""),
    )
