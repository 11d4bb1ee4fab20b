"""Searching in a browser, over the real Solr and HDFS: by mouse and keyboard, with and without scripts, on a telephone.

With ``TINYTAGS_SCREENSHOTS=<folder>`` it saves its screenshots there.
"""

import csv
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import IMAGES
from page_in_browser import assert_accessible, browsing, publish_small_run, save_picture, serving
from playwright.sync_api import Locator, Page, expect
from small_nets import NET_TAGS, embed, make_net_run
from small_run import CORPUS as SMALL
from small_run import quiet, score_all

from tinytags_tasks.index.step import IndexRequest, index_blocks, prepare_collection
from tinytags_tasks.publish.step import PublishRequest, publish_run
from tinytags_tasks.runtime import Runtime
from tinytags_tasks.search import page as page_module
from tinytags_tasks.search.accounts import Role
from tinytags_tasks.settings import Settings
from tinytags_tasks.store.local import LocalStorage

CORPUS = "searched"
BOTH = pytest.mark.parametrize("scripts", [True, False], ids=["with scripts", "without scripts"])


@pytest.fixture(scope="module")
def settings(hdfs: Runtime, pictures: dict[str, Path]) -> Settings:
    """Only Solr besides HDFS, with a run that readers see."""
    return publish_small_run(CORPUS, 0, pictures["corpus"], keywords=str(pictures["metadata"]))


@pytest.fixture(scope="module")
def url(settings: Settings) -> Iterator[str]:
    with serving(settings, rita=Role.READER, ann=Role.REVIEWER) as server:
        yield server.url


@pytest.fixture
def open_as(url: str) -> Iterator[Callable[..., Page]]:
    with browsing(url) as open_as:
        yield open_as


def positions(page: Page) -> list[int]:
    """Return which pictures a page of results shows."""
    texts = [image.get_attribute("alt") or "" for image in page.locator(".card .thumb img").all()]
    return [int(text.split(" image ")[1].split(" of ")[0]) for text in texts]


def total(page: Page) -> int:
    return int(page.locator(".summary h1").inner_text().split()[0].replace(",", ""))


def assert_pictures_load(pictures: Locator) -> None:
    """Assert that the browser has drawn pictures pixel by pixel."""
    for picture in pictures.all():
        picture.scroll_into_view_if_needed()
        expect(picture).to_have_js_property("complete", True)
        expect(picture).to_have_js_property("naturalWidth", 32)
        expect(picture).to_have_css("image-rendering", "pixelated")


@BOTH
def test_from_the_first_page_to_a_picture_and_back(open_as: Callable[..., Page], scripts: bool) -> None:
    page = open_as("rita", scripts)
    page.goto("/")
    expect(page.get_by_role("heading", level=1)).to_contain_text(f"{IMAGES:,} images")
    if scripts:
        assert_pictures_load(page.locator(".plate").first.locator("img"))
        save_picture(page, "landing")
    page.get_by_role("link", name=re.compile(r"^dog \d")).click()
    expect(page.get_by_label("What is searched for").get_by_text("dog")).to_be_visible()
    dogs = total(page)
    assert f"Export all {dogs:,}" in page.locator(".tools").inner_text()

    # Another tag joins it, and one end of the range is moved.
    filters = page.get_by_label("Filters", exact=True)
    filters.get_by_role("link", name=re.compile(r"^cat \d")).click()
    both = total(page)
    assert both > dogs
    filters.get_by_label("Confidence to, percent").focus()
    for _ in range(45):
        page.keyboard.press("ArrowLeft")
    if scripts:
        expect(filters.locator(".ends-said").first).to_contain_text(re.compile("40\\W*55 %"))
    filters.get_by_role("button", name="Apply").click()
    expect(page.get_by_label("What is searched for").get_by_text(re.compile("confidence:.*-55"))).to_be_visible()
    assert 0 < total(page) < both
    page.get_by_role("link", name=re.compile("^confidence:.*remove this")).click()
    assert total(page) == both

    first = positions(page)
    page.get_by_role("link", name="Next").first.click()
    second = positions(page)
    page.get_by_role("link", name="Next").first.click()
    assert len(first) == len(second) == 30
    assert not set(first) & set(second)
    page.get_by_role("link", name="Previous").first.click()
    assert positions(page) == second
    if scripts:
        assert_pictures_load(page.locator(".card .thumb img"))
        save_picture(page, "results")
    kept = page.url

    page.locator(".card .thumb").nth(4).click()
    expect(page).to_have_url(re.compile(rf"/pictures/{CORPUS}/{second[4]}$"))
    page.go_back()
    expect(page).to_have_url(kept)
    assert positions(page) == second
    page.get_by_role("link", name="Small", exact=True).click()
    expect(page.locator("#images.small")).to_be_visible()
    expect(page).to_have_url(kept)
    assert positions(page) == second


