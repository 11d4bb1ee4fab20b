"""Correcting and taking down all that a search finds: it is counted, confirmed, and must still be what was counted.

All of it is one request in the log, recorded and undone by one step. A form that is sent twice, or again after a kill,
records nothing more.
"""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.compute as pc
from fastapi import FastAPI, Request, Response

from tinytags_tasks.review.words import WORDS_AT_ONCE
from tinytags_tasks.search import corrections
from tinytags_tasks.search.accounts import Account, Role, require
from tinytags_tasks.search.context import PageContext
from tinytags_tasks.search.corrections import Picture, Saying
from tinytags_tasks.search.counted import SEEN, Counted, count_found, name_pictures
from tinytags_tasks.search.forms import CheckedForm, Form
from tinytags_tasks.search.request import SearchRequest
from tinytags_tasks.search.speaking import Spoken, speak
from tinytags_tasks.search.waiting import BusyError
from tinytags_tasks.search.wanted import FOUND, without_page
from tinytags_tasks.store.review_records import Verdict
from tinytags_tasks.tags import normal_tag

AFTER = "after"
"""The field of the form with the last request on the corpus when its pictures were counted, as notices name it."""

TURN_SECONDS = 30.0
"""How long a request waits until another one is recorded."""


def add_routes(app: FastAPI, context: PageContext) -> None:
    """Add the page that asks to confirm, and what its forms post to."""
    turn = threading.Lock()

    @app.get("/corrections/all")
    def choose(request: Request) -> Response:
        require(request, Role.REVIEWER)
        return _show(context, request, count_found(context, without_page(request), WORDS_AT_ONCE))

    @app.post("/corrections/all")
    def correct(request: Request, form: CheckedForm) -> Response:
        require(request, Role.REVIEWER)
        return say(request, form, Saying.read(form))

    @app.post("/takedowns/all")
    def take_down(request: Request, form: CheckedForm) -> Response:
        require(request, Role.OPERATOR)
        return say(request, form, Saying.takedown(form))

    def say(request: Request, form: Form, saying: Saying) -> Response:
        with _own(turn):
            if spoken := _said_already(request, context, form, saying):
                return corrections.answer(request, form, spoken)
            counted = count_found(context, form.get(FOUND, ""), WORDS_AT_ONCE)
            if counted.run is None or form.get(SEEN, "") != counted.seen:
                return _show(context, request, counted, is_changed=True)
            words = saying.words(Picture.of(image) for image in counted.images)
            spoken = speak(
                request,
                context,
                counted.run.corpus,
                words,
                run=counted.run.name,
                patience_seconds=corrections.PATIENCE_SECONDS,
            )
        return corrections.answer(request, form, spoken)


@contextmanager
def _own(turn: threading.Lock) -> Iterator[None]:
    """Wait until others' requests are recorded: a form that is sent twice must find the first one in the log."""
    if not turn.acquire(timeout=TURN_SECONDS):
        raise BusyError("another request on all that a search found is being recorded: try again in a minute")
    try:
        yield
    finally:
        turn.release()


def _show(context: PageContext, request: Request, counted: Counted, *, is_changed: bool = False) -> Response:
    """Ask to confirm what is said of these pictures; if they are others than were confirmed, say so."""
    corpus = counted.run.corpus if counted.run else ""
    return context.render(
        request,
        "correct_all.html",
        status=409 if is_changed else 200,
        counted=counted,
        is_changed=is_changed,
        most=WORDS_AT_ONCE,
        tags=Counter(str(image.values["tag"]) for image in counted.images).most_common(),
        known_tags=sorted(context.searches.page(SearchRequest(run=counted.wanted.run, rows=1)).tag_counts),
        corrected=sum(image.values.get("corrected") is not None for image in counted.images),
        after=f"{corpus}:{context.logs.of(corpus).last}" if corpus else "",
    )


def _said_already(request: Request, context: PageContext, form: Form, saying: Saying) -> Spoken | None:
    """Return the request that this form has led to already; None if it has not.

    It is a later one than the form, by the same account, and says the same of the same pictures.
    """
    if not form.get(AFTER):
        return None
    corpus, after = corrections.read_notice(form[AFTER])
    account: Account = request.state.account
    context.logs.forget()
    log = context.logs.of(corpus)
    later = log.words.slice(int(pc.sum(pc.less_equal(log.words.column("number"), after)).as_py() or 0))
    for number in pc.unique(later.filter(pc.equal(later.column("by"), account.name)).column("number")).to_pylist():
        words = log.request(number)
        if _says(words, saying) and _is_of(words, form.get(SEEN, "")):
            applied = context.applier.apply(corpus, patience_seconds=corrections.PATIENCE_SECONDS)
            return Spoken(corpus, number, len(words), applied)
    return None


def _says(words: pa.Table, saying: Saying) -> bool:
    tag = None if saying.verdict is Verdict.WRONG else normal_tag(saying.tag)
    said = set(zip(*(words.column(name).to_pylist() for name in ("verdict", "tag", "reason")), strict=True))
    return all(one == (saying.verdict, one[1] if tag is None else tag, saying.reason) for one in said)


def _is_of(words: pa.Table, seen: str) -> bool:
    return seen.startswith(name_pictures(words.column("run")[0].as_py(), words.column("position").to_pylist()))
