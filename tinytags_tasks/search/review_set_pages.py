"""Sending what was found, or what was ticked, to review: it becomes a set that people look at picture by picture."""

from collections.abc import Sequence
from urllib.parse import urlencode

from fastapi import FastAPI, Request, Response
from fastapi.responses import RedirectResponse

from tinytags_tasks.errors import BadInputError, MissingError
from tinytags_tasks.search.accounts import Role, require
from tinytags_tasks.search.context import PageContext
from tinytags_tasks.search.counted import SEEN, Counted, count_found, run_of
from tinytags_tasks.search.forms import CheckedForm
from tinytags_tasks.search.images import TaggedImage
from tinytags_tasks.search.proxies import url
from tinytags_tasks.search.wanted import FOUND, Wanted, read_wanted, without_page
from tinytags_tasks.store.record import now
from tinytags_tasks.store.review_sets import MOST_CHOSEN, ChosenPicture, ReviewSet

_SEE_OTHER = 303


def add_routes(app: FastAPI, context: PageContext) -> None:
    """Add what sends pictures to review."""

    @app.get("/review-sets")
    def choose(request: Request) -> Response:
        require(request, Role.REVIEWER)
        return _show(context, request, count_found(context, without_page(request), MOST_CHOSEN))

    @app.post("/review-sets")
    def send(request: Request, form: CheckedForm) -> Response:
        account = require(request, Role.REVIEWER)
        if FOUND in form:
            counted = count_found(context, form[FOUND], MOST_CHOSEN)
            if form.get(SEEN, "") != counted.seen:
                return _show(context, request, counted, is_changed=True)
            wanted, images = counted.wanted, counted.images
        else:
            wanted = read_wanted(context, form, MOST_CHOSEN)
            images = tuple(image for page in wanted.pages(False) for image in page)
        chosen = _make_set(context, wanted, images, account.name)
        name = chosen.keep(context.runtime.storage)
        return RedirectResponse(url(request, f"/review/{chosen.run}/one?{urlencode({'set': name})}"), _SEE_OTHER)


def _show(context: PageContext, request: Request, counted: Counted, *, is_changed: bool = False) -> Response:
    """Ask to confirm that these pictures are sent; if they are others than were confirmed, say so."""
    status = 409 if is_changed else 200
    return context.render(
        request, "review_set.html", status=status, counted=counted, most=MOST_CHOSEN, is_changed=is_changed
    )


def _make_set(context: PageContext, wanted: Wanted, images: Sequence[TaggedImage], by: str) -> ReviewSet:
    """Return the set of pictures; those of which people have spoken already are left out.

    Raises
    ------
    BadInputError
        If they are of several corpora, or none is left.
    MissingError
        If none was found.
    """
    if not images:
        raise MissingError("there is nothing to review: no picture was found")
    if len({image.corpus for image in images}) > 1:
        raise BadInputError("these pictures are of several corpora: send those of one corpus at a time to review")
    run = run_of(context, wanted, images[0].corpus)
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