@BOTH
def test_the_box_takes_a_whole_search_and_points_at_what_it_does_not_understand(
    open_as: Callable[..., Page], scripts: bool
) -> None:
    page = open_as("rita", scripts)
    page.goto("/search")
    everything = total(page)
    box = page.get_by_role("searchbox", name="Search images")
    box.fill("Dog -emu block:0-")
    page.get_by_role("button", name="Search").click()
    expect(page.get_by_role("alert")).to_be_visible()
    expect(page.locator("mark")).to_have_text("block:0-")
    expect(box).to_have_value("Dog -emu block:0-")
    box.fill("Dog -emu word:guinea_*")
    page.get_by_role("button", name="Search").click()
    expect(box).to_have_value("dog -emu word:guinea_*")
    assert 0 < total(page) < everything
    expect(page.locator(".detail.keyword").first).to_have_text("guinea_pig")
    page.get_by_role("link", name="word:guinea_*: remove this").click()
    page.get_by_role("link", name="Random").click()
    expect(box).to_have_value(re.compile(r"^dog -emu sort:random seed:\d+$"))
    shuffled = positions(page)
    page.reload()
    assert positions(page) == shuffled
    page.get_by_role("link", name="Clear all").click()
    assert total(page) == everything


def test_results_are_walked_through_by_keyboard(open_as: Callable[..., Page]) -> None:
    page = open_as("ann")
    page.goto("/search")
    shown = positions(page)
    page.keyboard.press("/")
    expect(page.get_by_role("searchbox")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("searchbox")).not_to_be_focused()
    links = page.locator(".card .thumb")
    page.keyboard.press("ArrowRight")
    expect(links.nth(0)).to_be_focused()
    tops = [link.bounding_box() for link in links.all()[:15]]
    columns = sum(box is not None and tops[0] is not None and abs(box["y"] - tops[0]["y"]) < 2 for box in tops)
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    expect(links.nth(columns + 1)).to_be_focused()
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowLeft")
    expect(links.nth(0)).to_be_focused()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(rf"/pictures/{CORPUS}/{shown[1]}$"))


