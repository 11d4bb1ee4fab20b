"""The grid as a web application: its page, its files, headers and error answers.

Airflow serves a plugin's routes to anyone, so each of ours checks who calls and what they may do. The server renders
nothing: the page's script builds everything from text, so that no name or error message can become markup.
"""

from collections.abc import Awaitable, Callable
from pathlib import Path

from airflow.api_fastapi.common.dagbag import create_dag_bag
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse

from grid_page.access import TO_SEE
from grid_page.actions import action_routes
from grid_page.clients import Clients, connect
from grid_page.routes import run_routes
from grid_page.watch import Watches
from tinytags_tasks.errors import TinyTagsError, http_status

ASSETS = Path(__file__).parent / "assets"
MEDIA_TYPES = {".css": "text/css", ".js": "text/javascript"}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def create_app(connect: Callable[[], Clients] = connect) -> FastAPI:
    """Return the grid as an application that Airflow mounts.

    Parameters
    ----------
    connect
        Builds the clients, at the first request that needs them.
    """
    app = FastAPI(title="TinyTags blocks", dependencies=TO_SEE, docs_url=None, redoc_url=None, openapi_url=None)
    app.state.dag_bag = create_dag_bag()  # where Airflow's own functions look for Dags
    watches = Watches(connect)
    assets = {path.name: path.read_bytes() for path in ASSETS.iterdir()}

    @app.middleware("http")
    async def add_headers(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        response = await call_next(request)
        for name, value in (HEADERS | {"Cache-Control": "no-store"}).items():
            response.headers.setdefault(name, value)  # an image may be cached, and a report has a policy of its own
        return response

    @app.exception_handler(TinyTagsError)
    def show_error(request: Request, error: TinyTagsError) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, http_status(error))

    @app.get("/")
    def page() -> Response:
        return Response(assets["grid.html"], media_type="text/html")

    @app.get("/assets/{name}")
    def asset(name: str) -> Response:
        media_type = MEDIA_TYPES.get(Path(name).suffix)
        if name not in assets or media_type is None:
            raise HTTPException(404, "This file does not exist")
        return Response(assets[name], media_type=media_type)

    app.include_router(run_routes(watches))
    app.include_router(action_routes(watches))
    return app
