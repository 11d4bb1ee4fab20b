"""The configuration of the embedded Airflow, its users, connections and pools."""

import configparser
import io
import json
import os
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tinytags_tasks.airflow_names import HDFS, SOLR, SPARK
from tinytags_tasks.airflow_parts import has_entry_points
from tinytags_tasks.clients.spark_address import SparkAddress
from tinytags_tasks.errors import BadInputError
from tinytags_tasks.parts import DAGS, PLUGINS
from tinytags_tasks.secrecy import without_password
from tinytags_tasks.services.airflow_database import database_of
from tinytags_tasks.services.memory import profile_of
from tinytags_tasks.services.ports import LOOPBACK
from tinytags_tasks.services.secrets import secret
from tinytags_tasks.settings import Settings, is_web_address

ON_POSTGRESQL = 16
"""How many tasks run at once if Airflow's database is PostgreSQL; the pools let fewer of them use an engine."""


def airflow_home(settings: Settings) -> Path:
    """Return the folder that is ``AIRFLOW_HOME``."""
    return settings.home / "airflow"


def _roles(settings: Settings) -> dict[str, str]:
    """Return the role of each user: a viewer, an operator, and the admin, who triggers the runs of `tinytags run`."""
    return {"viewer": "viewer", "operator": "op", settings.airflow_user: "admin"}


def passwords(settings: Settings) -> dict[str, str]:
    """Return the password of each user."""
    return {
        user: secret(settings, "airflow_password" if user == settings.airflow_user else f"airflow_{user}_password")
        for user in _roles(settings)
    }


