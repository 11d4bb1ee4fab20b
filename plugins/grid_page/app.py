"""The grid's routes. Airflow serves a plugin's routes to anybody: each of these asks who calls, and what they may.

Nothing is rendered here: the page's script builds all it shows from text, so that no name or reason can become markup.
"""

# ruff: noqa: TID253 - loaded at the first request

import io
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from airflow.api_fastapi.common.dagbag import create_dag_bag
from airflow.api_fastapi.common.db.common import SessionDep
from airflow.api_fastapi.core_api.security import GetUserDep
from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.responses import JSONResponse
from PIL import Image

from grid_page.access import TO_SEE, may_clear, may_trigger
from grid_page.actions import actions
from grid_page.clients import Clients, connect
from grid_page.dag_runs import BACKFILL_DAG, log_link
from grid_page.images import block_images, captioned, image_at
from grid_page.watch import STATES, Watches
from tinytags_tasks.errors import TinyTagsError, http_status
from tinytags_tasks.search.stored_images import StoredImages

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
        Builds the clients, at the first question.
    """
    app = FastAPI(title="TinyTags blocks", dependencies=TO_SEE, docs_url=None, redoc_url=None, openapi_url=None)
    app.state.dag_bag = create_dag_bag()  # where Airflow's own functions look for Dags
    watches = Watches(connect)
    stored_images = StoredImages(lambda: watches.clients.storage)
    assets = {path.name: path.read_bytes() for path in ASSETS.iterdir()}

    @app.middleware("http")
    async def add_headers(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        response = await call_next(request)
        response.headers.update(HEADERS)
        response.headers.setdefault("Cache-Control", "no-store")
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
            raise HTTPException(404, "There is no such file")
        return Response(assets[name], media_type=media_type)

    @app.get("/api/runs")
    def runs(user: GetUserDep, session: SessionDep, dag: str = "", dag_run: str = "") -> dict[str, Any]:
        """Return the runs to choose from, and the one that a Dag run works on."""
        of_dag_run = watches.dag_runs.find_run(dag, dag_run, session) if dag_run else ""
        return watches.runs() | {
            "of_dag_run": of_dag_run,
            "states": STATES,
            "may_trigger": may_trigger(user, BACKFILL_DAG),
        }

    @app.get("/api/runs/{name}")
    def run(name: str) -> dict[str, Any]:
        """Return what does not change: the run, and how its corpus is cut."""
        watch = watches.watch(name)
        partition = watch.corpus.partition
        return {
            "run": watch.run.model_dump(),
            "shards": partition.shards,
            "blocks_per_shard": partition.blocks_per_shard,
            "width": watch.corpus.width,
        }

    @app.get("/api/runs/{name}/cells")
    def cells(name: str, session: SessionDep, mark: str = "", since: int = 0) -> dict[str, Any]:
        """Return the cells that changed since a revision, and the totals."""
        watch = watches.watch(name)
        watch.refresh(lambda run: watches.dag_runs.tasks(run, session))
        return watch.view(mark, since)

    @app.get("/api/runs/{name}/blocks/{block}")
    def cell(name: str, block: int, user: GetUserDep) -> dict[str, Any]:
        """Return a block's record, its last task with the link to its log, and whether it may be cleared."""
        watch = watches.watch(name)
        record = watch.record(block)
        task = watch.task(block)
        return {
            "state": watch.state(block),
            "record": record.model_dump(),
            "documents_in_solr": watch.documents(block),
            "task": {"state": task.state, "attempt": task.attempt, "log": log_link(task)} if task else None,
            "may_clear": task is not None and may_clear(user, task.dag),
        }

    @app.get("/api/runs/{name}/blocks/{block}/images")
    def images(name: str, block: int, start: int = Query(0, ge=0)) -> dict[str, Any]:
        """Return a page of a block's images: those that were kept, or any of a block that was not scored."""
        watch = watches.watch(name)
        total, found = block_images(watch.run, block, start, watches.clients.storage)
        shown = stored_images.complete(found)
        return {"total": total, "images": [captioned(image) for image in shown]}

    @app.get("/api/runs/{name}/images/{position}.png")
    def image(name: str, position: int) -> Response:
        """Return one image of the run's corpus; what a page of them has just shown is at hand."""
        watch = watches.watch(name)
        (found,) = stored_images.complete([image_at(watch.run, watch.corpus, position)])
        if found.image is None:
            raise HTTPException(404, found.missing)
        png = io.BytesIO()
        Image.fromarray(found.image).save(png, "PNG")
        return Response(png.getvalue(), media_type="image/png", headers={"Cache-Control": "private, max-age=3600"})

    app.include_router(actions(watches))
    return app
