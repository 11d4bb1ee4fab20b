"""The search page as `tinytags up` serves it, over a small run on the real engines, and a browser that opens it."""

import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from axe_playwright_python.sync_playwright import Axe
from conftest import chromium, wait_for
from playwright.sync_api import ConsoleMessage, Page, expect
from small_run import MODEL, SparkHere, publish_model

from tinytags_tasks import services
from tinytags_tasks.corpus.definition import make_definition
from tinytags_tasks.index.step import IndexRequest, index_blocks, prepare_collection
from tinytags_tasks.ingest.step import ingest_corpus
from tinytags_tasks.publish.step import PublishRequest, publish_run
from tinytags_tasks.runtime import Runtime
from tinytags_tasks.score.plan import PlanRequest, plan_run
from tinytags_tasks.score.step import ScoreRequest, score_blocks
from tinytags_tasks.search.account_file import AccountFile
from tinytags_tasks.search.accounts import Role
from tinytags_tasks.search.page import create_app
from tinytags_tasks.services.secrets import secret
from tinytags_tasks.settings import Settings, load_settings
from tinytags_tasks.store import layout
from tinytags_tasks.store.run_records import Run

PASSWORD = "correct horse"

OpenAs = Callable[..., Page]


def publish_small_run(name: str, threshold: int, source: Path, **fields: object) -> Settings:
    """Return settings whose alias, named like the corpus, shows a run of a small corpus; only Solr is started."""
    solr = services.up(load_settings(), engines=["solr"], standard_ports=False, die_with_parent=True)
    settings = solr.model_copy(update={"alias": name})
    runtime = Runtime(settings)
    given = {"source": str(source), "format": "tiny-images", "shard_images": 400, "blocks_per_shard": 3, **fields}
    ingest_corpus(make_definition(name, given), storage=runtime.storage)
    publish_model(runtime.storage)
    planned = plan_run(PlanRequest(name, MODEL, threshold=threshold), storage=runtime.storage).run
    blocks = tuple(range(Run.load(runtime.storage, layout.run_file(planned)).blocks))
    prepare_collection(planned, storage=runtime.storage, solr=runtime.solr)
    score_blocks(
        ScoreRequest(planned, blocks), storage=runtime.storage, address=runtime.store_address, connect_spark=SparkHere()
    )
    index_blocks(IndexRequest(planned, blocks), storage=runtime.storage, solr=runtime.solr)
    publish_run(PublishRequest(planned, alias=name), storage=runtime.storage, solr=runtime.solr)
    return settings


class PageServer:
    """The search page; it can be started again at the same address."""

    def __init__(self, settings: Settings, accounts: Mapping[str, Role]) -> None:
        secret(settings, "search_password")
        secret(settings, "search_form_key")
        file = AccountFile(settings)
        for name in accounts.keys() - file.read().keys():  # the modules of a session share the file
            file.add(name, accounts[name], PASSWORD)
        self._settings = settings
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        config = uvicorn.Config(create_app(self._settings), host="127.0.0.1", port=self._port, log_level="warning")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run)
        self._thread.start()
        wait_for(lambda: self._server.started)

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join()


@contextmanager
def serving(settings: Settings, **accounts: Role) -> Iterator[PageServer]:
    """Serve the page to some accounts, all with :data:`PASSWORD`."""
    server = PageServer(settings, accounts)
    server.start()
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def browsing(url: str, *expected: str) -> Iterator[OpenAs]:
    """Yield a function that opens the page as an account; no page may complain but of what is expected meanwhile."""
    complaints: list[str] = []
    with chromium() as browser:

        def open_as(name: str, scripts: bool = True, width: int = 1280, **options: Any) -> Page:
            context = browser.new_context(
                base_url=url,
                http_credentials={"username": name, "password": PASSWORD},
                java_script_enabled=scripts,
                viewport={"width": width, "height": 860},
                **options,
            )
            context.set_default_timeout(30_000)
            expect.set_options(timeout=30_000)  # a busy machine saves a look in a second
            page = context.new_page()
            page.on("console", lambda line: complaints.append(line.text) if _is_complaint(line, expected) else None)
            page.on("pageerror", lambda error: complaints.append(str(error)))
            return page

        yield open_as
    assert complaints == [], complaints


def _is_complaint(line: ConsoleMessage, expected: tuple[str, ...]) -> bool:
    # A test stops the server, and another one sends what is refused with a page.
    known = ("ERR_CONNECTION_REFUSED", "status of 400", *expected)
    return line.type == "error" and not any(words in line.text for words in known)


def assert_accessible(page: Page) -> None:
    """Assert that nothing serious stands in anybody's way, by the rules of axe."""
    found = Axe().run(page).response["violations"]
    bad = {
        violation["id"]: [node["target"] for node in violation["nodes"]]
        for violation in found
        if violation["impact"] in ("serious", "critical")
    }
    assert bad == {}, page.url


def save_picture(page: Page, name: str) -> None:
    """Save a screenshot in the folder ``TINYTAGS_SCREENSHOTS``, if it is set."""
    if folder := os.environ.get("TINYTAGS_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png")
