"""The API for programs, ``/api/v1``: typed, described at ``/api/openapi.json``, with problem details for failures."""

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Query, Request, Response

from tinytags_tasks.errors import BadInputError, MissingError
from tinytags_tasks.search.api_models import (
    Facets,
    Health,
    Image,
    ImageDetails,
    Model,
    Models,
    Runs,
    RunSummary,
    SearchAnswer,
    Tags,
    tag_counts,
)
from tinytags_tasks.search.api_parameters import (
    FilterParameters,
    ImageParameters,
    NoParameters,
    PageParameters,
    SearchParameters,
    SimilarParameters,
    UploadParameters,
    refuse_repeated,
)
from tinytags_tasks.search.conditional import answer_bytes, answer_json
from tinytags_tasks.search.context import PageContext
from tinytags_tasks.search.embedder import MOST_PICTURE_BYTES
from tinytags_tasks.search.forms import read_body
from tinytags_tasks.search.kept import Kept
from tinytags_tasks.search.picture_files import find_shown
from tinytags_tasks.search.problems import KINDS, MEDIA_TYPE, V1, Problem, problem_response
from tinytags_tasks.search.proxies import url
from tinytags_tasks.search.readiness import Readiness
from tinytags_tasks.search.request import SearchRequest
from tinytags_tasks.search.shown_pictures import ShownPicture
from tinytags_tasks.search.similar import similar_to, similar_to_picture
from tinytags_tasks.store import layout
from tinytags_tasks.store.ledger import list_runs
from tinytags_tasks.store.models import list_models

LISTED_SECONDS = 10.0
"""How long lists of models and of runs count as current."""

T = TypeVar("T")


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    content = {MEDIA_TYPE: {"schema": {"$ref": f"#/components/schemas/{Problem.__name__}"}}}
    return {status: {"description": KINDS[status].meaning, "content": content} for status in statuses}


_PNG: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/png": {"schema": {"type": "string", "format": "binary"}}}}
}
PICTURE_TYPES = ("image/jpeg", "image/png", "image/webp")
"""What an upload may be; no form of another site's page can be called so."""

_PICTURE = {
    "requestBody": {
        "required": True,
        "content": {name: {"schema": {"type": "string", "format": "binary"}} for name in PICTURE_TYPES},
    }
}
_UNCHANGED: dict[int | str, dict[str, Any]] = {304: {"description": "It is as If-None-Match says."}}
_Nothing = Annotated[NoParameters, Query()]


def make_router(context: PageContext) -> APIRouter:
    """Return the API's routes."""
    router = APIRouter(
        prefix=V1,
        dependencies=[Depends(refuse_repeated)],
        responses=_problems(400, 401, 403, 429, 500, 503) | _UNCHANGED,
    )
    _add_search(router, context)
    _add_similar(router, context)
    _add_images(router, context)
    _add_lists(router, context)
    _add_state(router, context)
    return router


def _add_search(router: APIRouter, context: PageContext) -> None:
    searches = context.searches

    @router.get("/search", response_model=SearchAnswer, responses=_problems(404))
    def search(request: Request, asked: Annotated[SearchParameters, Query()]) -> Response:
        """Find images; the cursors of an answer lead to the pages after and before it, at any depth."""
        wanted = asked.request()
        page = searches.page(wanted)
        found = SearchAnswer.of(page, searches.tables(wanted), url(request, ""), wanted.run)
        return answer_json(request, found, page.seconds)

    @router.get("/facets", response_model=Facets, responses=_problems(404))
    def facets(request: Request, asked: Annotated[FilterParameters, Query()]) -> Response:
        """Count what a search would find, by tag and by confidence."""
        page = searches.page(asked.request())
        return answer_json(request, Facets.of(page), page.seconds)

    @router.get("/tags", response_model=Tags, responses=_problems(404))
    def tags(request: Request, asked: _Nothing) -> Response:
        """List the tags of what is live, with the number of their images."""
        page = searches.page(SearchRequest(rows=1))
        return answer_json(request, Tags(total=page.total, tags=tag_counts(page)), page.seconds)


def _add_similar(router: APIRouter, context: PageContext) -> None:
    @router.get("/similar", response_model=SearchAnswer, responses=_problems(404))
    def similar(request: Request, asked: Annotated[SimilarParameters, Query()]) -> Response:
        """Find the images that look most like a published one; there is one page of them."""
        page = similar_to(context, asked.request())
        return answer_json(request, SearchAnswer.of(page, context.searches.tables(), url(request, "")), page.seconds)

    @router.post("/similar", response_model=SearchAnswer, responses=_problems(404, 408), openapi_extra=_PICTURE)
    def similar_upload(
        request: Request, asked: Annotated[UploadParameters, Query()], encoded: Annotated[bytes, Depends(_read_picture)]
    ) -> Response:
        """Find the images that look most like a picture, which is not stored: a JPEG, PNG or WebP file as the body."""
        page = similar_to_picture(context, asked.request(), encoded)
        return answer_json(request, SearchAnswer.of(page, context.searches.tables(), url(request, "")), page.seconds)


