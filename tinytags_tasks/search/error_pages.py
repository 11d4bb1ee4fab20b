"""What a reader sees when a request fails: a page, or JSON below ``/api/``."""

from functools import partial

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from jinja2 import Environment
from starlette.exceptions import HTTPException

from tinytags_tasks.errors import TinyTagsError, http_status
from tinytags_tasks.search.proxies import own_path, url

_HEADINGS = {
    400: "This is not valid",
    403: "You may not do this",
    404: "Not found",
    429: "Too many attempts",
    503: "Search is unavailable right now",
}


def add_error_pages(app: FastAPI, templates: Environment) -> None:
    """Show errors without anything that only their programmer understands."""

    @app.exception_handler(TinyTagsError)
    def show_error(request: Request, error: TinyTagsError) -> Response:
        return _error_response(templates, request, http_status(error), str(error))

    @app.exception_handler(HTTPException)
    def show_http_error(request: Request, error: HTTPException) -> Response:
        message = "There is no such page." if error.status_code == 404 else error.detail
        return _error_response(templates, request, error.status_code, message)


def _error_response(templates: Environment, request: Request, status: int, message: str) -> Response:
    headers = {"Retry-After": "10"} if status == 503 else {}
    path = own_path(request.scope)
    if path.startswith("/api/"):
        return JSONResponse({"error": message}, status_code=status, headers=headers)
    heading = _HEADINGS.get(status, "Something went wrong")
    if status == 400 and request.method == "GET" and path in ("/", "/search"):
        heading = "This search is not valid"
    page = templates.get_template("error.html").render(
        heading=heading, message=message, status=status, url=partial(url, request)
    )
    return HTMLResponse(page, status_code=status, headers=headers)
