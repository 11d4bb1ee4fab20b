"""The search page over the worlds of :mod:`published_runs`, as accounts of each role use it, for tests."""

import base64
import html
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlencode

import pytest
from argon2 import PasswordHasher
from fastapi.testclient import TestClient
from published_runs import ALIAS, World
from small_run import CORPUS

from tinytags_tasks.errors import MissingError
from tinytags_tasks.search import account_file, corrections, picture_view, searches, shown_pictures
from tinytags_tasks.search import page as page_module
from tinytags_tasks.search.account_file import AccountFile
from tinytags_tasks.search.accounts import Role
from tinytags_tasks.search.hidden import Hidden
from tinytags_tasks.search.images import TaggedImage, read_document
from tinytags_tasks.search.page import create_app
from tinytags_tasks.search.query import SearchPage
from tinytags_tasks.search.request import SearchRequest
from tinytags_tasks.settings import Settings
from tinytags_tasks.store.review_log import ReviewLog

PASSWORD = "correct horse"


def make_settings(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Return settings with an account of each role, named like it."""
    monkeypatch.setattr(account_file, "HASHER", PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
    settings = Settings(home=folder, search_password="pässword", alias=ALIAS)
    accounts = AccountFile(settings)
    for role in Role:
        accounts.add(role.label, role, PASSWORD)
    return settings


class Pages:
    """The page over a world; each account is a client of its own."""

    def __init__(self, world: World, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
        self.world = world
        self.settings = settings
        self.asked: list[Hidden] = []
        self.fetched: list[list[str]] = []
        self.storage: Any = world.storage
        monkeypatch.setattr(
            page_module, "Runtime", lambda settings, as_writer: SimpleNamespace(storage=self.storage, solr=world.solr)
        )
        monkeypatch.setattr(shown_pictures, "find_documents", self.find_documents)
        monkeypatch.setattr(picture_view, "neighbours", self.neighbours)
        monkeypatch.setattr(searches, "search_images", self.search)
        monkeypatch.setattr(searches, "ask_solr", lambda *_: {"facets": {}})  # for the tags that documents have
        monkeypatch.setattr(corrections, "PATIENCE_SECONDS", 20.0)
        self.restart()

    def restart(self) -> None:
        """Start another process of the page; the first one was killed."""
        self.app = create_app(self.settings)

    def client(self, role: str) -> TestClient:
        token = base64.b64encode(f"{role}:{PASSWORD}".encode()).decode()
        return TestClient(self.app, headers={"Authorization": f"Basic {token}"})

    def search(self, settings: Settings, request: SearchRequest, hidden: Hidden, *_: object) -> SearchPage:
        self.asked.append(hidden)
        if not self.world.live():
            raise MissingError(f"nothing is published yet (Solr has no {settings.alias!r})")
        documents = sorted(self.documents.values(), key=lambda document: document["position"])
        documents = [document for document in documents if document["id"] not in hidden.pending_ids]
        images = hidden.leave_out(read_document(self.as_json(document), request.with_pixels) for document in documents)
        return SearchPage(len(documents), images, {"cat": 1, "dog": 1}, {40: 1}, ("m",), (CORPUS,), None, 0.0)

    def find_documents(
        self, settings: Settings, ids: list[str], hidden: Hidden, *, with_pixels: bool, collection: str = ""
    ) -> dict[str, TaggedImage]:
        self.fetched.append(list(ids))
        documents = self.world.solr.documents(collection) if collection else self.documents
        images = (read_document(self.as_json(documents[one]), with_pixels) for one in ids if one in documents)
        return {image.id: image for image in images if hidden.shows(image)}

    def neighbours(
        self, settings: Settings, corpus: str, position: int, most: int, hidden: Hidden, collection: str = ""
    ) -> tuple[list[TaggedImage], list[TaggedImage]]:
        documents = self.world.solr.documents(collection) if collection else self.documents
        images = [read_document(self.as_json(document), False) for document in documents.values()]
        images = sorted((image for image in images if hidden.shows(image)), key=lambda image: image.position)
        before = [image for image in images if image.position < position]
        return before[-most:], [image for image in images if image.position > position][:most]

    def as_json(self, document: dict[str, Any]) -> dict[str, Any]:
        return document | {"data": base64.b64encode(document["data"]).decode()}

    @property
    def documents(self) -> dict[str, dict[str, Any]]:
        collections = [self.world.solr.documents(name) for name in self.world.live().split(",")]
        return {name: document for documents in collections for name, document in documents.items()}

    def seen(self, role: str = "reader") -> dict[int, str]:
        """Return what readers see: the tag of each position."""
        found = self.client(role).get("/api/search").json()["images"]
        return {image["position"]: image["tag"] for image in found}

    def form(self, client: TestClient, position: int, corpus: str = CORPUS) -> dict[str, str]:
        """Return the hidden fields of a card's form."""
        text = client.get("/search?rows=100").text
        card = next(card for card in text.split('<li class="card">')[1:] if f'"{corpus}:{position}:' in card)
        return {
            name: html.unescape(value)
            for name, value in re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', card)
        }

    def post(self, role: str, path: str, fields: list[tuple[str, str]] | dict[str, str], **headers: str) -> Any:
        """Send a form as a browser would, and do not follow what it answers."""
        return self.client(role).post(
            path,
            content=urlencode(fields),
            headers={"Content-Type": "application/x-www-form-urlencoded", **headers},
            follow_redirects=False,
        )

    def words(self) -> list[dict[str, Any]]:
        return ReviewLog(CORPUS, self.world.storage).read().to_pylist()
