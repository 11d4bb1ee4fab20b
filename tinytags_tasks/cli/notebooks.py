"""The command that opens the notebooks."""

import shutil
import subprocess
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated

import typer

from tinytags_tasks.cli.common import say
from tinytags_tasks.errors import BadInputError
from tinytags_tasks.parts import PROJECT_ROOT
from tinytags_tasks.settings import load_settings

if TYPE_CHECKING:
    from pathlib import Path

app = typer.Typer()

NOTEBOOKS = PROJECT_ROOT / "notebooks"
NEEDED = ("jupyterlab", "matplotlib")


@app.command()
def notebook(
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open a browser, or only print the address.")
    ] = True,
) -> None:
    """Open copies of the notebooks in JupyterLab; what you change in them stays under the home.

    Needs JupyterLab and Matplotlib: the extra `notebook`.
    """
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise BadInputError(
            f"{' and '.join(missing)}: not installed beside {sys.executable}; install the extra `notebook`, such as "
            f"with `uv pip install --python {sys.executable} {' '.join(NEEDED)}`"
        )
    folder = copy_notebooks(load_settings().home / "notebooks")
    options = [] if browser else ["--no-browser"]
    raise typer.Exit(
        subprocess.run(
            [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={folder}", *options], check=False
        ).returncode
    )


def copy_notebooks(folder: "Path") -> "Path":
    """Copy the notebooks that a folder does not have yet, and return it.

    Raises
    ------
    BadInputError
        If this installation has no notebooks.
    """
    found = sorted(NOTEBOOKS.glob("*.ipynb"))
    if not found:
        raise BadInputError(f"{NOTEBOOKS}: has no notebooks; run this command in a checkout of TinyTags")
    folder.mkdir(parents=True, exist_ok=True)
    for path in found:
        if (folder / path.name).exists():
            say(f"{folder / path.name} is as you left it; delete it to get a fresh copy")
        else:
            shutil.copy(path, folder / path.name)
    return folder
