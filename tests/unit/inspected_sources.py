"""Pictures that look like photographs, and files of them, for tests of inspections."""

import io
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image


@lru_cache
def photographs(images: int = 320, height: int = 32, width: int = 32) -> np.ndarray:
    """Return smooth pictures that are lit from above, uint8 of shape (images, height, width, 3)."""
    rng = np.random.default_rng(7)
    coarse = rng.integers(0, 200, (images, 5, 5, 3), dtype=np.uint8)
    smooth = [Image.fromarray(one).resize((width, height), Image.Resampling.BICUBIC) for one in coarse]
    light = np.linspace(55, 0, height)[None, :, None, None]
    noise = rng.integers(0, 8, (images, height, width, 3))
    return np.clip(np.stack(smooth) + light + noise, 0, 255).astype(np.uint8)


def stored(images: np.ndarray, pixel_order: str) -> bytes:
    axes = {"hwc": (0, 1, 2, 3), "planes": (0, 3, 1, 2), "columns": (0, 3, 2, 1)}[pixel_order]
    return images.transpose(axes).tobytes()


def labelled(images: np.ndarray, *labels: np.ndarray) -> bytes:
    columns = [label.astype(np.uint8)[:, None] for label in labels]
    return np.concatenate([*columns, images.transpose(0, 3, 1, 2).reshape(len(images), -1)], axis=1).tobytes()


def encoded(kind: str = "PNG") -> bytes:
    sink = io.BytesIO()
    Image.fromarray(photographs(1)[0]).save(sink, kind)
    return sink.getvalue()


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path
