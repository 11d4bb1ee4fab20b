"""The search page and its JSON sibling, for people with an account.

Everything is rendered here and works without scripts; the page's policy allows only our own.
"""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from tinytags_tasks.runtime import Runtime
from tinytags_tasks.search import (
    about_pages,
    correct_all,
    corrections,
    corrections_api,
    export_pages,
    landing,
    picture_files,
    picture_pages,
    results,
    review_pages,
    review_set_pages,
    run_pages,
    scripts,
    similar_pages,
    store_pages,
)
from tinytags_tasks.search.address import API_PARAMETERS, read_address
from tinytags_tasks.search.api_docs import add_api
from tinytags_tasks.search.applying import Applier
from tinytags_tasks.search.chosen_runs import ChosenRuns
from tinytags_tasks.search.context import PageContext
from tinytags_tasks.search.error_pages import add_error_pages
from tinytags_tasks.search.guard import add_guard
from tinytags_tasks.search.live import LiveRuns
from tinytags_tasks.search.measured import MeasuredRuns
from tinytags_tasks.search.openid import pages as openid_pages
from tinytags_tasks.search.openid.door import make_door
from tinytags_tasks.search.origins import add_other_origins
from tinytags_tasks.search.proxies import add_proxies
from tinytags_tasks.search.query import SearchPage
from tinytags_tasks.search.rate_limit import add_rate_limit
from tinytags_tasks.search.request import SearchRequest
from tinytags_tasks.search.searches import Searches
from tinytags_tasks.search.shown_pictures import ShownPictures
from tinytags_tasks.search.sign_in import SignIn
from tinytags_tasks.search.source_places import SourcePlaces
from tinytags_tasks.search.stored_images import StoredImages
from tinytags_tasks.search.view import search_as_json
from tinytags_tasks.search.word_logs import WordLogs
from tinytags_tasks.settings import Settings, load_settings
from tinytags_tasks.store.models import REPORT_POLICY, load_report

TEMPLATES = Path(__file__).parent / "templates"

_AREAS = (
    picture_files,  # first, because a page has dozens of pictures, and routes are tried in this order
    scripts,
    landing,
    results,
    corrections,
    correct_all,
    corrections_api,
    export_pages,
    picture_pages,
    review_pages,
    review_set_pages,
    run_pages,
    similar_pages,
    store_pages,
    about_pages,
)


def create_app(settings: Settings | None = None) -> FastAPI:
    """Return the search page as an ASGI application.

    Every route but ``/healthz`` asks for an account: by a name and password, or by a session.

    Raises
    ------
    BadInputError
        If there is no password of ``settings.search_user``, or a setting cannot be used.
    """
    settings = settings or load_settings()
    sign_in = SignIn(settings)
    app = FastAPI(title="TinyTags search", docs_url=None, redoc_url=None, openapi_url=None, lifespan=_lifespan)
    app.state.form_key = _form_key(settings)
    context = _make_context(settings)
    app.state.context = context
    add_rate_limit(app, settings)  # before the guard, so that it runs after it
    door = make_door(settings, app.state.form_key)
    add_guard(app, sign_in, door)
    add_error_pages(app, context.templates)
    for area in _AREAS:
        area.add_routes(app, context)
    _add_routes(app, context)
    if door:
        openid_pages.add_routes(app, door, context.templates)
    add_api(app, context)
    add_other_origins(app, settings)
    add_proxies(app, settings)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    app.state.context.applier.start()
    yield
    app.state.context.applier.stop()
    app.state.context.embedder.close()
    app.state.context.all_votes.close()


def _form_key(settings: Settings) -> bytes:
    """Return the key of forms: the generated one, so that a restart leaves open pages valid; else one for now."""
    try:
        return (settings.secrets_folder / "search_form_key").read_bytes().strip() or secrets.token_bytes(32)
    except OSError:
        return secrets.token_bytes(32)


def _make_context(settings: Settings) -> PageContext:
    runtime = Runtime(settings, as_writer=True)
    live = LiveRuns(settings, runtime)
    logs = WordLogs(runtime, live)
    stored_images = StoredImages(lambda: runtime.storage)
    measured = MeasuredRuns(runtime, logs)
    return PageContext(
        settings=settings,
        runtime=runtime,
        templates=Environment(
            loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, auto_reload=False
        ),
        stored_images=stored_images,
        pictures=ShownPictures(settings, live, logs, stored_images),
        live=live,
        logs=logs,
        applier=Applier(runtime, settings.alias, live, logs),
        source_places=SourcePlaces(runtime),
        measured=measured,
        searches=Searches(settings, live, logs, measured, ChosenRuns(settings, runtime)),
    )


def _add_routes(app: FastAPI, context: PageContext) -> None:
    def search_with_pixels(search: SearchRequest) -> SearchPage:
        page = context.searches.page(search)
        if not search.with_pixels:
            return page
        digests = context.searches.digests(search.run) if any(image.is_in_store for image in page.images) else None
        return replace(page, images=context.stored_images.complete(page.images, digests))

    @app.get("/healthz")
    async def healthz() -> PlainTextResponse:  # needs no thread: it answers while all of them wait
        return PlainTextResponse("ok")

    @app.get("/models/{version}/report")
    def report(version: str) -> HTMLResponse:
        stored = load_report(context.runtime.storage, version)
        return HTMLResponse(stored, headers={"Content-Security-Policy": REPORT_POLICY})

    @app.get("/api/search")
    def api_search(request: Request) -> JSONResponse:
        search = read_address(request.query_params, API_PARAMETERS)
        return JSONResponse(search_as_json(search_with_pixels(search), search, context.searches.tables()))
