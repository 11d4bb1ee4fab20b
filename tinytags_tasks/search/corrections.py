"""Correcting and taking down pictures from the search page, with and without scripts."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

import pyarrow as pa
import pyarrow.compute as pc
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse

from tinytags_tasks.errors import BadInputError, TinyTagsError
from tinytags_tasks.search.accounts import Account, Role, require
from tinytags_tasks.search.context import PageContext
from tinytags_tasks.search.forms import CheckedForm, Form
from tinytags_tasks.search.images import TaggedImage
from tinytags_tasks.search.proxies import url
from tinytags_tasks.search.speaking import Spoken, speak
from tinytags_tasks.store import layout
from tinytags_tasks.store.corpus_records import load_corpus
from tinytags_tasks.store.review_records import SHOWING, Verdict, Word

PATIENCE_SECONDS = 5.0
"""How long a form waits for the live index."""

NOTICE = "said"
"""The parameter of the page's address that names the request whose success the page reports."""


_OWN_PATH = re.compile(r"/(search|similar|corrections|pictures/[a-z0-9_-]+/[0-9]+)?")

MOST_REQUESTS = 50
MOST_VERDICTS = 5
"""What of a request is described."""


@dataclass(frozen=True)
class Picture:
    """A picture as a form names it: ``corpus:position:confidence:tag``, with what was shown of it.

    ``confidence`` is -1 if the tag was a person's.
    """

    corpus: str
    position: int
    confidence: int
    tag: str

    def __str__(self) -> str:
        """Return it as a form names it."""
        return f"{self.corpus}:{self.position}:{self.confidence}:{self.tag}"

    @classmethod
    def of(cls, image: TaggedImage) -> "Picture":
        """Return how a form names an image."""
        is_person = image.values.get("corrected") is not None
        confidence = -1 if is_person else int(image.values["confidence"] or 0)
        return cls(image.corpus, image.position, confidence, str(image.values["tag"]))

    @classmethod
    def parse(cls, text: str) -> "Picture":
        """Read what a form sent.

        Raises
        ------
        BadInputError
            If it is something else.
        """
        corpus, position, confidence, tag = [*text.split(":", 3), "", "", ""][:4]
        try:
            return cls(*layout.read_document_id(f"{corpus}:{position}"), int(confidence), tag)
        except (BadInputError, ValueError) as error:
            raise BadInputError(f"{text[:100]!r} does not name a picture") from error

    def word(self, verdict: Verdict, **more: Any) -> Word:  # noqa: ANN401 - the fields of a word
        """Return a word on it."""
        is_model = self.confidence >= 0
        return Word(
            self.position,
            verdict,
            is_public=True,
            shown_tag=self.tag if is_model else "",
            shown_confidence=self.confidence if is_model else -1,
            **more,
        )


@dataclass(frozen=True)
class Saying:
    """What a form says of pictures: of ``wrong``, each picture has its own tag."""

    verdict: Verdict
    tag: str = ""
    reason: str = ""

    @classmethod
    def read(cls, form: Form) -> "Saying":
        """Return what a form corrects.

        Raises
        ------
        BadInputError
            If that is nothing.
        """
        say = form.get("say", "")
        if say not in (Verdict.TAG, Verdict.WRONG, Verdict.NONE):
            raise BadInputError(f"{say[:100]!r} cannot be said of a picture: say tag, wrong or none")
        return cls(Verdict(say), tag=form.get("tag", "").strip() if say == Verdict.TAG else "")

    @classmethod
    def takedown(cls, form: Form) -> "Saying":
        """Return that a form takes pictures down, and why."""
        return cls(Verdict.TAKEDOWN, reason=form.get("reason", "").strip())

    def words(self, pictures: Iterable[Picture]) -> list[Word]:
        """Return a word on each picture.

        Raises
        ------
        BadInputError
            If this cannot be said of a picture.
        """
        is_wrong = self.verdict is Verdict.WRONG
        return [
            picture.word(self.verdict, tag=picture.tag if is_wrong else self.tag, reason=self.reason)
            for picture in pictures
        ]


