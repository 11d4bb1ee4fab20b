"""Failures of the API as problem details (RFC 9457): whatever is no success below ``/api/v1`` is answered by one.

A problem says what is wrong and what to do. What an engine said is in the log, never in an answer.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import Response

from tinytags_tasks.errors import BadInputError, MissingError, TinyTagsError, TransientError, http_status
from tinytags_tasks.search.proxies import own_path, url
from tinytags_tasks.search.waiting import BusyError

V1 = "/api/v1"
DOCS = "/api/docs"
HEALTH = f"{V1}/health"
"""Says that the process lives; strangers may ask, too."""

MEDIA_TYPE = "application/problem+json"
RETRY_SECONDS = 10
"""After how many seconds to ask again while an engine is away."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Kind:
    """A kind of problem: the end of its type's address, its title, and when it occurs."""

    name: str
    title: str
    meaning: str


KINDS = {
    400: Kind("not-valid", "This is not valid", "A parameter or the body cannot be used; the detail says why."),
    401: Kind("who-are-you", "Please sign in", "The name and password of an account are missing or wrong."),
    403: Kind("not-allowed", "You may not do this", "The account's role does not allow it."),
    404: Kind("not-found", "Not found", "There is no such thing, or readers may not see it."),
    405: Kind("wrong-method", "Not with this method", "The header Allow has the methods that there are."),
    408: Kind("too-slow", "The request was too slow", "The body did not arrive in time: send it again."),
    413: Kind("too-large", "Too large", "The body is larger than what is accepted."),
    429: Kind("too-many", "Too many requests", "The header Retry-After says after how many seconds to go on."),
    500: Kind("failed", "Something went wrong", "An error of the server; its log says which."),
    503: Kind("away", "Search is unavailable right now", "An engine does not answer: try again after Retry-After."),
}
"""By status."""


class WrongPart(BaseModel):
    """What is wrong with one part of a request."""

    name: str = Field(description="the parameter, or the place in the body")
    detail: str


class Problem(BaseModel):
    """Problem details, RFC 9457."""

    type: str = Field(description="the address of this kind of problem")
    title: str
    status: int
    detail: str = Field(description="what is wrong here, and what to do")
    errors: list[WrongPart] = Field([], description="which parts of the request are wrong, if that is known")


def is_v1(request: Request) -> bool:
    """Return whether a request is one to the API."""
    path = own_path(request.scope)
    return path == V1 or path.startswith(f"{V1}/")


def problem_response(
    request: Request,
    status: int,
    detail: str,
    *,
    errors: Sequence[WrongPart] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Return an answer that reports a problem."""
    kind = KINDS.get(status, KINDS[500 if status >= 500 else 400])
    found = Problem(
        type=url(request, f"{DOCS}#{kind.name}"), title=kind.title, status=status, detail=detail, errors=list(errors)
    )
    retry = {"Retry-After": str(RETRY_SECONDS)} if status == 503 else {}
    return Response(
        found.model_dump_json(), status_code=status, media_type=MEDIA_TYPE, headers={**retry, **(headers or {})}
    )


def error_response(request: Request, error: TinyTagsError) -> Response:
    """Return an answer that reports an error, without what an engine said."""
    return problem_response(request, http_status(error), told(request, error))


def told(request: Request, error: TinyTagsError) -> str:
    """Return what an error says to a client; the rest goes to the log."""
    if isinstance(error, BadInputError | MissingError | BusyError):
        return str(error)
    _log.error("%s: %s", own_path(request.scope), error)
    if isinstance(error, TransientError):
        return "an engine behind the search page does not answer right now: try again in some seconds"
    return "the server cannot answer this; its log says why"


def validation_response(request: Request, errors: Sequence[Mapping[str, Any]]) -> Response:
    """Return an answer that names the parameters that are wrong."""
    wrong = [_wrong_part(error) for error in errors]
    detail = "; ".join(f"{part.name}: {part.detail}" for part in wrong[:5])
    return problem_response(request, 400, detail, errors=wrong[:100])


def _wrong_part(error: Mapping[str, Any]) -> WrongPart:
    name = ".".join(str(part) for part in error["loc"][1:]) or "the body"
    if error["type"] == "extra_forbidden":
        return WrongPart(name=name[:100], detail="is not a parameter of this address")
    message = str(error["msg"]).removeprefix("Value error, ")
    return WrongPart(name=name[:100], detail=message[:1].lower() + message[1:])
