"""Start and stop the embedded engines, and report their state."""

import json
import time
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tinytags_tasks.errors import BadInputError, EngineDownError
from tinytags_tasks.private_files import make_folder, write_atomically
from tinytags_tasks.services import airflow, hdfs, processes, search, solr, spark
from tinytags_tasks.services.engine import Context, Engine, Group, engine_folder
from tinytags_tasks.services.files import last_lines, locked
from tinytags_tasks.services.ports import PortChooser
from tinytags_tasks.services.starting import engine_log, is_running, start_all
from tinytags_tasks.settings import ADDRESSES, Settings

GROUPS: tuple[Group, ...] = (hdfs.GROUP, solr.GROUP, spark.GROUP, airflow.GROUP, search.GROUP)

Report = Callable[[str], None]
Recorded = dict[str, dict[str, int]]


@dataclass(frozen=True)
class EngineStatus:
    """The state of one engine."""

    name: str
    state: Literal["running", "starting", "dead", "stopped", "external"]
    pid: int | None = None
    address: str | None = None
    log: Path | None = None
    memory_bytes: int | None = None
    detail: str = ""


def up(
    settings: Settings,
    *,
    engines: Collection[str] | None = None,
    report: Report = print,
    standard_ports: bool = True,
    die_with_parent: bool = False,
) -> Settings:
    """Start the engines that are not running, wait until all are ready, and record their addresses.

    Parameters
    ----------
    settings
        The settings, with the engines' home. An engine whose address is in the environment is external: it is not
        started, but must answer.
    engines
        Names of groups: ``hdfs``, ``solr``, ``spark``, ``airflow``, ``search``; None for all.
    report
        Called with one line for each step, from several threads.
    standard_ports
        Prefer the usual ports of these engines; otherwise use any free ports.
    die_with_parent
        End the engines when the calling thread ends, for tests.

    Returns
    -------
    Settings
        ``settings`` with the address of every running engine.

    Raises
    ------
    FinalError
        If an engine ends while it is starting; the message has the last lines of its log.
    TransientError
        If an engine is not ready in time, or an external one does not answer.
    """
    settings = _with_absolute_home(settings)
    groups = _chosen(engines)
    external = external_addresses()
    began = time.monotonic()

    def report_step(text: str) -> None:
        report(f"{time.monotonic() - began:6.1f} s  {text}")

    with (
        locked(settings.home, report),
        PortChooser(use_standard=standard_ports) as chooser,
    ):
        ports = _choose_ports(settings, chooser, groups, external)
        addresses = {name: url for group in GROUPS for name, url in _addresses(group, ports, external).items()}
        context = Context(settings.model_copy(update=addresses), ports, report_step)
        for group in groups:
            if _is_external(group, external):
                if (problem := group.unreachable(context.settings)) is not None:
                    raise EngineDownError(f"{group.name} is external (its address is in the environment): {problem}")
                report_step(f"{group.name}: external, answers")
        start_all([group for group in groups if not _is_external(group, external)], context, die_with_parent)
        return _record_addresses(settings, ports, external)


def down(
    settings: Settings,
    *,
    engines: Collection[str] | None = None,
    report: Report = print,
    grace_seconds: float = 20,
) -> None:
    """Stop the embedded engines of a home, and no other process.

    Parameters
    ----------
    settings
        The settings, with the engines' home.
    engines
        Names of groups; None for all.
    report
        Called with one line for each step.
    grace_seconds
        How long they may take to end before they are killed.
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
    """Return the state of each engine; an engine comes after those that it depends on."""
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
    """Return the addresses that are set in the environment: these engines are external."""
    settings = Settings()
    external = {name: url for name in ADDRESSES if (url := getattr(settings, name))}
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


def _addresses(group: Group, ports: Recorded, external: dict[str, str]) -> dict[str, str]:
    if _is_external(group, external):
        return {name: external[name] for name in group.settings}
    try:
        return group.addresses(ports)
    except KeyError:  # never started
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
    """Return the ports of all engines, including those that are not started now: Airflow needs all addresses."""
    recorded = _read_ports(settings)
    may_move = not any(is_running(settings, engine) for group in GROUPS for engine in group.engines)
    chosen: Recorded = {}
    for group in GROUPS:
        if _is_external(group, external):
            continue
        for engine in group.engines:
            known = recorded.get(engine.name, {})
            settled = bool(known) and (group not in groups or is_running(settings, engine))
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
    """Record the addresses of the running engines, and return settings with them."""
    embedded: dict[str, str] = {}
    for group in GROUPS:
        if not _is_external(group, external) and any(is_running(settings, engine) for engine in group.engines):
            embedded |= _addresses(group, ports, external)
    write_atomically(settings.addresses_file, json.dumps(embedded, indent=2))
    return settings.model_copy(update=dict.fromkeys(ADDRESSES) | embedded | external)


def _status_of(group: Group, engine: Engine, context: Context, external: dict[str, str]) -> EngineStatus:
    address = getattr(context.settings, engine.address) if engine.address else None
    if _is_external(group, external):
        detail = group.unreachable(context.settings) or "answers"
        return EngineStatus(engine.name, "external", address=address, detail=detail)
    log = engine_log(context, engine)
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
