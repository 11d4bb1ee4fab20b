"""One engine in the foreground, for a container: ``python -m tinytags_tasks.services.container ROLE``.

The engines are prepared and launched as by ``tinytags up``. What differs: an engine listens on all addresses of its
container, the others are on hosts that are named like their services in ``docker-compose.yml``, ports are the standard
ones, and Airflow's database is PostgreSQL.
"""

import os
import socket
import sys
from collections.abc import Callable
from dataclasses import replace

from pydantic import SecretStr

from tinytags_tasks.errors import TinyTagsError
from tinytags_tasks.private_files import make_folder
from tinytags_tasks.services import airflow, hdfs, postgres, search, solr, spark
from tinytags_tasks.services.engine import Context, Engine, Group, Network, engine_folder
from tinytags_tasks.services.processes import Launch
from tinytags_tasks.settings import load_settings

PORTS = {
    "namenode": {"rpc": 8020, "http": 9870},
    "datanode": {"data": 9866, "http": 9864, "ipc": 9867},
    "zookeeper": {"client": 2181},
    "solr": {"http": 8983},
    "spark": {"grpc": 15002},
    "airflow-api-server": {"http": 8080},
    "search": {"http": 8765},
}

HOSTS = {name: name for name in ("namenode", "zookeeper", "postgres", "airflow-api-server")}
"""Engines of which there is one, and which others must find."""

Role = Callable[[Context], Launch | None]


def _of(group: Group, name: str) -> Engine:
    return next(engine for engine in group.engines if engine.name == name)


def _hdfs(name: str) -> Role:
    def launch(context: Context) -> Launch:
        hdfs.prepare(context, name)
        return _of(hdfs.GROUP, name).launch(context)

    return launch


def _alone(group: Group) -> Role:
    """Return the role of a group's only engine."""

    def launch(context: Context) -> Launch:
        group.prepare(context)
        return group.engines[0].launch(context)

    return launch


def _airflow(name: str) -> Role:
    return lambda context: _of(airflow.GROUP, name).launch(_with_database(context))


def _prepare_airflow(context: Context) -> None:
    context = _with_database(context)
    airflow.write_configuration(context)
    airflow.prepare_database(context)


def _with_database(context: Context) -> Context:
    """Return what Airflow's containers know besides: the database, and where the API server is."""
    database = context.settings.airflow_database or SecretStr(postgres.database_url(context))
    url = f"http://{context.network.host('airflow-api-server')}:{PORTS['airflow-api-server']['http']}"
    variables = {
        "AIRFLOW__API__HOST": context.network.listen,
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        # For workers on other hosts: Airflow's executor with its edge workers, which ask the API server for tasks.
        "AIRFLOW__EDGE__API_ENABLED": str("EdgeExecutor" in os.environ.get("AIRFLOW__CORE__EXECUTOR", "")),
        "AIRFLOW__EDGE__API_URL": f"{url}/edge_worker/v1/rpcapi",
        "AIRFLOW__EDGE__JOB_POLL_INTERVAL": "1",
        "AIRFLOW__EDGE__HEARTBEAT_INTERVAL": "5",
        **{name: value for name, value in os.environ.items() if name.startswith("AIRFLOW__")},
    }
    return replace(
        context,
        settings=context.settings.model_copy(update={"airflow_database": database}),
        network=replace(context.network, variables=variables),
    )


ROLES: dict[str, Role] = {
    "namenode": _hdfs("namenode"),
    "datanode": _hdfs("datanode"),
    "zookeeper": solr.launch_zookeeper,
    "solr": _alone(solr.GROUP),
    "spark": _alone(spark.GROUP),
    "spark-master": spark.launch_master,
    "spark-worker": spark.launch_worker,
    "postgres": postgres.launch,
    "airflow-prepare": _prepare_airflow,
    "airflow-api-server": _airflow("airflow-api-server"),
    "airflow-scheduler": _airflow("airflow-scheduler"),
    "airflow-dag-processor": _airflow("airflow-dag-processor"),
    "airflow-triggerer": _airflow("airflow-triggerer"),
    "airflow-worker": lambda context: airflow.launch_worker(_with_database(context)),
    "search": _alone(search.GROUP),
}


def container_context(role: str) -> Context:
    """Return what an engine in this container needs to know."""
    hosts = {**HOSTS, role.removesuffix("-master").removesuffix("-worker"): socket.gethostname()}
    return Context(load_settings(), PORTS, lambda text: print(text, flush=True), Network("0.0.0.0", hosts))  # noqa: S104


def main(arguments: list[str]) -> None:
    """Become the engine that the only argument names; without an engine, return once the work is done."""
    if len(arguments) != 1 or arguments[0] not in ROLES:
        sys.exit(f"tinytags: error: name one of the roles {', '.join(ROLES)}")
    os.umask(0o077)
    context = container_context(arguments[0])
    try:
        launch = ROLES[arguments[0]](context)
    except TinyTagsError as error:
        sys.exit(f"tinytags: error: {error}")
    if launch is not None:
        os.chdir(make_folder(engine_folder(context.settings, arguments[0])))
        os.execvpe(launch.command[0], launch.command, dict(launch.environment))  # noqa: S606 - without a shell


if __name__ == "__main__":
    main(sys.argv[1:])
