"""What all TinyTags Dags share: clients from Airflow's connections, and errors as Airflow understands them."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from tinytags_tasks.runtime import Runtime

SPARK, HDFS, SOLR = "tinytags_spark", "tinytags_hdfs", "tinytags_solr"
"""Connection ids."""

P = ParamSpec("P")
R = TypeVar("R")


def errors_for_airflow(work: Callable[P, R]) -> Callable[P, R]:
    """Let a task that no retry can help fail at once; anything else is retried as the Dag says."""

    @wraps(work)
    def translated(*args: P.args, **kwargs: P.kwargs) -> R:
        from airflow.sdk.exceptions import AirflowFailException

        from tinytags_tasks.errors import FinalError

        try:
            return work(*args, **kwargs)
        except FinalError as error:
            raise AirflowFailException(f"{type(error).__name__}: {error}") from error

    return translated


def corpus_names() -> list[str]:
    """Return the names of the defined corpora, for the form to propose; one folder is listed."""
    from tinytags_tasks.errors import BadInputError
    from tinytags_tasks.settings import load_settings

    try:
        folder = load_settings().corpora_folder
    except BadInputError:  # the tasks will say it; the Dag must stay readable
        return []
    return sorted(path.stem for path in folder.glob("*.toml") if not path.name.startswith("."))


def runtime() -> Runtime:
    """Build the clients from Airflow's connections; what these leave open, the settings say.

    The login of Solr's connection, where it has one, is both the admin and the writer.
    """
    from airflow.providers.apache.spark.hooks.spark_connect import SparkConnectHook
    from airflow.sdk import BaseHook
    from pydantic import SecretStr

    from tinytags_tasks.runtime import Runtime
    from tinytags_tasks.settings import load_settings

    hdfs = BaseHook.get_connection(HDFS)
    solr = BaseHook.get_connection(SOLR)
    settings = load_settings()
    solr_url = f"{solr.schema or 'http'}://{solr.host}:{solr.port}{solr.extra_dejson.get('path', '/solr')}"
    logins: dict[str, object] = {}
    if solr.login:
        for role in ("admin", "writer"):
            logins[f"solr_{role}_user"] = solr.login
            logins[f"solr_{role}_password"] = SecretStr(solr.password or "")
    if solr_url != settings.solr_url:
        logins["solr_passwords"] = None  # those under home are the embedded Solr's
    return Runtime(
        settings.model_copy(
            update={
                "webhdfs_url": f"{hdfs.schema or 'http'}://{hdfs.host}:{hdfs.port}",
                "hdfs_url": hdfs.extra_dejson.get("rpc", settings.hdfs_url),
                "hdfs_user": hdfs.login or settings.hdfs_user,
                "solr_url": solr_url,
                "spark_url": SparkConnectHook(SPARK).get_connection_url().rstrip("/;"),
            }
            | logins
        )
    )


def report(line: str) -> None:
    """Write one line of a step's progress to the task's log."""
    import logging

    logging.getLogger("tinytags").info(line)
