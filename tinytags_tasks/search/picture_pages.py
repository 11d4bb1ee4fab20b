"""The page of a picture."""

from fastapi import FastAPI, Request, Response

from tinytags_tasks.errors import MissingError
from tinytags_tasks.search import corrections
from tinytags_tasks.search.accounts import Account
from tinytags_tasks.search.cards import picture_address
from tinytags_tasks.search.context import LiveRun, PageContext
from tinytags_tasks.search.picture_files import find_shown, find_stored, read_position
from tinytags_tasks.search.picture_view import opinions, picture_view
from tinytags_tasks.search.present import PresentCorpora
from tinytags_tasks.store import layout


def add_routes(app: FastAPI, context: PageContext) -> None:
    """Add the page of a picture; the routes of :mod:`.picture_files` come before it."""
    corpora = PresentCorpora(context.runtime)

    @app.get("/pictures/{corpus}/{name}")
    def show(request: Request, corpus: str, name: str, run: str = "") -> Response:
        account: Account = request.state.account
        position = read_position(name)
        layout.checked_name(corpus, "corpus")
        live = _live_run(context, corpus)
        try:
            shown, chosen = find_shown(context, corpus, position, run)
            image, live = shown.image, chosen or live
            present = live.corpus if live else None
        except MissingError:
            if run or not account.may_review:
                raise
            present, image = find_stored(context, corpora, corpus, position), None
        if live and present and present.digest != live.run.corpus_digest:  # its positions are other pictures
            present, live = (None, live) if image else (present, None)
        digest = live.run.corpus_digest if live else present.digest if present else ""
        return context.render(
            request,
            "picture.html",
            **picture_view(
                context,
                image,
                live,
                present,
                name=corpus,
                position=position,
                digest=digest,
                chosen=run if image else "",
            ),
            opinions=opinions(context, corpus, digest, position, are_private_shown=account.may_review),
            picture=corrections.Picture.of(image) if image else None,
            notice=corrections.notice(context, account, request.query_params.get(corrections.NOTICE, "")),
            here=picture_address(corpus, position, run),
        )


def _live_run(context: PageContext, corpus: str) -> LiveRun | None:
    return next((live for live in context.live.runs() if live.run.corpus == corpus), None)
