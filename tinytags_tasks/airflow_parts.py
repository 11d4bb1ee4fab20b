"""What Airflow finds in the installed package: plugins and policy by entry points, Dags by files that name them.

They are files in ``plugins`` and ``dags`` that import Airflow, which this package does not. So they are loaded when
Airflow asks for them, and from these folders, whether in a checkout or in a wheel (ADR 39).
"""

import sys
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from tinytags_tasks.parts import DAGS, PLUGINS

POLICY = DAGS / "tinytags_policy.py"

_PLUGINS = {"TinyTagsGrid": "tinytags_grid", "TinyTagsLinks": "tinytags_links"}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a plugin's class, or the policy's module
    """Return what an entry point names."""
    if name == "policy":
        _put_on_path(DAGS)
        return import_module(POLICY.stem)
    if module := _PLUGINS.get(name):
        _put_on_path(PLUGINS)
        return getattr(import_module(module), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def has_entry_points() -> bool:
    """Return whether Airflow finds plugins and policy by itself, because this Python has the package installed."""
    return any(point.module == __name__ for point in entry_points(group="airflow.policy"))


def load_dag(name: str) -> None:
    """Run one of the package's Dag files, which declares its Dag to Airflow.

    Parameters
    ----------
    name
        Its name without ending, such as ``tinytags_audit``.
    """
    _put_on_path(DAGS)
    spec = spec_from_file_location(name, DAGS / f"{name}.py")
    if spec is None or spec.loader is None:
        raise ImportError(f"{DAGS / name}.py cannot be loaded")
    module = module_from_spec(spec)
    sys.modules[name] = module  # replaced each time: a Dag counts for the file that is being parsed
    spec.loader.exec_module(module)


def _put_on_path(folder: Path) -> None:
    """Let the modules of a folder import each other."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
