"""Airflow on SQLite or PostgreSQL: API server, scheduler with local executor, Dag processor and triggerer.

This module runs Airflow's commands and talks to it over HTTP. Like all of ``tinytags_tasks``, it never imports Airflow.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

from tinytags_tasks.airflow_parts import POLICY, has_entry_points
from tinytags_tasks.errors import EngineDownError, FinalError
from tinytags_tasks.private_files import make_folder, write_atomically
from tinytags_tasks.services import processes
from tinytags_tasks.services.airflow_config import (
    airflow_home,
    configuration,
    configured_database,
    connections,
    passwords,
    pools,
)
from tinytags_tasks.services.airflow_database import airflow_has_tables, database_of, identity
from tinytags_tasks.services.engine import Context, Engine, Group, Ports, Waiting, environment, get_json
from tinytags_tasks.services.engine_secrets import METRICS, PROXIES, SOURCES, Secrets
from tinytags_tasks.services.files import last_lines
from tinytags_tasks.services.ports import LOOPBACK, Port
from tinytags_tasks.services.processes import Launch
from tinytags_tasks.services.starting import is_running
from tinytags_tasks.services.wanted import read_wanted
from tinytags_tasks.settings import Settings

DATABASE = "metadatabase"
"""The part of Airflow's health report that tells of the API server itself."""


_SOLR_PASSWORDS = ("solr_admin_password", "solr_writer_password")

_OF_TASKS = Secrets(_SOLR_PASSWORDS, ("AIRFLOW_CONN_", "AIRFLOW_VAR_", "OTEL_", *SOURCES, *PROXIES))

SECRETS = {
    # The grid asks Solr, and tasks ask the API server for connections that they lack.
    "api-server": Secrets(_SOLR_PASSWORDS, ("AIRFLOW_CONN_", "OTEL_")),
    # Its child processes are the tasks, which also read the corpora's sources.
    "scheduler": _OF_TASKS,
    "edge": _OF_TASKS,
    # It sends the message about a task whose process was killed.
    "dag-processor": Secrets(variables=("AIRFLOW_CONN_TINYTAGS_NOTIFY", "OTEL_", *PROXIES)),
}
"""The secrets of each of Airflow's commands; others have only what sending metrics takes."""


def command_environment(context: Context, command: str) -> dict[str, str]:
    """Return the environment for one of Airflow's commands."""
    secrets = SECRETS.get(command, Secrets(variables=("OTEL_",)))
    knows_solr = "solr_writer_password" in secrets.settings
    metrics = {name: value for name, value in os.environ.items() if name.startswith(METRICS)}
    return environment(
        context,
        secrets,
        AIRFLOW_HOME=str(airflow_home(context.settings)),
        TINYTAGS_POOLS="1",  # _prepare creates them: a task whose pool does not exist waits forever
        TINYTAGS_KEEP_LOG_DAYS=str(context.settings.keep_log_days),  # on a cluster, nothing is deleted unasked
        **metrics,
        **(connections(context.settings) if knows_solr else {}),
    )


def _prepare(context: Context) -> None:
    _refuse_to_change_database(context.settings)
    write_configuration(context)
    home = airflow_home(context.settings)
    database = database_of(context.settings)
    wanted = f"{version('apache-airflow')} {identity(database)} {pools()}"
    prepared = home / "prepared"
    sqlite = home / "airflow.db"
    has_tables = airflow_has_tables(database) if database else sqlite.exists()
    if has_tables and prepared.exists() and prepared.read_text() == wanted:
        return
    prepare_database(context)
    if not database:
        sqlite.chmod(0o600)
    write_atomically(prepared, wanted)


def _refuse_to_change_database(settings: Settings) -> None:
    """Refuse settings with another database than that of an Airflow which runs, or is to run again after a crash."""
    configured = configured_database(settings)
    if configured is None or identity(configured) == identity(database_of(settings)):
        return
    if GROUP.name in read_wanted(settings) or any(is_running(settings, engine) for engine in GROUP.engines):
        raise FinalError(
            f"Airflow was started on another database, named in {airflow_home(settings) / 'airflow.cfg'}, than that of "
            f"TINYTAGS_AIRFLOW_DATABASE{'' if settings.airflow_database else ', which is not set'}: set it as it was, "
            "or run `tinytags down airflow` first, so that all of Airflow changes its database"
        )


def write_configuration(context: Context) -> None:
    """Write Airflow's configuration, its users' passwords and the Dags' policy."""
    settings = context.settings
    home = make_folder(airflow_home(settings))
    write_atomically(home / "airflow.cfg", configuration(settings, context.ports["airflow-api-server"]["http"]))
    write_atomically(home / "passwords.json", json.dumps(passwords(settings)))
    _set_policy(make_folder(home / "config") / "airflow_local_settings.py")


