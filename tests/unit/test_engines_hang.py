"""An engine that takes connections and never answers: what readers see, and that nobody waits for it for long."""

import base64
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi.testclient import TestClient
from pages_of_world import Pages, make_settings
from published_runs import World
from small_run import CORPUS

from tinytags_tasks.errors import EngineDownError
from tinytags_tasks.runtime import PAGE_SECONDS, Runtime
from tinytags_tasks.search import page as page_module
from tinytags_tasks.search import solr_reader
from tinytags_tasks.search.page import create_app
from tinytags_tasks.search.solr_reader import ask_solr
from tinytags_tasks.settings import Settings
from tinytags_tasks.store.hdfs import HdfsStorage
from tinytags_tasks.store.local import LocalStorage
from tinytags_tasks.store.protocol import StoreAddress

LOGIN = "Basic " + base64.b64encode(b"tinytags:pass").decode()


class Silent:
    """A server that takes connections and says nothing.

    Attributes
    ----------
    asked
        Counts requests as they come.
    """

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=100)
        self._taken: list[socket.socket] = []
        self.asked = threading.Semaphore(0)
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._take, daemon=True).start()

    def _take(self) -> None:
        while True:
            try:
                taken, _ = self._listening.accept()
            except OSError:
                return
            self._taken.append(taken)
            self.asked.release()

    def close(self) -> None:
        """Break all connections off."""
        for taken in (self._listening, *self._taken):
            with suppress(OSError):
                taken.shutdown(socket.SHUT_RDWR)
            taken.close()


@pytest.fixture
def silent() -> Iterator[Silent]:
    found = Silent()
    yield found
    found.close()


@contextmanager
def serving(solr_url: str, home: Path) -> Iterator[Callable[[], TestClient]]:
    """Yield what makes clients of a page whose searches are sent to this Solr."""
    clients = SimpleNamespace(storage=LocalStorage(home / "store"), solr=SimpleNamespace(aliases=dict))
    solr_reader._connect.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page_module, "Runtime", lambda *_, **__: clients)
        app = create_app(Settings(home=home, search_password="pass", solr_url=solr_url, search_rate_limit=0))
        yield lambda: TestClient(app, headers={"Authorization": LOGIN})


def test_a_solr_that_never_answers_is_away_for_readers(
    silent: Silent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(solr_reader, "TIMEOUT_SECONDS", 0.2)
    with serving(f"http://127.0.0.1:{silent.port}/solr", tmp_path) as client:
        for path in ("/", "/search?tag=cat", "/export", "/corrections/all", "/api/search", "/api/v1/search"):
            answer = client().get(path)
            assert answer.status_code == 503, path
            assert answer.headers["retry-after"] == "10"
            assert "does not answer right now" in answer.text
            assert "127.0.0.1" not in answer.text
        page = client().get("/search?tag=cat").text
        assert "Search is unavailable right now" in page
        assert 'href="/search?tag=cat">Try again</a>' in page


def test_while_all_connections_to_solr_hang_others_are_told_so_and_pages_without_it_are_shown(
    silent: Silent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(solr_reader, "TIMEOUT_SECONDS", 600)
    monkeypatch.setattr(solr_reader, "TURN_SECONDS", 0.2)
    with (
        serving(f"http://127.0.0.1:{silent.port}/solr", tmp_path) as client,
        ThreadPoolExecutor(solr_reader.CONNECTIONS) as pool,
    ):
        settings = client().app.state.context.settings
        hanging = [pool.submit(ask_solr, settings, {"q": "*:*"}) for _ in range(solr_reader.CONNECTIONS)]
        try:
            for _ in hanging:
                assert silent.asked.acquire(timeout=60)
            assert client().get("/search?tag=dog").status_code == 503
            for path in ("/about", "/corrections", "/api/docs", "/healthz", "/api/v1/health"):
                assert client().get(path).status_code == 200, path
            assert not any(one.done() for one in hanging)
        finally:
            silent.close()
        for one in hanging:
            with pytest.raises(EngineDownError):
                one.result(60)


class Switched:
    """A store on this disk, until it is one in an HDFS that never answers."""

    def __init__(self, present: LocalStorage, later: HdfsStorage) -> None:
        self._present: Any = present
        self._later = later

    def __getattr__(self, name: str) -> Any:
        return getattr(self._present, name)

    def hang(self) -> None:
        self._present = self._later


@pytest.fixture
def hung(made: World, silent: Silent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pages]:
    """A page that was in use before its HDFS hung."""
    address = StoreAddress("/store", webhdfs_url=f"http://127.0.0.1:{silent.port}", user="me", answer_seconds=0.2)
    pages = Pages(made.copy(tmp_path / "copy"), make_settings(tmp_path, monkeypatch), monkeypatch)
    pages.storage = Switched(pages.world.storage, HdfsStorage(address))
    pages.restart()
    for path in ("/", "/search", "/runs", "/api/v1/runs", f"/pictures/{CORPUS}/1"):
        assert pages.client("operator").get(path).status_code == 200
    pages.storage.hang()
    yield pages
    pages.app.state.context.applier.stop()


def test_while_hdfs_hangs_readers_search_by_what_was_known(hung: Pages) -> None:
    for path in (
        *("/", "/search", f"/pictures/{CORPUS}/1", f"/pictures/{CORPUS}/1.png", "/runs", "/about", "/corrections"),
        *("/corrections/all", "/export", "/api/search", "/api/v1/search", "/api/v1/runs", f"/api/v1/images/{CORPUS}:1"),
    ):
        for _ in range(2):
            answer = hung.client("operator").get(path)
            assert answer.status_code == 200, (path, answer.text)


def test_while_hdfs_hangs_what_needs_it_says_so_and_records_nothing(hung: Pages) -> None:
    old, new = hung.world.runs[0], hung.world.runs[2]
    for path in (f"/review/{old.name}", f"/runs/{old.name}/{new.name}", f"/models/{old.model}/report"):
        answer = hung.client("operator").get(path)
        assert answer.status_code == 503, path
        assert "Search is unavailable right now" in answer.text
    fields = hung.form(hung.client("operator"), 1)
    answer = hung.post("operator", "/corrections", fields | {"say": "none"})
    assert answer.status_code == 503
    assert "Nothing that was tagged or said is lost" in answer.text
    assert hung.words() == []


def test_a_page_waits_for_the_store_no_longer_than_for_solr() -> None:
    settings = Settings(webhdfs_url="http://127.0.0.1:9", hdfs_url="hdfs://127.0.0.1:8")
    page, pipeline = Runtime(settings, as_writer=True), Runtime(settings)
    assert page.store_address.answer_seconds == PAGE_SECONDS == solr_reader.TIMEOUT_SECONDS
    assert pipeline.store_address.answer_seconds > PAGE_SECONDS
