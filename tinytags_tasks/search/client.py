"""A client of the API for Python programs: it answers with the same types as the API, and knows its cursors and limits.

For example, all cats that the model is sure of, however many there are::

    with Client("http://127.0.0.1:8765", "ada", password) as tinytags:
        for image in tinytags.search(tag=["cat"], confidence=90):
            print(image.id, image.confidence)
"""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from tinytags_tasks.corpus.picture_kinds import kind_of
from tinytags_tasks.errors import BadInputError, CorruptError, EngineDownError, MissingError
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
)
from tinytags_tasks.search.api_parameters import (
    FilterParameters,
    PageParameters,
    SearchParameters,
    SimilarParameters,
    UploadParameters,
)
from tinytags_tasks.search.problems import V1, Problem

TIMEOUT_SECONDS = 60.0
PATIENCE_SECONDS = 180.0
"""How long a call is made again while the server says that it was one too many, or that an engine is away."""

_LATER = (429, 503)
_UNTOLD_SECONDS = 5.0

Answer = TypeVar("Answer", bound=BaseModel)


class Client:
    """Asks one TinyTags.

    Every method raises ``BadInputError`` if what was asked for is not valid or not allowed, ``MissingError`` if it is
    not there, and ``EngineDownError`` if the server did not answer, or not in time.

    Parameters
    ----------
    url
        Where the search page is, with its base path if it has one.
    user, password
        An account.
    http
        What sends requests, instead of a client of its own.
    sleep
        Waits for some seconds.
    """

    def __init__(
        self,
        url: str,
        user: str,
        password: str,
        *,
        http: httpx.Client | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._base = url.rstrip("/") + V1
        self._login = httpx.BasicAuth(user, password)
        self._http = http or httpx.Client(timeout=TIMEOUT_SECONDS)
        self._sleep = sleep

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close its connections."""
        self._http.close()

    def search(self, **asked: Any) -> Iterator[Image]:  # noqa: ANN401 - the fields of SearchParameters
        """Yield all images that a search finds, page by page; the fields are those of ``SearchParameters``."""
        asked.setdefault("rows", 100)
        while True:
            page = self.search_page(**asked)
            yield from page.images
            if page.next_cursor is None:
                return
            asked["cursor"] = page.next_cursor

    def search_page(self, **asked: Any) -> SearchAnswer:  # noqa: ANN401 - as above
        """Return one page of what a search finds."""
        return self._get("/search", SearchAnswer, _checked(SearchParameters, asked))

    def facets(self, **asked: Any) -> Facets:  # noqa: ANN401 - the fields of FilterParameters
        """Return the counts of what a search finds."""
        return self._get("/facets", Facets, _checked(FilterParameters, asked))

    def similar(self, to: str, **asked: Any) -> list[Image]:  # noqa: ANN401 - the fields of SimilarParameters
        """Return the images that look most like a published one."""
        return self._get("/similar", SearchAnswer, _checked(SimilarParameters, {"to": to, **asked})).images

    def similar_to_picture(self, picture: bytes, **asked: Any) -> list[Image]:  # noqa: ANN401 - UploadParameters
        """Return the images that look most like a picture: the bytes of a JPEG, PNG or WebP file, which is not stored.

        Further parameters are the fields of ``UploadParameters``.
        """
        headers = {"Content-Type": picture_type(picture)}
        parameters = _checked(UploadParameters, asked)
        return self._read("POST", "/similar", SearchAnswer, parameters, content=picture, headers=headers).images

    def image(self, id: str, run: str = "") -> ImageDetails:
        """Return what is known of an image."""
        return self._get(f"/images/{id}", ImageDetails, {"run": run})

    def picture(self, id: str, run: str = "") -> bytes:
        """Return an image's picture as a PNG."""
        return self._ask("GET", f"/images/{id}.png", {"run": run}).content

    def health(self) -> Health:
        """Return that the process lives."""
        return self._get("/health", Health, {})

    def ready(self) -> Health:
        """Return that searches can be answered; raises ``EngineDownError`` if they cannot, after some patience."""
        return self._get("/ready", Health, {})

    def tags(self) -> Tags:
        """Return the tags of what is live."""
        return self._get("/tags", Tags, {})

    def models(self) -> Iterator[Model]:
        """Yield the models, the newest first."""
        cursor: str | None = None
        while True:
            page = self._get("/models", Models, _checked(PageParameters, {"rows": 100, "cursor": cursor}))
            yield from page.models
            if (cursor := page.next_cursor) is None:
                return

    def runs(self) -> Iterator[RunSummary]:
        """Yield the runs, the newest first."""
        cursor: str | None = None
        while True:
            page = self._get("/runs", Runs, _checked(PageParameters, {"rows": 100, "cursor": cursor}))
            yield from page.runs
            if (cursor := page.next_cursor) is None:
                return

    def _get(self, path: str, kind: type[Answer], parameters: Mapping[str, Any]) -> Answer:
        return self._read("GET", path, kind, parameters)

    def _read(
        self,
        method: str,
        path: str,
        kind: type[Answer],
        parameters: Mapping[str, Any],
        **sent: Any,  # noqa: ANN401 - what httpx.Client.request takes
    ) -> Answer:
        answer = self._ask(method, path, parameters, **sent)
        try:
            return kind.model_validate_json(answer.content)
        except ValidationError as error:
            raise CorruptError(
                f"{self._base}{path}: this is no TinyTags, or another version of it ({error})"
            ) from error

    def _ask(
        self,
        method: str,
        path: str,
        parameters: Mapping[str, Any],
        **sent: Any,  # noqa: ANN401 - as above
    ) -> httpx.Response:
        deadline = time.monotonic() + PATIENCE_SECONDS
        given = {name: value for name, value in parameters.items() if value not in ("", None)}
        while True:
            try:
                answer = self._http.request(method, self._base + path, params=given, auth=self._login, **sent)
            except httpx.HTTPError as error:
                raise EngineDownError(f"{self._base}: no answer ({type(error).__name__}: {error})") from error
            pause = _pause(answer)
            if answer.status_code not in _LATER or time.monotonic() + pause > deadline:
                break
            self._sleep(pause)
        if not answer.is_success:
            raise _error(answer)
        return answer


def _checked(kind: type[BaseModel], asked: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters as they are sent, without those that have their default."""
    try:
        return kind.model_validate(dict(asked)).model_dump(exclude_defaults=True)
    except ValidationError as error:
        first = error.errors()[0]
        raise BadInputError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def picture_type(picture: bytes) -> str:
    """Return the media type of a picture's file.

    Raises
    ------
    BadInputError
        If it is none that the API takes.
    """
    if kind := kind_of(picture):
        return f"image/{kind.lower()}"
    raise BadInputError("this is no JPEG, PNG or WebP file: convert the picture to one of these")


def _pause(answer: httpx.Response) -> float:
    told = answer.headers.get("retry-after", "")
    return float(told) if told.isascii() and told.isdigit() else _UNTOLD_SECONDS


def _error(answer: httpx.Response) -> BadInputError | MissingError | EngineDownError:
    """Return the error that an answer is, in the server's own words if it is one of ours."""
    try:
        detail = Problem.model_validate_json(answer.content).detail
    except ValidationError:
        detail = f"{answer.url}: answered {answer.status_code}"
    if answer.status_code == 404:
        return MissingError(detail)
    return EngineDownError(detail) if answer.status_code >= 500 or answer.status_code == 429 else BadInputError(detail)
