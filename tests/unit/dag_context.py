"""What a Dag's code needs of Airflow, for tests: its folder, and the context of a task."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tinytags_tasks.parts import PROJECT_ROOT


@pytest.fixture(autouse=True)
def dags_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path / "airflow"))
    monkeypatch.syspath_prepend(str(PROJECT_ROOT / "dags"))


@pytest.fixture(autouse=True)
def context(dags_folder: None, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Airflow's context of a task, with its task state store."""
    import tinytags_airflow

    kept: dict[str, Any] = {}
    state_store = SimpleNamespace(
        get=kept.get,
        set=lambda key, value: kept.update({key: json.loads(json.dumps(value))}),
        delete=lambda key: kept.pop(key, None),
    )
    context = {"task_state_store": state_store}
    monkeypatch.setattr(tinytags_airflow, "get_current_context", lambda: context)
    return context
