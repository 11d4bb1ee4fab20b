"""The review pages: what was measured of a run, its pictures one by one, and walls of one tag.

Each page works without scripts, as plain forms; the script sends the same fields to ``/api/review/``.
"""

import secrets
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse

from tinytags_tasks.errors import BadInputError, MissingError
from tinytags_tasks.search.accounts import Account, Role, require
from tinytags_tasks.search.context import PageContext
from tinytags_tasks.search.forms import CheckedForm, Form, form_token
from tinytags_tasks.search.proxies import url
from tinytags_tasks.search.review_answers import Sitting, read_look, read_wall, whole_number
from tinytags_tasks.search.review_session import ReviewSession
from tinytags_tasks.search.review_sessions import ReviewSessions
from tinytags_tasks.search.review_view import (
    AHEAD,
    WALL_PICTURES,
    looking_view,
    overview,
    picture_view,
    wall_view,
)
from tinytags_tasks.search.waiting import BusyError
from tinytags_tasks.store import layout

_SEE_OTHER = 303
_SEAT_BYTES = 6


def add_routes(app: FastAPI, context: PageContext) -> None:
    """Serve the review pages."""
    reviews = ReviewSessions(context)
    _add_overview(app, context, reviews)
    _add_looking(app, context, reviews)
    _add_wall(app, context, reviews)
    _add_api(app, context, reviews)


def _add_overview(app: FastAPI, context: PageContext, reviews: ReviewSessions) -> None:
    @app.get("/review")
    def choose(request: Request) -> Response:
        require(request, Role.REVIEWER)
        run = request.query_params.get("run", "") or next(iter(reviews.live_runs()), "")
        if not run:
            choices = reviews.choices()
            if not choices:
                raise MissingError("there is no run to review yet: make one with `tinytags run`")
            run = choices[0].name
        return RedirectResponse(url(request, f"/review/{layout.checked_name(run, 'run')}"), _SEE_OTHER)

    @app.get("/review/{run}")
    def show(request: Request, run: str) -> Response:
        require(request, Role.REVIEWER)
        session = reviews.find(run)
        if session is None:
            return _preparing(request, context, reviews, run)
        return context.render(
            request,
            "review.html",
            run=session.run,
            live=reviews.live_runs(),
            choices=reviews.choices(),
            **overview(session),
        )


def _add_looking(app: FastAPI, context: PageContext, reviews: ReviewSessions) -> None:
    @app.get("/review/{run}/one")
    def one(request: Request, run: str) -> Response:
        account = require(request, Role.REVIEWER)
        session = reviews.find(run)
        if session is None:
            return _preparing(request, context, reviews, run)
        sitting = Sitting.read(request.query_params, session)
        if not sitting.seat:
            return _sit_down(request, sitting)
        seat = _seat(account, sitting)
        is_over = session.looks_at(sitting.chosen) >= sitting.end
        pictures = [] if is_over else session.take(seat, 1 + AHEAD, sitting.chosen)
        view = looking_view(session, sitting, pictures, session.last_number(seat, account.name))
        return context.render(request, "review_one.html", **view)

    @app.post("/review/{run}/look")
    def look(request: Request, run: str, form: CheckedForm) -> Response:
        _, session, sitting, _ = _save_look(request, context, reviews, run, form)
        return RedirectResponse(sitting.address(url(request, f"/review/{session.run.name}/one")), _SEE_OTHER)

    @app.post("/review/{run}/undo")
    def undo(request: Request, run: str, form: CheckedForm) -> Response:
        _, session, sitting, _ = _undo(request, context, reviews, run, form)
        page, more = ("wall", {"tag": form["tag"]}) if form.get("tag") else ("one", {})
        return RedirectResponse(sitting.address(url(request, f"/review/{session.run.name}/{page}"), **more), _SEE_OTHER)


def _add_wall(app: FastAPI, context: PageContext, reviews: ReviewSessions) -> None:
    @app.get("/review/{run}/wall")
    def wall(request: Request, run: str) -> Response:
        account = require(request, Role.REVIEWER)
        session = reviews.find(run)
        if session is None:
            return _preparing(request, context, reviews, run)
        sitting = Sitting.read(request.query_params, session)
        if not sitting.seat:
            return _sit_down(request, sitting)
        seat = _seat(account, sitting)
        tag = request.query_params.get("tag", "")
        pictures = session.take_of_tag(seat, tag, WALL_PICTURES)
        view = wall_view(session, sitting, tag, pictures, session.last_number(seat, account.name))
        return context.render(request, "review_wall.html", saved=_saved(request), **view)

    @app.post("/review/{run}/wall")
    def save_wall(request: Request, run: str, form: CheckedForm) -> Response:
        account = require(request, Role.REVIEWER)
        session = _open(reviews, run)
        sitting = _seated(form, session)
        words = read_wall(session, form, sitting)
        session.say(_seat(account, sitting), words, by=account.name)
        _show(context, session, any(word.is_public for word in words))
        out = sum(word.verdict == "wrong" for word in words)
        address = sitting.address(
            url(request, f"/review/{session.run.name}/wall"),
            tag=form.get("tag", ""),
            saved=str(len(words)),
            out=str(out),
        )
        return RedirectResponse(address, _SEE_OTHER)


