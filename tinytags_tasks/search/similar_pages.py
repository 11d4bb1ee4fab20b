"""Pictures that readers hand in, to see what looks like them: the form's answer is a page of results."""

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, FastAPI, Request, Response
from starlette.datastructures import ImmutableMultiDict, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from tinytags_tasks.errors import BadInputError
from tinytags_tasks.search.address import PAGE_PARAMETERS, read_address
from tinytags_tasks.search.context import PageContext
from tinytags_tasks.search.embedder import MOST_PICTURE_BYTES
from tinytags_tasks.search.forms import check_form, read_body
from tinytags_tasks.search.results import show_results
from tinytags_tasks.search.similar import similar_to_picture

_KIND = "multipart/form-data"
_MOST_FIELDS = 10
_OTHER_BYTES = 2**16
"""What a form has besides the picture, at most."""


@dataclass(frozen=True)
class HandedIn:
    """A form with a picture, whose token was checked."""

    picture: bytes


async def read_picture_form(request: Request) -> AsyncIterator[HandedIn]:
    """Yield the picture that a form of our pages brings; it is kept in memory only, until the answer was sent.

    Raises
    ------
    BadInputError
        If it is not such a form, or too large.
    HTTPException
        If another site sent it.
    BusyError
        If too many others hand in pictures.
    """
    with request.app.state.context.embedder.place():
        yield await _read(request)


async def _read(request: Request) -> HandedIn:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _KIND:
        raise BadInputError(f"send the picture in a form, as {_KIND}")
    body = await read_body(request, MOST_PICTURE_BYTES + _OTHER_BYTES)

    async def whole() -> AsyncGenerator[bytes]:
        yield body

    parser = MultiPartParser(request.headers, whole(), max_files=1, max_fields=_MOST_FIELDS, max_part_size=_OTHER_BYTES)
    parser.spool_max_size = len(body) + 1  # so that it never writes a file
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise BadInputError(f"the form cannot be read ({error.message})") from error
    check_form(
        request, ImmutableMultiDict([(name, text) for name, text in form.multi_items() if isinstance(text, str)])
    )
    picture = form.get("picture")
    if not isinstance(picture, UploadFile):
        raise BadInputError("choose a picture to compare with: a JPEG, PNG or WebP file")
    return HandedIn(await picture.read())


def add_routes(app: FastAPI, context: PageContext) -> None:
    """Add the form's answer."""

    @app.post("/similar")
    def similar(request: Request, handed_in: Annotated[HandedIn, Depends(read_picture_form)]) -> Response:
        search = read_address(request.query_params, PAGE_PARAMETERS)
        page = similar_to_picture(context, search, handed_in.picture)
        return show_results(context, request, search, page)
