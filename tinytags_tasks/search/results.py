"""The results of a search: pictures with what narrows them, page by page."""

import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from fastapi import FastAPI, Request, Response
from fastapi.responses import RedirectResponse

from tinytags_tasks.corpus.keywords import LONGEST
from tinytags_tasks.document_fields import FIELDS
from tinytags_tasks.errors import BadInputError, MissingError, TinyTagsError
from tinytags_tasks.near_names import nearest
from tinytags_tasks.review.precision import NOT_MEASURED
from tinytags_tasks.search import corrections, filters, search_forms, similar, situation
from tinytags_tasks.search.accounts import Account
from tinytags_tasks.search.address import PAGE_PARAMETERS, page_address, read_address, results_address
from tinytags_tasks.search.box import Box
from tinytags_tasks.search.cards import Frame, frames_of, make_cards, picture_address, picture_source
from tinytags_tasks.search.context import PageContext
from tinytags_tasks.search.corrections import NOTICE
from tinytags_tasks.search.filters import Chip
from tinytags_tasks.search.images import TaggedImage
from tinytags_tasks.search.proxies import url
from tinytags_tasks.search.query import SearchPage
from tinytags_tasks.search.request import LAST_SEED, SearchRequest, Sort
from tinytags_tasks.store import layout

DRAWN = "drawn"
"""Corpora whose names start so hold generated pictures."""

ROW_CHOICES = (30, 60, 100)

SIZE = "size"
"""The parameter that chooses how large pictures are shown, and the cookie that remembers it."""

SIZES = {"small": "Small", "medium": "Medium", "large": "Large"}
USUAL_SIZE = "medium"
_A_YEAR_SECONDS = 365 * 86_400

MOST_TAGS_SHOWN = 30
"""Tags among the filters; more are there to unfold."""

MOST_REPAIRS = 6

MOST_REPAIRED = 3
"""Tags for which similar ones are looked for, if nothing is found."""

_HANDED_IN = (
    "These are the most similar to the picture that you chose, which was not kept: filters and sorting begin another "
    "search."
)


def add_routes(app: FastAPI, context: PageContext) -> None:
    """Add the results of searches."""
    app.state.runs = situation.Runs(context)

    @app.get("/similar")
    def alike(request: Request) -> Response:
        rest = [(name, value) for name, value in request.query_params.multi_items() if name != "sort"]
        return RedirectResponse(url(request, results_address([*rest, ("sort", Sort.SIMILAR.value)])))

    @app.get("/search")
    def results(request: Request) -> Response:
        parameters = request.query_params
        if SIZE in parameters:
            return _remember_size(request, parameters[SIZE])
        try:
            if search_forms.is_form(parameters):
                search = search_forms.read_form(parameters)
                return RedirectResponse(url(request, page_address(search)), status_code=303)
            search = read_address(parameters, PAGE_PARAMETERS | {NOTICE})
            return show_results(context, request, search)
        except BadInputError as error:
            box = Box.wrong(parameters.get(search_forms.TEXT, ""), error)
            return context.render(request, "search_problem.html", status=400, box=box)


def show_results(
    context: PageContext, request: Request, search: SearchRequest, found: SearchPage | None = None
) -> Response:
    """Return the page with what a search finds, or found already, or with why nothing can be found.

    Raises
    ------
    BadInputError
        If what is live cannot be searched so.
    EngineDownError
        If Solr does not answer.
    """
    try:
        page = _find(context, search) if found is None else _with_counts(context, search, found)
    except MissingError as error:
        if search.run or search.cursor or search.similar_to or (search.corpora and context.live.known):
            raise
        return situation.show(context, request, str(error))
    if not page.total and not search.is_filtered and not search.run:
        return situation.show(context, request, "")
    search = page.request or search  # tags as they are written in what is searched
    measured = context.searches.tables(search)
    account: Account = request.state.account
    frames = frames_of(context, search.run)
    cards = make_cards(context, page.images, frames, measured)
    return context.render(
        request,
        "search.html",
        **_asked(search, page),
        **_filters(search, page, is_measured=bool(measured)),
        **_pager(search, page),
        runs=request.app.state.runs.names(search.run),
        page=page,
        images=cards,
        like=_like(search, frames),
        milliseconds=round(page.seconds * 1000),
        messages=[
            *([] if found is None else [_HANDED_IN]),
            *messages_about(page.corpora, is_moved=page.moved, left_out=page.left_out),
            *([] if search.run else request.app.state.runs.rebuilding()),
        ],
        density=request.cookies.get(SIZE) if request.cookies.get(SIZE) in SIZES else USUAL_SIZE,
        densities=_sizes(search, request.cookies.get(SIZE, USUAL_SIZE)),
        repairs=_repairs(search, page),
        notice=corrections.notice(context, account, request.query_params.get(NOTICE, "")),
        here=page_address(search, cursor=search.cursor),
        export_all=_address_of_all("/export", search) if found is None else "",
        review_all=_address_of_all("/review-sets", search),
        correct_all=_address_of_all("/corrections/all", search),
        run=_run_names(context, search, page.images),
    )


