"""Answers with an ETag, of which a client that has it already gets only the news that nothing changed."""

import hashlib

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

CACHE = "private, no-cache"
"""Kept by a browser, but asked for again each time: a picture that was taken down is not shown from a cache."""


def has_current(request: Request, etag: str) -> bool:
    """Return whether ``If-None-Match`` has an entity tag, by the weak comparison that RFC 9110 asks for."""
    known = [one.strip().removeprefix("W/") for one in request.headers.get("if-none-match", "").split(",")]
    return etag in known or known == ["*"]


def answer_json(request: Request, found: BaseModel, seconds: float | None = None) -> Response:
    """Return an object as JSON, or 304 if the client has it.

    Parameters
    ----------
    seconds
        How long the search took, for the header ``Server-Timing``: in the object it would change its ETag.
    """
    body = found.model_dump_json().encode()
    return answer_bytes(request, body, hashlib.sha256(body).hexdigest()[:32], "application/json", seconds)


def answer_bytes(request: Request, body: bytes, digest: str, mime: str, seconds: float | None = None) -> Response:
    """Return bytes whose content has a digest, or 304 if the client has them."""
    headers = {"ETag": f'"{digest}"', "Cache-Control": CACHE}
    if seconds is not None:
        headers["Server-Timing"] = f"search;dur={1000 * seconds:.1f}"
    if has_current(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    return Response(body, media_type=mime, headers=headers)
