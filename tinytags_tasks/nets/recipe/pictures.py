"""The pictures that a net learns from, and the preparations in which it sees each.

A net learns compression and resizing before it learns content, and then tells sources apart instead of tags. So each
picture is seen in many preparations: another crop, resize filter, blur and JPEG quality each time.
"""

import hashlib
import io
import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import Pool
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
from PIL import Image, ImageFilter

from tinytags_tasks.errors import BadInputError
from tinytags_tasks.nets.recipe.classes import UNKNOWN, tag_of, tag_shown_by
from tinytags_tasks.nets.recipe.reviewed import ReviewedPictures
from tinytags_tasks.nets.recipe.shape import SIDE
from tinytags_tasks.nets.recipe.training import NamedPictures

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


_ENDINGS = {".jpg", ".jpeg", ".png", ".webp"}


@dataclass(frozen=True)
class LabelledPictures:
    """Encoded pictures, with the labels that they are taught with.

    ``tags`` are numbers of the tags, their number for "none of them", or ``UNKNOWN``; ``classes`` those of the general
    pictures' classes, or ``UNKNOWN``; ``times`` how many times as often as another picture each is drawn.
    """

    encoded: list[bytes]
    tags: npt.NDArray[np.int64]
    classes: npt.NDArray[np.int64]
    times: npt.NDArray[np.int64] | None = None


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


def read_folder(folder: Path) -> NamedPictures:
    """Read a folder with a folder for each class; or Tiny-ImageNet's, of which only the training pictures are read.

    Raises
    ------
    BadInputError
        If it has no pictures in folders, or one cannot be read.
    """
    root = folder / "train" if (folder / "train").is_dir() else folder
    encoded, labels, digest = list[bytes](), list[int](), hashlib.sha256()
    try:
        places = sorted(place for place in root.iterdir() if place.is_dir())
        for number, place in enumerate(places):
            for path in sorted(path for path in place.rglob("*") if path.suffix.lower() in _ENDINGS):
                encoded.append(path.read_bytes())
                labels.append(number)
                digest.update(f"{path.relative_to(root)} {len(encoded[-1])}\n".encode())
                digest.update(encoded[-1])
    except OSError as error:
        raise BadInputError(f"{error.filename or folder}: cannot be read ({error.strerror})") from error
    if not encoded:
        raise BadInputError(
            f"{folder}: has no pictures in folders; give one with a folder of JPEG or PNG for each class"
        )
    names = tuple(place.name for place in places)
    return NamedPictures(str(folder), digest.hexdigest(), encoded, np.array(labels), names)


def wordnet_names(folder: Path) -> dict[str, str]:
    """Return the names of WordNet's ids that Tiny-ImageNet's folder brings; empty for other folders."""
    words = folder / "words.txt"
    return dict(line.split("\t") for line in words.read_text().splitlines()) if words.is_file() else {}


def joined(labelled: NamedPictures, general: NamedPictures | None, names: dict[str, str]) -> LabelledPictures:
    """Return all pictures with both kinds of labels: the labelled ones first; they have no class.

    Parameters
    ----------
    labelled, general
        The two sets.
    names
        What WordNet's ids among the general classes mean.
    """
    if general is None:
        return LabelledPictures(labelled.encoded, labelled.labels, np.full(len(labelled.labels), UNKNOWN))
    shown = np.array([tag_shown_by(name, names.get(name, name), labelled.names) for name in general.names])
    return LabelledPictures(
        labelled.encoded + general.encoded,
        np.concatenate([labelled.labels, shown[general.labels]]),
        np.concatenate([np.full(len(labelled.labels), UNKNOWN), general.labels]),
    )


def with_reviewed(pictures: LabelledPictures, reviewed: Sequence[ReviewedPictures]) -> LabelledPictures:
    """Return the same pictures, and then reviewed ones: they have no class, as labelled ones."""
    if not reviewed:
        return pictures
    added = np.concatenate([part.labels for part in reviewed])
    times = [np.full(len(part.labels), part.use.weight) for part in reviewed]
    return LabelledPictures(
        pictures.encoded + [encoded for part in reviewed for encoded in part.encoded],
        np.concatenate([pictures.tags, added]),
        np.concatenate([pictures.classes, np.full(len(added), UNKNOWN)]),
        np.concatenate([np.ones(len(pictures.tags), np.int64), *times]),
    )


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


def prepare(encoded: bytes, seed: int, preparations: int) -> npt.NDArray[np.uint8]:
    """Return a picture in all its preparations: uint8, shape (preparations, 32, 32, 3)."""
    draw = random.Random(seed)  # noqa: S311 - augmentation
    plains = [plain(encoded, encode_again=again) for again in (False, True)]
    picture = _decode(encoded)
    return np.stack(plains + [np.asarray(_prepare_once(picture, draw)) for _ in range(preparations - PLAIN)])


def prepare_all(
    encoded: list[bytes],
    target: npt.NDArray[np.uint8],
    *,
    first_seed: int,
    processes: int,
    report: Callable[[int], None],
) -> None:
    """Fill ``target``, shape (pictures, preparations, 32, 32, 3); ``report`` takes how many pictures are done."""
    with Pool(processes, _end_with_parent, (os.getpid(),)) as pool:
        work = ((picture, first_seed + row, target.shape[1]) for row, picture in enumerate(encoded))
        done: Iterator[npt.NDArray[np.uint8]] = pool.imap(_prepare_task, work, chunksize=64)
        for row, prepared in enumerate(done):
            target[row] = prepared
            report(row + 1)


def _prepare_task(task: tuple[bytes, int, int]) -> npt.NDArray[np.uint8]:
    return prepare(*task)


def _end_with_parent(parent: int) -> None:
    """End a worker whose parent was killed; it would wait for work for ever."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


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
