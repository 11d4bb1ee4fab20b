"""A wheel brings all that a checkout has: Dags, plugins, policy and Solr's configset, where no checkout is."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder
from typer.testing import CliRunner

from tinytags_tasks.airflow_parts import POLICY
from tinytags_tasks.cli import app
from tinytags_tasks.parts import PROJECT_ROOT, dag_files
from tinytags_tasks.services import airflow, airflow_config
from tinytags_tasks.settings import Settings
from tinytags_tasks.store.configsets import current_configset

LOOK = """
import json, sys
from pathlib import Path

from tinytags_tasks import parts
from tinytags_tasks.services.jars import LOCK
from tinytags_tasks.settings import Settings
from tinytags_tasks.store.configsets import current_configset

import airflow.settings
from airflow.dag_processing.dagbag import DagBag
from airflow.plugins_manager import _get_plugins

bag = DagBag(sys.argv[1])
plugins, _ = _get_plugins()
print(json.dumps({
    "in_checkout": parts.IN_CHECKOUT,
    "configset": current_configset().name,
    "home": str(Settings().home),
    "python_path": parts.python_path(),
    "has_jars": LOCK.is_file(),
    "dags": {dag.dag_id: Path(dag.fileloc).name for dag in bag.dags.values()},
    "failed": bag.import_errors,
    "plugins": sorted(plugin.name for plugin in plugins),
    "policies": [name for name, _ in airflow.settings.get_policy_plugin_manager().list_name_plugin()],
    "hook_is_called": not airflow.settings.task_instance_mutation_hook.is_noop,
}))
"""


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """What a process sees that has the wheel's files before everything else, and Dags installed from them."""
    folder = tmp_path_factory.mktemp("wheel")
    (wheel,) = WheelBuilder(str(PROJECT_ROOT)).build(directory=str(folder), versions=["standard"])
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "packages")
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("TINYTAGS_", "AIRFLOW"))},
        "AIRFLOW_HOME": str(folder / "airflow"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "HOME": str(folder / "user"),
        "PYTHONPATH": str(folder / "packages"),
    }

    def run(*arguments: str) -> str:
        return subprocess.run(
            [sys.executable, *arguments], capture_output=True, text=True, check=True, env=environment, cwd=folder
        ).stdout

    run("-m", "tinytags_tasks.cli", "dags", "install", str(folder / "dags"))
    installed = sorted(path.name for path in (folder / "dags").iterdir())
    looked = json.loads(run("-c", LOOK, str(folder / "dags" / "load_tinytags_grow.py")).splitlines()[-1])
    return {**looked, "folder": str(folder), "installed": installed}


def test_an_installed_package_has_configset_and_jars_and_keeps_its_state_with_the_user(seen: dict) -> None:
    assert (seen["in_checkout"], seen["has_jars"]) == (False, True)
    assert seen["configset"] == current_configset().name
    assert seen["home"] == f"{seen['folder']}/user/.tinytags"
    assert seen["python_path"] == f"{seen['folder']}/packages", "packages are not put before Python's own modules"


def test_another_airflow_loads_dags_from_the_package(seen: dict) -> None:
    assert seen["installed"] == [f"load_{file.stem}.py" for file in dag_files()]
    assert seen["failed"] == {}
    assert seen["dags"] == {"tinytags_grow": "load_tinytags_grow.py"}


def test_airflow_finds_plugins_and_policy_by_entry_points_once_each(seen: dict) -> None:
    assert seen["plugins"] == ["tinytags_grid", "tinytags_links"]
    assert seen["policies"].count("tinytags") == 1
    assert seen["hook_is_called"]


def test_dags_are_installed_again_without_a_change_and_without_what_is_gone(tmp_path: Path) -> None:
    command = ["dags", "install", str(tmp_path)]
    assert CliRunner().invoke(app, command).exit_code == 0
    (tmp_path / "mine.py").write_text("mine")
    (tmp_path / "load_tinytags_mine.py").write_text("mine, too")
    old = tmp_path / "load_tinytags_old.py"
    old.write_text((tmp_path / "load_tinytags.py").read_text())
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir() if path != old}
    assert f"{len(dag_files())} files, a Dag each" in CliRunner().invoke(app, command).stdout
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = CliRunner().invoke(app, ["dags", "install", str(tmp_path / "file" / "dags")])
    assert "name a folder that you can write" in str(result.exception)
    assert str(tmp_path / "file") in str(result.exception)


@pytest.mark.parametrize("has_entry_points", [True, False])
def test_an_embedded_airflow_finds_plugins_and_policy_in_one_way_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_entry_points: bool
) -> None:
    for module in (airflow, airflow_config):
        monkeypatch.setattr(module, "has_entry_points", lambda: has_entry_points)
    policy = tmp_path / "airflow_local_settings.py"
    policy.write_text(POLICY.read_text() + "# of an earlier version\n")
    airflow._set_policy(policy)
    configured = airflow_config.configuration(Settings(home=tmp_path), 8080)
    assert policy.exists() == (f"plugins_folder = {PROJECT_ROOT / 'plugins'}\n" in configured) == (not has_entry_points)


def test_local_settings_of_somebody_else_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(airflow, "has_entry_points", lambda: True)
    (tmp_path / "airflow_local_settings.py").write_text("def dag_policy(dag): ...\n")
    airflow._set_policy(tmp_path / "airflow_local_settings.py")
    assert (tmp_path / "airflow_local_settings.py").read_text() == "def dag_policy(dag): ...\n"
