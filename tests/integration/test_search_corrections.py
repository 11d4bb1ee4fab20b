"""Correcting and taking down on the search page in a browser, over the real Solr and HDFS, with and without scripts."""

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import uvicorn
from conftest import IMAGES, all_documents, wait_for
from playwright.sync_api import Locator, Page, expect, sync_playwright
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
from tinytags_tasks.store.ledger import read_ledger
from tinytags_tasks.store.run_records import BlockState, Run

CORPUS = ALIAS = "corrected"
PASSWORD = "correct horse"
READERS_SEE_SECONDS = 3


@pytest.fixture(scope="module")
def settings(hdfs: Runtime, pictures: dict[str, Path]) -> Settings:
    """Only Solr besides HDFS, with a run that readers see."""
    solr = services.up(load_settings(), engines=["solr"], standard_ports=False, die_with_parent=True)
    settings = solr.model_copy(update={"alias": ALIAS})
    runtime = Runtime(settings)
    fields = {"source": str(pictures["corpus"]), "format": "tiny-images", "shard_images": 400, "blocks_per_shard": 3}
    ingest_corpus(make_definition(CORPUS, fields), storage=runtime.storage)
    publish_model(runtime.storage)
    name = plan_run(PlanRequest(CORPUS, MODEL, threshold=0), storage=runtime.storage).run
    prepare_collection(name, storage=runtime.storage, solr=runtime.solr)
    blocks = tuple(range(9))
    score_blocks(
        ScoreRequest(name, blocks), storage=runtime.storage, address=runtime.store_address, connect_spark=SparkHere()
    )
    index_blocks(IndexRequest(name, blocks), storage=runtime.storage, solr=runtime.solr)
    publish_run(PublishRequest(name, alias=ALIAS), storage=runtime.storage, solr=runtime.solr)
    return settings


@pytest.fixture(scope="module")
def url(settings: Settings) -> Iterator[str]:
    """The page, served as `tinytags up` serves it."""
    secret(settings, "search_password")
    accounts = AccountFile(settings)
    for name, role in {"rob": Role.READER, "ada": Role.REVIEWER, "olga": Role.OPERATOR}.items():
        accounts.add(name, role, PASSWORD)
    server = uvicorn.Server(uvicorn.Config(create_app(settings), host="127.0.0.1", port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_for(lambda: server.started)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture
def open_as(url: str) -> Iterator[Callable[..., Page]]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert chromium, "install chromium: it is in the distribution's packages"
    complaints: list[str] = []
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])

        def open_as(name: str, scripts: bool = True) -> Page:
            context = browser.new_context(
                base_url=url,
                http_credentials={"username": name, "password": PASSWORD},
                java_script_enabled=scripts,
                viewport={"width": 1280, "height": 900},
            )
            context.set_default_timeout(30_000)
            expect.set_options(timeout=30_000)
            page = context.new_page()
            page.on("console", lambda line: complaints.append(line.text) if line.type == "error" else None)
            page.goto("/?rows=100")
            return page

        yield open_as
        browser.close()
    assert complaints == []


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
    expect(reviewer.get_by_role("status")).to_contain_text("Readers see it now")
    assert time.monotonic() - started < READERS_SEE_SECONDS
    reader.goto(f"/?tag={tag}")
    expect(reader.locator(".card")).to_have_count(1)
    expect(card(reader, position).locator(".tag b")).to_have_text(tag)
    expect(card(reader, position)).to_contain_text("corrected by ada")
    expect(reader.get_by_text("Correct", exact=True)).to_have_count(0)
    expect(reader.locator("form[method=post], script")).to_have_count(0)

    # Another one is none of the tags.
    reviewer.goto("/?rows=100")
    chosen = card(reviewer, other)
    chosen.get_by_text("Correct", exact=True).click()
    chosen.get_by_role("button", name="None of the tags").click()
    expect(reviewer.get_by_role("status")).to_contain_text("Readers see it now")
    reader.goto("/?rows=100")
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
        expect(operator.get_by_text("Correct 3 selected")).to_be_visible()
    else:
        for box in boxes[1:]:
            box.check()
    menu = operator.locator(".selection")
    menu.locator("summary").click()
    menu.get_by_label("Reason").fill("the person asked")
    menu.get_by_role("button", name="Take down").click()
    expect(operator.get_by_role("status")).to_contain_text("3 pictures taken down. Readers see it now.")
    reader.goto("/?rows=100")
    for position in positions:
        expect(card(reader, position)).to_have_count(0)
    after = all_documents(settings.address("solr_url"), ALIAS)
    assert before.keys() - after.keys() == {layout.document_id(CORPUS, position) for position in positions}
    assert_everything_adds_up(settings, taken_down=3)

    operator.get_by_role("button", name="Undo").click()
    expect(operator.get_by_role("status")).to_contain_text("undone")
    reader.goto("/?rows=100")
    expect(card(reader, positions[0])).to_have_count(1)
    assert all_documents(settings.address("solr_url"), ALIAS).keys() == before.keys()
    assert_everything_adds_up(settings, taken_down=0)


def test_a_reviewer_has_no_way_to_take_down(open_as: Callable[..., Page]) -> None:
    reviewer = open_as("ada")
    expect(reviewer.get_by_text("Correct", exact=True).first).to_be_visible()
    expect(reviewer.get_by_text("Take down")).to_have_count(0)
    assert len(first_positions(reviewer, IMAGES)) == 100