def _find(context: PageContext, search: SearchRequest) -> SearchPage:
    if search.sort is not Sort.SIMILAR:
        return context.searches.page(search)
    return _with_counts(context, search, similar.similar_to(context, search))


def _with_counts(context: PageContext, search: SearchRequest, alike: SearchPage) -> SearchPage:
    """Return a page of pictures that are alike with the counts of the search without that."""
    counted = context.searches.page(replace(search, sort=Sort.CONFIDENCE, similar_to="", cursor=None, rows=1))
    return replace(
        alike,
        tag_counts=counted.tag_counts,
        confidence_counts=counted.confidence_counts,
        models=counted.models,
        corpora=counted.corpora,
    )


def messages_about(corpora: Sequence[str], *, is_moved: bool = False, left_out: Sequence[str] = ()) -> list[str]:
    """Return what has to be said above pictures."""
    found = []
    if any(corpus.startswith(DRAWN) for corpus in corpora):
        found.append("These are generated pictures (drawn shapes), not photographs.")
    if is_moved:
        found.append("Something was published since the page before this one; this page continues in what is live now.")
    if left_out:
        found.append(f"Not searched, because it was not indexed for this: {', '.join(left_out)}.")
    return found


def _asked(search: SearchRequest, page: SearchPage) -> dict[str, Any]:
    return {
        "search": search,
        "box": Box.of(search),
        "chips": filters.make_chips(search),
        "sorts": _sorts(search),
        "row_choices": [
            {"label": str(rows), "href": page_address(search, rows=rows), "is_chosen": rows == search.rows, "hint": ""}
            for rows in sorted({*ROW_CHOICES, search.rows})
        ],
    }


def _filters(search: SearchRequest, page: SearchPage, *, is_measured: bool) -> dict[str, Any]:
    rest = {
        "cursor": None,
        "start": 0,
        "min_confidence": 0,
        "max_confidence": 100,
        "words": (),
        "without_words": (),
        "block": None,
        "run": "",
        "is_one_of_alike": False,
    }
    corpora = sorted({*page.corpora, *search.corpora})
    if len(corpora) > 1:
        rest["corpora"] = ()
    has_precision = is_measured or search.has_precision
    if has_precision:
        rest |= {"min_precision": 0, "max_precision": 100}
    return {
        "fields": {field.name: field for field in FIELDS},
        "tags": filters.make_tag_choices(search, page.tag_counts),
        "most_tags": MOST_TAGS_SHOWN,
        "confidence": filters.confidence_range(search, page),
        "precision": filters.precision_range(search) if has_precision else None,
        "not_measured": NOT_MEASURED,
        "words": search_forms.words_as_text(search),
        "longest_keyword": LONGEST,
        "corpora": [{"name": corpus, "is_chosen": corpus in search.corpora} for corpus in corpora],
        "kept": parse_qsl(urlsplit(page_address(search, **rest)).query),
    }


def _pager(search: SearchRequest, page: SearchPage) -> dict[str, Any]:
    def link(cursor: str | None) -> str | None:
        return page_address(search, cursor=cursor) if cursor else None

    is_first = search.cursor is None and not search.start
    return {
        "first": None if is_first else page_address(search),
        "previous": None if is_first else link(page.previous_cursor),
        "next": link(page.next_cursor),
    }


