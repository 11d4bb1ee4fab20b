"""Our own scripts, which make pages more convenient; every page works without them."""

import hashlib
from pathlib import Path

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

from tinytags_tasks.search.context import PageContext

FOLDER = Path(__file__).parent / "templates"
SCRIPTS = tuple(sorted(path.name for path in FOLDER.iterdir() if path.suffix in (".js", ".css")))
"""The scripts that are served, and the styles of single pages."""


def add_routes(app: FastAPI, context: PageContext) -> None:
    """Serve the scripts and the stylesheet, each under an address that changes with its content."""
    contents = {name: (FOLDER / name).read_bytes() for name in (*SCRIPTS, "style.css")}
    versions = {name: hashlib.sha256(content).hexdigest()[:16] for name, content in contents.items()}
    types = {".js": "text/javascript", ".css": "text/css"}
    context.templates.globals["script"] = lambda name: f"/scripts/{name}?{versions[name]}"
    context.templates.globals["review_stylesheet"] = f"/scripts/review.css?{versions['review.css']}"
    context.templates.globals["api_stylesheet"] = f"/scripts/api.css?{versions['api.css']}"
    context.templates.globals["stylesheet"] = f"/style.css?{versions['style.css']}"

    def send(request: Request, name: str) -> Response:
        etag = f'"{versions[name]}"'
        is_named = request.url.query == versions[name]
        headers = {"ETag": etag, "Cache-Control": "private, max-age=31536000, immutable" if is_named else "no-cache"}
        if request.headers.get("if-none-match") == etag:
            return Response(status_code=304, headers=headers)
        return Response(contents[name], media_type=types[Path(name).suffix], headers=headers)

    @app.get("/style.css")
    def stylesheet(request: Request) -> Response:
        return send(request, "style.css")

    @app.get("/scripts/{name}")
    def script(request: Request, name: str) -> Response:
        if name not in SCRIPTS:
            raise HTTPException(404)
        return send(request, name)