@pytest.fixture(scope="module")
def alike(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a page over a small run whose pictures can be compared."""
    settings = settings.model_copy(update={"alias": "alike"})
    storage, solr = LocalStorage(tmp_path_factory.mktemp("store")), Runtime(settings).solr
    run = make_net_run(storage, threshold=0)
    embed(storage)
    score_all(storage, run)
    prepare_collection(run.name, storage=storage, solr=solr)
    index_blocks(IndexRequest(run.name, tuple(range(run.blocks))), storage=storage, solr=solr, report=quiet)
    publish_run(PublishRequest(run.name, alias="alike"), storage=storage, solr=solr, report=quiet)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page_module, "Runtime", lambda *_, **__: SimpleNamespace(storage=storage, solr=solr))
        with serving(settings, ann=Role.REVIEWER) as server:
            patch.undo()  # other pages have their own store
            yield server.url


@pytest.mark.parametrize("width", [1280, 390], ids=["desktop", "telephone"])
@BOTH
def test_the_whole_way_from_the_first_page_to_a_file_and_back(alike: str, scripts: bool, width: int) -> None:
    with browsing(alike) as open_as:
        page = open_as("ann", scripts, width=width, has_touch=width < 1000)
        page.goto("/")
        page.get_by_role("link", name=re.compile(r"^dog \d")).click()
        dogs = total(page)
        if width < 1000:
            page.get_by_role("link", name="Filters").click()
        page.get_by_label("Filters", exact=True).get_by_role("link", name=re.compile(r"^cat \d")).click()
        assert total(page) > dogs
        page.goto(f"{page.url}&rows=2")
        first = positions(page)
        page.get_by_role("link", name="Next").last.click()
        second = positions(page)
        assert len(second) == 2
        assert not set(first) & set(second)

        page.locator(".card .thumb").first.click()
        expect(page).to_have_url(re.compile(rf"/pictures/{SMALL}/{second[0]}$"))
        votes = page.get_by_role("table", name="Votes", exact=True)
        for tag in (*NET_TAGS, "none of the tags"):
            expect(votes.get_by_role("rowheader", name=tag)).to_be_visible()
        page.get_by_role("link", name="More that look like it").click()
        expect(page.get_by_text("The most similar to")).to_be_visible()
        found = positions(page)
        assert second[0] not in found

        boxes = page.get_by_role("checkbox", name="Select image")
        boxes.nth(0).check()
        if scripts:
            boxes.nth(1).click(modifiers=["Shift"])
            expect(page.get_by_text("2 ticked")).to_be_visible()
        else:
            boxes.nth(1).check()
        kept = page.url
        page.get_by_role("button", name="Export").click()
        expect(page.get_by_role("heading", name="Export 2 images")).to_be_visible()
        with page.expect_download() as download:
            page.get_by_role("button", name="CSV table").click()
        rows = list(csv.DictReader(download.value.path().read_text().splitlines()))
        assert [int(row["position"]) for row in rows] == found[:2]
        page.get_by_role("link", name="Back to the images").click()
        expect(page).to_have_url(kept)
        assert positions(page) == found


def test_ticked_images_are_sent_to_review(alike: str) -> None:
    with browsing(alike) as open_as:
        page = open_as("ann", scripts=False)
        page.goto("/search?rows=3")
        shown = positions(page)
        for box in page.get_by_role("checkbox", name="Select image").all():
            box.check()
        page.get_by_role("button", name="Send to review").click()
        expect(page.get_by_text("0 of 3 looks")).to_be_visible()
        for position in shown:
            expect(page.get_by_role("img", name=f"picture {position} of {SMALL}")).to_be_visible()
            page.get_by_role("button", name=re.compile("^Right")).click()
        expect(page.get_by_role("heading", name="All 3 were looked at")).to_be_visible()


@BOTH
def test_all_that_is_found_is_corrected_and_undone(alike: str, scripts: bool) -> None:
    with browsing(alike) as open_as:
        page = open_as("ann", scripts)
        page.goto("/search?tag=cat")
        cats = total(page)
        page.get_by_role("link", name="Correct all").click()
        expect(page.get_by_role("heading", name=f"Correct {cats:,} images at once")).to_be_visible()
        page.get_by_label("They are").fill("lynx")
        page.get_by_role("button", name=f"Save this tag for {cats:,} images").click()
        notice = page.get_by_role("status").filter(has_text=f"{cats:,} pictures tagged lynx")
        expect(notice).to_contain_text("Readers see it now")
        assert total(page) == 0
        page.goto("/search?tag=lynx")
        assert total(page) == cats
        page.go_back()
        page.get_by_role("button", name="Undo").click()
        expect(page.get_by_role("status").filter(has_text="undone")).to_be_visible()
        page.goto("/search?tag=cat")
        assert total(page) == cats


@BOTH
def test_it_fits_a_telephone(open_as: Callable[..., Page], scripts: bool) -> None:
    page = open_as("ann", scripts, width=360, color_scheme="dark", has_touch=True)
    for path in ("/", "/search", f"/pictures/{CORPUS}/0"):
        page.goto(path)
        assert page.locator("html").evaluate("page => page.scrollWidth") == 360, path
        save_picture(page, f"narrow-{path.split('/')[1] or 'landing'}")
    page.goto("/search?tag=dog")
    filters = page.get_by_label("Filters", exact=True)
    expect(filters).to_be_hidden()
    page.get_by_role("link", name="Filters").click()
    expect(filters).to_be_visible()
    save_picture(page, "narrow-filters")
    heights = [one.bounding_box() for one in filters.get_by_role("link").all() if one.is_visible()]
    assert min(box["height"] for box in heights if box) >= 24
    filters.get_by_role("link", name="Exclude cat").click()
    expect(page.get_by_label("What is searched for").get_by_text("-cat")).to_be_visible()
    expect(filters).to_be_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_serious_stands_in_the_way_of_anybody(open_as: Callable[..., Page], scheme: str) -> None:
    page = open_as("ann", color_scheme=scheme)
    for path in (
        "/",
        "/search",
        "/search?tag=dog&without=emu&confidence=20&max_confidence=90",
        "/search?tag=nothing-like-it",
        f"/pictures/{CORPUS}/0",
        "/review-sets?tag=dog",
        "/corrections/all?tag=dog",
        "/review",
    ):
        page.goto(path)
        assert_accessible(page)
    run = page.url.rpartition("/")[2]
    for path in (f"/review/{run}/one", f"/review/{run}/wall?tag=dog"):
        page.goto(path)
        expect(page.locator("main img").first).to_be_visible()
        assert_accessible(page)
