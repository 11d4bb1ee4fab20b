"""The notebooks as they are stored, and the command that opens them."""

import ast
import json
import subprocess
from pathlib import Path

import pytest

from tinytags_tasks.cli import notebooks
from tinytags_tasks.errors import BadInputError
from tinytags_tasks.parts import PROJECT_ROOT

STORED = sorted((PROJECT_ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)
def test_a_notebook_is_stored_without_outputs_and_its_code_parses(path: Path) -> None:
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    assert cells
    for cell in cells:
        assert not cell["outputs"]
        assert cell["execution_count"] is None
        ast.parse("".join(cell["source"]))


def test_the_remedy_is_named_if_jupyterlab_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notebooks, "find_spec", lambda name: None)
    with pytest.raises(
        BadInputError, match=r"jupyterlab and matplotlib: not installed .*; install the extra `notebook`"
    ):
        notebooks.notebook(browser=True)


def test_copies_are_opened_and_what_a_person_changed_is_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    started: list[list[str]] = []

    def run(arguments: list[str], *, check: bool) -> subprocess.CompletedProcess[str]:
        started.append(arguments)
        return subprocess.CompletedProcess(arguments, 0)

    monkeypatch.setenv("TINYTAGS_HOME", str(tmp_path))
    monkeypatch.setattr(notebooks, "find_spec", lambda name: object())
    monkeypatch.setattr(notebooks.subprocess, "run", run)
    copy = tmp_path / "notebooks" / STORED[0].name
    copy.parent.mkdir()
    copy.write_text("changed")
    with pytest.raises(notebooks.typer.Exit) as ended:
        notebooks.notebook(browser=False)
    assert ended.value.exit_code == 0
    assert started[0][1:] == ["-m", "jupyterlab", f"--ServerApp.root_dir={copy.parent}", "--no-browser"]
    assert copy.read_text() == "changed"
    assert "is as you left it" in capsys.readouterr().err


def test_an_installation_without_notebooks_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(notebooks, "NOTEBOOKS", tmp_path)
    with pytest.raises(BadInputError, match="run this command in a checkout"):
        notebooks.copy_notebooks(tmp_path / "copies")
