"""Airflow on SQLite: API server, scheduler with local executor, Dag processor and triggerer.

This module starts Airflow as programs and talks to it over HTTP; like all of ``tinytags_tasks`` it never imports it.
"""

import configparser
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from tinytags_tasks.errors import EngineDownError, FinalError
from tinytags_tasks.services import processes
from tinytags_tasks.services.engine import Context, Engine, Group, Ports, environment, get_json
from tinytags_tasks.services.files import last_lines, make_folder, write_atomically
from tinytags_tasks.services.ports import LOOPBACK, Port
from tinytags_tasks.services.processes import Launch
from tinytags_tasks.services.secrets import secret
from tinytags_tasks.settings import PROJECT_ROOT, Settings

PARALLELISM = 4
"""At the default of 32 the scheduler dies of SQLite's locks."""


LOCAL_SETTINGS = '''"""Lets runs share the pools; imports what tasks need before the scheduler forks them."""

import sys

__all__ = ["task_instance_mutation_hook"]


def task_instance_mutation_hook(task_instance):
    """Let the first groups of a run go before the last ones of another."""
    task = task_instance.task  # there when Airflow sets the priority; not when it only looks through what it has stored
    if task is not None and task_instance.dag_id.startswith("tinytags") and task_instance.map_index > 0:
        task_instance.priority_weight = task.priority_weight - task_instance.map_index


if "scheduler" in sys.argv:
    import airflow.providers.apache.spark.hooks.spark_connect
    import airflow.sdk
    import tinytags_tasks.index.step
    import tinytags_tasks.publish.step
    import tinytags_tasks.runtime
    import tinytags_tasks.score.step
    import tinytags_tasks.storage.hdfs
'''
"""Of Airflow; see ``0013-imports-before-the-fork.md`` and ``0016-runs-share-the-pools.md`` in ``docs/adr``."""


def _home(settings: Settings) -> Path:
    return settings.home / "airflow"


def _roles(settings: Settings) -> dict[str, str]:
    """Return the role of each user: besides who triggers runs, one who only looks, and one who acts as well."""
    return {"viewer": "viewer", "operator": "op", settings.airflow_user: "admin"}


def _passwords(settings: Settings) -> dict[str, str]:
    return {
        user: secret(settings, "airflow_password" if user == settings.airflow_user else f"airflow_{user}_password")
        for user in _roles(settings)
    }


def configuration(settings: Settings, port: int) -> str:
    """Return the text of ``airflow.cfg``."""
    home = _home(settings)
    sections: dict[str, dict[str, object]] = {
        "core": {
            "dags_folder": PROJECT_ROOT / "dags",
            "plugins_folder": PROJECT_ROOT / "plugins",
            "executor": "LocalExecutor",
            "parallelism": PARALLELISM,
            "max_active_tasks_per_dag": PARALLELISM,
            "load_examples": False,
            # A run of 80 shards maps over 4,000 blocks.
            "max_map_length": 5000,
            "fernet_key": secret(settings, "airflow_fernet_key") + "=",
            "execution_api_server_url": f"http://{LOOPBACK}:{port}/execution/",
            "simple_auth_manager_users": ",".join(f"{user}:{role}" for user, role in _roles(settings).items()),
            "simple_auth_manager_passwords_file": home / "passwords.json",
        },
        "database": {
            "sql_alchemy_conn": f"sqlite:///{home}/airflow.db?timeout=60",
            "load_default_connections": False,
        },
        "api": {
            "host": LOOPBACK,
            "port": port,
            "base_url": f"http://{LOOPBACK}:{port}",
            "workers": 1,
            "secret_key": secret(settings, "airflow_secret_key"),
            "expose_config": False,
        },
        "api_auth": {"jwt_secret": secret(settings, "airflow_jwt_secret")},
        "scheduler": {
            # After a kill, how soon a task whose process is gone is tried again.
            "task_instance_heartbeat_timeout": 90,
            "orphaned_tasks_check_interval": 30,
            # A slot that a short task leaves must not stay empty for a second.
            "scheduler_idle_sleep_time": 0.5,
        },
        "dag_processor": {"refresh_interval": 10, "min_file_process_interval": 30},
        "logging": {"base_log_folder": home / "logs", "colored_console_log": False},
    }
    parser = configparser.RawConfigParser()
    parser.read_dict(
        {
            section: {name: str(value).replace("%", "%%") for name, value in options.items()}
            for section, options in sections.items()
        }
    )
    text = io.StringIO()
    parser.write(text)
    return text.getvalue()


def connections(settings: Settings) -> dict[str, str]:
    """Return the ``AIRFLOW_CONN_*`` variables that tell Dags where the engines are."""
    spark = urlsplit(settings.address("spark_url"))
    options = dict(parse_qsl(spark.path.lstrip("/;"), separator=";"))
    hdfs = urlsplit(settings.address("webhdfs_url"))
    solr = urlsplit(settings.address("solr_url"))
    described: dict[str, dict[str, object]] = {
        "spark": {
            "conn_type": "spark_connect",
            "host": f"sc://{spark.hostname}",
            "port": spark.port or 15002,
            "login": options.get("user_id"),
            "password": options.get("token") or _spark_token(settings),
            "extra": {"use_ssl": True} if options.get("use_ssl") == "true" else None,
        },
        "hdfs": {
            "conn_type": "http",
            "schema": hdfs.scheme,
            "host": hdfs.hostname,
            "port": hdfs.port,
            "login": settings.hdfs_user,
            "extra": {"rpc": settings.address("hdfs_url")},
        },
        "solr": {
            "conn_type": "http",
            "schema": solr.scheme,
            "host": solr.hostname,
            "port": solr.port,
            "extra": {"path": solr.path},
        },
    }
    return {
        f"AIRFLOW_CONN_TINYTAGS_{name.upper()}": json.dumps({key: value for key, value in parts.items() if value})
        for name, parts in described.items()
    }


