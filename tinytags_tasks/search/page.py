"""The search page and its JSON sibling, for people with an account.

Everything is rendered here and works without scripts; the page's policy allows only our own.
"""

import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from tinytags_tasks.errors import TinyTagsError
from tinytags_tasks.review.precision import PrecisionTable
from tinytags_tasks.runtime import Runtime
from tinytags_tasks.search import corrections, corrections_api, picture_pages, review_pages, scripts
from tinytags_tasks.search.accounts import Account
from tinytags_tasks.search.address import API_PARAMETERS, PAGE_PARAMETERS, page_address, read_address
from tinytags_tasks.search.applying import Applier
from tinytags_tasks.search.context import PageContext
from tinytags_tasks.search.corrections import NOTICE
from tinytags_tasks.search.error_pages import add_error_pages
from tinytags_tasks.search.guard import add_guard
from tinytags_tasks.search.images import TaggedImage
from tinytags_tasks.search.live import LiveRuns
from tinytags_tasks.search.measured import MeasuredRuns, least_confidence
from tinytags_tasks.search.query import SearchPage, search_images
from tinytags_tasks.search.request import SearchRequest
from tinytags_tasks.search.sign_in import SignIn
from tinytags_tasks.search.stored_images import StoredImages
from tinytags_tasks.search.view import page_view, search_as_json
from tinytags_tasks.search.word_logs import WordLogs
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
    app = FastAPI(title="TinyTags search", docs_url=None, redoc_url=None, openapi_url=None, lifespan=_lifespan)
    app.state.form_key = _form_key(settings)
    context = _make_context(settings)
    app.state.context = context
    add_guard(app, sign_in)
    add_error_pages(app, context.templates)
    for area in (scripts, corrections, corrections_api, picture_pages, review_pages):
        area.add_routes(app, context)
    _add_routes(app, context)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    app.state.context.applier.start()
    yield
    app.state.context.applier.stop()


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
    return PageContext(
        settings=settings,
        runtime=runtime,
        templates=Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined),
        stored_images=StoredImages(lambda: runtime.storage),
        live=live,
        logs=logs,
        applier=Applier(runtime, settings.alias, live, logs),
        measured=MeasuredRuns(runtime, logs),
    )


def _add_routes(app: FastAPI, context: PageContext) -> None:
    settings, stored_images = context.settings, context.stored_images

    def measured() -> dict[str, PrecisionTable | None]:
        return context.measured.tables(live.run for live in context.live.runs())

    def search_with_pixels(search: SearchRequest) -> SearchPage:
        hidden = context.hidden()
        if search.min_precision:
            hidden = hidden.at_least(least_confidence(measured(), search.min_precision))
        page = search_images(settings, search, hidden)
        return replace(page, images=stored_images.complete(page.images)) if search.with_pixels else page

    @app.get("/healthz")
    async def healthz() -> PlainTextResponse:  # needs no thread: it answers while all of them wait
        return PlainTextResponse("ok")

    @app.get("/")
    def index(request: Request) -> HTMLResponse:
        search = read_address(request.query_params, PAGE_PARAMETERS | {NOTICE})
        page = search_with_pixels(search)
        account: Account = request.state.account
        return context.render(
            request,
            "search.html",
            **page_view(search, page, settings.alias, measured()),
            notice=corrections.notice(context, account, request.query_params.get(NOTICE, "")),
            corrected=corrections.corrected_by(context, page.images),
            pictures={image.id: corrections.Picture.of(image) for image in page.images},
            here=page_address(search, start=search.start),
            run=_run_name(context, page.images),
        )

    @app.get("/models/{version}/report")
    def report(version: str) -> HTMLResponse:
        stored = load_report(context.runtime.storage, version)
        return HTMLResponse(stored, headers={"Content-Security-Policy": REPORT_POLICY})

    @app.get("/api/search")
    def api_search(request: Request) -> JSONResponse:
        search = read_address(request.query_params, API_PARAMETERS)
        return JSONResponse(search_as_json(search_with_pixels(search), search, measured()))


def _run_name(context: PageContext, images: Sequence[TaggedImage]) -> str:
    """Return the run that images are shown of, if what is live is known: words then name it."""
    with suppress(TinyTagsError):
        corpora = {image.corpus for image in images}
        return next((live.run.name for live in context.live.runs() if live.run.corpus in corpora), "")
    return ""
