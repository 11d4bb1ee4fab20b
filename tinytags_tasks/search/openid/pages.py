"""The pages of signing in and out: ``/sign-in``, the way to the provider, the way back, and ``/sign-out``."""

from functools import partial
from urllib.parse import quote, urlencode

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from jinja2 import Environment

from tinytags_tasks.search.accounts import Account
from tinytags_tasks.search.forms import CheckedForm
from tinytags_tasks.search.openid.cookies import find_attempt, forget_attempt, keep_attempt
from tinytags_tasks.search.openid.door import CALLBACK, SIGN_IN, START, WITH_PASSWORD, Door, own_address
from tinytags_tasks.search.openid.exchange import ProviderAwayError, RefusedError
from tinytags_tasks.search.openid.flow import FAILURE_SECONDS
from tinytags_tasks.search.proxies import url

_AWAY_SECONDS = 30


def add_routes(app: FastAPI, door: Door, templates: Environment) -> None:
    """Add the pages to an application whose guard has the same door."""

    @app.get(SIGN_IN)
    def sign_in(request: Request) -> Response:
        query = request.query_params
        return _page(templates, request, door, to=own_address(query.get("to", "/")), is_out="out" in query)

    @app.get(START)
    async def start(request: Request) -> Response:
        to = own_address(request.query_params.get("to", "/"))
        try:
            address, attempt = await door.flow.begin(_own_url(request, CALLBACK), to)
        except ProviderAwayError:
            return _away(templates, request, door, to)
        response = RedirectResponse(address, 303)
        keep_attempt(request, response, attempt, door.attempts)
        return response

    @app.get(CALLBACK)
    async def callback(request: Request) -> Response:
        answer = dict(request.query_params)
        state = answer.get("state", "")
        attempt = find_attempt(request, state, door.attempts)
        peer = request.client.host if request.client else ""
        to = attempt.to if attempt else "/"
        response: Response
        try:
            account = await door.flow.finish(answer, attempt, peer)
        except RefusedError as error:
            response = _page(templates, request, door, to=to, refusal=error)
        except ProviderAwayError:
            response = _away(templates, request, door, to)
        else:
            response = RedirectResponse(url(request, to), 303)
            door.let_in(request, response, account)
        forget_attempt(request, response, state)
        return response

    @app.get(WITH_PASSWORD)
    def with_password(request: Request) -> Response:
        return RedirectResponse(url(request, own_address(request.query_params.get("to", "/"))), 303)

    @app.post("/sign-out")
    def sign_out(request: Request, form: CheckedForm) -> Response:
        account: Account = request.state.account
        response = RedirectResponse(url(request, f"{SIGN_IN}?out"), 303)
        door.let_out(request, response, account)
        return response


def _page(
    templates: Environment,
    request: Request,
    door: Door,
    *,
    to: str,
    is_out: bool = False,
    refusal: RefusedError | None = None,
    is_away: bool = False,
) -> HTMLResponse:
    page = templates.get_template("sign_in.html").render(
        url=partial(url, request),
        provider=door.provider.name,
        start=f"{START}?to={quote(to, safe='/')}",
        with_password=f"{WITH_PASSWORD}?to={quote(to, safe='/')}",
        sign_out_there=_sign_out_there(door) if is_out or (refusal and refusal.status == 403) else "",
        is_out=is_out,
        is_away=is_away,
        refusal=refusal,
    )
    status = 503 if is_away else refusal.status if refusal else 200
    waits = {503: str(_AWAY_SECONDS), 429: str(FAILURE_SECONDS)}
    return HTMLResponse(page, status, {"Retry-After": waits[status]} if status in waits else None)


def _away(templates: Environment, request: Request, door: Door, to: str) -> HTMLResponse:
    return _page(templates, request, door, to=to, is_away=True)


def _sign_out_there(door: Door) -> str:
    """Return where somebody signs out of the provider, too; empty if that is not known."""
    address = door.flow.discovery.known_sign_out
    if not address:
        return ""
    return f"{address}{'&' if '?' in address else '?'}{urlencode({'client_id': door.provider.client_id})}"


def _own_url(request: Request, path: str) -> str:
    """Return the whole address of a path of ours, as the browser asks for it; a trusted proxy may have said which."""
    return f"{request.scope['scheme']}://{request.headers.get('host', '')}{url(request, path)}"
