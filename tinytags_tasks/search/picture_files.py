"""Single pictures as files: PNG, enlarged or scaled down for a grid if asked, and raw bytes.

Readers may have those that they can find; reviewers any of a corpus. One that was taken down is not served.
"""

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from fastapi import FastAPI, Request, Response
from starlette.concurrency import run_in_threadpool

from tinytags_tasks.errors import BadInputError, MissingError
from tinytags_tasks.search.accounts import Account
from tinytags_tasks.search.cards import GRID
from tinytags_tasks.search.conditional import CACHE, has_current
from tinytags_tasks.search.context import LiveRun, PageContext
from tinytags_tasks.search.present import PresentCorpora
from tinytags_tasks.search.request import SearchRequest
from tinytags_tasks.search.shown_pictures import ShownPicture
from tinytags_tasks.search.thumbnails import png_bytes, reduced
from tinytags_tasks.store import layout
from tinytags_tasks.store.corpus_records import Corpus

LARGEST_SIDE = 2_048
"""Pixels of an enlarged picture's longer side at most."""

MOST_SCALE = 64
"""Digits of a position at most."""

QUICK_BYTES = 2**13
"""A picture with so many bytes of pixels at most becomes a PNG in a fraction of a millisecond."""

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class _Found:
    """A picture that may be served: a tag that changes with its pixels, and what reads it."""

    tag: str
    pixels: Callable[[], Pixels]
    png: Callable[[], bytes]
    grid_png: Callable[[], bytes]


@dataclass(frozen=True)
class _Asked:
    """What an address asks for."""

    corpus: str
    position: int
    times: int
    version: str
    run: str
    size: str

    @staticmethod
    def read(request: Request) -> "_Asked":
        """Return what a request asks for.

        Raises
        ------
        BadInputError
            If its parameters are not valid.
        """
        asked = request.query_params
        size = asked.get("size", "")
        if size not in ("", GRID):
            raise BadInputError(f"{size[:40]!r} is no size: use {GRID}, or leave it out")
        return _Asked(
            request.path_params["corpus"],
            read_position(request.path_params["name"]),
            _read_scale(asked.get("scale", "1")),
            asked.get("version", ""),
            asked.get("run", ""),
            size,
        )


def add_routes(app: FastAPI, context: PageContext) -> None:
    """Serve single pictures."""
    corpora = PresentCorpora(context.runtime)

    def find_png(request: Request, asked: _Asked) -> Response:
        found = _find(request, context, corpora, asked.corpus, asked.position, asked.version, asked.run)
        return _answer_png(request, asked, found)

    async def png(request: Request) -> Response:
        asked = _Asked.read(request)
        # Most of a page's pictures are in memory: handing these to a thread would cost more than the answer.
        shown = _kept(request, context, asked)
        if shown is None and not asked.run:
            await context.pictures.arrive(asked.corpus, asked.position)
            shown = _kept(request, context, asked)
        if shown is not None:
            return _answer_png(request, asked, _found(shown))
        return await run_in_threadpool(find_png, request, asked)

    # A page has dozens of these: FastAPI's reading of parameters would cost as much CPU as all the rest.
    app.add_route("/pictures/{corpus}/{name}.png", png)

    @app.get("/pictures/{corpus}/{name}.bin")
    def raw(request: Request, corpus: str, name: str, version: str = "", run: str = "") -> Response:
        position = read_position(name)
        found = _find(request, context, corpora, corpus, position, version, run)
        answer = _answer(request, f'"{found.tag}-raw"', lambda: found.pixels().tobytes(), "application/octet-stream")
        answer.headers["Content-Disposition"] = f'attachment; filename="{corpus}-{position}.bin"'
        return answer


def read_position(text: str) -> int:
    """Return the position that an address names.

    Raises
    ------
    BadInputError
        If it names none.
    """
    if not (text.isascii() and text.isdigit() and len(text) <= layout.LONGEST_POSITION):
        raise BadInputError(
            f"{text[:40]!r} is no picture: ask for <position>, <position>.png or <position>.bin, with a whole number"
        )
    return int(text)


def find_stored(context: PageContext, corpora: PresentCorpora, name: str, position: int, version: str = "") -> Corpus:
    """Return a corpus with a picture that reviewers may see; it is of the version asked for, if one is.

    Raises
    ------
    MissingError
        If there is no such picture, or it was taken down.
    """
    corpus = corpora.find(name)
    if version and not corpus.digest.startswith(version):
        raise _another_version(name)
    if position >= corpus.images:
        raise MissingError(f"corpus {name} has no picture {position}: it has {corpus.images:,}, from 0")
    if context.logs.is_taken_down(corpus, position):
        raise MissingError(f"picture {position} of corpus {name} was taken down")
    return corpus


