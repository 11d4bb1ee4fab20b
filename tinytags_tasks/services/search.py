"""The search page, served by uvicorn."""

import sys

from tinytags_tasks.errors import EngineDownError
from tinytags_tasks.services.engine import Context, Engine, Group, Ports, RefusedError, Waiting, answers, environment
from tinytags_tasks.services.engine_secrets import PROXIES, Secrets
from tinytags_tasks.services.ports import LOOPBACK, Port
from tinytags_tasks.services.processes import Launch
from tinytags_tasks.services.secrets import secret
from tinytags_tasks.settings import Settings

_SECRETS = Secrets(("search_password", "solr_reader_password", "solr_writer_password"), PROXIES)
"""The page reads, and writes corrections; it manages nothing. Whom people sign in with may be behind a proxy."""


def _prepare(context: Context) -> None:
    secret(context.settings, "search_password")
    secret(context.settings, "search_form_key")
    if context.settings.solr_passwords:
        secret(context.settings, "solr_reader_password")
        secret(context.settings, "solr_writer_password")


def _launch(context: Context) -> Launch:
    command = (
        *(sys.executable, "-m", "uvicorn", "tinytags_tasks.search.page:create_app", "--factory"),
        *("--host", context.network.listen, "--port", str(context.ports["search"]["http"])),
        *("--http", "tinytags_tasks.search.server:SafeProtocol"),  # its own refusals have the page's headers
        *("--ws", "none"),  # the page has no websockets, whose refusals would have none
        "--no-proxy-headers",  # else anybody on this machine says with a header which address a guess comes from
        "--no-access-log",  # a page has dozens of pictures, and writing their lines costs more than some of them
    )
    return Launch(command, environment(context, _SECRETS))


def _unready(settings: Settings) -> str | None:
    try:
        answers(settings.address("search_url"))
    except RefusedError as error:  # Solr or the store is away
        return Waiting(error)
    except EngineDownError as error:
        return str(error)
    return None


def _addresses(ports: Ports) -> dict[str, str]:
    return {"search_url": f"http://{LOOPBACK}:{ports['search']['http']}"}


GROUP = Group(
    name="search",
    engines=(
        Engine(
            name="search",
            launch=_launch,
            unready=lambda context: _unready(context.settings),
            ports=(Port("http", 8765),),
            address="search_url",
        ),
    ),
    settings=("search_url",),
    addresses=_addresses,
    unreachable=_unready,
    prepare=_prepare,
)
