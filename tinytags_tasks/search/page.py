"""The search page and its JSON sibling, for people who give the password.

Everything is rendered here, without any script, so that the page's policy can forbid scripts altogether.
"""

import base64
import binascii
import io
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlencode

import numpy as np
import numpy.typing as npt
from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image
from starlette.exceptions import HTTPException

from tinytags_tasks.corpus.keywords import LONGEST
from tinytags_tasks.errors import BadInputError, TinyTagsError, http_status
from tinytags_tasks.runtime import Runtime
from tinytags_tasks.search.query import (
    LAST_START,
    SearchPage,
    SearchRequest,
    TaggedImage,
    search_images,
)
from tinytags_tasks.search.stored_images import StoredImages
from tinytags_tasks.settings import Settings, load_settings

TEMPLATES = Path(__file__).parent / "templates"
DRAWN = "drawn"
"""Corpora whose names start so hold generated pictures."""

LONGEST_SIDE = 320
"""Pixels of a picture on the page at most: about what a card shows on a fine screen."""

ENLARGED_BELOW = 128
"""Pictures with fewer pixels a side are shown pixel by pixel, larger ones smoothly."""

ACCURACY_STEPS = range(40, 101, 10)
ROW_CHOICES = (20, 60, 100)
PARAMETERS = frozenset({"tag", "accuracy", "block", "keyword", "rows", "page"})
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
        When there is no password.
    """
    settings = settings or load_settings()
    account = (settings.search_user.encode(), settings.password("search_password").encode())
    templates = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined)
    style = (TEMPLATES / "style.css").read_text()
    runtime = Runtime(settings)
    stored_images = StoredImages(lambda: runtime.storage)
    app = FastAPI(title="TinyTags search", docs_url=None, redoc_url=None, openapi_url=None)

    def search_with_pixels(search: SearchRequest) -> SearchPage:
        page = search_images(settings, search)
        return replace(page, images=stored_images.complete(page.images)) if search.with_pixels else page

    @app.middleware("http")
    async def guard(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        """Ask who is there before any route runs, so that no route can forget to."""
        # Not request.url: that is built from the Host header, which a stranger writes.
        if request.scope["path"] == "/healthz" or _is_account(request.headers.get("authorization", ""), account):
            response = await call_next(request)
        else:
            response = PlainTextResponse(
                "Please give the name and password of the search page.\n",
                status_code=401,
                headers={"WWW-Authenticate": 'Basic realm="TinyTags search", charset="UTF-8"'},
            )
        response.headers.update(HEADERS)
        return response

    @app.exception_handler(TinyTagsError)
    def show_error(request: Request, error: TinyTagsError) -> Response:
        return _show_error(templates, request, http_status(error), str(error))

    @app.exception_handler(HTTPException)
    def show_http_error(request: Request, error: HTTPException) -> Response:
        message = "There is no such page." if error.status_code == 404 else error.detail
        return _show_error(templates, request, error.status_code, message)

    @app.get("/healthz")
    def healthz() -> PlainTextResponse:
        return PlainTextResponse("ok")

    @app.get("/style.css")
    def stylesheet() -> Response:
        return Response(style, media_type="text/css")

    @app.get("/")
    def index(request: Request) -> HTMLResponse:
        search = read_request(request, PARAMETERS)
        page = search_with_pixels(search)
        return HTMLResponse(templates.get_template("search.html").render(_view(search, page, settings.alias)))

    @app.get("/api/search")
    def api_search(request: Request) -> JSONResponse:
        search = read_request(request, PARAMETERS | {"cursor", "pixels"})
        return JSONResponse(_as_json(search_with_pixels(search), search))

    return app


def read_request(request: Request, known: frozenset[str]) -> SearchRequest:
    """Return what the address asks for; a parameter that is left empty counts as left out.

    Raises
    ------
    BadInputError
        When a parameter is unknown, given twice or not what it should be.
    """
    parameters = request.query_params
    for name in parameters:
        if name not in known:
            raise BadInputError(f"{name[:100]!r} is no parameter: use {', '.join(sorted(known))}")
        if name != "tag" and len(parameters.getlist(name)) > 1:
            raise BadInputError(f"{name} is given twice: give it once")

    def number(name: str, default: int) -> int:
        text = parameters.get(name, "").strip()
        if text and not (text.isascii() and text.isdigit() and len(text) <= 10):
            raise BadInputError(f"{name} must be a whole number, 0 or more (got {text[:100]!r})")
        return int(text) if text else default

    rows = number("rows", SearchRequest.rows)
    block = number("block", -1)
    page = number("page", 1)
    if page < 1:
        raise BadInputError("page 0 is out of range: pages are counted from 1")
    return SearchRequest(
        tags=tuple(dict.fromkeys(tag for tag in parameters.getlist("tag") if tag)),
        minimum_accuracy=number("accuracy", 0),
        block=None if block < 0 else block,
        keyword=parameters.get("keyword", "").strip(),
        rows=rows,
        start=(page - 1) * rows,
        cursor=parameters.get("cursor") or None,
        with_pixels="pixels" not in known or number("pixels", 0) > 0,
    )


def encode_png(image: npt.NDArray[np.uint8]) -> str:
    """Return an image of shape (rows, columns, 3) as a ``data:`` address."""
    png = io.BytesIO()
    Image.fromarray(image).save(png, "PNG")
    return "data:image/png;base64," + base64.b64encode(png.getvalue()).decode()


@dataclass(frozen=True)
class Thumbnail:
    """A picture as the page shows it; ``source`` is empty for one that is missing.

    Attributes
    ----------
    source
        Its ``data:`` address.
    width, height
        Of the picture there, in pixels.
    is_enlarged
        Whether its pixels are to be seen.
    """

    source: str = ""
    width: int = 0
    height: int = 0
    is_enlarged: bool = False


def make_thumbnail(image: npt.NDArray[np.uint8] | None) -> Thumbnail:
    """Return an image of shape (rows, columns, 3) as the page shows it, made smaller where it is large."""
    if image is None:
        return Thumbnail()
    height, width = image.shape[:2]
    longest = max(height, width)
    if longest > LONGEST_SIDE:
        size = (max(1, width * LONGEST_SIDE // longest), max(1, height * LONGEST_SIDE // longest))
        image = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX))
    return Thumbnail(encode_png(image), image.shape[1], image.shape[0], longest < ENLARGED_BELOW)


def _is_account(header: str, account: tuple[bytes, bytes]) -> bool:
    scheme, _, credentials = header.partition(" ")
    try:
        user, _, password = base64.b64decode(credentials, validate=True).partition(b":")
    except (binascii.Error, ValueError):
        return False
    # Both are compared, whatever the first says, so that the time taken does not tell which one is wrong.
    right = secrets.compare_digest(user, account[0]) & secrets.compare_digest(password, account[1])
    return scheme.lower() == "basic" and right


def _show_error(templates: Environment, request: Request, status: int, message: str) -> Response:
    headers = {"Retry-After": "10"} if status == 503 else {}
    if request.scope["path"].startswith("/api/"):
        return JSONResponse({"error": message}, status_code=status, headers=headers)
    heading = {400: "That cannot be searched", 404: "Nothing here", 503: "The search is away for the moment"}
    page = templates.get_template("error.html").render(
        heading=heading.get(status, "Something went wrong"), message=message, status=status
    )
    return HTMLResponse(page, status_code=status, headers=headers)


def _address(search: SearchRequest, **changes: object) -> str:
    """Return the page's address for a search; a change other than of the page starts at the first page again."""
    search = replace(search, **cast(dict[str, Any], {"start": 0, **changes}))
    parameters: list[tuple[str, str | int]] = [("tag", tag) for tag in search.tags]
    if search.minimum_accuracy:
        parameters.append(("accuracy", search.minimum_accuracy))
    if search.block is not None:
        parameters.append(("block", search.block))
    if search.keyword:
        parameters.append(("keyword", search.keyword))
    if search.rows != SearchRequest.rows:
        parameters.append(("rows", search.rows))
    if search.start:
        parameters.append(("page", search.start // search.rows + 1))
    return "/?" + urlencode(parameters) if parameters else "/"


def _view(search: SearchRequest, page: SearchPage, alias: str) -> dict[str, Any]:
    """Return what the template shows."""
    counts = {tag: page.tag_counts.get(tag, 0) for tag in sorted({*page.tag_counts, *search.tags})}
    tags = []
    for tag, count in counts.items():
        chosen = tag in search.tags
        others = tuple(other for other in search.tags if other != tag) if chosen else (*search.tags, tag)
        tags.append({"label": tag, "count": count, "chosen": chosen, "href": _address(search, tags=others)})
    steps = []
    for step in ACCURACY_STEPS:
        count = sum(found for accuracy, found in page.accuracy_counts.items() if accuracy >= step)
        chosen = step == search.minimum_accuracy
        href = _address(search, minimum_accuracy=0 if chosen else step)
        steps.append(
            {"label": f"≥ {step} %" if step < 100 else "100 %", "count": count, "chosen": chosen, "href": href}
        )
    reachable = LAST_START // search.rows
    pages = max(1, -(-page.total // search.rows))
    number = search.start // search.rows + 1

    def link(target: int) -> str | None:
        return _address(search, start=(target - 1) * search.rows) if 1 <= target <= min(pages, reachable) else None

    return {
        "alias": alias,
        "search": search,
        "page": page,
        "tags": tags,
        "steps": steps,
        "images": [(image, make_thumbnail(image.image)) for image in page.images],
        "problems": sorted({image.missing for image in page.images if image.is_in_store and image.missing}),
        "is_drawn": any(corpus.startswith(DRAWN) for corpus in page.corpora),
        "is_filtered": bool(search.tags or search.minimum_accuracy or search.block is not None or search.keyword),
        "longest_keyword": LONGEST,
        "row_choices": sorted({*ROW_CHOICES, search.rows}),
        "all_tags": _address(search, tags=()),
        "number": number,
        "pages": pages,
        "first": link(1) if number > 1 else None,
        "previous": link(number - 1) if number <= pages else link(pages),
        "next": link(number + 1),
        "is_cut": number == reachable < pages,
        "last_start": LAST_START,
        "milliseconds": round(page.seconds * 1000),
    }


def _as_json(page: SearchPage, search: SearchRequest) -> dict[str, Any]:
    return {
        "total": page.total,
        "images": [_image_as_json(image, search.with_pixels) for image in page.images],
        "next_cursor": page.next_cursor,
        "tags": page.tag_counts,
        "accuracies": page.accuracy_counts,
        "models": page.models,
        "corpora": page.corpora,
        "milliseconds": round(page.seconds * 1000),
    }


def _image_as_json(image: TaggedImage, with_pixels: bool) -> dict[str, Any]:
    names = ("id", "tag", "accuracy", "votes", "block", "position", "model", "corpus", "keyword")
    found: dict[str, Any] = {name: getattr(image, name) for name in names}
    if with_pixels:
        found["png"] = None if image.image is None else encode_png(image.image)
        if image.missing:
            found["missing"] = image.missing
    return found