def _kept(request: Request, context: PageContext, asked: _Asked) -> ShownPicture | None:
    """Return a picture if it is in memory, may be served, and is soon a PNG; None leaves all to :func:`_find`."""
    account: Account = request.state.account
    if asked.run or asked.times > 1:
        return None
    if account.may_review and not context.pictures.is_expected(asked.corpus, asked.position):
        return None
    known = context.pictures.kept(asked.corpus, asked.position)
    if known is None:
        return None
    shown, runs = known
    with suppress(MissingError):
        for live in runs:
            _check_version(live)
        _check_asked_version(asked.corpus, asked.version, runs)
        return shown if shown.is_png_kept or shown.pixels.nbytes <= QUICK_BYTES else None
    return None


def _find(
    request: Request, context: PageContext, corpora: PresentCorpora, name: str, position: int, version: str, run: str
) -> _Found:
    account: Account = request.state.account
    layout.checked_name(name, "corpus")
    if run or not account.may_review:
        return _find_shown(context, name, position, version, run)
    if context.pictures.is_expected(name, position):  # one request for all of a page is faster than one for each
        with suppress(MissingError):
            return _find_shown(context, name, position, version, run)
    corpus = find_stored(context, corpora, name, position, version)

    def read() -> Pixels:
        return context.stored_images.read(corpus, position)

    return _Found(
        f"{corpus.digest[:16]}-{position}", read, lambda: png_bytes(read()), lambda: png_bytes(reduced(read()))
    )


def find_shown(context: PageContext, corpus: str, position: int, run: str) -> tuple[ShownPicture, LiveRun | None]:
    """Return a picture that readers can find, in what is live or in a run that they chose, and the chosen run.

    Raises
    ------
    MissingError
        If they cannot find it, or there is no such run.
    BadInputError
        If the run is not verified.
    """
    if not run:
        for live in context.live.runs():
            if live.run.corpus == corpus:
                _check_version(live)
        return context.pictures.find(corpus, position, context.hidden()), None
    chosen = context.searches.chosen.get(run)
    _check_version(chosen)
    hidden = context.searches.hidden(SearchRequest(run=run))
    return context.pictures.find(corpus, position, hidden, chosen), chosen


def _check_version(searched: LiveRun) -> None:
    """Refuse the pictures of a run that are in the store, if another version of its corpus is there by now."""
    run = searched.run
    present = searched.corpus.digest if searched.corpus else ""
    if run.thumbnails == "store" and present != run.corpus_digest:
        raise MissingError(
            f"corpus {run.corpus} was ingested again after run {run.name}, and its pictures are other ones now"
        )


def _find_shown(context: PageContext, corpus: str, position: int, version: str, run: str) -> _Found:
    shown, chosen = find_shown(context, corpus, position, run)
    _check_asked_version(corpus, version, (chosen,) if chosen else context.live.known)
    return _found(shown)


def _found(shown: ShownPicture) -> _Found:
    return _Found(shown.digest, lambda: shown.pixels, lambda: shown.png, lambda: shown.grid_png)


def _check_asked_version(corpus: str, version: str, runs: Iterable[LiveRun]) -> None:
    """Refuse the version that an address names, if none of the runs is of it."""
    digests = [live.run.corpus_digest for live in runs if live.run.corpus == corpus]
    if version and not any(digest.startswith(version) for digest in digests):
        raise _another_version(corpus)


def _another_version(corpus: str) -> MissingError:
    return MissingError(f"corpus {corpus} is another version by now: load the page again")


def _read_scale(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 4 and 1 <= int(text) <= MOST_SCALE):
        raise BadInputError(f"scale {text[:20]!r} is out of range: give a whole number from 1 to {MOST_SCALE}")
    return int(text)


def _enlarge(pixels: Pixels, times: int) -> bytes:
    most = LARGEST_SIDE // max(pixels.shape[:2])
    if times > most:
        raise BadInputError(
            f"scale {times} makes this picture larger than {LARGEST_SIDE:,} pixels a side: ask for up to {max(1, most)}"
        )
    return png_bytes(pixels, times)


def _answer_png(request: Request, asked: _Asked, found: _Found) -> Response:
    if asked.size:
        return _answer(request, f'"{found.tag}-{asked.size}"', found.grid_png, "image/png")
    times = asked.times
    make = found.png if times == 1 else lambda: _enlarge(found.pixels(), times)
    return _answer(request, f'"{found.tag}-{times}"', make, "image/png")


def _answer(request: Request, etag: str, make: Callable[[], bytes], mime: str) -> Response:
    headers = {"ETag": etag, "Cache-Control": CACHE}
    if has_current(request, etag):
        return Response(status_code=304, headers=headers)
    return Response(make(), media_type=mime, headers=headers)
