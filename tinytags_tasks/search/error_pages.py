"""What a reader sees when a request fails: a page, a problem below ``/api/v1``, other JSON below ``/api/``."""

from collections.abc import Mapping
from functools import partial

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from jinja2 import Environment
from starlette.exceptions import HTTPException

from tinytags_tasks.errors import TinyTagsError, http_status
from tinytags_tasks.search.guard import HEADERS
from tinytags_tasks.search.problems import error_response, is_v1, problem_response, told, validation_response
from tinytags_tasks.search.proxies import own_path, url

_HEADINGS = {
    400: "This is not valid",
    403: "You may not do this",
    404: "Not found",
    408: "That took too long",
    429: "Too many attempts",
    503: "Search is unavailable right now",
}


def add_error_pages(app: FastAPI, templates: Environment) -> None:
    """Show errors without anything that only their programmer understands."""

    @app.exception_handler(TinyTagsError)
    def show_error(request: Request, error: TinyTagsError) -> Response:
        if is_v1(request):
            return error_response(request, error)
        return _error_response(templates, request, http_status(error), told(request, error))

    @app.exception_handler(HTTPException)
    def show_http_error(request: Request, error: HTTPException) -> Response:
        message = "There is no such page." if error.status_code == 404 else error.detail
        if is_v1(request):
            message = "The API has no such address." if error.status_code == 404 else error.detail
            return problem_response(request, error.status_code, message, headers=error.headers)
        return _error_response(templates, request, error.status_code, message, error.headers)

    @app.exception_handler(RequestValidationError)
    def show_invalid(request: Request, error: RequestValidationError) -> Response:
        if is_v1(request):
            return validation_response(request, error.errors())
        first = error.errors()[0]
        return _error_response(templates, request, 400, f"{'.'.join(map(str, first['loc'][1:]))}: {first['msg']}")

    @app.exception_handler(Exception)
    def show_failure(request: Request, error: Exception) -> Response:  # Starlette logs it; the guard has failed with it
        message = "The server cannot answer this; its log says why."
        if is_v1(request):
            return problem_response(request, 500, message, headers=HEADERS)
        return _error_response(templates, request, 500, message, HEADERS)


def _error_response(
    templates: Environment, request: Request, status: int, message: str, headers: Mapping[str, str] | None = None
) -> Response:
    headers = {**(headers or {}), **({"Retry-After": "10"} if status == 503 else {})}
    path = own_path(request.scope)
    if path.startswith("/api/"):
        return JSONResponse({"error": message}, status_code=status, headers=headers)
    heading = _HEADINGS.get(status, "Something went wrong")
    if status == 400 and request.method == "GET" and path in ("/", "/search"):
        heading = "This search is not valid"
    page = templates.get_template("error.html").render(
        heading=heading,
        message=message,
        status=status,
        url=partial(url, request),
        again=_again(request, path) if status == 503 else "",
    )
    return HTMLResponse(page, status_code=status, headers=headers)


def _again(request: Request, path: str) -> str:
    """Return the address that was asked for, to be asked for again; empty if it took a form."""
    if request.method != "GET":
        return ""
    return f"{path}?{request.url.query}" if request.url.query else path
