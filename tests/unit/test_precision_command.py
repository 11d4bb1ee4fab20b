"""What `tinytags precision` and `tinytags publish --gate-measured-precision` print."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from published_runs import ALIAS, World, make_world
from test_publishing_measured import look_at_all
from typer.testing import CliRunner

from tinytags_tasks.cli import app, common, precision, publishing
from tinytags_tasks.cli import runs as runs_commands
from tinytags_tasks.errors import FinalError
from tinytags_tasks.store import layout


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def world(prepared: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """Three runs that nobody reviewed, and the commands that work on them."""
    world = prepared.copy(tmp_path / "store")
    settings = SimpleNamespace(alias=ALIAS, keep_collections=1)
    runtime = SimpleNamespace(storage=world.storage, solr=world.solr, settings=settings)
    for module in (common, publishing, precision, runs_commands):
        monkeypatch.setattr(module, "clients", lambda: runtime)
    return world


def tinytags(*arguments: str) -> str:
    outcome = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert outcome.exit_code == 0, outcome.output
    return outcome.stdout


def test_before_any_review_it_says_so_and_what_to_do(world: World) -> None:
    said = tinytags("precision", world.runs[0].name)

    assert said.startswith(f"the precision of {world.runs[0].name} is not measured on this corpus: look at some")


def test_a_list_of_runs_makes_nothing_and_says_that_nothing_was_measured(world: World) -> None:
    assert tinytags("runs").count("not measured on this corpus") == 3
    assert not world.storage.exists(f"{layout.REVIEWS}/{world.runs[0].corpus}")


def test_each_tag_and_band_has_its_figures(world: World) -> None:
    first = world.runs[0]
    look_at_all(world, first)

    lines = tinytags("precision", first.name).splitlines()

    (low,) = [line for line in lines if "cat" in line and "40-64 %" in line]
    assert [cell.strip() for cell in low.split("│")[1:6]] == ["cat", "40-64 %", "4", "4", "1"]
    assert "25.0 %" in low
    assert "25.0 to 25.0" in low
    assert any("all" in line and "45.5 % (45.5 to 45.5)" in line for line in lines)
    assert any(line.startswith("11 looks that measure, 0 of them at pictures that the run dropped") for line in lines)
    assert any(first.name in line and "45.5 % (45.5 to 45.5)" in line for line in tinytags("runs").splitlines())


def test_programs_get_the_same_figures(world: World) -> None:
    look_at_all(world, world.runs[0])

    found = json.loads(tinytags("precision", world.runs[0].name, "--json"))

    assert (found["run"], found["looks"], found["is_measured"]) == (world.runs[0].name, 11, True)
    assert found["overall"] == {"percent": 45.45, "low": 45.45, "high": 45.45}
    assert {band["tag"] for band in found["bands"]} == {"cat", "dog", "emu"}


def test_publishing_says_from_which_confidence_on_readers_see_each_tag(world: World) -> None:
    first = world.runs[0]
    with pytest.raises(FinalError, match="not measured on this corpus"):
        tinytags("publish", first.name, "--gate-measured-precision", "80")
    look_at_all(world, first)

    said = tinytags("publish", first.name, "--gate-measured-precision", "80")

    assert said.splitlines()[-1] == "readers see cat from 45 %, dog from 45 %, emu from 45 %"
