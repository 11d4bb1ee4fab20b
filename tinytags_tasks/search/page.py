"""The search page and its JSON sibling, for people who give the password.

Everything is rendered here, without any script, so that the page's policy can forbid scripts altogether.
"""

import base64
import binascii
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.exceptions import HTTPException

from tinytags_tasks.errors import TinyTagsError, http_status
from tinytags_tasks.runtime import Runtime
from tinytags_tasks.search.address import API_PARAMETERS, PAGE_PARAMETERS, read_address
from tinytags_tasks.search.query import SearchPage, search_images
from tinytags_tasks.search.request import SearchRequest
from tinytags_tasks.search.stored_images import StoredImages
from tinytags_tasks.search.view import page_view, search_as_json
from tinytags_tasks.settings import Settings, load_settings
from tinytags_tasks.store.models import REPORT_POLICY, load_report

TEMPLATES = Path(__file__).parent / "templates"
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src data:; style-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def create_app(settings: Settings | None = None) -> FastAPI:
    """Return the search page as an ASGI application.

    Every route but ``/healthz`` asks for ``settings.search_user`` and the password.

    Raises
    ------
    BadInputError
        If there is no password.
    """
    settings = settings or load_settings()
    account = (settings.search_user.encode(), settings.password("search_password").encode())
    app = FastAPI(title="TinyTags search", docs_url=None, redoc_url=None, openapi_url=None)
    templates = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined)
    _add_guard(app, account)
    _add_error_pages(app, templates)
    _add_routes(app, settings, templates)
    return app


def _add_guard(app: FastAPI, account: tuple[bytes, bytes]) -> None:
    @app.middleware("http")
    async def guard(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        """Ask for the password before any route runs, so that no route can forget to."""
        # Not request.url: that is built from the Host header, which a stranger writes.
        if request.scope["path"] == "/healthz" or _is_account(request.headers.get("authorization", ""), account):
            response = await call_next(request)
        else:
            response = PlainTextResponse(
                "Please give the name and password of the search page.\n",
                status_code=401,
                headers={"WWW-Authenticate": 'Basic realm="TinyTags search", charset="UTF-8"'},
            )
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)  # a model's report has a policy of its own
        return response


def _add_error_pages(app: FastAPI, templates: Environment) -> None:
    @app.exception_handler(TinyTagsError)
    def show_error(request: Request, error: TinyTagsError) -> Response:
        return _error_response(templates, request, http_status(error), str(error))

    @app.exception_handler(HTTPException)
    def show_http_error(request: Request, error: HTTPException) -> Response:
        message = "There is no such page." if error.status_code == 404 else error.detail
        return _error_response(templates, request, error.status_code, message)


def _add_routes(app: FastAPI, settings: Settings, templates: Environment) -> None:
    style = (TEMPLATES / "style.css").read_text()
    runtime = Runtime(settings)
    stored_images = StoredImages(lambda: runtime.storage)

    def search_with_pixels(search: SearchRequest) -> SearchPage:
        page = search_images(settings, search)
        return replace(page, images=stored_images.complete(page.images)) if search.with_pixels else page

    @app.get("/healthz")
    def healthz() -> PlainTextResponse:
        return PlainTextResponse("ok")

    @app.get("/style.css")
    def stylesheet() -> Response:
        return Response(style, media_type="text/css")

    @app.get("/")
    def index(request: Request) -> HTMLResponse:
        search = read_address(request.query_params, PAGE_PARAMETERS)
        page = search_with_pixels(search)
        return HTMLResponse(templates.get_template("search.html").render(page_view(search, page, settings.alias)))

    @app.get("/models/{version}/report")
    def report(version: str) -> HTMLResponse:
        return HTMLResponse(load_report(runtime.storage, version), headers={"Content-Security-Policy": REPORT_POLICY})

    @app.get("/api/search")
    def api_search(request: Request) -> JSONResponse:
        search = read_address(request.query_params, API_PARAMETERS)
        return JSONResponse(search_as_json(search_with_pixels(search), search))


def _is_account(header: str, account: tuple[bytes, bytes]) -> bool:
    scheme, _, credentials = header.partition(" ")
    try:
        user, _, password = base64.b64decode(credentials, validate=True).partition(b":")
    except (binascii.Error, ValueError):
        return False
    # Both are compared, whatever the first says, so that the time taken does not tell which one is wrong.
    right = secrets.compare_digest(user, account[0]) & secrets.compare_digest(password, account[1])
    return scheme.lower() == "basic" and right


def _error_response(templates: Environment, request: Request, status: int, message: str) -> Response:
    headers = {"Retry-After": "10"} if status == 503 else {}
    if request.scope["path"].startswith("/api/"):
        return JSONResponse({"error": message}, status_code=status, headers=headers)
    heading = {400: "This search is not valid", 404: "Not found", 503: "Search is unavailable right now"}
    page = templates.get_template("error.html").render(
        heading=heading.get(status, "Something went wrong"), message=message, status=status
    )
    return HTMLResponse(page, status_code=status, headers=headers)
