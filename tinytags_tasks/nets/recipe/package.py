"""Write the files that a package ships from a training of ``general32``: the net, its background and its card.

``python -m tinytags_tasks.nets.recipe.package WORK FIGURES.json OUT`` where WORK is the training's folder.
"""

import hashlib
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from tinytags_tasks.nets.recipe.shape import STUDENT, TEACHER

_DATA = [
    {
        "name": "CIFAR-10, the 50,000 training images",
        "source": "A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009",
        "terms": "published without a licence; the images come from the 80 Million Tiny Images collection, which was "
        "withdrawn by its authors in 2020: for research and education",
    },
    {
        "name": "Tiny-ImageNet, the 100,000 training images",
        "source": "Stanford CS231N, from ImageNet (ILSVRC)",
        "terms": "ImageNet's pictures belong to their owners and may be used for non-commercial research and education",
    },
]


def described(path: Path) -> dict[str, Any]:
    """Return a file's name, size and sha256."""
    content = path.read_bytes()
    return {"file": path.name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def main() -> None:
    """Write ``net.onnx``, ``background.parquet`` and ``card.json``."""
    work, figures, out = (Path(argument) for argument in sys.argv[1:])
    scale = float(np.load(work / "student.npz")["out.scale"])
    out.mkdir(parents=True, exist_ok=True)
    net, background = (Path(shutil.copy(work / name, out)) for name in ("net.onnx", "background.parquet"))
    pictures = pq.read_metadata(background).num_rows
    card = {
        "name": "general32",
        "version": 1,
        "net": described(net),
        "input": {"name": "pixels", "type": "uint8", "shape": ["n", 32, 32, 3], "layout": "row-major RGB"},
        "embedding": {
            "name": "embedding",
            "type": "float32",
            "shape": ["n", 256],
            "scale": scale,
            "stored": "int8: embedding / scale is a whole number of 0 to 127, so that nothing is lost",
        },
        "arithmetic": "int8 (QDQ): activations uint8 a tensor; weights 7 bits a channel, safe without VNNI",
        "shape": {"stem": STUDENT.stem, "stages": STUDENT.stages, "multiply_adds": 91_600_000, "weights": 2_710_000},
        "teacher": {"stem": TEACHER.stem, "stages": TEACHER.stages},
        "background": {
            **described(background),
            "pictures": pictures,
            "classes": 200,
            "source": "Tiny-ImageNet, training images, 100 a class",
            "preparation": "64x64 made 32x32 with a BOX filter, JPEG quality 75, 4:2:0",
        },
        "data": _DATA,
        **json.loads(figures.read_text()),
    }
    (out / "card.json").write_text(json.dumps(card, indent=2) + "\n")


if __name__ == "__main__":
    main()
