"""Taking found pictures along: a page that says how many there are, and the file."""

import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

from anyio import fail_after
from fastapi import FastAPI, Request, Response
from starlette.responses import JSONResponse, StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from tinytags_tasks.errors import BadInputError, MissingError, TinyTagsError, TransientError
from tinytags_tasks.search.accounts import Account
from tinytags_tasks.search.context import PageContext
from tinytags_tasks.search.export import Export, FindPlaces, Format, file_name, write_export
from tinytags_tasks.search.export_places import GatheredPlaces, are_long
from tinytags_tasks.search.export_progress import Exports, Progress, State
from tinytags_tasks.search.forms import CheckedForm
from tinytags_tasks.search.images import TaggedImage
from tinytags_tasks.search.request import MOST_ROWS, SearchRequest
from tinytags_tasks.search.wanted import Wanted, of_search, patiently, read_wanted, without_page

MOST_EXPORTS = 2
"""Files that are sent at the same time, each to another account: each keeps Solr, and perhaps the store, busy."""

LEAST_RATE = 32 * 1024
"""Bytes a second that the other side must take at least, apart from :data:`PATIENCE_SECONDS` in all.

Otherwise a slow one, or one that stopped, would keep its place for hours.
"""

PATIENCE_SECONDS = 60.0

_log = logging.getLogger(__name__)


def add_routes(app: FastAPI, context: PageContext) -> None:
    """Add what exports pictures."""
    exports = Exports(MOST_EXPORTS)

    @app.get("/export")
    def choose(request: Request) -> Response:
        wanted = of_search(context, without_page(request), context.settings.search_export_images)
        return _show(context, request, wanted, exports)

    @app.get("/export/progress")
    def progress(request: Request) -> Response:
        account: Account = request.state.account
        return _show_progress(context, request, exports.last(account.name))

    @app.post("/export")
    def export(request: Request, form: CheckedForm) -> Response:
        wanted = read_wanted(context, form, context.settings.search_export_images)
        if not form.get("kind"):
            return _show(context, request, wanted, exports)
        try:
            kind = Format(form["kind"])
        except ValueError:
            raise BadInputError(f"{form['kind'][:40]!r} is no kind of file: use {', '.join(Format)}") from None
        if not wanted.images:
            raise MissingError("there is nothing to export: no picture was found")
        account: Account = request.state.account
        return _send(wanted, kind, context, account, exports)


def _show(context: PageContext, request: Request, wanted: Wanted, exports: Exports) -> Response:
    last = exports.last(request.state.account.name)
    return context.render(
        request,
        "export.html",
        wanted=wanted,
        most=context.settings.search_export_images,
        kinds=_kinds(context, wanted),
        last=last.number if last else 0,
    )


def _show_progress(context: PageContext, request: Request, progress: Progress | None) -> Response:
    if "application/json" in request.headers.get("accept", ""):
        if progress is None:
            return JSONResponse({"number": 0})
        known = {"number": progress.number, "images": progress.images, "sent": progress.sent, "state": progress.state}
        return JSONResponse({**known, "text": str(progress)})
    is_under_way = progress is not None and progress.state is State.SENDING
    show = context.render_wait if is_under_way else context.render
    return show(request, "export_progress.html", progress=progress, is_under_way=is_under_way)


def _kinds(context: PageContext, wanted: Wanted) -> list[dict[str, Any]]:
    """Return what there is to choose from, each with about how large it is."""
    image_bytes = max((live.corpus.image_bytes for live in context.live.known if live.corpus), default=3_072)
    about = {
        Format.CSV: (
            90,
            "CSV table",
            "One row a picture: tag, confidence, keyword and where it is. Opens in a spreadsheet.",
        ),
        Format.PARQUET: (image_bytes, "Parquet", "The same columns and the pictures, as on the Hugging Face hub."),
        Format.TAR: (
            image_bytes + 2_560,
            "WebDataset",
            "A tar with a PNG, its tag and all that is known, of each picture.",
        ),
        Format.ZIP: (image_bytes + 250, "Zip of PNGs", "A folder for each tag, and a table of all pictures."),
    }
    return [
        {"kind": kind, "label": label, "text": text, "size": _size(each * wanted.images)}
        for kind, (each, label, text) in about.items()
    ]


