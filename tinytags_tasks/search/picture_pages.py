"""Single pictures of a corpus, for those who review them; one that was taken down is not served."""

import io
import re

import numpy as np
from fastapi import FastAPI, Request, Response
from PIL import Image

from tinytags_tasks.errors import BadInputError, MissingError
from tinytags_tasks.review.takedowns import taken_down
from tinytags_tasks.search.accounts import Role, require
from tinytags_tasks.search.context import PageContext
from tinytags_tasks.search.present import PresentCorpora
from tinytags_tasks.store.corpus_records import Corpus


def add_routes(app: FastAPI, context: PageContext) -> None:
    """Serve single pictures."""
    corpora = PresentCorpora(context.runtime)

    def find(name: str, position: int, version: str) -> Corpus:
        """Return a corpus with a picture that may be shown; it is of the version asked for, if one is."""
        corpus = corpora.find(name)
        if version and not corpus.digest.startswith(version):
            raise MissingError(f"corpus {name} is another version by now: load the page again")
        if position >= corpus.images:
            raise MissingError(f"corpus {name} has no picture {position}: it has {corpus.images:,}, from 0")
        down = taken_down(corpus, context.runtime.storage)
        at = int(np.searchsorted(down, position))
        if at < len(down) and down[at] == position:
            raise MissingError(f"picture {position} of corpus {name} was taken down")
        return corpus

    @app.get("/pictures/{corpus}/{name}")
    def picture(request: Request, corpus: str, name: str, version: str = "") -> Response:
        require(request, Role.REVIEWER)
        match = re.fullmatch(r"([0-9]{1,12})\.png", name)
        if not match:
            raise BadInputError(f"{name[:40]!r} is no picture: ask for <position>.png")
        position = int(match[1])
        found = find(corpus, position, version)
        etag = f'"{found.digest[:16]}-{position}"'
        # Asked for again each time, so that a picture that was taken down is not shown from a browser's cache.
        headers = {"ETag": etag, "Cache-Control": "private, no-cache"}
        if request.headers.get("if-none-match") == etag:
            return Response(status_code=304, headers=headers)
        pixels = context.stored_images.read(found, position)
        png = io.BytesIO()
        Image.fromarray(pixels).save(png, "PNG")
        return Response(png.getvalue(), media_type="image/png", headers=headers)
