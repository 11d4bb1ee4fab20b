"""Reviewing in a browser, over the real Solr and HDFS: by keyboard, by mouse, without scripts, and by two at once.

With ``TINYTAGS_SCREENSHOTS=<folder>`` it saves its screenshots there.
"""

import os
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from conftest import wait_for
from playwright.sync_api import ConsoleMessage, Page, expect, sync_playwright
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
from tinytags_tasks.store.corpus_records import load_corpus
from tinytags_tasks.store.review_log import counting_words, read_words

CORPUS = ALIAS = "looked-at"
PASSWORD = "correct horse"
LOOKS = 20


class Server:
    """The search page, as `tinytags up` serves it; it can be started again at the same address."""

    def __init__(self, settings: Settings) -> None:
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


@pytest.fixture(scope="module")
def settings(hdfs: Runtime, pictures: dict[str, Path]) -> Settings:
    """Only Solr besides HDFS, with a run that readers see."""
    solr = services.up(load_settings(), engines=["solr"], standard_ports=False, die_with_parent=True)
    settings = solr.model_copy(update={"alias": ALIAS})
    runtime = Runtime(settings)
    fields = {
        "source": str(pictures["corpus"]),
        "format": "tiny-images",
        "shard_images": 400,
        "blocks_per_shard": 3,
        "keywords": str(pictures["metadata"]),
    }
    ingest_corpus(make_definition(CORPUS, fields), storage=runtime.storage)
    publish_model(runtime.storage)
    name = plan_run(PlanRequest(CORPUS, MODEL, threshold=50), storage=runtime.storage).run
    prepare_collection(name, storage=runtime.storage, solr=runtime.solr)
    blocks = tuple(range(9))
    score_blocks(
        ScoreRequest(name, blocks), storage=runtime.storage, address=runtime.store_address, connect_spark=SparkHere()
    )
    index_blocks(IndexRequest(name, blocks), storage=runtime.storage, solr=runtime.solr)
    publish_run(PublishRequest(name, alias=ALIAS), storage=runtime.storage, solr=runtime.solr)
    return settings


@pytest.fixture(scope="module")
def server(settings: Settings) -> Iterator[Server]:
    secret(settings, "search_password")
    secret(settings, "search_form_key")
    accounts = AccountFile(settings)
    for name, role in {"rita": Role.READER, "ann": Role.REVIEWER, "ben": Role.REVIEWER}.items():
        accounts.add(name, role, PASSWORD)
    server = Server(settings)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def open_as(server: Server) -> Iterator[Callable[..., Page]]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert chromium, "install chromium: it is in the distribution's packages"
    complaints: list[str] = []
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])

        def open_as(name: str, scripts: bool = True, width: int = 1280, **options: Any) -> Page:
            context = browser.new_context(
                base_url=server.url,
                http_credentials={"username": name, "password": PASSWORD},
                java_script_enabled=scripts,
                viewport={"width": width, "height": 860},
                **options,
            )
            context.set_default_timeout(30_000)
            expect.set_options(timeout=30_000)  # a busy machine saves a look in a second
            page = context.new_page()
            page.on("console", lambda line: complaints.append(line.text) if is_complaint(line) else None)
            page.on("pageerror", lambda error: complaints.append(str(error)))
            return page

        yield open_as
        browser.close()
    assert complaints == []


def is_complaint(line: ConsoleMessage) -> bool:
    return line.type == "error" and "ERR_CONNECTION_REFUSED" not in line.text  # a test stops the server


def picture(page: Page, name: str) -> None:
    if folder := os.environ.get("TINYTAGS_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png")


def said(settings: Settings) -> dict[int, dict[str, Any]]:
    """Return the words that count, by position."""
    storage = Runtime(settings).storage
    words = counting_words(read_words(load_corpus(CORPUS, storage), storage))
    return {row["position"]: row for row in words.to_pylist()}


def start_looking(page: Page, *, scripts: bool = True) -> None:
    page.goto("/review")
    page.get_by_role("link", name="Review 250 pictures").click()
    if scripts:
        expect(page.get_by_label("Answer with single keys")).to_be_visible()


def position(page: Page) -> int:
    return int((page.locator("#image").get_attribute("alt") or "").split()[1])


def expect_looks(page: Page, looks: int) -> None:
    expect(page.locator("#count")).to_have_text(f"{looks} of 250 looks")


