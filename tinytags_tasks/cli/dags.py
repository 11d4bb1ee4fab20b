"""Commands for an Airflow that `tinytags up` did not start: dags install."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from tinytags_tasks.errors import BadInputError

app = typer.Typer()
dags_app = typer.Typer(no_args_is_help=True, help="Give the Dags to an Airflow of your own.")
app.add_typer(dags_app, name="dags")

_FIRST_LINE = '"""Loads a Dag of the installed package tinytags into Airflow; written by `tinytags dags install`."""'
_LOADER = """{first_line}

from tinytags_tasks.airflow_parts import load_dag

load_dag("{dag}")
"""


@dags_app.command()
def install(
    folder: Annotated[
        Path | None, typer.Argument(help="Where Airflow reads Dags; default: core.dags_folder of this Airflow.")
    ] = None,
) -> None:
    """Write a file for each Dag that loads it from this package, so that an upgrade of the package is enough."""
    from tinytags_tasks.parts import LOADER_PREFIX, dag_files

    folder = (folder or _dags_folder()).expanduser().absolute()
    wanted = {
        f"{LOADER_PREFIX}{file.stem}.py": _LOADER.format(first_line=_FIRST_LINE, dag=file.stem) for file in dag_files()
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in wanted.items():
            _write(folder / name, text)
        for path in folder.glob(f"{LOADER_PREFIX}tinytags*.py"):
            if path.name not in wanted and path.read_text().startswith(_FIRST_LINE):
                path.unlink()  # of a Dag that there was once
    except OSError as error:
        raise BadInputError(
            f"{error.filename or folder}: {error.strerror or error}; name a folder that you can write"
        ) from error
    print(
        f"{folder}: {len(wanted)} files, a Dag each; wherever Airflow reads or runs them, the package must be installed"
    )


def _write(path: Path, text: str) -> None:
    """Replace a file by one rename. Others may read it, because Airflow's parts may run as another user."""
    if path.exists() and path.read_text() == text:
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _dags_folder() -> Path:
    """Ask Airflow, in a process of its own, for its folder of Dags."""
    command = (sys.executable, "-m", "airflow", "config", "get-value", "core", "dags_folder")
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    lines = done.stdout.split("\n")
    if done.returncode != 0 or not (found := next((line for line in reversed(lines) if line.strip()), "")):
        raise BadInputError("this Airflow does not say where it reads Dags; name it: `tinytags dags install FOLDER`")
    return Path(found.strip())
