"""Correcting and taking down on the search page in a browser, over the real Solr and HDFS, with and without scripts."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import IMAGES, all_documents
from page_in_browser import browsing, publish_small_run, serving
from playwright.sync_api import Locator, Page, expect

from tinytags_tasks.runtime import Runtime
from tinytags_tasks.search.accounts import Role
from tinytags_tasks.settings import Settings
from tinytags_tasks.store import layout
from tinytags_tasks.store.ledger import read_ledger
from tinytags_tasks.store.run_records import BlockState, Run

CORPUS = ALIAS = "corrected"
READERS_SEE_SECONDS = 3


@pytest.fixture(scope="module")
def settings(hdfs: Runtime, pictures: dict[str, Path]) -> Settings:
    """Only Solr besides HDFS, with a run that readers see."""
    return publish_small_run(CORPUS, 0, pictures["corpus"])


@pytest.fixture(scope="module")
def url(settings: Settings) -> Iterator[str]:
    with serving(settings, rob=Role.READER, ada=Role.REVIEWER, olga=Role.OPERATOR) as server:
        yield server.url


@pytest.fixture
def open_as(url: str) -> Iterator[Callable[..., Page]]:
    with browsing(url) as opener:

        def open_as(name: str, scripts: bool = True) -> Page:
            page = opener(name, scripts)
            page.goto("/search?rows=100")
            return page

        yield open_as


def card(page: Page, position: int) -> Locator:
    return page.locator(".card").filter(has=page.get_by_alt_text(f", image {position} of {CORPUS}"))


def first_positions(page: Page, count: int) -> list[int]:
    texts = [image.get_attribute("alt") or "" for image in page.locator(".card img").all()[:count]]
    return [int(text.split(" image ")[1].split(" of ")[0]) for text in texts]


def assert_everything_adds_up(settings: Settings, taken_down: int) -> None:
    runtime = Runtime(settings)
    run = Run.load(runtime.storage, layout.run_file(layout.run_of_collection(runtime.solr.aliases()[ALIAS])))
    records = read_ledger(runtime.storage, run)
    assert {record.state for record in records} == {BlockState.VERIFIED}
    assert all(record.accounted == record.read for record in records)
    assert sum(record.taken_down for record in records) == taken_down
    assert sum(record.kept for record in records) == runtime.solr.count(run.collection)


@pytest.mark.parametrize("scripts", [True, False], ids=["with scripts", "without scripts"])
def test_a_correction_is_made_on_a_card_and_readers_see_it(
    settings: Settings, open_as: Callable[..., Page], scripts: bool
) -> None:
    reviewer, reader = open_as("ada", scripts), open_as("rob", scripts)
    tag = f"wombat {scripts}"
    position, other = first_positions(reviewer, 2)
    chosen = card(reviewer, position)
    chosen.get_by_text("Correct", exact=True).click()
    chosen.get_by_label("It is").fill(tag)
    chosen.get_by_role("button", name="Save this tag").click()
    started = time.monotonic()
    expect(reviewer.get_by_role("status").filter(has_text="Readers see it now")).to_be_visible()
    assert time.monotonic() - started < READERS_SEE_SECONDS
    reader.goto(f"/search?tag={tag}")
    expect(reader.locator(".card")).to_have_count(1)
    expect(card(reader, position).locator(".tag b")).to_have_text(tag)
    expect(card(reader, position)).to_contain_text("corrected by ada")
    expect(reader.get_by_text("Correct", exact=True)).to_have_count(0)
    for word in ("corrections", "takedowns", "undo"):
        expect(reader.locator(f"[action*={word}], [formaction*={word}]")).to_have_count(0)

    # Another one is none of the tags.
    reviewer.goto("/search?rows=100")
    chosen = card(reviewer, other)
    chosen.get_by_text("Correct", exact=True).click()
    chosen.get_by_role("button", name="None of the tags").click()
    expect(reviewer.get_by_role("status").filter(has_text="Readers see it now")).to_be_visible()
    reader.goto("/search?rows=100")
    expect(card(reader, other)).to_have_count(0)
    assert_everything_adds_up(settings, taken_down=0)


@pytest.mark.parametrize("scripts", [True, False], ids=["with scripts", "without scripts"])
def test_several_are_taken_down_at_once_and_it_is_undone(
    settings: Settings, open_as: Callable[..., Page], scripts: bool
) -> None:
    operator, reader = open_as("olga", scripts), open_as("rob", scripts)
    before = all_documents(settings.address("solr_url"), ALIAS)
    positions = first_positions(operator, 3)
    boxes = [card(operator, position).get_by_role("checkbox") for position in positions]
    boxes[0].check()
    if scripts:
        boxes[2].click(modifiers=["Shift"])
        expect(operator.get_by_text("3 ticked")).to_be_visible()
    else:
        for box in boxes[1:]:
            box.check()
    menu = operator.locator(".selection")
    menu.locator("summary").click()
    menu.get_by_label("Reason").fill("the person asked")
    menu.get_by_role("button", name="Take down").click()
    expect(operator.get_by_role("status").filter(has_text="3 pictures taken down. Readers see it now.")).to_be_visible()
    reader.goto("/search?rows=100")
    for position in positions:
        expect(card(reader, position)).to_have_count(0)
    after = all_documents(settings.address("solr_url"), ALIAS)
    assert before.keys() - after.keys() == {layout.document_id(CORPUS, position) for position in positions}
    assert_everything_adds_up(settings, taken_down=3)

    operator.get_by_role("button", name="Undo").click()
    expect(operator.get_by_role("status").filter(has_text="undone")).to_be_visible()
    reader.goto("/search?rows=100")
    expect(card(reader, positions[0])).to_have_count(1)
    assert all_documents(settings.address("solr_url"), ALIAS).keys() == before.keys()
    assert_everything_adds_up(settings, taken_down=0)


def test_a_reviewer_has_no_way_to_take_down(open_as: Callable[..., Page]) -> None:
    reviewer = open_as("ada")
    expect(reviewer.get_by_text("Correct", exact=True).first).to_be_visible()
    expect(reviewer.get_by_text("Take down")).to_have_count(0)
    assert len(first_positions(reviewer, IMAGES)) == 100
