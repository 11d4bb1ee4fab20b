"""An open page while another run is published: no request fails, even if what was live is dropped at once."""

import base64
from pathlib import Path
from types import SimpleNamespace

import pytest
from fastapi.testclient import TestClient
from published_runs import ALIAS, World
from solr_of_pages import SolrOfPages

from tinytags_tasks.search import live
from tinytags_tasks.search import page as page_module
from tinytags_tasks.search.page import create_app
from tinytags_tasks.settings import Settings

LOGIN = "Basic " + base64.b64encode(b"tinytags:pass").decode()


def test_no_request_fails_when_what_was_live_is_replaced_and_dropped(
    made: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, solr = made.copy(tmp_path / "copy"), SolrOfPages()
    clients = SimpleNamespace(storage=world.storage, solr=world.solr)
    monkeypatch.setattr(page_module, "Runtime", lambda *_, **__: clients)
    monkeypatch.setattr(live, "KEPT_SECONDS", 600.0)  # so that the page does not look by itself, however slow this is
    settings = Settings(home=tmp_path, search_password="pass", solr_url=solr.url, alias=ALIAS, search_rate_limit=0)
    client = TestClient(create_app(settings), headers={"Authorization": LOGIN})
    for path in ("/", "/search", "/api/v1/search", "/api/v1/facets", "/api/search"):
        for run, other in (world.runs[:2], world.runs[1::-1]):
            world.publish(run)
            client.app.state.context.live.forget()  # type: ignore[attr-defined]
            solr.gone = set()
            assert client.get(path).status_code == 200
            world.publish(other)
            solr.gone = {run.collection}
            solr.searched.clear()
            assert client.get(path).status_code == 200, path  # though the page does not know of it yet
            assert solr.searched[0] == {run.collection}
            assert solr.searched[-1] == {other.collection}
    solr.shutdown()
    solr.server_close()