def _spark_token(settings: Settings) -> str:
    """Return the token of Spark, made now where Spark, which starts at the same time, has not made it yet."""
    if settings.spark_tokens:
        secret(settings, "spark_token")
    return settings.spark_connect_token()


def _environment(context: Context) -> dict[str, str]:
    return environment(
        context,
        AIRFLOW_HOME=str(_home(context.settings)),
        TINYTAGS_POOLS="1",  # they are there: a task in a pool that is not would wait for ever
        **connections(context.settings),
    )


def pools() -> str:
    """Return the pools that the Dags' tasks share, as ``airflow pools import`` reads them.

    Of three tasks with a job in Spark one scores, with all cores, while two index; Solr and HDFS answer two tasks on
    one machine as fast as more.
    """
    described = {
        "tinytags_spark": (max(3, (os.cpu_count() or 1) // 2), "Tasks that train, or score and index blocks"),
        "tinytags_solr": (2, "Tasks that make collections, count or publish"),
        "tinytags_hdfs": (2, "Tasks that write shards"),
    }
    return json.dumps(
        {
            name: {"slots": slots, "description": description, "include_deferred": False}
            for name, (slots, description) in described.items()
        }
    )


def _prepare(context: Context) -> None:
    settings = context.settings
    home = make_folder(_home(settings))
    write_atomically(home / "airflow.cfg", configuration(settings, context.ports["airflow-api-server"]["http"]))
    write_atomically(home / "passwords.json", json.dumps(_passwords(settings)))
    write_atomically(make_folder(home / "config") / "airflow_local_settings.py", LOCAL_SETTINGS)
    wanted = f"{version('apache-airflow')} {pools()}"
    prepared = home / "prepared"
    if (home / "airflow.db").exists() and prepared.exists() and prepared.read_text() == wanted:
        return
    context.report("airflow: preparing its database")
    _run(context, "db", "migrate")
    (home / "airflow.db").chmod(0o600)
    write_atomically(home / "pools.json", pools())
    _run(context, "pools", "import", str(home / "pools.json"))
    write_atomically(prepared, wanted)


def _run(context: Context, *arguments: str) -> None:
    """Run one of Airflow's commands to its end."""
    home = _home(context.settings)
    log = home / f"{arguments[0]}.log"
    with log.open("wb") as output:
        done = subprocess.run(
            (sys.executable, "-m", "airflow", *arguments),
            cwd=home,
            env=_environment(context),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if done.returncode != 0:
        raise FinalError(
            f"`airflow {' '.join(arguments[:2])}` ended with {done.returncode}; {log} ends with:\n{last_lines(log)}"
        )


def _launcher(*arguments: str) -> Callable[[Context], Launch]:
    return lambda context: Launch((sys.executable, "-m", "airflow", *arguments), _environment(context))


def health_problem(health: dict[str, dict[str, str | None]], part: str, since: float = 0) -> str | None:
    """Return what Airflow's health report says against a part of it, None when nothing.

    Parameters
    ----------
    part
        ``metadatabase``, ``scheduler``, ``dag_processor`` or ``triggerer``.
    since
        Seconds since the epoch: a heartbeat from before then is a dead predecessor's, which the report calls healthy
        for half a minute.
    """
    report = health.get(part) or {}
    if report.get("status") != "healthy":
        return f"Airflow calls its {part} {report.get('status') or 'unknown'}"
    heartbeat = report.get(f"latest_{part}_heartbeat")
    if heartbeat is not None and datetime.fromisoformat(heartbeat).timestamp() < since:
        return f"no heartbeat of the {part} yet"
    return None


def _problem(settings: Settings, part: str, since: float = 0) -> str | None:
    try:
        health = get_json(f"{settings.address('airflow_url')}/api/v2/monitor/health")
        return health_problem(health, part, since)
    except (EngineDownError, ValueError, AttributeError) as error:
        return str(error)


def _asker(engine: str, part: str) -> Callable[[Context], str | None]:
    def unready(context: Context) -> str | None:
        record = processes.read_record(context.folder(engine))
        return _problem(context.settings, part, record.started_at if record else 0)

    return unready


def _unreachable(settings: Settings) -> str | None:
    return _problem(settings, "metadatabase") or _problem(settings, "scheduler")


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
            unready=_asker("airflow-api-server", "metadatabase"),
            ports=(Port("http", 8080),),
            address="airflow_url",
        ),
        # Their log servers listen on all addresses, and the API server reads the files itself.
        _part("scheduler", "scheduler", "--skip-serve-logs"),
        _part("dag_processor", "dag-processor"),
        _part("triggerer", "triggerer", "--skip-serve-logs"),
    ),
    settings=("airflow_url",),
    addresses=_addresses,
    unreachable=_unreachable,
    prepare=_prepare,
)
