"""Sending what was found, or what was ticked, to review: it becomes a set that people look at picture by picture."""

from urllib.parse import urlencode

from fastapi import FastAPI, Request, Response
from fastapi.responses import RedirectResponse

from tinytags_tasks.errors import BadInputError, MissingError
from tinytags_tasks.search.accounts import Role, require
from tinytags_tasks.search.context import PageContext
from tinytags_tasks.search.forms import CheckedForm
from tinytags_tasks.search.proxies import url
from tinytags_tasks.search.wanted import NOT_FOR_ALL, Wanted, of_search, read_wanted
from tinytags_tasks.store.record import now
from tinytags_tasks.store.review_sets import MOST_CHOSEN, ChosenPicture, ReviewSet
from tinytags_tasks.store.run_records import Run

_SEE_OTHER = 303


def add_routes(app: FastAPI, context: PageContext) -> None:
    """Add what sends pictures to review."""

    @app.get("/review-sets")
    def choose(request: Request) -> Response:
        require(request, Role.REVIEWER)
        parameters = [pair for pair in request.query_params.multi_items() if pair[0] not in NOT_FOR_ALL]
        wanted = of_search(context, urlencode(parameters), MOST_CHOSEN)
        return context.render(request, "review_set.html", wanted=wanted, most=MOST_CHOSEN)

    @app.post("/review-sets")
    def send(request: Request, form: CheckedForm) -> Response:
        account = require(request, Role.REVIEWER)
        chosen = _make_set(context, read_wanted(context, form, MOST_CHOSEN), account.name)
        name = chosen.keep(context.runtime.storage)
        return RedirectResponse(url(request, f"/review/{chosen.run}/one?{urlencode({'set': name})}"), _SEE_OTHER)


def _make_set(context: PageContext, wanted: Wanted, by: str) -> ReviewSet:
    """Return the set of pictures; those of which people have spoken already are left out.

    Raises
    ------
    BadInputError
        If they are of several corpora, or none is left.
    MissingError
        If none was found.
    """
    images = [image for page in wanted.pages(False) for image in page]
    if not images:
        raise MissingError("there is nothing to review: no picture was found")
    if len({image.corpus for image in images}) > 1:
        raise BadInputError("these pictures are of several corpora: send those of one corpus at a time to review")
    run = _run_of(context, wanted, images[0].corpus)
    pictures = tuple(
        ChosenPicture(
            position=image.position,
            block=image.block,
            tag=str(image.values["tag"]),
            confidence=int(image.values["confidence"] or 0),
        )
        for image in images
        if image.values.get("corrected") is None
    )
    if not pictures:
        raise BadInputError("people have already said what these pictures show: choose others")
    return ReviewSet(
        run=run.name,
        corpus=run.corpus,
        corpus_digest=run.corpus_digest,
        pictures=pictures,
        asked=len(images) + wanted.gone,
        by=by,
        created=now(),
    )


def _run_of(context: PageContext, wanted: Wanted, corpus: str) -> Run:
    return context.searches.chosen.get(wanted.run).run if wanted.run else context.live.run(corpus).run
