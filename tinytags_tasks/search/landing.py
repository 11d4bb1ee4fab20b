"""The first page: what can be searched, each tag with examples and how often it is right, and the search box."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import RedirectResponse

from tinytags_tasks.errors import MissingError, TinyTagsError
from tinytags_tasks.review.precision import NOT_MEASURED, PrecisionTable
from tinytags_tasks.search import corrections, situation
from tinytags_tasks.search.accounts import Account
from tinytags_tasks.search.address import page_address, report_address, results_address
from tinytags_tasks.search.box import Box
from tinytags_tasks.search.cards import Frame, frames_of, picture_source
from tinytags_tasks.search.context import LiveRun, PageContext
from tinytags_tasks.search.corrections import NOTICE
from tinytags_tasks.search.grammar import write
from tinytags_tasks.search.images import TaggedImage
from tinytags_tasks.search.kept import Kept
from tinytags_tasks.search.proxies import url
from tinytags_tasks.search.query import SearchPage
from tinytags_tasks.search.request import SearchRequest
from tinytags_tasks.search.results import messages_about

EXAMPLES = 6
"""Pictures of a tag."""

MOST_PLATES = 48
"""Tags with pictures; of more, only the names are shown."""

KEPT_SECONDS = 300.0
"""How long pictures count as good examples; those that are taken down meanwhile are left out."""

PATIENCE_SECONDS = 2.0
"""How long the first page waits for examples; without them it shows the tags alone."""

MOST_TRIES = 3


class Examples:
    """Knows a few pictures of each tag, of what was live some minutes ago."""

    def __init__(self, context: PageContext) -> None:
        self._context = context
        self._tags: tuple[str, ...] = ()
        self._live: tuple[str, ...] = ()
        self._kept = Kept("examples of tags", self._look, KEPT_SECONDS, PATIENCE_SECONDS)

    def of(self, tags: Sequence[str], live: Sequence[str]) -> Mapping[str, tuple[TaggedImage, ...]]:
        """Return pictures of tags that readers may see; a tag lacks if none are known in time.

        Parameters
        ----------
        tags
            The tags.
        live
            What is live: examples of something else are not shown.
        """
        # The order of tags follows their counts, which change with every correction.
        if not set(tags) <= set(self._tags) or self._live != tuple(live):
            self._tags, self._live = tuple(tags), tuple(live)
            self._kept.forget()
        with suppress(TinyTagsError):
            known_live, found = self._kept.get()
            if known_live == self._live:
                hidden = self._context.hidden()
                return {tag: tuple(filter(hidden.shows, found[tag])) for tag in tags if tag in found}
        return {}

    def _look(self) -> tuple[tuple[str, ...], dict[str, tuple[TaggedImage, ...]]]:
        tags, live = self._tags, self._live
        search = self._context.searches.page
        return live, {tag: search(SearchRequest(tags=(tag,), rows=EXAMPLES)).images for tag in tags}


@dataclass(frozen=True)
class Example:
    """A picture of a tag."""

    source: str
    width: int
    height: int
    is_enlarged: bool


@dataclass(frozen=True)
class Plate:
    """A tag with its pictures, how many there are, and how often it is right by corpus."""

    label: str
    count: int
    href: str
    examples: tuple[Example, ...] = ()
    measured: tuple[str, ...] = ()


def add_routes(app: FastAPI, context: PageContext) -> None:
    """Add the first page."""
    examples = Examples(context)

    @app.get("/")
    def landing(request: Request) -> Response:
        if set(request.query_params) - {NOTICE}:  # a kept address, from when results were here
            return RedirectResponse(url(request, results_address(request.query_params.multi_items())))
        try:
            page = context.searches.page(SearchRequest(rows=1))
        except MissingError as error:
            return situation.show(context, request, str(error))
        if not page.total:
            return situation.show(context, request, "")
        return _show(context, request, page, examples)


def _show(context: PageContext, request: Request, page: SearchPage, examples: Examples) -> Response:
    live: tuple[LiveRun, ...] = ()
    with suppress(TinyTagsError):
        live = context.live.runs()
    account: Account = request.state.account
    tables = context.measured.tables(one.run for one in live)
    counts = sorted(page.tag_counts.items(), key=lambda each: (-each[1], each[0]))
    shown = [tag for tag, _ in counts[:MOST_PLATES]]
    pictures = examples.of(shown, [*page.collections, *(one.run.collection for one in live)])
    for images in pictures.values():  # each tag by itself: all of them would be much to fetch for one picture
        context.pictures.expect(images)
    frames = frames_of(context)
    return context.render(
        request,
        "landing.html",
        box=Box(),
        total=page.total,
        tries=_tries(shown),
        tags=[
            Plate(
                tag,
                count,
                _href(tag),
                _examples(pictures.get(tag, ()), frames),
                tuple(_measured(tag, tables, len(live))),
            )
            for tag, count in counts[:MOST_PLATES]
        ],
        more_tags=[Plate(tag, count, _href(tag)) for tag, count in counts[MOST_PLATES:]],
        is_measured=bool(tables),
        not_measured=NOT_MEASURED,
        corpora=[_corpus(one, page, len(live)) for one in live],
        alias=context.settings.alias,
        messages=[*messages_about(page.corpora), *request.app.state.runs.rebuilding()],
        notice=corrections.notice(context, account, request.query_params.get(NOTICE, "")),
        here="/",
    )


def _href(tag: str) -> str:
    return page_address(SearchRequest(tags=(tag,)))


def _tries(tags: Sequence[str]) -> list[dict[str, str]]:
    """Return searches that show what the box understands."""
    searches = []
    if tags:
        searches.append(SearchRequest(tags=tuple(tags[:2])))
        searches.append(SearchRequest(tags=(tags[-1],), min_confidence=60, max_confidence=80))
        searches.append(SearchRequest(without_tags=(tags[0],), min_confidence=90))
    return [{"label": write(search), "href": page_address(search)} for search in searches[:MOST_TRIES]]


def _examples(images: Sequence[TaggedImage], frames: Mapping[str, Frame]) -> tuple[Example, ...]:
    found = []
    for image in images:
        frame = frames.get(image.corpus, Frame())
        source = picture_source(image.corpus, image.position, frame)
        found.append(Example(source, frame.width, frame.height, frame.is_enlarged))
    return tuple(found)


def _measured(tag: str, tables: Mapping[str, PrecisionTable], corpora: int) -> list[str]:
    """Return how often a tag is right, for each corpus on which that was measured."""
    lines = []
    for corpus, table in tables.items():
        of_tag = next((each for each in table.tags if each.tag == tag), None)
        if of_tag and of_tag.precision:
            found = of_tag.precision
            where = f" on {corpus}" if corpora > 1 else ""
            lines.append(f"{found.percent:.0f} % right{where} ({found.low:.0f} to {found.high:.0f} %)")
    return lines


def _corpus(live: LiveRun, page: SearchPage, corpora: int) -> dict[str, Any]:
    facts = [("images", f"{live.run.images:,}")]
    if corpora == 1:
        facts.append(("with a tag", f"{page.total:,}"))
    if live.corpus:
        facts.append(("size", f"{live.corpus.width} by {live.corpus.height} pixels"))
    facts.append(("kept from", f"{live.run.threshold} % confidence"))
    if live.publication:
        facts.append(("published", live.publication.time[:16].replace("T", " ")))
    return {
        "name": live.run.corpus,
        "description": live.corpus.description if live.corpus else "",
        "href": page_address(SearchRequest(corpora=(live.run.corpus,) if corpora > 1 else ())),
        "facts": facts,
        "model": live.run.model,
        "report": report_address(live.run.model),
        "run": live.run.name,
    }
