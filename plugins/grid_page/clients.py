"""Clients for the API server, which must answer soon: from Airflow's connections, as tasks get them."""

from dataclasses import dataclass

from airflow.exceptions import AirflowNotFoundException
from airflow.models.connection import Connection

from tinytags_tasks.clients.solr import SolrClient
from tinytags_tasks.runtime import Runtime
from tinytags_tasks.settings import Settings, load_settings
from tinytags_tasks.storage import Storage

SOLR_TIMEOUT_SECONDS = 10.0
"""A page that says that Solr is away is better than one that waits for it."""


@dataclass(frozen=True)
class Clients:
    """What the page asks."""

    settings: Settings
    storage: Storage
    solr: SolrClient


def connect() -> Clients:
    """Return clients of the engines that the connections name; what these leave open, the settings say.

    Raises
    ------
    BadInputError
        When neither names an engine.
    """
    settings = load_settings().with_connections(_connection("tinytags_hdfs"), _connection("tinytags_solr"))
    solr = SolrClient(
        settings.address("solr_url"),
        admin=settings.solr_login("admin"),
        writer=settings.solr_login("writer"),
        pauses_seconds=(),
        timeout_seconds=SOLR_TIMEOUT_SECONDS,
    )
    return Clients(settings, Runtime(settings).storage, solr)


def _connection(name: str) -> Connection | None:
    try:
        return Connection.get_connection_from_secrets(name)
    except AirflowNotFoundException:
        return None
