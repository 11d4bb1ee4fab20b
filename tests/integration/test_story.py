"""What a person does on Airflow's pages: trigger by the form, watch the grid, repair what failed, delete, redo.

With ``TINYTAGS_SCREENSHOTS=<folder>`` it saves its screenshots there; those in the documents are made this way.
"""

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import pytest
from conftest import all_documents, wait_for
from playwright.sync_api import FrameLocator, Locator, Page, expect

from tinytags_tasks.cli.follow import airflow_client
from tinytags_tasks.clients.airflow import AirflowClient
from tinytags_tasks.runtime import Runtime
from tinytags_tasks.settings import Settings
from tinytags_tasks.store import layout
from tinytags_tasks.store.ledger import read_ledger
from tinytags_tasks.store.run_records import BlockState, Run

CORPUS = ALIAS = "told"
SHARD, BLOCKS_PER_SHARD, BLOCKS = 400, 3, 9
BROKEN = 4
SECONDS = 120_000
"""That something may take, in milliseconds."""


@pytest.fixture(scope="module")
def client(
    airflow: Settings, tinytags_here: Callable[..., subprocess.CompletedProcess[str]], pictures: dict[str, Path]
) -> AirflowClient:
    added = tinytags_here(
        *("corpus", "add", CORPUS, str(pictures["corpus"]), "--format", "tiny-images"),
        *("--shard-images", str(SHARD), "--blocks-per-shard", str(BLOCKS_PER_SHARD)),
    )
    assert added.returncode == 0, added.stderr
    client = airflow_client(Runtime(airflow))
    client.wait_for_dag("tinytags")
    client.wait_for_dag("tinytags_backfill")
    return client


def picture(shown: Page | Locator, name: str) -> None:
    if folder := os.environ.get("TINYTAGS_SCREENSHOTS"):
        time.sleep(1)  # animations come to rest
        shown.screenshot(path=Path(folder) / f"{name}.png")


def show_grid(page: Page, run: str) -> FrameLocator:
    page.goto("/plugin/blocks")
    grid = page.frame_locator("iframe")
    grid.locator("#runs").select_option(run, timeout=60_000)
    return grid


def confirm(grid: FrameLocator) -> None:
    grid.locator("#do").click()
    expect(grid.locator("#outcome a")).to_be_visible()


