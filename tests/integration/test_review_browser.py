"""Reviewing in a browser, over the real Solr and HDFS: by keyboard, by mouse, without scripts, and by two at once.

With ``TINYTAGS_SCREENSHOTS=<folder>`` it saves its screenshots there.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import wait_for
from page_in_browser import PageServer, browsing, publish_small_run, save_picture, serving
from playwright.sync_api import Page, expect

from tinytags_tasks.runtime import Runtime
from tinytags_tasks.search.accounts import Role
from tinytags_tasks.settings import Settings
from tinytags_tasks.store.corpus_records import load_corpus
from tinytags_tasks.store.review_log import counting_words, read_words

CORPUS = "looked-at"
LOOKS = 20


@pytest.fixture(scope="module")
def settings(hdfs: Runtime, pictures: dict[str, Path]) -> Settings:
    """Only Solr besides HDFS, with a run that readers see."""
    return publish_small_run(CORPUS, 50, pictures["corpus"], keywords=str(pictures["metadata"]))


@pytest.fixture(scope="module")
def server(settings: Settings) -> Iterator[PageServer]:
    with serving(settings, rita=Role.READER, ann=Role.REVIEWER, ben=Role.REVIEWER) as server:
        yield server


@pytest.fixture
def open_as(server: PageServer) -> Iterator[Callable[..., Page]]:
    with browsing(server.url) as open_as:
        yield open_as


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
    save_picture(page, "review")
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
    save_picture(page, "review-measured")


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
    save_picture(page, "review-wall")
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


def test_an_open_page_goes_on_after_a_restart(
    settings: Settings, server: PageServer, open_as: Callable[..., Page]
) -> None:
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
        reader.goto("/search?tag=quokka")
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
        save_picture(page, f"review-narrow-{path.rpartition('/')[2]}")
