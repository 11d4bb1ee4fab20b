"""The store in a browser: what operators see of it, and that nothing outside it can be asked for."""

import html
from collections.abc import Iterator
from pathlib import Path

import pytest
from pages_of_world import Pages, make_settings
from published_runs import World

from tinytags_tasks.search import store_pages
from tinytags_tasks.store import layout


@pytest.fixture
def pages(made: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pages]:
    found = Pages(made.copy(tmp_path / "copy"), make_settings(tmp_path, monkeypatch), monkeypatch)
    yield found
    found.app.state.context.applier.stop()


def test_an_operator_walks_from_the_root_to_a_record(pages: Pages) -> None:
    client = pages.client("operator")
    run = pages.world.runs[0]
    assert 'href="/store/runs"' in client.get("/store").text
    assert f'href="/store/runs/{run.name}"' in client.get("/store/runs").text
    folder = client.get(f"/store/runs/{run.name}").text
    assert f'href="/store/{layout.run_file(run.name)}">run.json</a>' in folder
    assert f'href="/store/runs/{run.name}/ledger">ledger/</a>' in folder
    record = html.unescape(client.get(f"/store/{layout.run_file(run.name)}").text)
    assert f'"model": "{run.model}"' in record
    assert f'href="/store/runs/{run.name}">{run.name}</a>' in record


def test_a_download_has_the_bytes_of_the_file(pages: Pages, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_pages, "PIECE_BYTES", 100)
    path = layout.shard_file(pages.world.runs[0].corpus, 0)
    answer = pages.client("operator").get(f"/store-files/{path}")
    assert answer.content == pages.world.storage.read(path)
    assert answer.headers["content-disposition"] == 'attachment; filename="00000.bin"'


def test_a_long_folder_is_listed_in_pages(pages: Pages, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_pages, "ROWS", 4)
    folder = layout.ledger_file(pages.world.runs[0].name, 0).rpartition("/")[0]
    names = pages.world.storage.names(folder)
    client, address, found = pages.client("operator"), f"/store/{folder}", []
    while address:
        text = html.unescape(client.get(address).text)
        found += [name for name in names if f'">{name}' in text]
        _, more, after = text.partition('rel="next" href="')
        address = after.partition('"')[0] if more else ""
    assert found == names


@pytest.mark.parametrize(
    "path",
    ["%2e%2e", "%2e%2e/%2e%2e/etc/passwd", "runs/.x.tmp", "runs/a%00b", "runs/%0ax", "no-such", "runs/a%2f..%2f.."],
)
@pytest.mark.parametrize("area", ["store", "store-files"])
def test_what_the_store_does_not_have_is_not_found(pages: Pages, area: str, path: str) -> None:
    assert pages.client("operator").get(f"/{area}/{path}").status_code == 404


@pytest.mark.parametrize("role", ["reader", "reviewer"])
@pytest.mark.parametrize("area", ["store", "store-files"])
def test_others_see_nothing_of_the_store(pages: Pages, role: str, area: str) -> None:
    client = pages.client(role)
    path = layout.run_file(pages.world.runs[0].name)
    assert client.get(f"/{area}/{path}").status_code == 403
    assert 'href="/store"' not in client.get("/about").text


def test_a_file_is_shown_without_listing_its_folder(pages: Pages, monkeypatch: pytest.MonkeyPatch) -> None:
    listed: list[str] = []
    storage = type(pages.world.storage)
    for name in ("names", "sizes"):
        ask = getattr(storage, name)
        monkeypatch.setattr(storage, name, lambda self, path, ask=ask: listed.append(path) or ask(self, path))
    path = layout.run_file(pages.world.runs[0].name)
    assert pages.client("operator").get(f"/store/{path}").status_code == 200
    assert pages.client("operator").get(f"/store-files/{path}").status_code == 200
    assert layout.run_folder(pages.world.runs[0].name) not in listed


def test_a_folder_cannot_be_downloaded(pages: Pages) -> None:
    answer = pages.client("operator").get("/store-files/runs")
    assert answer.status_code == 404
    assert "runs is a folder: choose one of its files" in answer.text
