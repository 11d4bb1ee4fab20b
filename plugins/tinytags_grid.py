"""Adds the block grid to Airflow: a page in the navigation, and a tab of each Dag run."""

from collections.abc import Awaitable, Callable, MutableMapping
from functools import cache
from typing import Any, ClassVar

from airflow.plugins_manager import AirflowPlugin

PREFIX = "/tinytags"

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Scope]]
Send = Callable[[Scope], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]


@cache
def _grid_app() -> AsgiApp:
    from grid_page.app import create_app  # Airflow puts the plugins folder on the path

    app: AsgiApp = create_app()
    return app


async def serve_grid(scope: Scope, receive: Receive, send: Send) -> None:
    """Serve the grid. It is built at the first request, so that only Airflow's API server loads it."""
    await _grid_app()(scope, receive, send)


def grid_views() -> list[dict[str, str | bool]]:
    """Return the links to the grid in the format of Airflow's ``external_views``."""
    from urllib.parse import urlsplit

    from airflow.configuration import conf

    page = urlsplit(conf.get("api", "base_url", fallback="/")).path.rstrip("/") + PREFIX + "/"
    return [
        {"name": "Blocks", "href": page, "destination": "nav", "url_route": "blocks", "nav_top_level": True},
        {
            "name": "Blocks",
            "href": f"{page}?dag={{DAG_ID}}&dag_run={{RUN_ID}}",
            "destination": "dag_run",
            "url_route": "tinytags-blocks",
        },
    ]


class TinyTagsGrid(AirflowPlugin):  # type: ignore[misc]  # Airflow comes without types here
    """The block grid."""

    name = "tinytags_grid"
    fastapi_apps: ClassVar = [{"app": serve_grid, "url_prefix": PREFIX, "name": "TinyTags blocks"}]
    external_views = grid_views()