def test_a_person_triggers_watches_mends_deletes_and_does_again(
    client: AirflowClient,
    open_page: Callable[[str], Page],
    runtime: Runtime,
    pictures: dict[str, Path],
) -> None:
    storage, solr = runtime.storage, runtime.solr
    page = open_page("operator")

    # Trigger by the form.
    page.goto("/dags/tinytags")
    page.get_by_role("button", name="Trigger").first.click()
    dialog = page.get_by_role("dialog")
    for section, fields in {
        "Run": {"blocks_per_task": str(BLOCKS_PER_SHARD)},
        "Publishing": {"alias": ALIAS},
        "Model": {"labelled": str(pictures["labelled"])},
        "Corpus": {"corpus": CORPUS},
    }.items():
        dialog.get_by_role("button", name=section, exact=True).click()
        for field, value in fields.items():
            page.fill(f"input[name=element_{field}]", value)
            page.keyboard.press("Tab")
    picture(page, "form")
    dialog.get_by_role("button", name="Trigger", exact=True).click()
    page.wait_for_url("**/dags/tinytags/runs/**")
    dag_run = unquote(urlsplit(page.url).path.partition("/runs/")[2].partition("/")[0])

    # While it trains, a disk loses some bytes of a block.
    wait_for(lambda: "train" in [task.task for task in client.task_states("tinytags", dag_run) if task.started])
    path = layout.shard_file(CORPUS, BROKEN // BLOCKS_PER_SHARD)
    whole = storage.read(path)
    at = (BROKEN % BLOCKS_PER_SHARD) * len(whole) // BLOCKS_PER_SHARD
    storage.write(path, whole[:at] + b"lost" + whole[at + 4 :])

    # The grid fills, and one cell is red.
    (name,) = wait_for(
        lambda: [
            name
            for name in storage.names(layout.RUNS)
            if name.startswith(f"{CORPUS}-") and storage.exists(layout.run_file(name))  # the folder comes first
        ]
    )
    run = Run.load(storage, layout.run_file(name))
    grid = show_grid(page, name)
    cells = grid.locator("[role=gridcell]")
    expect(grid.locator("[role=gridcell][data-state=verified]").first).to_be_visible(timeout=SECONDS)
    picture(page, "grid-filling")
    expect(grid.locator("[role=gridcell][data-state=verified]")).to_have_count(BLOCKS - 1, timeout=SECONDS)
    expect(cells.nth(BROKEN)).to_have_attribute("data-state", "failed", timeout=SECONDS)
    cells.nth(BROKEN).click()
    expect(grid.locator("aside .reason")).to_contain_text("is not what was ingested")
    picture(page, "grid-failed")
    assert ALIAS not in solr.aliases()

    # The bytes are restored; its task is cleared in Airflow's own view, and the run continues to its end.
    wait_for(lambda: client.run_state("tinytags", dag_run) == "failed")
    storage.write(path, whole)
    before_clearing = {record.block: record.scored for record in read_ledger(storage, run)}
    group = BROKEN // BLOCKS_PER_SHARD
    page.goto(f"/dags/tinytags/runs/{quote(dag_run)}/tasks/blocks/mapped/{group}")
    expect(page.get_by_role("heading", name="blocks [shard 1, blocks 3-5]")).to_be_visible()
    page.get_by_label("Press shift+c to clear").click()
    expect(page.get_by_role("dialog")).to_contain_text("Affected Tasks: 5")
    picture(page.get_by_role("dialog"), "clear")
    page.get_by_role("button", name="Confirm").click()
    wait_for(lambda: client.run_state("tinytags", dag_run) in ("queued", "running"))
    wait_for(lambda: client.run_state("tinytags", dag_run) == "success")
    tries = {task.map_index: task.attempt for task in client.task_states("tinytags", dag_run) if task.task == "blocks"}
    assert tries == {0: 1, group: 2, 2: 1}
    assert solr.aliases()[ALIAS] == run.collection
    records = read_ledger(storage, run)
    assert {record.state for record in records} == {BlockState.VERIFIED}
    assert [record.block for record in records if record.scored != before_clearing[record.block]] == [BROKEN]

    # A block is deleted in the grid, and done again from there.
    before = all_documents(runtime.settings.address("solr_url"), run.collection)
    grid = show_grid(page, name)
    cells = grid.locator("[role=gridcell]")
    expect(grid.locator("[role=gridcell][data-state=verified]")).to_have_count(BLOCKS, timeout=SECONDS)
    cells.nth(2).click()
    grid.locator("aside .buttons button", has_text="Delete from index").click()
    expect(grid.locator("#consequence")).to_contain_text("2")
    picture(page, "grid-delete")
    confirm(grid)
    expect(cells.nth(2)).to_have_attribute("data-state", "scored", timeout=SECONDS)
    wait_for(lambda: 2 not in solr.count_by_block(run.collection))  # the ledger is updated before Solr
    cells.nth(2).click()
    grid.locator("aside .buttons button", has_text="Backfill").click()
    confirm(grid)
    expect(cells.nth(2)).to_have_attribute("data-state", "verified", timeout=SECONDS)
    after = all_documents(runtime.settings.address("solr_url"), run.collection)
    for document in (*before.values(), *after.values()):
        document.pop("_version_", None)
    assert after == before
    assert solr.aliases()[ALIAS] == run.collection


def test_no_button_works_for_a_viewer(
    client: AirflowClient, open_page: Callable[[str], Page], runtime: Runtime
) -> None:
    (name,) = [name for name in runtime.storage.names(layout.RUNS) if name.startswith(f"{CORPUS}-")]
    page = open_page("viewer")
    grid = show_grid(page, name)
    expect(grid.locator("[role=gridcell][data-state=verified]")).to_have_count(BLOCKS, timeout=SECONDS)
    grid.locator("[role=gridcell]").nth(2).click()
    expect(grid.locator("aside h2")).to_have_text("Block 2")
    for action in ("Clear its task", "Backfill", "Delete from index"):
        expect(grid.locator("aside button", has_text=action)).to_be_disabled()
    page.keyboard.press("Escape")
    grid.locator("[role=gridcell]").nth(2).focus()
    page.keyboard.press("Shift+ArrowDown")
    expect(grid.locator("#selected")).to_have_text("2 blocks selected")
    assert grid.locator("#backfill-selected").is_disabled()
    assert grid.locator("#delete-selected").is_disabled()