def add_routes(app: FastAPI, context: PageContext) -> None:
    """Add what the forms of the search page post to."""

    @app.get("/corrections")
    def show(request: Request) -> Response:
        account = require(request, Role.REVIEWER)
        return context.render(
            request, "corrections.html", corpora=latest_requests(context, account), most=MOST_REQUESTS
        )

    @app.post("/corrections")
    def correct(request: Request, form: CheckedForm) -> Response:
        require(request, Role.REVIEWER)
        return answer(request, form, _speak(request, context, form, Saying.read(form)))

    @app.post("/takedowns")
    def take_down(request: Request, form: CheckedForm) -> Response:
        require(request, Role.OPERATOR)
        return answer(request, form, _speak(request, context, form, Saying.takedown(form)))

    @app.post("/undo")
    def undo(request: Request, form: CheckedForm) -> Response:
        account = require(request, Role.REVIEWER)
        corpus, number = read_notice(form.get(NOTICE, ""))
        context.logs.forget()
        said = context.logs.of(corpus).request(number)
        if not account.may_operate:  # the looks of a wall that readers do not see stay, unless they are one's own
            said = said.filter(pc.or_(said.column("is_public"), pc.equal(said.column("by"), account.name)))
        positions = said.column("position").to_pylist()
        if "position" in form:  # only this one of the request's pictures
            positions = [position for position in positions if str(position) == form["position"]]
        if not positions:
            raise BadInputError(f"corpus {corpus} has no request {number} on such a picture: nothing to undo")
        words = [Word(position, Verdict.UNDO, undoes=number, is_public=True) for position in positions]
        spoken = speak(request, context, corpus, words, run="", patience_seconds=PATIENCE_SECONDS)
        return answer(request, form, spoken)


def notice(context: PageContext, account: Account, text: str) -> dict[str, Any] | None:
    """Return what the page says about the request that its address names; None without a valid one.

    Raises
    ------
    EngineDownError
        If the logs cannot be read.
    """
    try:
        corpus, number = read_notice(text)
    except BadInputError:
        return None
    words = context.logs.of(corpus).request(number)
    if not len(words) or not account.may_review:
        return None
    return _describe_request(context, account, corpus, words, _standing(context, corpus))


def latest_requests(context: PageContext, account: Account) -> list[tuple[str, list[dict[str, Any]]]]:
    """Return for each corpus its latest public requests, the newest first."""
    found = []
    for corpus in context.logs.corpora():
        words = context.logs.of(corpus).words
        public = words.filter(words.column("is_public"))
        numbers = pc.unique(public.column("number")).to_pylist()[-MOST_REQUESTS:]
        known = context.logs.of(corpus)
        standing = _standing(context, corpus)
        requests = [
            _describe_request(context, account, corpus, known.request(number), standing) for number in reversed(numbers)
        ]
        if requests:
            found.append((corpus, requests))
    return found


@dataclass(frozen=True)
class _Standing:
    """A corpus' present digest, empty if it is unknown, and whether readers see a run of it, as far as is known."""

    digest: str
    is_live: bool


def _standing(context: PageContext, corpus: str) -> _Standing:
    digest, is_live, own = "", True, []
    with suppress(TinyTagsError):
        own = [live for live in context.live.runs() if live.run.corpus == corpus]
        is_live = bool(own)
    with suppress(TinyTagsError):  # what is live is known, even while the store hangs
        digest = own[0].corpus.digest if own and own[0].corpus else load_corpus(corpus, context.runtime.storage).digest
    return _Standing(digest, is_live)


