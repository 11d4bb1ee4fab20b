"""Every page in a browser, light and dark, on a desktop and on a telephone: nothing serious stands in anybody's way.

No engine is needed: the pages are over the small runs of the unit tests. Those of a search and of reviews are looked at
with Solr, in ``test_search_browser``.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import openid_pages
import pytest
from page_in_browser import PageServer, assert_accessible, browsing, save_picture
from pages_of_world import Pages, make_settings
from playwright.sync_api import Page, expect
from published_runs import World, make_world
from small_run import CORPUS

from tinytags_tasks.search import run_pages, wanted
from tinytags_tasks.settings import Settings

WIDTHS = {"desktop": 1280, "telephone": 360}
SCHEMES = pytest.mark.parametrize("scheme", ["light", "dark"])

served, provider, settings = openid_pages.served, openid_pages.provider, openid_pages.settings
whole_page = openid_pages.whole_page


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> World:
    world = make_world(tmp_path_factory.mktemp("world"))
    world.publish(world.runs[0])
    return world


@pytest.fixture
def pages(made: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pages]:
    settings = make_settings(tmp_path, monkeypatch).model_copy(update={"airflow_url": "http://airflow.example:8080"})
    found = Pages(made.copy(tmp_path / "copy"), settings, monkeypatch)
    for module in (run_pages, wanted):
        monkeypatch.setattr(module, "find_documents", found.find_documents)
    yield found
    found.app.state.context.applier.stop()


@pytest.fixture
def serve(request: pytest.FixtureRequest) -> Callable[[Settings], str]:
    """Serve the search page until the test ends."""

    def start(settings: Settings) -> str:
        server = PageServer(settings, {})
        server.start()
        request.addfinalizer(server.stop)
        return server.url

    return start


def look(page: Page, name: str) -> None:
    """Assert at each width that nobody is kept out, and that nothing is wider than the window."""
    for device, width in WIDTHS.items():
        page.set_viewport_size({"width": width, "height": 800})
        assert_accessible(page)
        assert page.locator("html").evaluate("page => page.scrollWidth") <= width, f"{page.url} on a {device}"
        save_picture(page, f"{name}-{device}")


@SCHEMES
def test_every_page_is_for_everybody(pages: Pages, serve: Callable[[Settings], str], scheme: str) -> None:
    old, new = pages.world.runs[0], pages.world.runs[2]
    card = pages.form(pages.client("operator"), min(pages.seen()))
    pages.post("operator", "/corrections", card | {"say": "tag", "tag": "dog"})
    other = pages.form(pages.client("operator"), max(pages.seen()))
    pages.post("operator", "/takedowns", other | {"reason": "asked to"})
    with browsing(serve(pages.settings)) as open_as:
        page = open_as("operator", color_scheme=scheme)
        for name, path, heading in (
            ("landing", "/", "image"),
            ("results", "/search", "images"),
            ("wrong-search", "/search?q=block:0-", ""),
            ("picture", f"/pictures/{CORPUS}/{min(pages.seen())}", ""),
            ("corrections", "/corrections", "Corrections and take-downs"),
            ("correct-all", "/corrections/all", "at once"),
            ("review-all", "/review-sets", "to review"),
            ("export", "/export", "Export"),
            ("export-progress", "/export/progress", "Progress of your export"),
            ("runs", "/runs", "Runs"),
            ("diff", f"/runs/{old.name}/{new.name}", "What changes from"),
            ("about", "/about", "About"),
            ("api", "/api/docs", "API"),
            ("refused", "/export?confidence=500", "This is not valid"),
        ):
            page.goto(path)
            if heading:
                expect(page.get_by_role("heading", level=1)).to_contain_text(heading)
            look(page, name)


@SCHEMES
def test_what_is_so_when_there_is_nothing_to_search_is_for_everybody(
    pages: Pages, serve: Callable[[Settings], str], scheme: str
) -> None:
    pages.world.solr.delete_alias(pages.settings.alias)
    with browsing(serve(pages.settings), "status of 404") as open_as:
        page = open_as("reader", color_scheme=scheme)
        page.goto("/")
        expect(page.get_by_role("heading", name="Nothing is published yet")).to_be_visible()
        look(page, "nothing")


@SCHEMES
def test_signing_in_is_for_everybody(
    settings: Settings, whole_page: object, serve: Callable[[Settings], str], scheme: str
) -> None:
    with browsing(serve(settings), "status of 403") as open_as:
        page = open_as("stranger", color_scheme=scheme)
        page.goto("/sign-in")
        expect(page.get_by_role("heading", name="Please sign in")).to_be_visible()
        look(page, "sign-in")
        page.goto("/sign-in?out")
        expect(page.get_by_role("heading", name="You are signed out")).to_be_visible()
        look(page, "signed-out")
