"""The routes that answer what the page shows: runs, their cells, blocks and images."""

import io
from typing import Any

from airflow.api_fastapi.common.db.common import SessionDep
from airflow.api_fastapi.core_api.security import GetUserDep
from fastapi import APIRouter, HTTPException, Query, Response
from PIL import Image

from grid_page.access import may_clear, may_trigger
from grid_page.dag_runs import log_link
from grid_page.history import History
from grid_page.images import block_images, captioned, image_at
from grid_page.watch import STATES, Watches
from tinytags_tasks.airflow_names import BACKFILL_DAG
from tinytags_tasks.search.stored_images import StoredImages
from tinytags_tasks.store.corrections import CorrectionsReader
from tinytags_tasks.store.models import REPORT_POLICY, load_report


def run_routes(watches: Watches) -> APIRouter:
    """Return the routes that read.

    Parameters
    ----------
    watches
        The runs that are being watched.
    """
    router = APIRouter()
    history = History(watches.dag_runs.find_run)

    @router.get("/api/runs")
    def runs(user: GetUserDep, session: SessionDep, dag: str = "", dag_run: str = "") -> dict[str, Any]:
        """Return the runs to choose from, and the one that a Dag run works on."""
        of_dag_run = watches.dag_runs.find_run(dag, dag_run, session) if dag_run else ""
        return watches.runs() | {
            "of_dag_run": of_dag_run,
            "states": STATES,
            "may_trigger": may_trigger(user, BACKFILL_DAG),
        }

    @router.get("/api/history")
    def dag_runs(session: SessionDep) -> dict[str, Any]:
        """Return the latest Dag runs that tagged: when, how long, what was counted, retries and waits."""
        return history.read(session)

    @router.get("/api/runs/{name}")
    def run(name: str) -> dict[str, Any]:
        """Return what does not change: the run, and how its corpus is divided into shards and blocks."""
        watch = watches.watch(name)
        partition = watch.corpus.partition
        return {
            "run": watch.run.model_dump(),
            "shards": partition.shards,
            "blocks_per_shard": partition.blocks_per_shard,
            "width": watch.corpus.width,
            "has_none": watch.has_none,
        }

    @router.get("/api/runs/{name}/report")
    def report(name: str) -> Response:
        """Return the report of the run's model, a page of its own."""
        page = load_report(watches.clients.storage, watches.watch(name).run.model)
        return Response(page, media_type="text/html", headers={"Content-Security-Policy": REPORT_POLICY})

    @router.get("/api/runs/{name}/cells")
    def cells(name: str, session: SessionDep, mark: str = "", since: int = 0) -> dict[str, Any]:
        """Return the cells that changed after a revision, and the totals."""
        watch = watches.watch(name)
        dag_runs = watches.dag_runs
        watch.refresh(lambda run: dag_runs.tasks(run, session), lambda run: dag_runs.waits(run, session))
        return watch.view(mark, since)

    @router.get("/api/runs/{name}/blocks/{block}")
    def cell(name: str, block: int, user: GetUserDep) -> dict[str, Any]:
        """Return a block's record, its last task with a link to its log, and whether the user may clear that task."""
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

    _add_image_routes(router, watches)
    return router


def _add_image_routes(router: APIRouter, watches: Watches) -> None:
    stored_images = StoredImages(lambda: watches.clients.storage)
    corrections = CorrectionsReader(lambda: watches.clients.storage)

    @router.get("/api/runs/{name}/blocks/{block}/images")
    def images(name: str, block: int, start: int = Query(0, ge=0)) -> dict[str, Any]:
        """Return a page of a block's images: those that were kept, or all of them if it was not scored."""
        watch = watches.watch(name)
        total, found = block_images(watch.run, block, start, watches.clients.storage)
        shown = stored_images.complete(found)
        return {"total": total, "images": [captioned(image) for image in shown]}

    @router.get("/api/runs/{name}/images/{position}.png")
    def image(name: str, position: int) -> Response:
        """Return one image of the run's corpus; those of the page that was just shown are cached."""
        watch = watches.watch(name)
        (found,) = stored_images.complete([image_at(watch.run, watch.corpus, position, corrections.read(watch.corpus))])
        if found.image is None:
            raise HTTPException(404, found.missing)
        png = io.BytesIO()
        Image.fromarray(found.image).save(png, "PNG")
        return Response(png.getvalue(), media_type="image/png", headers={"Cache-Control": "private, max-age=3600"})