def _describe_request(
    context: PageContext, account: Account, corpus: str, words: pa.Table, standing: _Standing
) -> dict[str, Any]:
    number = words.column("number")[0].as_py()
    verdicts = Counter(zip(words.column("verdict").to_pylist(), words.column("tag").to_pylist(), strict=True))
    is_undo = any(verdict == Verdict.UNDO for verdict, _ in verdicts)
    needs_operator = any(verdict in SHOWING for verdict, _ in verdicts)
    said = [_describe(verdict, tag, count) for (verdict, tag), count in verdicts.most_common(MOST_VERDICTS)]
    return {
        "name": f"{corpus}:{number}",
        "number": number,
        "by": words.column("by")[0].as_py(),
        "time": words.column("time")[0].as_py()[:16].replace("T", " "),
        "said": "; ".join(said) + ("; …" if len(verdicts) > MOST_VERDICTS else ""),
        "is_shown": standing.is_live and context.logs.applied(corpus) >= number,
        "is_live": standing.is_live,
        # Words on an older version of the corpus cannot be taken back: their pictures are not there any more.
        "can_undo": not is_undo
        and words.column("corpus_digest")[0].as_py() == standing.digest
        and (account.may_operate or not needs_operator),
    }


def corrected_by(context: PageContext, images: Sequence[TaggedImage]) -> dict[str, str]:
    """Return for each image whose tag is a person's, by its id: who said so, and when."""
    found = {}
    for image in images:
        number = image.values.get("corrected")
        said = context.logs.of(image.corpus).said(int(number)) if number else None
        if said:
            found[image.id] = f"corrected by {said.by}, {said.time[:10]}"
    return found


def _describe(verdict: str, tag: str, count: int) -> str:
    pictures = "1 picture" if count == 1 else f"{count:,} pictures"
    words = {
        Verdict.TAG: f"tagged {tag}",
        Verdict.WRONG: f"marked as not {tag}",
        Verdict.NONE: "marked as showing none of the tags",
        Verdict.TAKEDOWN: "taken down",
        Verdict.RESTORE: "restored",
        Verdict.UNDO: "with the earlier word undone",
    }
    return f"{pictures} {words.get(Verdict(verdict), verdict)}"


def _pictures(form: Form) -> list[Picture]:
    pictures = [Picture.parse(text) for text in dict.fromkeys(form.getlist("picture"))]
    if not pictures:
        raise BadInputError("no picture was chosen: tick at least one")
    if len({picture.corpus for picture in pictures}) > 1:
        raise BadInputError("these pictures are of several corpora: correct those of one corpus at a time")
    return pictures


def _speak(request: Request, context: PageContext, form: Form, saying: Saying) -> Spoken:
    pictures = _pictures(form)
    return speak(
        request,
        context,
        pictures[0].corpus,
        saying.words(pictures),
        run=_run_of(pictures[0].corpus, form.get("run", "")),
        patience_seconds=PATIENCE_SECONDS,
    )


def _run_of(corpus: str, names: str) -> str:
    """Return which of the runs that a page shows is of a corpus; empty if it shows several, and none is."""
    runs = names.split(",")
    return names if len(runs) == 1 else next((run for run in runs if layout.corpus_of_run(run) == corpus), "")


def answer(request: Request, form: Form, spoken: Spoken) -> Response:
    """Return to the search with a notice; to a script, say what happened."""
    name = f"{spoken.corpus}:{spoken.number}"
    if "application/json" in request.headers.get("accept", ""):
        return JSONResponse({"said": name, "message": spoken.message, "is_shown": spoken.applied.is_shown})
    back = _own_address(form.get("back", "/"))
    return RedirectResponse(f"{url(request, back)}{'&' if '?' in back else '?'}{NOTICE}={quote(name)}", status_code=303)


def _own_address(text: str) -> str:
    """Return an address of the search page, whatever a form says."""
    parts = urlsplit(text)
    if not _OWN_PATH.fullmatch(parts.path) or not text.startswith(parts.path):
        return "/"
    return f"{parts.path}?{parts.query}" if parts.query else parts.path


def read_notice(text: str) -> tuple[str, int]:
    """Return the corpus and the number of a request that is named like ``corpus:number``.

    Raises
    ------
    BadInputError
        If it names none.
    """
    corpus, _, number = text.partition(":")
    if not (number.isascii() and number.isdigit() and len(number) <= 10):
        raise BadInputError(f"{text[:100]!r} does not name a request")
    return layout.checked_name(corpus, "corpus"), int(number)