def prepare_database(context: Context) -> None:
    """Create or upgrade the tables of Airflow's database, and the pools."""
    context.report(f"airflow: preparing the database{' in PostgreSQL' if database_of(context.settings) else ''}")
    _run(context, "db", "migrate")
    file = airflow_home(context.settings) / "pools.json"
    write_atomically(file, pools())
    _run(context, "pools", "import", str(file))


def _set_policy(local_settings: Path) -> None:
    """Let Airflow find the policy as its local settings, unless it finds that by an entry point."""
    policy = POLICY.read_text()
    if not has_entry_points():
        write_atomically(local_settings, policy)
    elif local_settings.exists() and local_settings.read_text().startswith(policy.partition("\n")[0]):
        local_settings.unlink()  # a copy of ours


def _run(context: Context, *arguments: str) -> None:
    """Run one of Airflow's commands and wait for it."""
    home = airflow_home(context.settings)
    log = home / f"{arguments[0]}.log"
    with log.open("wb") as output:
        done = subprocess.run(
            (sys.executable, "-m", "airflow", *arguments),
            cwd=home,
            env=command_environment(context, arguments[0]),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if done.returncode != 0:
        command = f"airflow {' '.join(arguments[:2])}"
        raise FinalError(f"`{command}` failed with exit code {done.returncode}; {log} ends with:\n{last_lines(log)}")


def launch_worker(context: Context) -> Launch:
    """Return how to start a worker of Airflow's edge executor; only containers do."""
    # A file of a worker that was killed would keep the next one from starting.
    record = Path(tempfile.mkdtemp()) / "worker.pid"
    options = ("--edge-hostname", socket.gethostname(), "--pid", str(record))
    return _launcher("edge", "worker", *options)(context)


def _launcher(*arguments: str) -> Callable[[Context], Launch]:
    return lambda context: Launch(
        (sys.executable, "-m", "airflow", *arguments), command_environment(context, arguments[0])
    )


def health_problem(health: dict[str, dict[str, str | None]], part: str, since: float = 0) -> str | None:
    """Return why a part of Airflow is unhealthy, according to Airflow's health report; None if it is healthy.

    Parameters
    ----------
    health
        The report.
    part
        ``metadatabase``, ``scheduler``, ``dag_processor`` or ``triggerer``.
    since
        Seconds since the epoch. An earlier heartbeat is that of a previous process, which the report calls healthy
        for half a minute after its end.
    """
    report = health.get(part) or {}
    if report.get("status") != "healthy":
        return f"Airflow reports its {part} as {report.get('status') or 'unknown'}"
    heartbeat = report.get(f"latest_{part}_heartbeat")
    if heartbeat is not None and datetime.fromisoformat(heartbeat).timestamp() < since:
        return f"no heartbeat of the {part} yet"
    return None


def _problem(settings: Settings, part: str, since: float = 0) -> str | None:
    try:
        health = get_json(f"{settings.address('airflow_url')}/api/v2/monitor/health")
        problem = health_problem(health, part, since)
        # Then the report says nothing of the other parts.
        unknown = part != DATABASE and health_problem(health, DATABASE) is not None
    except (EngineDownError, ValueError, AttributeError) as error:
        problem, unknown = str(error), part != DATABASE
    return Waiting(problem) if problem is not None and unknown else problem


def _asker(engine: str, part: str) -> Callable[[Context], str | None]:
    def unready(context: Context) -> str | None:
        record = processes.read_record(context.folder(engine))
        return _problem(context.settings, part, record.started_at if record else 0)

    return unready


def _unreachable(settings: Settings) -> str | None:
    return _problem(settings, DATABASE) or _problem(settings, "scheduler")


def _addresses(ports: Ports) -> dict[str, str]:
    return {"airflow_url": f"http://{LOOPBACK}:{ports['airflow-api-server']['http']}"}


def _part(part: str, *arguments: str) -> Engine:
    engine = f"airflow-{part.replace('_', '-')}"
    return Engine(name=engine, launch=_launcher(*arguments), unready=_asker(engine, part))


GROUP = Group(
    name="airflow",
    engines=(
        Engine(
            name="airflow-api-server",
            launch=_launcher("api-server"),
            unready=_asker("airflow-api-server", DATABASE),
            ports=(Port("http", 8080),),
            address="airflow_url",
        ),
        # Their log servers would listen on all addresses; the API server reads the log files itself.
        _part("scheduler", "scheduler", "--skip-serve-logs"),
        _part("dag_processor", "dag-processor"),
        _part("triggerer", "triggerer", "--skip-serve-logs"),
    ),
    settings=("airflow_url",),
    addresses=_addresses,
    unreachable=_unreachable,
    prepare=_prepare,
)