async def _read_picture(request: Request) -> AsyncIterator[bytes]:
    """Yield the file that is the body; its type is one that a page of another site may only send if it is let in.

    Raises
    ------
    BadInputError
        If it is called something else, or is too large.
    BusyError
        If too many others hand in pictures.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() not in PICTURE_TYPES:
        raise BadInputError(f"send a picture as the body, with the header Content-Type: {' or '.join(PICTURE_TYPES)}")
    with request.app.state.context.embedder.place():
        yield await read_body(request, MOST_PICTURE_BYTES, "send a smaller picture")


def _add_images(router: APIRouter, context: PageContext) -> None:
    def find(name: str, run: str) -> ShownPicture:
        return find_shown(context, *layout.read_document_id(name), run)[0]

    @router.get("/images/{id}.png", response_class=Response, responses=_PNG | _problems(404))
    def picture(request: Request, id: str, asked: Annotated[ImageParameters, Query()]) -> Response:
        """Return a published image's picture as a PNG."""
        shown = find(id, asked.run.strip())
        return answer_bytes(request, shown.png, shown.digest, "image/png")

    @router.get("/images/{id}", response_model=ImageDetails, responses=_problems(404))
    def image(request: Request, id: str, asked: Annotated[ImageParameters, Query()]) -> Response:
        """Return what is known of a published image, and which file it comes from."""
        run = asked.run.strip()
        found = find(id, run).image
        measured = context.searches.tables(SearchRequest(run=run))
        corpus = context.searches.corpora(run).get(found.corpus)
        place = context.source_places.find(corpus, found.position) if corpus else None
        details = ImageDetails.with_place(Image.of(found, measured, url(request, ""), run), place)
        return answer_json(request, details)


def _add_lists(router: APIRouter, context: PageContext) -> None:
    def ignore(_: str) -> None:
        """Leave out a damaged record: `tinytags models` and `tinytags runs` name it, with the remedy."""

    runtime = context.runtime
    models_kept = Kept("the models", lambda: list_models(runtime.storage, on_damage=ignore)[::-1], LISTED_SECONDS)
    runs_kept = Kept("the runs", lambda: list_runs(runtime.storage, on_damage=ignore)[::-1], LISTED_SECONDS)

    @router.get("/models", response_model=Models)
    def models(request: Request, asked: Annotated[PageParameters, Query()]) -> Response:
        """List the models, the newest first."""
        page, cursor = _page(models_kept.get(), asked, lambda card: card.version)
        live = context.live.runs()
        found = [Model.of(card, live, url(request, "")) for card in page]
        return answer_json(request, Models(models=found, next_cursor=cursor))

    @router.get("/runs", response_model=Runs)
    def runs(request: Request, asked: Annotated[PageParameters, Query()]) -> Response:
        """List the runs, the newest first."""
        page, cursor = _page(runs_kept.get(), asked, lambda run: run.name)
        live = context.live.runs()
        return answer_json(request, Runs(runs=[RunSummary.of(run, live) for run in page], next_cursor=cursor))


def _add_state(router: APIRouter, context: PageContext) -> None:
    readiness = Readiness(context.searches)

    @router.get("/health", response_model=Health)
    async def health(asked: _Nothing) -> Health:  # needs no thread: it answers while all of them wait
        """Say that the process lives; needs no account."""
        return Health(status="ok")

    @router.get("/ready", response_model=Health)
    def ready(request: Request, asked: _Nothing) -> Response:
        """Say whether searches can be answered: Solr answers, and something is published."""
        try:
            readiness.check()
        except MissingError as error:
            return problem_response(request, 503, str(error))
        return answer_json(request, Health(status="ready"))


def _page(entries: Sequence[T], asked: PageParameters, name: Callable[[T], str]) -> tuple[Sequence[T], str | None]:
    """Return a page of a list, and the cursor of the next one: the name of this one's last entry."""
    start = 0
    if asked.cursor is not None:
        places = (number for number, entry in enumerate(entries, 1) if name(entry) == asked.cursor)
        start = next(places, -1)
        if start < 0:
            raise BadInputError("this cursor is not, or no more, one of this list: begin again without one")
    page = entries[start : start + asked.rows]
    return page, name(page[-1]) if start + asked.rows < len(entries) else None