def configuration(settings: Settings, port: int) -> str:
    """Return the text of ``airflow.cfg``.

    Parameters
    ----------
    settings
        The settings, with the home in which Airflow's files are.
    port
        The port of the API server.

    Raises
    ------
    BadInputError
        If a setting cannot be used.
    """
    home = airflow_home(settings)
    parallelism = _parallelism(settings)
    sections: dict[str, dict[str, object]] = {
        "core": {
            "dags_folder": DAGS,
            # Not ours if Airflow finds the plugins by their entry points: it would refuse the second of each name.
            "plugins_folder": home / "plugins" if has_entry_points() else PLUGINS,
            "executor": "LocalExecutor",
            "parallelism": parallelism,
            "max_active_tasks_per_dag": parallelism,
            "load_examples": False,
            # A run of 80 shards maps over 4,000 blocks.
            "max_map_length": 5000,
            "fernet_key": secret(settings, "airflow_fernet_key") + "=",
            "execution_api_server_url": f"http://{LOOPBACK}:{port}/execution/",
            "simple_auth_manager_users": ",".join(f"{user}:{role}" for user, role in _roles(settings).items()),
            "simple_auth_manager_passwords_file": home / "passwords.json",
        },
        "database": {
            "sql_alchemy_conn": database_of(settings) or f"sqlite:///{home}/airflow.db?timeout=60",
            "load_default_connections": False,
        },
        "api": {
            "host": LOOPBACK,
            "port": port,
            "base_url": _base_url(settings, port),
            "workers": 1,
            "secret_key": secret(settings, "airflow_secret_key"),
            "expose_config": False,
        },
        # Its tokens are signed with SHA-512, whose key should have 64 characters.
        "api_auth": {"jwt_secret": secret(settings, "airflow_jwt_secret", size_bytes=48)},
        "scheduler": {
            # How soon a task whose process was killed is retried.
            "task_instance_heartbeat_timeout": 90,
            "orphaned_tasks_check_interval": 30,
            # When a short task ends, its slot should not stay empty for a second.
            "scheduler_idle_sleep_time": 0.5,
        },
        # By default, a task fails if the API server does not answer five requests of five seconds each. On a busy
        # machine, its first answer has taken half a minute; and a writer may hold SQLite's lock for as long.
        "workers": {"execution_api_timeout": 60, "execution_api_retries": 8},
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


def configured_database(settings: Settings) -> str | None:
    """Return the PostgreSQL address in ``airflow.cfg``, empty for SQLite; None if the file says nothing."""
    parser = configparser.ConfigParser()
    try:
        parser.read(airflow_home(settings) / "airflow.cfg")
        address = parser.get("database", "sql_alchemy_conn", fallback=None)
    except configparser.Error:  # it is damaged, and written again
        return None
    return "" if address is not None and address.startswith("sqlite:") else address


def _base_url(settings: Settings, port: int) -> str:
    """Return what links begin with; with a path, Airflow would answer nobody who asks for its API without that path."""
    if settings.airflow_public_url is None:
        return f"http://{LOOPBACK}:{port}"
    if not is_web_address(settings.airflow_public_url) or urlsplit(settings.airflow_public_url).path.strip("/"):
        raise BadInputError(
            f"TINYTAGS_AIRFLOW_PUBLIC_URL is {without_password(settings.airflow_public_url)!r}: write it as "
            "https://airflow.example or http://host:8080, without a path; below a path, this Airflow cannot be served"
        )
    return without_password(settings.airflow_public_url).rstrip("/")


def _parallelism(settings: Settings) -> int:
    """Return how many tasks may run at once: with Airflow's default of 32, SQLite's locks make the scheduler fail."""
    profile = profile_of(settings)
    return ON_POSTGRESQL if database_of(settings) and profile.name != "small" else profile.airflow_tasks


def connections(settings: Settings) -> dict[str, str]:
    """Return the ``AIRFLOW_CONN_*`` variables that tell Dags where the engines are."""
    spark = SparkAddress.parse(settings.address("spark_url"))
    webhdfs_url, solr_url = settings.address("webhdfs_url"), settings.address("solr_url")
    hdfs, solr = urlsplit(webhdfs_url.partition(";")[0]), urlsplit(solr_url)
    described: dict[str, dict[str, object]] = {
        SPARK: {
            "conn_type": "spark_connect",
            "host": f"sc://{spark.url_host}",
            "port": spark.port,
            "login": spark.parameters.get("user_id"),
            "password": spark.parameters.get("token") or _spark_token(settings),
            # The hook of Airflow's provider reads `use_ssl`.
            "extra": {"url": str(spark.without("token"))}
            | ({} if spark.use_ssl is None else {"use_ssl": spark.use_ssl}),
        },
        HDFS: {
            "conn_type": "http",
            "schema": hdfs.scheme,
            "host": hdfs.hostname,
            "port": hdfs.port,
            "login": settings.hdfs_user,
            "extra": {"url": webhdfs_url, "rpc": settings.address("hdfs_url")}
            | ({"kerberos": True} if settings.hdfs_kerberos else {}),
        },
        SOLR: {
            "conn_type": "http",
            "schema": solr.scheme,
            "host": solr.hostname,
            "port": solr.port,
            "login": unquote(solr.username or ""),
            "password": unquote(solr.password or ""),
            "extra": {"url": without_password(solr_url)},
        },
    }
    return {
        f"AIRFLOW_CONN_{name.upper()}": json.dumps({key: value for key, value in parts.items() if value})
        for name, parts in described.items()
    }


def _spark_token(settings: Settings) -> str:
    """Return Spark's token; create it if Spark, which starts at the same time, has not done so yet."""
    if settings.spark_tokens:
        secret(settings, "spark_token")
    return settings.spark_connect_token()


def pools() -> str:
    """Return the pools that the Dags' tasks share, in the format of ``airflow pools import``.

    Of three tasks with a job in Spark, one scores with all cores while two index. On one machine, Solr and HDFS serve
    two tasks as fast as more.
    """
    described = {
        SPARK: (max(3, (os.cpu_count() or 1) // 2), "Tasks that train, or score and index blocks"),
        SOLR: (2, "Tasks that create collections, count or publish"),
        HDFS: (2, "Tasks that write shards"),
    }
    return json.dumps(
        {
            name: {"slots": slots, "description": description, "include_deferred": False}
            for name, (slots, description) in described.items()
        }
    )
