"""Pictures whose colours tell their classes, and a net that has learned nothing, for tests of learning nets."""

import io

import numpy as np
from PIL import Image

from tinytags_tasks.nets.recipe.shape import SIZES
from tinytags_tasks.nets.recipe.training import NamedPictures


def jpeg(shade: tuple[int, int, int], seed: int) -> bytes:
    pixels = np.clip(np.random.default_rng(seed).normal(shade, 20, (32, 32, 3)), 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


def named(source: str, names: tuple[str, ...], count: int, seed: int = 0) -> NamedPictures:
    """Return pictures whose colours tell their classes."""
    labels = np.arange(count) % len(names)
    shades = np.random.default_rng(seed).integers(40, 216, (len(names), 3))
    encoded = [jpeg(tuple(shades[label]), seed + row) for row, label in enumerate(labels)]
    return NamedPictures(source, f"sha256 of {source}", encoded, labels, names)


def student_arrays() -> dict[str, np.ndarray]:
    """Return what a tiny student that has learned nothing looks like."""
    rng, (shape, _) = np.random.default_rng(0), SIZES["tiny"]
    arrays: dict[str, np.ndarray] = {"out.scale": np.float32(0.02)}

    def convolution(name: str, inputs: int, outputs: int, size: int) -> None:
        arrays[f"{name}.weight"] = rng.normal(0, 0.2, (outputs, inputs, size, size)).astype(np.float32)
        arrays[f"{name}.bias"] = rng.normal(0, 0.2, outputs).astype(np.float32)
        arrays[f"{name}.out.scale"] = np.float32(0.03)

    inputs, layer = 3, 0
    for width, _ in shape.stem:
        convolution(f"layers.{layer}", inputs, width, 3)
        inputs, layer = width, layer + 1
    for width, blocks, stride in shape.stages:
        for block in range(blocks):
            name = f"layers.{layer}"
            convolution(f"{name}.first", inputs, width, 3)
            convolution(f"{name}.second", width, width, 3)
            if inputs != width or (stride > 1 and block == 0):
                convolution(f"{name}.shortcut", inputs, width, 1)
            arrays[f"{name}.out.scale"] = np.float32(0.03)
            inputs, layer = width, layer + 1
    return arrays
