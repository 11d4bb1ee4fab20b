"""The machine stops in mid-training: nothing half-made is published, and the same command makes the same model."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import kill_engine, restart, wait_for

from tinytags_tasks.parts import PROJECT_ROOT
from tinytags_tasks.runtime import Runtime
from tinytags_tasks.settings import load_settings
from tinytags_tasks.store import layout

FITTING = "fitting 60 trees"

pytestmark = pytest.mark.skipif(os.environ.get("LONG_TESTS") != "1", reason="takes two minutes: set LONG_TESTS=1")


def test_a_training_that_ends_with_the_machine_leaves_nothing_and_is_done_again(
    runtime: Runtime,
    tinytags: Callable[..., subprocess.CompletedProcess[str]],
    pictures: dict[str, Path],
    tmp_path: Path,
) -> None:
    def arguments(name: str) -> tuple[str, ...]:
        shape = ("--features", "pixels", "--head", "forest", "--trees", "60", "--depth", "6")
        return ("train", str(pictures["labelled"]), "--name", name, *shape)

    before = set(runtime.storage.names(layout.MODELS))
    log = tmp_path / "log"
    with (
        log.open("wb") as said,
        subprocess.Popen(
            [sys.executable, "-m", "tinytags_tasks.cli", *arguments("cut")], cwd=PROJECT_ROOT, stderr=said, stdout=said
        ) as training,
    ):
        wait_for(log.read_text, lambda text: FITTING in text)
        time.sleep(3)
        training.kill()
        kill_engine(load_settings(), "spark")
    assert set(runtime.storage.names(layout.MODELS)) == before
    restart("spark")
    trained = {}
    for name in ("cut", "clean"):
        done = tinytags(*arguments(name))
        assert done.returncode == 0, done.stderr
        trained[name] = done.stdout.split()[-1]
    models = [runtime.storage.read(layout.model_file(version)) for version in trained.values()]
    assert models[0] == models[1]
    assert runtime.storage.leftovers(layout.MODELS) == []
