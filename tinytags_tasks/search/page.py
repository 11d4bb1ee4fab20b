"""The search page and its JSON sibling, for people with an account.

Everything is rendered here and works without scripts; the page's policy allows only our own.
"""

import secrets
from dataclasses import replace
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from tinytags_tasks.runtime import Runtime
from tinytags_tasks.search import picture_pages, review_pages, scripts
from tinytags_tasks.search.address import API_PARAMETERS, PAGE_PARAMETERS, read_address
from tinytags_tasks.search.context import LiveRuns, PageContext
from tinytags_tasks.search.error_pages import add_error_pages
from tinytags_tasks.search.guard import add_guard
from tinytags_tasks.search.query import SearchPage, search_images
from tinytags_tasks.search.request import SearchRequest
from tinytags_tasks.search.sign_in import SignIn
from tinytags_tasks.search.stored_images import StoredImages
from tinytags_tasks.search.view import page_view, search_as_json
from tinytags_tasks.settings import Settings, load_settings
from tinytags_tasks.store.models import REPORT_POLICY, load_report

TEMPLATES = Path(__file__).parent / "templates"


def create_app(settings: Settings | None = None) -> FastAPI:
    """Return the search page as an ASGI application.

    Every route but ``/healthz`` asks for the name and password of an account.

    Raises
    ------
    BadInputError
        If there is no password of ``settings.search_user``.
    """
    settings = settings or load_settings()
    sign_in = SignIn(settings)
    app = FastAPI(title="TinyTags search", docs_url=None, redoc_url=None, openapi_url=None)
    app.state.form_key = secrets.token_bytes(32)
    templates = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined)
    runtime = Runtime(settings)
    context = PageContext(
        settings=settings,
        runtime=runtime,
        templates=templates,
        stored_images=StoredImages(lambda: runtime.storage),
        live=LiveRuns(settings, runtime),
    )
    add_guard(app, sign_in)
    add_error_pages(app, templates)
    for area in (scripts, picture_pages, review_pages):
        area.add_routes(app, context)
    _add_routes(app, context)
    return app


def _add_routes(app: FastAPI, context: PageContext) -> None:
    settings, stored_images = context.settings, context.stored_images

    def search_with_pixels(search: SearchRequest) -> SearchPage:
        page = search_images(settings, search)
        return replace(page, images=stored_images.complete(page.images)) if search.with_pixels else page

    @app.get("/healthz")
    def healthz() -> PlainTextResponse:
        return PlainTextResponse("ok")

    @app.get("/")
    def index(request: Request) -> HTMLResponse:
        search = read_address(request.query_params, PAGE_PARAMETERS)
        page = search_with_pixels(search)
        return context.render(request, "search.html", **page_view(search, page, settings.alias))

    @app.get("/models/{version}/report")
    def report(version: str) -> HTMLResponse:
        stored = load_report(context.runtime.storage, version)
        return HTMLResponse(stored, headers={"Content-Security-Policy": REPORT_POLICY})

    @app.get("/api/search")
    def api_search(request: Request) -> JSONResponse:
        search = read_address(request.query_params, API_PARAMETERS)
        return JSONResponse(search_as_json(search_with_pixels(search), search))
