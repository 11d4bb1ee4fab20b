"""The grid's links in Airflow, and how little the plugin loads in every part of Airflow."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tinytags_tasks.parts import PROJECT_ROOT

PLUGINS = PROJECT_ROOT / "plugins"


def load_plugin() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tinytags_grid_under_test", PLUGINS / "tinytags_grid.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_loading_the_plugin_loads_neither_the_page_nor_an_engine() -> None:
    import airflow.plugins_manager  # noqa: F401 - what Airflow has loaded itself

    before = set(sys.modules)
    load_plugin()
    new = {name.split(".")[0] for name in set(sys.modules) - before}
    assert not new & {"grid_page", "fastapi", "numpy", "pyarrow", "PIL", "pysolr", "hdfs"}


def test_airflow_looks_for_plugins_in_no_module_of_the_page() -> None:
    from airflow._shared.module_loading import find_path_from_directory

    found = {Path(path).relative_to(PLUGINS).parts[0] for path in find_path_from_directory(PLUGINS, ".airflowignore")}
    assert {"tinytags_grid.py", "tinytags_links.py"} <= found
    assert "grid_page" not in found


def test_the_grid_is_a_page_of_the_navigation_and_a_tab_of_each_dag_run(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.api_fastapi.core_api.datamodels.plugins import ExternalViewResponse

    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://airflow.example/team/")
    plugin = load_plugin().TinyTagsGrid
    views = {view["destination"]: ExternalViewResponse.model_validate(view) for view in plugin.external_views}
    assert views["nav"].href == "/team/tinytags/"
    assert views["nav"].url_route == "blocks"
    assert views["dag_run"].href == "/team/tinytags/?dag={DAG_ID}&dag_run={RUN_ID}"
    assert [app["url_prefix"] for app in plugin.fastapi_apps] == ["/tinytags"]
