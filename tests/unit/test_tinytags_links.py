"""The links from Airflow's navigation to the search page and the review."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

PLUGIN = Path(__file__).parents[2] / "plugins" / "tinytags_links.py"


@pytest.fixture(autouse=True)
def own_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TINYTAGS_HOME", str(tmp_path))
    monkeypatch.delenv("TINYTAGS_SEARCH_URL", raising=False)


def load_plugin() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tinytags_links_under_test", PLUGIN)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_search_page_and_the_review_are_linked_and_not_framed(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.api_fastapi.core_api.datamodels.plugins import ExternalViewResponse

    monkeypatch.setenv("TINYTAGS_SEARCH_URL", "http://127.0.0.1:8500")
    views = load_plugin().TinyTagsLinks.external_views
    found = [ExternalViewResponse.model_validate(view) for view in views]
    assert [view.href for view in found] == ["http://127.0.0.1:8500", "http://127.0.0.1:8500/review"]
    assert {(view.destination, view.url_route) for view in found} == {("nav", None)}


def test_the_recorded_address_is_used(tmp_path: Path) -> None:
    (tmp_path / "addresses.json").write_text('{"search_url": "http://127.0.0.1:8501"}')
    assert load_plugin().search_views()[0]["href"] == "http://127.0.0.1:8501"


@pytest.mark.parametrize("url", ["", "javascript:alert(1)"])
def test_without_an_address_there_is_no_link(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("TINYTAGS_SEARCH_URL", url)
    assert load_plugin().search_views() == []


def test_unreadable_settings_do_not_break_airflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINYTAGS_SOLR_SHARDS", "many")
    assert load_plugin().search_views() == []


def test_the_plugin_loads_no_engines() -> None:
    before = set(sys.modules)
    load_plugin()
    new = set(sys.modules) - before
    assert not {name for name in new if name.split(".")[0] in {"pyspark", "pyarrow", "onnxruntime", "pysolr"}}
