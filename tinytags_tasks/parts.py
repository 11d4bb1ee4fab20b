"""Where the parts are that lie beside the package: Dags, plugins, and Solr's configset.

In a checkout they are its folders ``dags``, ``plugins`` and ``solr``. A wheel has the same folders inside the package,
in ``beside``, where ``hatch_build.py`` puts them.
"""

import os
from pathlib import Path

PROJECT_ROOT = Path(__file__).resolve().parents[1]
"""The folder with the package: the checkout, or where packages are installed."""

_BESIDE = Path(__file__).resolve().with_name("beside")

IN_CHECKOUT = not _BESIDE.is_dir()
"""Whether this code runs from a checkout, and not from a wheel."""

_PARTS = PROJECT_ROOT if IN_CHECKOUT else _BESIDE

DAGS, PLUGINS, SOLR = _PARTS / "dags", _PARTS / "plugins", _PARTS / "solr"

NO_DAGS = ".airflowignore"
"""The file among the Dags that lists those files which hold none."""

LOADER_PREFIX = "load_"
"""How the files begin that ``tinytags dags install`` writes, before the name of the Dag's file."""


def dag_files() -> list[Path]:
    """Return the files that hold Dags, sorted."""
    others = set((DAGS / NO_DAGS).read_text().split())
    return sorted(path for path in DAGS.glob("*.py") if path.name not in others)


def dag_of_file(path: str) -> str:
    """Return which of these Dags Airflow reads from a file; empty if the file is none of TinyTags'.

    It is the Dag's own file, or the one that ``tinytags dags install`` wrote.
    """
    dag = Path(path).stem.removeprefix(LOADER_PREFIX)
    return dag if any(file.stem == dag for file in dag_files()) else ""


def python_path() -> str:
    """Return the ``PYTHONPATH`` for a process that runs this code; an installed package is found without it."""
    return os.pathsep.join(filter(None, [str(PROJECT_ROOT) if IN_CHECKOUT else "", os.environ.get("PYTHONPATH")]))
