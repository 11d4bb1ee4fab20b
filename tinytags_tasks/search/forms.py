"""Forms that only our own pages can send: each has a token, and a browser's word on where it comes from is heeded.

A form is ``application/x-www-form-urlencoded``. A route takes it as ``form: CheckedForm``, which has been checked by
the time that the route runs::

    @app.post("/review")
    def answer(request: Request, form: CheckedForm) -> Response:
        account = require(request, Role.REVIEWER)
        tag = form.get("tag", "")
"""

import hashlib
import hmac
import logging
import time
from asyncio import timeout
from typing import Annotated
from urllib.parse import parse_qsl

from fastapi import Depends
from starlette.datastructures import ImmutableMultiDict
from starlette.exceptions import HTTPException
from starlette.requests import Request

from tinytags_tasks.errors import BadInputError
from tinytags_tasks.search.accounts import Account
from tinytags_tasks.search.proxies import is_own_origin

TOKEN_FIELD = "token"  # noqa: S105 - the name of a field
MOST_FIELDS = 25_000
MOST_FORM_BYTES = 2 * 2**20

BODY_SECONDS = 60.0
"""How long the body of a request may take to arrive."""

_log = logging.getLogger(__name__)
_DAY_SECONDS = 86_400
_FORM = "application/x-www-form-urlencoded"

Form = ImmutableMultiDict[str, str]


def form_token(request: Request) -> str:
    """Return what a form of our pages has in its hidden field ``token``; it is good for a day or two."""
    return _token(request, _today())


def check_form(request: Request, form: Form) -> None:
    """Refuse a form that another site sent, or that has no valid token.

    Raises
    ------
    HTTPException
        403 if so.
    """
    refuse_cross_site(request)
    token = form.get(TOKEN_FIELD, "").encode()
    valid = [hmac.compare_digest(token, _token(request, day).encode()) for day in (_today(), _today() - 1)]
    if not any(valid):
        raise HTTPException(403, "this form is too old, or not from this page: go back, reload the page and try again")


def refuse_cross_site(request: Request) -> None:
    """Refuse a request that a browser says comes from another site.

    Raises
    ------
    HTTPException
        403 if so.
    """
    headers = request.headers
    site = headers.get("sec-fetch-site", "same-origin")
    origin = headers.get("origin", "")
    # A browser that sends Sec-Fetch-Site compares origins itself, and knows better than we do behind a proxy.
    is_own = "sec-fetch-site" in headers or not origin or is_own_origin(request, origin)
    if not is_own:
        _log.warning(
            "a form of %.200r was refused, because this is %.200r: if that is one of your proxies, let it send "
            "X-Forwarded-Host, and name it in TINYTAGS_SEARCH_TRUSTED_PROXIES",
            origin,
            headers.get("host", ""),
        )
    if site not in ("same-origin", "none") or not is_own:
        raise HTTPException(403, "this request comes from another site: use the search page itself")


async def read_form(request: Request) -> Form:
    """Return a request's form; it was sent by one of our pages.

    Raises
    ------
    BadInputError
        If it is not a form, or too large.
    HTTPException
        If another site sent it.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _FORM:
        raise BadInputError(f"send the fields of the form as {_FORM}")
    body = await read_body(request, MOST_FORM_BYTES)
    try:
        fields = parse_qsl(body.decode(), keep_blank_values=True, errors="strict", max_num_fields=MOST_FIELDS)
    except ValueError as error:
        raise BadInputError(f"the form cannot be read ({error})") from error
    form: Form = ImmutableMultiDict(fields)
    check_form(request, form)
    return form


CheckedForm = Annotated[Form, Depends(read_form)]
"""The type of a route's parameter that is the request's form."""


async def read_body(request: Request, most_bytes: int, remedy: str = "send fewer pictures at once") -> bytes:
    """Return a request's body.

    Raises
    ------
    BadInputError
        If it is larger than ``most_bytes``.
    HTTPException
        408 if it is not there in time: whoever sends it slowly, or not at all, would keep a place from others.
    """
    body = bytearray()
    try:
        async with timeout(BODY_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > most_bytes:
                    raise BadInputError(f"the request is larger than {most_bytes:,} bytes: {remedy}")
    except TimeoutError:
        raise HTTPException(408, f"the request was not there after {BODY_SECONDS:g} s: {remedy}") from None
    return bytes(body)


def _token(request: Request, day: int) -> str:
    account: Account = request.state.account
    key: bytes = request.app.state.form_key
    return hmac.new(key, f"{day}\n{account.name}".encode(), hashlib.sha256).hexdigest()


def _today() -> int:
    return int(time.time()) // _DAY_SECONDS