def looks_of_run(page: Page) -> int:
    """Return how many pictures were looked at, as the overview says."""
    page.goto("/review")
    found = page.get_by_text("looked at").first.inner_text()
    return 0 if found.startswith("Nobody") else int(found.split()[0])


def test_twenty_pictures_are_reviewed_by_keyboard_and_what_they_measure_is_shown(
    settings: Settings, open_as: Callable[..., Page]
) -> None:
    page = open_as("ann")
    page.goto("/")
    page.get_by_role("link", name="Review", exact=True).click()
    expect(page.get_by_text("Not measured on this corpus", exact=True)).to_be_visible()
    start_looking(page)
    picture(page, "review")
    keys, expected = ("Enter", "1", "x", "u", "n"), {}
    for looks in range(LOOKS):
        expect(page.locator("#picture:not(.waiting)")).to_be_visible()  # a key without a picture says nothing
        at, has_tag = position(page), page.locator("#says").inner_text() != "The model gave it no tag"
        key = keys[looks % len(keys)] if has_tag or looks % len(keys) < 4 else "x"
        page.keyboard.press(key)
        expect_looks(page, looks + 1)
        expected[at] = {"Enter": "tag" if has_tag else "none", "1": "tag", "x": "none", "u": "unclear", "n": "wrong"}[
            key
        ]
    wait_for(lambda: len(said(settings)) == LOOKS)
    found = said(settings)
    assert {at: row["verdict"] for at, row in found.items()} == expected
    assert {row["by"] for row in found.values()} == {"ann"}
    assert {row["is_public"] for row in found.values()} == {False}

    # Two are taken back: their pictures are shown again, the later one first.
    page.keyboard.press("Backspace")
    page.keyboard.press("Backspace")
    expect_looks(page, LOOKS - 2)
    assert position(page) == list(expected)[-2]
    wait_for(lambda: len(said(settings)) == LOOKS - 2)
    page.keyboard.press("t")
    page.keyboard.type("guinea pig")
    page.keyboard.press("Enter")
    expect_looks(page, LOOKS - 1)
    page.keyboard.press("Enter")
    expect_looks(page, LOOKS)
    wait_for(lambda: len(said(settings)) == LOOKS)
    assert said(settings)[list(expected)[-2]]["tag"] == "guinea pig"

    page.get_by_role("link", name="looked-at-").click()
    expect(page.get_by_text("95 % interval.", exact=False).first).to_be_visible()
    expect(page.get_by_text(f"{LOOKS} pictures of this run were looked at")).to_be_visible()
    picture(page, "review-measured")


def test_a_wall_is_struck_out_by_mouse_and_keyboard_and_saved_at_once(
    settings: Settings, open_as: Callable[..., Page]
) -> None:
    page, before = open_as("ann"), said(settings)
    page.goto("/review")
    page.get_by_role("link", name="Wall of dog").click()
    boxes = page.get_by_role("checkbox", name="strike out")
    count = boxes.count()
    page.locator(".strike").nth(1).click()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Space")
    expect(page.locator("#struck")).to_have_text(f"2 struck out, {count - 2} right")
    picture(page, "review-wall")
    page.get_by_role("button", name=f"Save all {count}").click()
    expect(page.get_by_text(f"Saved: {count - 2} right, 2 struck out.")).to_be_visible()
    new = [row for at, row in said(settings).items() if at not in before]
    assert len(new) == count
    assert len({row["number"] for row in new}) == 1
    assert [row["verdict"] for row in new].count("wrong") == 2
    assert {row["tag"] for row in new} == {"dog"}
    page.get_by_role("button", name="Take back what I saved last").click()
    expect(boxes).to_have_count(count)
    assert said(settings).keys() == before.keys()


def test_everything_works_without_scripts(settings: Settings, open_as: Callable[..., Page]) -> None:
    page, before = open_as("ben", scripts=False), said(settings)
    start_looking(page, scripts=False)
    page.get_by_role("button", name="Unclear").click()
    expect_looks(page, 1)
    page.get_by_label("Another tag").fill("okapi")
    page.get_by_role("button", name="Save").click()
    expect_looks(page, 2)
    page.get_by_role("button", name="emu 3").click()
    expect_looks(page, 3)
    page.get_by_role("button", name="Take back the last look").click()
    expect_looks(page, 2)
    page.get_by_label("Hide the model's tag").check()
    page.get_by_role("button", name="Apply").click()
    expect(page.get_by_text("What does it show?")).to_be_visible()
    expect(page.get_by_role("button", name="Right")).to_have_count(0)
    new = {at: row for at, row in said(settings).items() if at not in before}
    assert sorted((row["verdict"], row["tag"]) for row in new.values()) == [("tag", "okapi"), ("unclear", "")]

    page.goto("/review")
    page.get_by_role("link", name="Wall of cat").click()
    count = page.get_by_role("checkbox", name="strike out").count()
    page.get_by_role("checkbox", name="strike out").first.check()
    page.get_by_role("button", name="Save all").click()
    expect(page.get_by_text(f"Saved: {count - 1} right, 1 struck out.")).to_be_visible()
    assert len(said(settings)) == len(before) + 2 + count