def _add_api(app: FastAPI, context: PageContext, reviews: ReviewSessions) -> None:
    @app.get("/api/review/{run}/token")
    def token(request: Request, run: str) -> JSONResponse:
        """Return a new token, for a page that was open for days or while the search page was started again."""
        require(request, Role.REVIEWER)
        return JSONResponse({"token": form_token(request)})

    @app.post("/api/review/{run}/look")
    def look(request: Request, run: str, form: CheckedForm) -> JSONResponse:
        account, session, sitting, number = _save_look(request, context, reviews, run, form)
        return JSONResponse({"number": number, **_next(account, session, sitting)})

    @app.post("/api/review/{run}/undo")
    def undo(request: Request, run: str, form: CheckedForm) -> JSONResponse:
        account, session, sitting, again = _undo(request, context, reviews, run, form)
        last = session.last_number(_seat(account, sitting), account.name)
        return JSONResponse({"again": again, "last": last, **_next(account, session, sitting)})

    @app.post("/api/review/{run}/more")
    def more(request: Request, run: str, form: CheckedForm) -> JSONResponse:
        account = require(request, Role.REVIEWER)
        session = _open(reviews, run)
        return JSONResponse(_next(account, session, _seated(form, session)))


def _save_look(
    request: Request, context: PageContext, reviews: ReviewSessions, run: str, form: Form
) -> tuple[Account, ReviewSession, Sitting, int]:
    account = require(request, Role.REVIEWER)
    session = _open(reviews, run)
    sitting = _seated(form, session)
    word = read_look(session, form, sitting)
    number = session.say(_seat(account, sitting), [word], by=account.name)
    _show(context, session, word.is_public)
    return account, session, sitting, number


def _undo(
    request: Request, context: PageContext, reviews: ReviewSessions, run: str, form: Form
) -> tuple[Account, ReviewSession, Sitting, list[dict[str, Any]]]:
    account = require(request, Role.REVIEWER)
    session = _open(reviews, run)
    sitting = _seated(form, session)
    again, was_public = session.undo(
        _seat(account, sitting), whole_number(form, "number", 0), by=account.name, chosen=sitting.chosen
    )
    _show(context, session, was_public)
    return account, session, sitting, [picture_view(session, drawn) for drawn in again]


def _show(context: PageContext, session: ReviewSession, is_public: bool) -> None:
    """Bring public words to readers in the background: the next picture does not wait for it."""
    if is_public:
        context.logs.forget()
        context.applier.apply(session.corpus.name, patience_seconds=0.0)


def _next(account: Account, session: ReviewSession, sitting: Sitting) -> dict[str, Any]:
    pictures = session.take(_seat(account, sitting), 1 + AHEAD, sitting.chosen)
    return {"looks": session.looks_at(sitting.chosen), "pictures": [picture_view(session, drawn) for drawn in pictures]}


def _open(reviews: ReviewSessions, run: str) -> ReviewSession:
    session = reviews.find(run, patience_seconds=30.0)
    if session is None:
        raise BusyError(f"the review of run {run} is being prepared: try again in a moment")
    return session


def _seated(form: Form, session: ReviewSession) -> Sitting:
    sitting = Sitting.read(form, session)
    if not sitting.seat:
        raise BadInputError("this form has no seat: start again on the page Review")
    return sitting


def _seat(account: Account, sitting: Sitting) -> str:
    """Return what a seat is called in a session, so that nobody sits on another account's."""
    return f"{account.name}/{sitting.seat}/{sitting.chosen}"


def _sit_down(request: Request, sitting: Sitting) -> Response:
    """Send a page to a seat of its own."""
    seated = sitting.at(secrets.token_hex(_SEAT_BYTES))
    tag = request.query_params.get("tag", "")
    return RedirectResponse(seated.address(request.url.path, **({"tag": tag} if tag else {})), _SEE_OTHER)


def _preparing(request: Request, context: PageContext, reviews: ReviewSessions, run: str) -> Response:
    return context.render_wait(request, "review_wait.html", run_name=run, progress=reviews.progress(run))


def _saved(request: Request) -> str:
    """Return what the last wall saved, in words."""
    saved = whole_number(request.query_params, "saved", 0)
    out = whole_number(request.query_params, "out", 0)
    return f"Saved: {saved - out} right, {out} struck out." if saved >= out and saved else ""
