"""Blocks of large pictures, as full as they are by default, go through every stage in the memory of one worker."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import stage_memory
from PIL import Image
from small_run import TAGS, card, forest, quiet

from tinytags_tasks import blocks
from tinytags_tasks.corpus.definition import definition_toml, make_definition
from tinytags_tasks.score.plan import PlanRequest, plan_run
from tinytags_tasks.store import layout
from tinytags_tasks.store.block_files import BATCH_BYTES
from tinytags_tasks.store.ledger import add_up, read_ledger
from tinytags_tasks.store.local import LocalStorage
from tinytags_tasks.store.models import model_version, publish_model
from tinytags_tasks.store.run_records import Run
from tinytags_tasks.train.forest_trees import forest_to_onnx

BLOCKS = 3
"""A worker has two in hand at once."""

MOST_BYTES = 16 * BATCH_BYTES
"""Two batches as bytes and as floats are ten; two whole blocks would be more than this."""

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux tells how much memory a process had at most"
)


def memory_of(store: Path, *stage: str) -> tuple[int, int]:
    """Do a stage's work in a process of its own; return how much memory it, and a child of it, took at most."""
    done = subprocess.run(
        [sys.executable, stage_memory.__file__, str(store), *stage],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    here, child = map(int, done.stdout.split())
    return here, child


def photographs(folder: Path, side: int, count: int) -> None:
    """Write JPEGs of some different pictures, over and over again."""
    folder.mkdir()
    draw = np.random.default_rng(side)
    for number in range(count):
        path = folder / f"{number:04d}.jpg"
        if number < 20:
            coarse = Image.fromarray(draw.integers(0, 256, (9, 9, 3), dtype=np.uint8))
            coarse.resize((side + 40, side + 80), Image.Resampling.BICUBIC).save(path)
        else:
            path.hardlink_to(folder / f"{number % 20:04d}.jpg")


@pytest.mark.parametrize("side", [224, 512])
def test_full_blocks_of_large_pictures_take_bounded_memory_in_every_stage(side, tmp_path) -> None:
    image_bytes = side * side * 3
    full = blocks.usual_shard_images(image_bytes)
    images = BLOCKS * (full // blocks.usual_blocks_per_shard(full, image_bytes))
    assert 2 * (images // BLOCKS) * image_bytes * 5 > MOST_BYTES
    photographs(tmp_path / "source", side, images)
    fields = {"source": str(tmp_path / "source"), "format": "folder", "height": side, "width": side, "description": ""}
    definition = make_definition("large", {**fields, "shard_images": images, "blocks_per_shard": BLOCKS})
    (tmp_path / "large.toml").write_text(definition_toml(definition))
    storage = LocalStorage(tmp_path / "store")
    taken = {"ingest": memory_of(storage.root, "large", "ingest"), "embed": memory_of(storage.root, "large", "embed")}

    model = forest_to_onnx(forest(), image_bytes, TAGS, {})
    made = card(version=model_version("forest", model), height=side, width=side)
    publish_model(made, model, "", storage)
    run = plan_run(PlanRequest("large", made.version), storage=storage, report=quiet).run
    taken |= {stage: memory_of(storage.root, "large", stage, run) for stage in ("score", "index")}

    assert max(map(max, taken.values())) < MOST_BYTES, taken
    totals = add_up(read_ledger(storage, Run.load(storage, layout.run_file(run))))
    assert (totals.by_state, totals.documents, totals.unreadable) == ({"verified": BLOCKS}, images, 0)
