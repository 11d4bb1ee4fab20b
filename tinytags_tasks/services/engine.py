"""What an embedded engine is: everything that :mod:`~tinytags_tasks.services.control` needs to know about it."""

import os
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import urllib3

from tinytags_tasks.errors import BadInputError, EngineDownError, refused_certificate
from tinytags_tasks.parts import python_path
from tinytags_tasks.secrecy import without_password
from tinytags_tasks.services.engine_secrets import NO_SECRETS, Secrets
from tinytags_tasks.services.java import find_java
from tinytags_tasks.services.ports import LOOPBACK, Port
from tinytags_tasks.services.processes import Launch
from tinytags_tasks.settings import Settings
from tinytags_tasks.store.kerberos import Handshake, KerberosError, asked_without_kerberos, asks_for_ticket

Ports = Mapping[str, Mapping[str, int]]

# Ignores proxy variables, unlike requests and httpx: every address here is the user's own.
_http = urllib3.PoolManager(maxsize=8, retries=False, timeout=urllib3.Timeout(connect=2, read=5))


class Waiting(str):
    """Why an engine is not ready, if a restart would not help: it is loading, or it waits for another engine."""

    __slots__ = ()


class RefusedError(EngineDownError):
    """A server answers, but not with what was asked for."""


@dataclass(frozen=True)
class Network:
    """Where engines listen, and by which names they reach each other; the default is this machine alone."""

    listen: str = LOOPBACK
    hosts: Mapping[str, str] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    """Further variables for every engine, whatever they hold."""

    def host(self, engine: str) -> str:
        """Return the name of the host on which an engine is."""
        return self.hosts.get(engine, LOOPBACK)


@dataclass(frozen=True)
class Context:
    """What is known when an engine is prepared, started and checked."""

    settings: Settings
    """With the address of every engine, embedded or external."""
    ports: Ports
    """Ports of each embedded engine, by name."""
    report: Callable[[str], None] = print
    network: Network = field(default_factory=Network)

    def folder(self, engine: str) -> Path:
        """Return the folder for the files of an engine."""
        return engine_folder(self.settings, engine)

    @cached_property
    def java(self) -> Path:
        """The ``java`` program."""
        return find_java(self.settings)


@dataclass(frozen=True)
class Engine:
    """One process."""

    name: str
    launch: Callable[[Context], Launch]
    unready: Callable[[Context], str | None]
    """Returns why it cannot be used yet, as :class:`Waiting` if a restart would not help; None if it is ready."""
    ports: tuple[Port, ...] = ()
    address: str | None = None
    """The setting with its address."""
    own_log: str | None = None
    """Name of the log file in its folder, if it logs to one besides its standard output."""
    timeout_seconds: float = 300
    """One that ends is noticed at once, so this is for one that hangs; on a busy machine, others need minutes."""


@dataclass(frozen=True)
class Group:
    """Engines that are either all embedded, and start together, or all external."""

    name: str
    engines: tuple[Engine, ...]
    settings: tuple[str, ...]
    """The settings with their addresses; if these are set in the environment, the engines are external."""
    addresses: Callable[[Ports], dict[str, str]]
    """Returns the values of those settings for given ports."""
    unreachable: Callable[[Settings], str | None]
    """Returns why external engines cannot be used; None if they can."""
    prepare: Callable[[Context], None] = field(default=lambda context: None)
    """Fetches and writes what they need to start."""


def engines_folder(settings: Settings) -> Path:
    """Return the folder with a folder for each engine, and what is recorded of all of them."""
    return settings.home / "services"


def engine_folder(settings: Settings, engine: str) -> Path:
    """Return the folder for the files of an engine."""
    return engines_folder(settings) / engine


def environment(context: Context, secrets: Secrets = NO_SECRETS, **more: str) -> dict[str, str]:
    """Return the environment for an engine.

    It is the user's, without variables that would configure an engine in ways unknown to TinyTags, with ``TINYTAGS_*``
    for all settings, and with a checkout on the ``PYTHONPATH``.

    Parameters
    ----------
    context
        What is known about the engines.
    secrets
        The secrets that it needs; it gets no others.
    more
        Further variables, whatever they hold.
    """
    foreign = ("SPARK_", "PYSPARK_", "HADOOP_", "SOLR_", "AIRFLOW__", "AIRFLOW_HOME", "AIRFLOW_CONFIG", "TINYTAGS_")
    users = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    result = secrets.of(users) | secrets.of_settings(context.settings)
    result["PYTHONPATH"] = python_path()
    result["PYTHONUNBUFFERED"] = "1"
    for name in ("no_proxy", "NO_PROXY"):
        result[name] = ",".join(filter(None, ["127.0.0.1,localhost", os.environ.get(name)]))
    return result | more | dict(context.network.variables)


def answers(url: str) -> None:
    """Raise :class:`EngineDownError` unless a server answers; asking for a login counts as an answer."""
    try:
        status = _http.request("GET", url, redirect=False).status
    except urllib3.exceptions.HTTPError as error:
        raise _away(url, error) from error
    if status >= 500:
        raise RefusedError(f"{without_password(url)} answered {status}")


def get_json(url: str, *, kerberos: bool = False, **query: str) -> Any:  # noqa: ANN401 (whatever an engine answers)
    """Return the JSON that an engine answers.

    Parameters
    ----------
    url
        What is asked for; a login in it is sent.
    kerberos
        Whether a ticket is shown to a server that asks for one.
    query
        Parameters of the request.

    Raises
    ------
    EngineDownError
        If nothing answers, or the answer is not 200 with JSON, or there is no ticket.
    """
    if query:
        url += "?" + urllib.parse.urlencode(query)
    try:
        login = urllib3.util.parse_url(url).auth
        headers = urllib3.make_headers(basic_auth=urllib.parse.unquote(login)) if login else None
        answer = _http.request("GET", url, headers=headers)
        if answer.status == 401 and asks_for_ticket(answer.headers):
            host = urllib.parse.urlsplit(url).hostname or ""
            if not kerberos:
                raise asked_without_kerberos(host)
            handshake = Handshake(host)
            answer = _http.request("GET", url, headers={"Authorization": handshake.authorization}, redirect=False)
            handshake.verify(answer.status, answer.headers)
        if answer.status != 200:
            raise RefusedError(f"{without_password(url)} answered {answer.status}")
        return answer.json()
    except urllib3.exceptions.HTTPError as error:
        raise _away(url, error) from error
    except (KerberosError, BadInputError) as error:
        raise EngineDownError(str(error)) from error
    except ValueError as error:
        raise EngineDownError(f"{without_password(url)} did not answer with JSON: is it another server?") from error


def _away(url: str, error: urllib3.exceptions.HTTPError) -> EngineDownError:
    where = without_password(url)
    if refused := refused_certificate(error, where, "the server"):
        return EngineDownError(str(refused))
    return EngineDownError(f"nothing answers at {where} ({type(error).__name__})")