def _size(size_bytes: int) -> str:
    for unit, of_bytes in (("GB", 10**9), ("MB", 10**6)):
        if size_bytes >= of_bytes:
            return f"about {size_bytes / of_bytes:.1f} {unit}"
    return f"about {max(1, size_bytes // 1000)} kB"


class BrokenOffError(Exception):
    """Breaks the sending of a file off, so that nobody takes it for whole.

    It is none of our errors: those become pages, and it is too late for a page once a file has begun.
    """


class _Sending(StreamingResponse):
    """A file that has a place while it is sent: a refusal is still a page, because nothing was sent by then."""

    def __init__(
        self,
        content: Iterator[bytes],
        exports: Exports,
        account: str,
        progress: Progress,
        **more: Any,  # noqa: ANN401 - as StreamingResponse has it
    ) -> None:
        super().__init__(content, **more)
        self._exports = exports
        self._account = account
        self._progress = progress

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sent_bytes, waited_seconds = 0, 0.0

        async def send_in_time(message: Message) -> None:
            nonlocal sent_bytes, waited_seconds
            started = time.monotonic()
            try:
                with fail_after(PATIENCE_SECONDS + sent_bytes / LEAST_RATE - waited_seconds):
                    await send(message)
            except TimeoutError as error:
                self._progress.problem = f"fewer than {LEAST_RATE:,} bytes a second were taken"
                raise BrokenOffError(f"{self._account} takes fewer than {LEAST_RATE} bytes a second") from error
            sent_bytes += len(message.get("body", b""))
            waited_seconds += time.monotonic() - started

        with self._exports.place(self._account, self._progress):
            await super().__call__(scope, receive, send_in_time)


def _complete(context: PageContext, run: str, images: tuple[TaggedImage, ...]) -> tuple[TaggedImage, ...]:
    digests = context.searches.digests(run) if any(image.is_in_store for image in images) else None
    found = context.stored_images.complete(images, digests)
    if lacking := [image for image in found if image.image is None and image.is_in_store]:
        raise TransientError(lacking[0].missing)
    return found


def _send(wanted: Wanted, kind: Format, context: PageContext, account: Account, exports: Exports) -> Response:
    progress = Progress(file_name(wanted.name, wanted.images, kind), wanted.images)

    def content() -> Iterator[bytes]:
        try:
            yield from _content(wanted, kind, context, progress)
        except TinyTagsError as error:
            _log.warning("the export of %d pictures for %s broke off: %s", wanted.images, account.name, error)
            progress.problem = _told(error)
            raise BrokenOffError(str(error)) from error
        progress.state = State.WHOLE

    headers = {"Content-Disposition": f'attachment; filename="{progress.name}"', "X-Images": str(wanted.images)}
    return _Sending(content(), exports, account.name, progress, media_type=kind.mime, headers=headers)


def _told(error: TinyTagsError) -> str:
    """Return why a file broke off, without what only the log should say."""
    if isinstance(error, TransientError):
        return "an engine behind the search page did not answer"
    return "what is published changed meanwhile, or an image cannot be read; the log of the search page says which"


def _content(wanted: Wanted, kind: Format, context: PageContext, progress: Progress) -> Iterator[bytes]:
    def complete(images: tuple[TaggedImage, ...]) -> tuple[TaggedImage, ...]:
        return patiently(lambda: _complete(context, wanted.run, images))

    is_at_most = context.searches.hidden(SearchRequest(run=wanted.run)).is_left_out_later
    corpora = context.searches.corpora(wanted.run)
    storage = context.runtime.storage
    with ExitStack() as stack:
        places: FindPlaces = lambda images: context.source_places.of_images(images, corpora)  # noqa: E731 - or another
        if wanted.images > MOST_ROWS and are_long(corpora.values(), storage):
            gathered = stack.enter_context(GatheredPlaces(corpora, storage))
            for looked_up in gathered.gather(wanted.pages(False)):
                progress.looked_up = looked_up
                yield b""  # whoever waits may go away meanwhile
            places = gathered.of
        export = Export(wanted.pages(kind.has_pixels), wanted.images, complete, is_at_most, places, progress.send)
        yield from write_export(export, kind)
