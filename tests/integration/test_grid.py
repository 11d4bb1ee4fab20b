"""The block grid in the real Airflow, with a run that Airflow made: by its routes, and in a browser."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import wait_for
from playwright.sync_api import Page, expect
from small_run import SparkHere

from tinytags_tasks.embed.step import EmbedRequest, embed_blocks
from tinytags_tasks.nets.shipped import shipped_card
from tinytags_tasks.runtime import Runtime
from tinytags_tasks.score.plan import PlanRequest, plan_run
from tinytags_tasks.services.secrets import secret
from tinytags_tasks.settings import Settings
from tinytags_tasks.store import layout
from tinytags_tasks.store.model_records import ModelCard

SHARD, BLOCKS = 400, 3
ACT = {"X-TinyTags-Grid": "1", "Sec-Fetch-Site": "same-origin"}
USERS = {"viewer": "airflow_viewer_password", "operator": "airflow_operator_password"}


@pytest.fixture(scope="module")
def run(
    airflow: Settings,
    tinytags: Callable[..., subprocess.CompletedProcess[str]],
    pictures: dict[str, Path],
    model: str,
    runtime: Runtime,
) -> str:
    """The name of a run that Airflow made."""
    added = tinytags(
        *("corpus", "add", "gridded", str(pictures["corpus"]), "--format", "tiny-images"),
        *("--shard-images", str(SHARD), "--blocks-per-shard", str(BLOCKS)),
    )
    assert added.returncode == 0, added.stderr
    made = tinytags("run", "gridded", "--model", model, "--blocks-per-task", "4", "--no-publish")
    assert made.returncode == 0, made.stderr
    assert "tinytags publish gridded-" in made.stderr
    return next(name for name in runtime.storage.names("runs") if name.startswith("gridded-"))


@pytest.fixture(scope="module")
def ask(airflow: Settings, run: str) -> Iterator[Callable[..., httpx.Response]]:
    """Send a request to Airflow as one of its users."""
    with httpx.Client(base_url=airflow.address("airflow_url"), timeout=60, trust_env=False) as client:
        tokens = {
            user: client.post("/auth/token", json={"username": user, "password": secret(airflow, password)}).json()[
                "access_token"
            ]
            for user, password in USERS.items()
        }

        def send(user: str, path: str, body: dict[str, Any] | None = None) -> httpx.Response:
            headers = {"Authorization": f"Bearer {tokens[user]}"}
            if body is None:
                return client.get(path, headers=headers)
            return client.post(path, headers=headers | ACT, json=body)

        yield send


def test_the_grid_shows_the_run_its_logs_and_its_images(ask: Callable[..., httpx.Response], run: str) -> None:
    path = f"/tinytags/api/runs/{run}"
    assert run in [found["name"] for found in ask("viewer", "/tinytags/api/runs").json()["runs"]]
    cells = wait_for(lambda: ask("viewer", f"{path}/cells").json(), lambda cells: "unknown" not in cells["counts"])
    assert cells["counts"] == {"verified": 9}
    assert cells["problems"] == []
    (tagged,) = [one for one in ask("viewer", "/tinytags/api/history").json()["dag_runs"] if one["runs"] == [run]]
    assert (tagged["state"], tagged["images"], tagged["retries"]) == ("success", cells["totals"]["read"], 0)
    cell = ask("viewer", f"{path}/blocks/5").json()
    assert cell["task"]["state"] == "success"
    dag, dag_run, task, map_index = (cell["task"]["log"].partition("?")[0].split("/")[at] for at in (2, 4, 6, 8))
    instance = ask("viewer", f"/api/v2/dags/{dag}/dagRuns/{dag_run}/taskInstances/{task}/{map_index}").json()
    assert instance["rendered_map_index"] == "shards 1-2, blocks 4-7"
    (image, *_) = ask("viewer", f"{path}/blocks/5/images").json()["images"]
    assert ask("viewer", f"{path}/images/{image['position']}.png").content.startswith(b"\x89PNG")


def test_readers_do_not_see_a_run_that_was_not_to_be_published(runtime: Runtime, run: str) -> None:
    assert f"tinytags-{run}" in runtime.solr.collections()
    assert f"tinytags-{run}" not in runtime.solr.aliases().values()


def test_airflow_lists_the_page_and_refuses_unknown_users(airflow: Settings, run: str) -> None:
    url = airflow.address("airflow_url")
    assert httpx.get(f"{url}/tinytags/", trust_env=False).status_code == 401
    assert httpx.get(f"{url}/tinytags/api/runs/{run}/cells", trust_env=False).status_code == 401


def test_an_operator_clears_a_block_and_airflow_runs_it_again(ask: Callable[..., httpx.Response], run: str) -> None:
    path = f"/tinytags/api/runs/{run}/blocks/8"
    ask("viewer", f"/tinytags/api/runs/{run}/cells")
    assert ask("viewer", f"{path}/clear", {}).status_code == 403
    cleared = ask("operator", f"{path}/clear", {})
    assert cleared.status_code == 200, cleared.text
    dag_run = cleared.json()["link"].removeprefix("..").replace("/runs/", "/dagRuns/")
    ended = wait_for(
        lambda: ask("viewer", f"/api/v2{dag_run}").json(), lambda found: found["state"] in ("success", "failed")
    )
    assert ended["state"] == "success"
    states = ask("viewer", f"/api/v2{dag_run}/taskInstances?task_id=blocks&limit=100").json()["task_instances"]
    assert {found["map_index"]: found["try_number"] for found in states if found["task_id"] == "blocks"} == {
        0: 1,
        1: 1,
        2: 2,
    }
    weights = {found["map_index"]: found["priority_weight"] for found in states if found["task_id"] == "blocks"}
    # Another run's first task runs before the last one here.
    assert weights[0] - weights[1] == weights[1] - weights[2] == 1
    events = ask("operator", "/api/v2/eventLogs?order_by=-when&event_pattern=tinytags_grid").json()["event_logs"]
    assert (events[0]["event"], events[0]["owner"]) == ("tinytags_grid.clear", "operator")


def test_an_operator_backfills_a_block_by_a_run_of_their_own(ask: Callable[..., httpx.Response], run: str) -> None:
    body = {"action": "backfill", "blocks": "2"}
    assert ask("viewer", f"/tinytags/api/runs/{run}/actions", body).status_code == 403
    started = ask("operator", f"/tinytags/api/runs/{run}/actions", body)
    assert started.status_code == 200, started.text
    dag_run = started.json()["link"].removeprefix("..").replace("/runs/", "/dagRuns/")
    ended = wait_for(
        lambda: ask("viewer", f"/api/v2{dag_run}").json(), lambda found: found["state"] in ("success", "failed")
    )
    assert (ended["state"], ended["triggering_user_name"]) == ("success", "operator")
    assert ended["conf"]["blocks"] == "2"
    path = f"/tinytags/api/runs/{run}"
    cells = wait_for(lambda: ask("viewer", f"{path}/cells").json(), lambda cells: cells["counts"] == {"verified": 9})
    assert cells["problems"] == []
    log = ask("viewer", f"{path}/blocks/2").json()["task"]["log"]
    assert log.startswith("../dags/tinytags_backfill/runs/")


def test_a_person_finds_blocks_with_the_keyboard_and_is_asked_before_anything_is_done(
    open_page: Callable[[str], Page], run: str
) -> None:
    complaints: list[str] = []
    page = open_page("operator")
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.goto("/plugin/blocks")
    grid = page.frame_locator("iframe")
    grid.locator("#runs").select_option(run)
    expect(grid.locator("[role=gridcell][data-state=verified]")).to_have_count(9, timeout=30_000)
    grid.locator("[role=gridcell]").first.focus()
    for key in ("ArrowDown", "ArrowRight", "Shift+ArrowRight", "Shift+ArrowDown"):
        page.keyboard.press(key)
    expect(grid.locator("#selected")).to_have_text("4 blocks selected")
    page.keyboard.press("Enter")
    expect(grid.locator("aside h2")).to_have_text("Block 8")
    expect(grid.locator("aside img").first).to_be_visible()
    grid.locator("#delete-selected").click()
    expect(grid.locator("#consequence")).to_contain_text("4-5, 7-8")
    grid.locator("#cancel").click()
    grid.locator("aside .buttons button", has_text="Backfill").click()
    page.keyboard.press("Escape")
    expect(grid.locator("#outcome")).to_be_empty()
    grid.locator("aside a").first.click()
    page.wait_for_url("**/tasks/blocks/mapped/2*")
    page.goto(page.url.partition("/tasks/")[0] + "/plugin/tinytags-blocks")  # the tab of the Dag run
    expect(page.frame_locator("iframe").locator("#runs")).to_have_value(run, timeout=30_000)
    assert complaints == []


@pytest.fixture
def seeing_model(model: str, runtime: Runtime) -> Iterator[str]:
    """The version of a model that sees embeddings; it has only a card, so nothing can be scored with it."""
    card = ModelCard.load(runtime.storage, layout.card_file(model))
    card = card.replaced(version="seeing-0123456789ab", features=shipped_card().version)
    card.save(runtime.storage, layout.card_file(card.version))
    yield card.version
    runtime.storage.delete(layout.model_folder(card.version))


def test_a_shard_of_many_blocks_goes_on_in_the_next_row(
    open_page: Callable[[str], Page],
    ask: Callable[..., httpx.Response],
    tinytags_here: Callable[..., subprocess.CompletedProcess[str]],
    pictures: dict[str, Path],
    seeing_model: str,
    runtime: Runtime,
) -> None:
    source, shape = str(pictures["corpus"]), ("--shard-images", "600", "--blocks-per-shard", "60")
    for command in (
        ("corpus", "add", "broad", source, "--format", "tiny-images", *shape),
        ("ingest", "broad"),
    ):
        done = tinytags_here(*command)
        assert done.returncode == 0, done.stderr
    planned = plan_run(PlanRequest("broad", seeing_model), storage=runtime.storage).run
    wait_for(lambda: planned in ask("viewer", "/tinytags/api/runs").text)  # the list is kept for some seconds
    page = open_page("operator")
    page.goto("/plugin/blocks")
    grid = page.frame_locator("iframe")
    grid.locator("#runs").select_option(planned)
    expect(grid.locator("[role=gridcell][data-state=planned]")).to_have_count(120, timeout=30_000)
    embed_blocks(
        EmbedRequest("broad", shipped_card().version, (0, 1, 119)),
        storage=runtime.storage,
        address=runtime.store_address,
        connect_spark=SparkHere(),
    )
    expect(grid.locator("[role=gridcell][data-state=embedded]")).to_have_count(3, timeout=30_000)
    expect(grid.locator("#legend")).to_contain_text("embedded 3")
    expect(grid.locator("#grid [role=rowheader]")).to_have_text(["0", "", "1", ""])
    grid.locator("[role=gridcell]").first.focus()
    for key in ("End", "ArrowDown", "ArrowDown", "Shift+ArrowUp"):  # block 49, the short row's last, 69, back
        page.keyboard.press(key)
    expect(grid.locator("#selected")).to_have_text("2 blocks selected")
    grid.locator("#backfill-selected").click()
    expect(grid.locator("#consequence")).to_contain_text("59, 69")
    grid.locator("#cancel").click()
    grid.locator("[role=gridcell]").first.press("Control+a")
    expect(grid.locator("#selected")).to_have_text("120 blocks selected")
