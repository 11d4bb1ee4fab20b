"""The store's folders and files in a browser, for operators: what the original had Hue for."""

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse

from tinytags_tasks.errors import MissingError
from tinytags_tasks.search.accounts import Role, require
from tinytags_tasks.search.context import PageContext
from tinytags_tasks.store.protocol import Storage

ROWS = 500
"""Names that a page lists; the next page begins after the last of them."""

LONGEST_SHOWN = 256 * 1024
"""Bytes of a record that is shown as text; a longer one can be downloaded."""

PIECE_BYTES = 4 * 2**20
"""Of a download: how much of a file is in memory at once."""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._=-]*")
"""A name in the store; no leading dot, so neither a parent folder nor a temporary file."""


def add_routes(app: FastAPI, context: PageContext) -> None:
    """Add the pages of the store."""

    @app.get("/store")
    @app.get("/store/{path:path}")
    def show(request: Request, path: str = "", after: str = "") -> Response:
        require(request, Role.OPERATOR)
        storage = context.runtime.storage
        parts = _parts(path)
        size = _file_size(storage, parts)
        path = "/".join(parts)
        seen = _folder(storage, path, after) if size is None else {"record": _record(storage, path, size), "size": size}
        return context.render(
            request,
            "store.html",
            path=path,
            parents=[(part, "/store/" + "/".join(parts[: at + 1])) for at, part in enumerate(parts[:-1])],
            name=parts[-1] if parts else "",
            **{"rows": [], "more": "", "count": 0, "record": "", "size": None, **seen},
        )

    @app.get("/store-files/{path:path}")
    def download(request: Request, path: str) -> Response:
        require(request, Role.OPERATOR)
        storage = context.runtime.storage
        parts = _parts(path)
        size = _file_size(storage, parts)
        if size is None:
            raise MissingError(f"{path} is a folder: choose one of its files")
        headers = {"Content-Length": str(size), "Content-Disposition": f'attachment; filename="{parts[-1]}"'}
        pieces = _pieces(storage, "/".join(parts), size)
        return StreamingResponse(pieces, media_type="application/octet-stream", headers=headers)


def _parts(path: str) -> list[str]:
    """Return the names of a path, after checking that it cannot lead out of the store.

    Raises
    ------
    MissingError
        If a name is not one that the store uses.
    """
    parts = [part for part in path.split("/") if part]
    for part in parts:
        if not _NAME.fullmatch(part):
            raise MissingError(f"there is no {path!r} in the store: {part!r} is not a name that it uses")
    return parts


def _file_size(storage: Storage, parts: list[str]) -> int | None:
    """Return the size of a file in bytes; None for a folder.

    Raises
    ------
    MissingError
        If there is neither.
    """
    if not parts:
        return None
    path = "/".join(parts)
    try:
        return storage.size_bytes(path)
    except MissingError as error:
        if storage.exists(path):
            return None
        raise MissingError(f"there is no {path} in the store") from error


def _folder(storage: Storage, path: str, after: str) -> dict[str, Any]:
    names = storage.names(path)
    sizes = storage.sizes(path)
    listed = [name for name in names if name > after][: ROWS + 1]
    rows = [(name, "/store/" + "/".join(filter(None, (path, quote(name)))), sizes.get(name)) for name in listed[:ROWS]]
    return {"rows": rows, "more": listed[ROWS - 1] if len(listed) > ROWS else "", "count": len(names)}


def _record(storage: Storage, path: str, size: int) -> str:
    """Return a JSON record in a form for people; empty for what is no such record."""
    if not path.endswith(".json") or size > LONGEST_SHOWN:
        return ""
    stored = storage.read(path)
    try:
        return json.dumps(json.loads(stored), indent=2, ensure_ascii=False)
    except ValueError:
        return stored.decode(errors="replace")


def _pieces(storage: Storage, path: str, size: int) -> Iterator[bytes]:
    for offset in range(0, size, PIECE_BYTES):
        yield storage.read(path, offset, min(PIECE_BYTES, size - offset))
