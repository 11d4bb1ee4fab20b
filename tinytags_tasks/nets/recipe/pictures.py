"""The two sets of pictures, and the preparations in which the net sees each.

A net learns compression and resizing before it learns content, and then tells sources apart instead of tags. So each
picture is seen in many preparations: another crop, resize filter, blur and JPEG quality each time.
"""

import io
import random
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import Pool
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageFilter

from tinytags_tasks.nets.recipe.classes import UNKNOWN, tag_of
from tinytags_tasks.nets.recipe.shape import SIDE

PREPARATIONS = 16
PLAIN = 2  # the first ones: resized only, and resized and encoded as the labelled sets are
_FILTERS = (
    Image.Resampling.BOX,
    Image.Resampling.BILINEAR,
    Image.Resampling.HAMMING,
    Image.Resampling.BICUBIC,
    Image.Resampling.LANCZOS,
    Image.Resampling.NEAREST,
)
_FILTER_WEIGHTS = (4, 4, 2, 4, 4, 1)


@dataclass(frozen=True)
class LabelledPictures:
    """Encoded pictures; ``tags`` as in :func:`~.classes.tag_of`, ``classes`` 0 to 199 or ``UNKNOWN``."""

    encoded: list[bytes]
    tags: npt.NDArray[np.int64]
    classes: npt.NDArray[np.int64]


def read_cifar10(path: Path) -> LabelledPictures:
    """Read a parquet file with the columns ``img`` (a struct that holds ``bytes``) and ``label``."""
    table = pq.read_table(path)
    encoded = [row["bytes"] for row in table["img"].to_pylist()]
    tags = table["label"].to_numpy().astype(np.int64)
    return LabelledPictures(encoded, tags, np.full(len(tags), UNKNOWN))


def read_tiny_imagenet(folder: Path) -> LabelledPictures:
    """Read Tiny-ImageNet's training pictures from ``folder/train``; classes are numbered in the order of their ids."""
    encoded, tags, classes = [], [], []
    for number, place in enumerate(sorted((folder / "train").iterdir())):
        paths = sorted((place / "images").glob("*.JPEG"))
        encoded += [path.read_bytes() for path in paths]
        tags += [tag_of(place.name)] * len(paths)
        classes += [number] * len(paths)
    return LabelledPictures(encoded, np.array(tags), np.array(classes))


def write_part(path: Path, pictures: LabelledPictures, rows: slice) -> None:
    """Write some pictures to a file of their own, small enough to be carried to another machine."""
    table = pa.table(
        {
            "encoded": pa.array(pictures.encoded[rows], pa.binary()),
            "tag": pictures.tags[rows],
            "class": pictures.classes[rows],
        }
    )
    # Not a dictionary: zstd finds the JPEG headers that all pictures share, a third of their bytes.
    pq.write_table(table, path, compression="zstd", compression_level=12, use_dictionary=False)


def read_part(path: Path) -> LabelledPictures:
    """Read what :func:`write_part` wrote."""
    table = pq.read_table(path)
    return LabelledPictures(table["encoded"].to_pylist(), table["tag"].to_numpy(), table["class"].to_numpy())


def plain(encoded: bytes, *, encode_again: bool) -> npt.NDArray[np.uint8]:
    """Return a picture as 32x32 pixels, resized with a BOX filter as the demo does.

    Parameters
    ----------
    encoded
        JPEG or another format that Pillow reads.
    encode_again
        JPEG-encode it as the labelled sets are (quality 75, 4:2:0), if it had to be resized.
    """
    picture = _decode(encoded)
    if picture.size != (SIDE, SIDE):
        picture = picture.resize((SIDE, SIDE), Image.Resampling.BOX)
        if encode_again:
            picture = _through_jpeg(picture, 75, 2)
    return np.asarray(picture)


def prepare(encoded: bytes, seed: int) -> npt.NDArray[np.uint8]:
    """Return a picture in all its preparations: uint8, shape (PREPARATIONS, 32, 32, 3)."""
    draw = random.Random(seed)  # noqa: S311 - augmentation
    plains = [plain(encoded, encode_again=again) for again in (False, True)]
    picture = _decode(encoded)
    return np.stack(plains + [np.asarray(_prepare_once(picture, draw)) for _ in range(PREPARATIONS - PLAIN)])


def prepare_all(encoded: list[bytes], target: npt.NDArray[np.uint8], *, first_seed: int, processes: int) -> None:
    """Fill ``target``, shape (pictures, PREPARATIONS, 32, 32, 3)."""
    with Pool(processes) as pool:
        seeds = range(first_seed, first_seed + len(encoded))
        done: Iterator[npt.NDArray[np.uint8]] = pool.imap(_prepare_pair, zip(encoded, seeds, strict=True), chunksize=64)
        for row, prepared in enumerate(done):
            target[row] = prepared


def _prepare_pair(pair: tuple[bytes, int]) -> npt.NDArray[np.uint8]:
    return prepare(*pair)


def _prepare_once(picture: Image.Image, draw: random.Random) -> Image.Image:
    box = _crop_box(picture, draw) if draw.random() < 0.6 else None
    if draw.random() < 0.5:
        between = draw.randint(24, 64)
        picture, box = picture.resize((between, between), _filter(draw), box), None
    picture = picture.resize((SIDE, SIDE), _filter(draw), box)
    chance = draw.random()
    if chance < 0.15:
        picture = picture.filter(ImageFilter.GaussianBlur(draw.uniform(0.2, 0.8)))
    elif chance < 0.3:
        picture = picture.filter(ImageFilter.UnsharpMask(1, draw.randint(30, 120), 0))
    if draw.random() < 0.75:
        picture = _through_jpeg(picture, draw.randint(35, 96), 2 if draw.random() < 0.7 else 0)
    return picture


def _crop_box(picture: Image.Image, draw: random.Random) -> tuple[float, float, float, float]:
    smallest = 0.4 if picture.width > SIDE else 0.6
    area, ratio = draw.uniform(smallest, 1), draw.uniform(0.8, 1.25)
    width, height = min(1, (area * ratio) ** 0.5), min(1, (area / ratio) ** 0.5)
    left, top = draw.uniform(0, 1 - width), draw.uniform(0, 1 - height)
    wide, high = picture.size
    return left * wide, top * high, (left + width) * wide, (top + height) * high


def _filter(draw: random.Random) -> Image.Resampling:
    return draw.choices(_FILTERS, _FILTER_WEIGHTS)[0]


def _through_jpeg(picture: Image.Image, quality: int, subsampling: int) -> Image.Image:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality, subsampling=subsampling)
    return Image.open(buffer).convert("RGB")


def _decode(encoded: bytes) -> Image.Image:
    return Image.open(io.BytesIO(encoded)).convert("RGB")
