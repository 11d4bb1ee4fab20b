"""Single pictures of a corpus, for those who review them; one that was taken down is not served."""

import io
import re
import threading
import time
from dataclasses import dataclass

from fastapi import FastAPI, Request, Response
from PIL import Image

from tinytags_tasks.errors import BadInputError, MissingError
from tinytags_tasks.search.accounts import Role, require
from tinytags_tasks.search.context import PageContext
from tinytags_tasks.store.corpus_records import Corpus, load_corpus
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.store.review_log import ReviewLog, counting_words, of_version
from tinytags_tasks.store.review_records import Verdict

KNOWN_SECONDS = 2.0
"""How long a corpus' record and its take-downs count as known."""


@dataclass
class _Known:
    """A corpus, and what was taken down of it."""

    log: ReviewLog
    corpus: Corpus
    taken_down: frozenset[int]
    until: float


class ShownPictures:
    """Knows which pictures of which corpora may be shown.

    Parameters
    ----------
    context
        Of the search page.
    """

    def __init__(self, context: PageContext) -> None:
        self._context = context
        self._known: dict[str, _Known] = {}
        self._lock = threading.Lock()

    def corpus_of(self, name: str, position: int) -> Corpus:
        """Return a corpus, one of whose pictures may be shown.

        Raises
        ------
        MissingError
            If there is no such corpus or picture, or the picture was taken down.
        """
        with self._lock:
            known = self._known.get(name)
            if known is None or time.monotonic() >= known.until:
                known = self._known[name] = _look(name, known, self._context.runtime.storage)
        if position >= known.corpus.images:
            raise MissingError(f"corpus {name} has no picture {position}: it has {known.corpus.images:,}, from 0")
        if position in known.taken_down:
            raise MissingError(f"picture {position} of corpus {name} was taken down")
        return known.corpus


def add_routes(app: FastAPI, context: PageContext) -> None:
    """Serve single pictures."""
    shown = ShownPictures(context)

    @app.get("/pictures/{corpus}/{name}")
    def picture(request: Request, corpus: str, name: str) -> Response:
        require(request, Role.REVIEWER)
        match = re.fullmatch(r"([0-9]{1,12})\.png", name)
        if not match:
            raise BadInputError(f"{name[:40]!r} is no picture: ask for <position>.png")
        position = int(match[1])
        found = shown.corpus_of(corpus, position)
        etag = f'"{found.digest[:16]}-{position}"'
        # Asked for again each time, so that a picture that was taken down is not shown from a browser's cache.
        headers = {"ETag": etag, "Cache-Control": "private, no-cache"}
        if request.headers.get("if-none-match") == etag:
            return Response(status_code=304, headers=headers)
        pixels = context.stored_images.read(found, position)
        png = io.BytesIO()
        Image.fromarray(pixels).save(png, "PNG")
        return Response(png.getvalue(), media_type="image/png", headers=headers)


def _look(name: str, known: _Known | None, storage: Storage) -> _Known:
    corpus = load_corpus(name, storage)
    log = known.log if known else ReviewLog(name, storage)
    decided = counting_words(of_version(log.read(), corpus.digest), (Verdict.TAKEDOWN, Verdict.RESTORE))
    rows = zip(decided["position"].to_pylist(), decided["verdict"].to_pylist(), strict=True)
    taken_down = frozenset(position for position, verdict in rows if verdict == Verdict.TAKEDOWN)
    return _Known(log, corpus, taken_down, time.monotonic() + KNOWN_SECONDS)
