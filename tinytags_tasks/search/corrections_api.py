"""Corrections, take-downs and measured precision for programs, as JSON.

A browser that has signed in sends its password with requests that other sites make, too. So a request must be JSON,
which no form can be, and must not come from another site.
"""

from typing import Annotated, Literal, TypeVar

from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tinytags_tasks.errors import BadInputError
from tinytags_tasks.review.precision import NOT_MEASURED
from tinytags_tasks.review.words import refuse_another_version
from tinytags_tasks.search.accounts import Role, require
from tinytags_tasks.search.context import PageContext
from tinytags_tasks.search.forms import read_body, refuse_cross_site
from tinytags_tasks.search.speaking import Spoken, speak
from tinytags_tasks.store import layout
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.review_records import Verdict, Word
from tinytags_tasks.store.run_records import Run

MOST_AT_ONCE = 10_000
PATIENCE_SECONDS = 50.0
"""How long a request waits for the live index."""

_MOST_BYTES = 8 * 2**20

B = TypeVar("B", bound="_Body")


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Correction(_Body):
    """One picture: ``tag`` says what it shows, ``wrong`` what it does not; ``undo`` takes back a request's word."""

    position: int = Field(ge=0)
    verdict: Literal["tag", "wrong", "none", "undo"]
    tag: str = ""
    undoes: int = 0


class Corrections(_Body):
    """The body of ``POST /api/corrections``."""

    corpus: str
    run: str = ""
    corrections: list[Correction] = Field(min_length=1, max_length=MOST_AT_ONCE)


class Takedowns(_Body):
    """The body of ``POST /api/takedowns``."""

    corpus: str
    positions: list[Annotated[int, Field(ge=0)]] = Field(min_length=1, max_length=MOST_AT_ONCE)
    reason: str = ""
    restore: bool = False


async def read_json(request: Request) -> bytes:
    """Return a request's body, which is JSON and was not sent by another site's page.

    Raises
    ------
    BadInputError
        If it is not called JSON, or is too large.
    HTTPException
        403 if another site sent it.
    """
    refuse_cross_site(request)
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise BadInputError("send JSON, with the header Content-Type: application/json")
    return await read_body(request, _MOST_BYTES)


JsonBody = Annotated[bytes, Depends(read_json)]
"""The type of a route's parameter that is the request's body."""


def add_routes(app: FastAPI, context: PageContext) -> None:
    """Add what programs post to."""

    @app.post("/api/corrections")
    def correct(request: Request, body: JsonBody) -> JSONResponse:
        require(request, Role.REVIEWER)
        asked = _parse(Corrections, body)
        if not asked.run:
            _refuse_unseen_version(context, asked.corpus)
        words = [
            Word(one.position, Verdict(one.verdict), tag=one.tag, undoes=one.undoes, is_public=True)
            for one in asked.corrections
        ]
        return _answer(speak(request, context, asked.corpus, words, run=asked.run, patience_seconds=PATIENCE_SECONDS))

    @app.post("/api/takedowns")
    def take_down(request: Request, body: JsonBody) -> JSONResponse:
        require(request, Role.OPERATOR)
        asked = _parse(Takedowns, body)
        _refuse_unseen_version(context, asked.corpus)
        verdict = Verdict.RESTORE if asked.restore else Verdict.TAKEDOWN
        words = [Word(position, verdict, reason=asked.reason, is_public=True) for position in asked.positions]
        return _answer(speak(request, context, asked.corpus, words, run="", patience_seconds=PATIENCE_SECONDS))

    @app.get("/api/precision")
    def precision(run: str = "", corpus: str = "") -> JSONResponse:
        storage = context.runtime.storage
        found = Run.load(storage, layout.run_file(run)) if run else context.live.run(corpus).run
        with context.waiting.seconds(PATIENCE_SECONDS) as patience:
            table = context.measured.table(found, patience)
        if table is None:
            return JSONResponse({"run": found.name, "is_measured": False, "message": NOT_MEASURED})
        return JSONResponse(table.as_json())


def _parse(kind: type[B], body: bytes) -> B:
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the body"
        raise BadInputError(f"{where}: {first['msg']}; nothing was recorded") from error


def _refuse_unseen_version(context: PageContext, corpus: str) -> None:
    """Refuse positions that name no run while readers see another version of the corpus than the one in the store."""
    for live in context.live.runs():
        if live.run.corpus == corpus:
            refuse_another_version(Corpus.load(context.runtime.storage, layout.corpus_file(corpus)), live.run)


def _answer(spoken: Spoken) -> JSONResponse:
    """Return what happened: 200 if readers see it, 202 if they will."""
    found = {
        "corpus": spoken.corpus,
        "number": spoken.number,
        "words": spoken.words,
        "is_shown": spoken.applied.is_shown,
        "message": spoken.message,
        "applied": [
            {"run": result.run, "blocks": len(result.blocks), "changed": result.changed, "removed": result.removed}
            for result in spoken.applied.results
        ],
    }
    return JSONResponse(found, status_code=200 if spoken.applied.is_shown else 202)