def _sorts(search: SearchRequest) -> list[dict[str, Any]]:
    orders = [
        (Sort.CONFIDENCE, "Confidence", "the most confident first"),
        (Sort.POSITION, "Position", "as in the corpus"),
    ]
    if search.similar_to:
        orders.insert(0, (Sort.SIMILAR, "Most similar", f"to {search.similar_to}"))
    found = [
        {
            "label": label,
            "href": page_address(search, sort=order, seed=0),
            "is_chosen": search.sort is order,
            "hint": hint,
        }
        for order, label, hint in orders
    ]
    is_random = search.sort is Sort.RANDOM
    shuffled = page_address(search, sort=Sort.RANDOM, seed=secrets.randbelow(min(LAST_SEED, 100_000)) + 1)
    hint = "shuffle again; the address keeps the order" if is_random else "shuffled; the address keeps the order"
    found.append({"label": "Random", "href": shuffled, "is_chosen": is_random, "hint": hint})
    return found


def _sizes(search: SearchRequest, chosen: str) -> list[dict[str, Any]]:
    here = page_address(search, cursor=search.cursor)
    chosen = chosen if chosen in SIZES else USUAL_SIZE
    return [
        {"label": label, "href": _with(here, {SIZE: name}), "is_chosen": name == chosen, "hint": ""}
        for name, label in SIZES.items()
    ]


def _with(address: str, more: dict[str, str]) -> str:
    return f"{address}{'&' if '?' in address else '?'}{urlencode(more)}"


def _remember_size(request: Request, size: str) -> Response:
    """Note how large someone wants pictures, and return to the page without that in its address."""
    if size not in SIZES:
        raise BadInputError(f"{size[:100]!r} is not a size: use {', '.join(SIZES)}")
    rest = [(name, value) for name, value in request.query_params.multi_items() if name != SIZE]
    answer = RedirectResponse(url(request, results_address(rest)), status_code=303)
    answer.set_cookie(SIZE, size, max_age=_A_YEAR_SECONDS, path=url(request, "/"), httponly=True, samesite="lax")
    return answer


def _repairs(search: SearchRequest, page: SearchPage) -> list[Chip]:
    """Return searches that may find something, if this one finds nothing."""
    if page.total:
        return []
    found = []
    for tag in search.tags[:MOST_REPAIRED]:
        for near in nearest(tag, page.tag_counts, most=2):
            tags = tuple(near if each == tag else each for each in search.tags)
            found.append(Chip(f"with {near} instead of {tag}", page_address(search, tags=tags)))
    at_any = sum(page.confidence_counts.values())
    if at_any:
        href = page_address(search, min_confidence=0, max_confidence=100)
        found.append(Chip(f"at any confidence: {at_any:,} {'image' if at_any == 1 else 'images'}", href))
    chips = filters.make_chips(search)
    if len(chips) > 1:
        found += [Chip(f"without {chip.label}", chip.href) for chip in chips]
    return found[:MOST_REPAIRS] or [Chip("all images", page_address(SearchRequest()))]


def _like(search: SearchRequest, frames: Mapping[str, Frame]) -> dict[str, str] | None:
    """Return the picture that others are compared with; None without one."""
    with suppress(BadInputError):
        corpus, position = layout.read_document_id(search.similar_to)
        return {
            "label": f"image {position:,} of {corpus}",
            "address": picture_address(corpus, position),
            "source": picture_source(corpus, position, frames.get(corpus, Frame())),
        }
    return None


def _address_of_all(page: str, search: SearchRequest) -> str:
    """Return the address of a page that takes all that a search finds."""
    _, _, query = page_address(search, rows=SearchRequest.rows).partition("?")
    return f"{page}?{query}" if query else page


def _run_names(context: PageContext, search: SearchRequest, images: Sequence[TaggedImage]) -> str:
    """Return the runs that images are shown of, one of each corpus, if they are known: words then name theirs."""
    if search.run:
        return search.run
    with suppress(TinyTagsError):
        corpora = {image.corpus for image in images}
        return ",".join(live.run.name for live in context.live.runs() if live.run.corpus in corpora)
    return ""
