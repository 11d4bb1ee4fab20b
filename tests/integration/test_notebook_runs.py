"""The notebooks run from top to bottom on real engines."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import DEPTH, IMAGES

from tinytags_tasks.parts import PROJECT_ROOT
from tinytags_tasks.runtime import Runtime

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")
pytest.importorskip("matplotlib")


def test_a_notebook_goes_from_a_corpus_to_precision(
    runtime: Runtime,
    model: str,
    pictures: dict[str, Path],
    tinytags_here: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    for command in (
        ("corpus", "add", "noted", str(pictures["corpus"]), "--format", "tiny-images", "--shard-images", "400"),
        ("ingest", "noted"),
    ):
        done = tinytags_here(*command)
        assert done.returncode == 0, done.stderr
    notebook = nbformat.read(PROJECT_ROOT / "notebooks" / "from-corpus-to-precision.ipynb", as_version=4)
    (number,) = [n for n, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", ())]
    given = {"corpus_name": "noted", "labelled": str(pictures["labelled"]), "features": "pixels", "head": "forest"}
    given |= {"depth": DEPTH}
    notebook.cells.insert(
        number + 1, nbformat.v4.new_code_cell("\n".join(f"{name} = {value!r}" for name, value in given.items()))
    )

    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3").execute(cwd=str(PROJECT_ROOT))

    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    texts = "\n".join(output.get("text", "") + output.get("data", {}).get("text/plain", "") for output in outputs)
    assert f"{IMAGES:,} images of 32x32" in texts
    assert model in texts  # the labelled set and the parameters of the session's model
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 5
    assert "mean confidence" in texts
