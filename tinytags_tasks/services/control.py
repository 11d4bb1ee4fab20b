"""Start and stop the embedded engines."""

import json
import time
from collections.abc import Callable, Collection
from pathlib import Path

from tinytags_tasks.errors import BadInputError, EngineDownError, FinalError, TransientError
from tinytags_tasks.private_files import make_folder, write_atomically
from tinytags_tasks.services import airflow, disk, hdfs, keeper_process, processes, search, solr, spark
from tinytags_tasks.services.engine import Context, Group, engine_folder, engines_folder
from tinytags_tasks.services.files import locked
from tinytags_tasks.services.memory import describe, machine_memory, profile_of
from tinytags_tasks.services.ports import PortChooser
from tinytags_tasks.services.started_with import forget_environment
from tinytags_tasks.services.starting import is_running, start_all
from tinytags_tasks.services.wanted import add_wanted, read_wanted, remove_wanted
from tinytags_tasks.settings import ADDRESSES, Settings

GROUPS: tuple[Group, ...] = (hdfs.GROUP, solr.GROUP, spark.GROUP, airflow.GROUP, search.GROUP)

Report = Callable[[str], None]
Recorded = dict[str, dict[str, int]]


def up(
    settings: Settings,
    *,
    engines: Collection[str] | None = None,
    report: Report = print,
    standard_ports: bool = True,
    die_with_parent: bool = False,
    keep: bool = False,
) -> Settings:
    """Start the engines that are not running, wait until all are ready, and record their addresses.

    They count as wanted from then on: the keeper, if there is one, starts them again when they end or hang, each with
    the environment of the call that started it.

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
    keep
        Start the keeper, too, in place of one that runs. It is also left behind if an engine is not ready in time, and
        goes on to start what an earlier call had made ready.

    Returns
    -------
    Settings
        ``settings`` with the address of every running engine.

    Raises
    ------
    FinalError
        If an engine ends while it is starting; the message has the last lines of its log. If the disk is full.
    TransientError
        If an engine is not ready in time, or an external one does not answer.
    """
    settings = with_absolute_home(settings)
    groups = _chosen(engines)
    external = external_addresses()
    if problem := disk.disk_is_full(settings.home):
        raise FinalError(problem)
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
            if is_external(group, external):
                if (problem := group.unreachable(context.settings)) is not None:
                    raise EngineDownError(f"{group.name} is external (its address is in the environment): {problem}")
                report_step(f"{group.name}: external, answers")
        embedded = [group for group in groups if not is_external(group, external)]
        missing = [group for group in embedded if not all(is_running(settings, engine) for engine in group.engines)]
        if missing:
            memory = machine_memory()
            report_step(describe(profile_of(settings, memory), memory))

        def leave_keeper() -> None:
            # One that runs is replaced when an engine was started: it may be of an earlier version of TinyTags.
            is_due = keeper_process.is_started(settings) and (missing or not keeper_process.running(settings))
            if (keep or is_due) and keeper_process.start(settings, die_with_parent=die_with_parent):
                report_step("keeper: starts engines again that end or hang")

        try:
            start_all(embedded, context, die_with_parent)
        except TransientError:
            # After a boot, engines are slow, and nobody may be there to call this again.
            if read_wanted(settings):
                _record_addresses(settings, ports, external)
                leave_keeper()
            raise
        add_wanted(settings, [group.name for group in embedded])
        leave_keeper()
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
    settings = with_absolute_home(settings)
    if not settings.home.exists():
        report(f"nothing was ever started in {settings.home}")
        return
    if engines is None:
        keeper_process.stop(settings)  # it may hold the lock
    with locked(settings.home, report):
        if not remove_wanted(settings, engines):
            keeper_process.stop(settings)
            keeper_process.forget(settings)
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
        for group in _chosen(engines):
            forget_environment(settings, group.name)
        _record_addresses(settings, _read_ports(settings), external_addresses())


def known_context(settings: Settings) -> Context:
    """Return what is known of the engines of a home, at the ports of their last start."""
    external = external_addresses()
    ports = _read_ports(settings)
    addresses = {name: url for group in GROUPS for name, url in _addresses(group, ports, external).items()}
    return Context(settings.model_copy(update=addresses), ports)


def embedded_groups(names: Collection[str]) -> list[Group]:
    """Return the groups with these names, without external ones."""
    external = external_addresses()
    return [group for group in GROUPS if group.name in names and not is_external(group, external)]


def external_addresses() -> dict[str, str]:
    """Return the addresses that are set in the environment: these engines are external."""
    settings = Settings()
    external = {name: url for name in ADDRESSES if (url := getattr(settings, name))}
    if ("webhdfs_url" in external) != ("hdfs_url" in external):
        raise BadInputError("set both TINYTAGS_WEBHDFS_URL and TINYTAGS_HDFS_URL, or neither")
    if settings.hdfs_kerberos and "webhdfs_url" not in external:
        raise BadInputError(
            "the embedded HDFS asks for no Kerberos ticket: unset TINYTAGS_HDFS_KERBEROS, or set TINYTAGS_WEBHDFS_URL "
            "and TINYTAGS_HDFS_URL to the HDFS that does"
        )
    return external


def with_absolute_home(settings: Settings) -> Settings:
    """Return settings whose home does not depend on the working folder."""
    return settings.model_copy(update={name: getattr(settings, name).absolute() for name in ("home", "cache")})


def _chosen(engines: Collection[str] | None) -> list[Group]:
    names = [group.name for group in GROUPS]
    if unknown := sorted(set(engines or ()) - set(names)):
        raise BadInputError(f"no such engine: {', '.join(unknown)}; there are {', '.join(names)}")
    return [group for group in GROUPS if engines is None or group.name in engines]


def is_external(group: Group, external: dict[str, str]) -> bool:
    """Return whether an engine is a service that TinyTags does not start."""
    return any(name in external for name in group.settings)


def _addresses(group: Group, ports: Recorded, external: dict[str, str]) -> dict[str, str]:
    if is_external(group, external):
        return {name: external[name] for name in group.settings}
    try:
        return group.addresses(ports)
    except KeyError:  # never started
        return {}


def _ports_file(settings: Settings) -> Path:
    return engines_folder(settings) / "ports.json"


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
        if is_external(group, external):
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
    """Record the addresses of the engines that run or should run, and return settings with them."""
    embedded: dict[str, str] = {}
    wanted = read_wanted(settings)
    for group in GROUPS:
        if not is_external(group, external) and (
            group.name in wanted or any(is_running(settings, engine) for engine in group.engines)
        ):
            embedded |= _addresses(group, ports, external)
    write_atomically(settings.addresses_file, json.dumps(embedded, indent=2))
    return settings.model_copy(update=dict.fromkeys(ADDRESSES) | embedded | external)