def test_two_at_once_never_get_the_same_picture(settings: Settings, open_as: Callable[..., Page]) -> None:
    pages, before = {name: open_as(name) for name in ("ann", "ben")}, said(settings)
    seen: dict[str, list[int]] = {name: [] for name in pages}
    for page in pages.values():
        start_looking(page)
    for _ in range(10):
        for name, page in pages.items():
            seen[name].append(position(page))
            page.keyboard.press("x")
    assert not set(seen["ann"]) & set(seen["ben"])
    wait_for(lambda: len(said(settings)) == len(before) + 20)
    found = said(settings)
    assert {found[at]["by"] for at in seen["ann"]} == {"ann"}
    assert {found[at]["by"] for at in seen["ben"]} == {"ben"}


def test_an_open_page_goes_on_after_a_restart(settings: Settings, server: Server, open_as: Callable[..., Page]) -> None:
    page, before = open_as("ann"), said(settings)
    start_looking(page)
    page.keyboard.press("x")
    wait_for(lambda: len(said(settings)) == len(before) + 1)
    server.stop()
    page.keyboard.press("x")
    expect(page.get_by_role("alert")).to_contain_text("The server does not answer. Looks not saved yet: 1.")
    server.start()
    page.keyboard.press("u")
    wait_for(lambda: len(said(settings)) == len(before) + 3)
    expect_looks(page, 3)
    expect(page.locator("#problem")).to_be_hidden()
    page.reload()
    expect_looks(page, 3)
    assert position(page) not in said(settings)
    assert looks_of_run(page) == len(said(settings))


def test_a_look_that_cannot_be_saved_is_said_and_is_not_counted(
    settings: Settings, open_as: Callable[..., Page]
) -> None:
    page, before = open_as("ann"), said(settings)
    start_looking(page)
    page.route("**/api/review/**", lambda route: route.fulfill(status=200, body="nonsense"))
    page.keyboard.press("x")
    expect(page.get_by_role("alert")).to_contain_text("The last look was not saved")
    assert said(settings).keys() == before.keys()
    page.unroute("**/api/review/**")
    page.get_by_role("link", name="Load the page again").click()
    expect_looks(page, 0)
    page.keyboard.press("x")
    wait_for(lambda: len(said(settings)) == len(before) + 1)


def test_readers_see_a_correction_at_once_if_the_reviewer_wishes(
    settings: Settings, open_as: Callable[..., Page]
) -> None:
    page, reader = open_as("ann"), open_as("rita")
    start_looking(page)
    page.get_by_label("Show readers my corrections at once").check()
    at = position(page)
    page.keyboard.press("t")
    page.keyboard.type("quokka")
    page.keyboard.press("Enter")
    wait_for(lambda: said(settings).get(at, {}).get("is_public"))

    def is_shown() -> bool:
        reader.goto("/?tag=quokka")
        return reader.get_by_alt_text(f"quokka, image {at} of").count() == 1

    wait_for(is_shown)
    refused = reader.context.request.get("/review")
    assert (refused.status, "needs the role reviewer" in refused.text()) == (403, True)


def test_it_fits_a_telephone(open_as: Callable[..., Page]) -> None:
    page = open_as("ben", width=360, color_scheme="dark", has_touch=True)
    for path in ("/review", "/review/one", "/review/wall"):
        if path == "/review":
            page.goto(path)
            run = page.url.rpartition("/")[2]
        else:
            page.goto(f"/review/{run}/{path.rpartition('/')[2]}?tag=dog")
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        sizes = page.evaluate(
            "[...document.querySelectorAll('main button, main a, main select')].filter(e => e.offsetParent)"
            ".map(e => { const box = e.getBoundingClientRect(); return [box.width, box.height]; })"
        )
        assert min(min(size) for size in sizes) >= 44 - 0.5
        picture(page, f"review-narrow-{path.rpartition('/')[2]}")
