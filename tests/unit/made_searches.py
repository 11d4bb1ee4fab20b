"""Searches that a test prepares, and the search page over them, for tests of its routes."""

import base64
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from argon2 import PasswordHasher
from fastapi.testclient import TestClient

from tinytags_tasks.errors import TinyTagsError
from tinytags_tasks.search import account_file, sign_in
from tinytags_tasks.search import page as page_module
from tinytags_tasks.search.images import TaggedImage
from tinytags_tasks.search.page import create_app
from tinytags_tasks.search.query import SearchPage
from tinytags_tasks.search.request import SearchRequest
from tinytags_tasks.search.searches import Searches
from tinytags_tasks.settings import Settings
from tinytags_tasks.store.local import LocalStorage

VALUES = {
    "id": "demo:1234",
    "tag": "cat",
    "confidence": 70,
    "votes": 7,
    "block": 3,
    "position": 1234,
    "model": "forest-12ab",
    "corpus": "demo",
    "keyword": "Säbelzahntiger",
    "corrected": None,
}
IMAGE = TaggedImage(
    VALUES,
    image=np.zeros((32, 32, 3), dtype=np.uint8),
)
PAGE = SearchPage(
    total=250,
    images=(IMAGE,),
    tag_counts={"cat": 250, "dog": 4},
    confidence_counts={40: 50, 70: 200},
    models=("forest-12ab",),
    corpora=("demo",),
    next_cursor=None,
    seconds=0.012,
)


def with_values(**values: object) -> TaggedImage:
    """Return the image with different values."""
    return replace(IMAGE, values=VALUES | values)


Answer = Callable[[SearchPage | TinyTagsError], list[SearchRequest]]


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Answer:
    """Prepare what every search finds; the returned list gets the requests."""

    def prepare(found: SearchPage | TinyTagsError) -> list[SearchRequest]:
        asked: list[SearchRequest] = []

        def search(_: Searches, request: SearchRequest, **__: object) -> SearchPage:
            asked.append(request)
            if isinstance(found, TinyTagsError):
                raise found
            return found

        monkeypatch.setattr(Searches, "page", search)
        return asked

    return prepare


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalStorage:
    """A store in which nobody said anything of any picture."""
    storage = LocalStorage(tmp_path / "store")
    use_store(storage, monkeypatch)
    return storage


def use_store(storage: LocalStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let pages that are made from now on have this store, and a Solr in which nothing is live."""
    monkeypatch.setattr(
        page_module,
        "Runtime",
        lambda settings, as_writer: SimpleNamespace(storage=storage, solr=SimpleNamespace(aliases=dict)),
    )


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for module in (account_file, sign_in):
        monkeypatch.setattr(module, "HASHER", PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "search_password").write_text("pässword\n")
    return Settings(home=tmp_path, search_user="tinytags", search_password=None)


@pytest.fixture
def stranger(settings: Settings) -> TestClient:
    return TestClient(create_app(settings))


@pytest.fixture
def reader(settings: Settings) -> TestClient:
    client = TestClient(create_app(settings))
    client.headers["Authorization"] = basic("tinytags:pässword")
    return client


def basic(credentials: str) -> str:
    return "Basic " + base64.b64encode(credentials.encode()).decode()
