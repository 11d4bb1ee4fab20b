"""Makes a net from pictures, step by step: pack, learn or fine-tune, graph, ship; each once, whatever is killed."""

import hashlib
import importlib.util
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tinytags_tasks.errors import BadInputError
from tinytags_tasks.nets.catalogue import net_version, publish_net, time_of_next
from tinytags_tasks.nets.recipe.background import make_background
from tinytags_tasks.nets.recipe.base import Base
from tinytags_tasks.nets.recipe.graph import int8_model
from tinytags_tasks.nets.recipe.pictures import LabelledPictures, joined, plain, prepare_all, with_reviewed
from tinytags_tasks.nets.recipe.reviewed import ReviewedPictures
from tinytags_tasks.nets.recipe.shape import SIDE, SIZES
from tinytags_tasks.nets.recipe.training import NamedPictures, NetTraining
from tinytags_tasks.nets.recipe.tuning import NetTuning
from tinytags_tasks.nets.recipe.work import Progress, Work
from tinytags_tasks.store.net_records import NetCard
from tinytags_tasks.store.protocol import Storage

CHECKPOINT_SECONDS = 60.0

_PACKED_AT_ONCE = 2_000
_HELD_BACK = 20  # without test pictures, every 20th labelled one is held back
PREPARATION = "resized to 32x32 (BOX), in random crops, sharpness and JPEG quality"


@dataclass(frozen=True, kw_only=True)
class Sources:
    """The pictures that a net is learned from.

    Attributes
    ----------
    labelled
        Pictures of the tags.
    general, general_names
        General pictures with classes of their own, which also become the background; what WordNet's ids mean.
    test
        Pictures of the tags that it is measured on; None holds some of the labelled ones back.
    licence
        The terms of the pictures, for the card.
    base
        The net that is fine-tuned; None learns one from nothing.
    reviewed
        Pictures of corpora that people looked at; they join the labelled ones of a net that is fine-tuned.
    """

    labelled: NamedPictures
    general: NamedPictures | None = None
    general_names: dict[str, str]
    test: NamedPictures | None = None
    licence: str = ""
    base: Base | None = None
    reviewed: tuple[ReviewedPictures, ...] = ()


def require_torch() -> None:
    """Refuse to begin without PyTorch.

    Raises
    ------
    BadInputError
        If it is not installed: how to get it.
    """
    if importlib.util.find_spec("torch") is None:
        raise BadInputError("learning a net needs PyTorch, which is not installed: pip install 'tinytags[nets]'")


def make_net(
    training: NetTraining | NetTuning,
    sources: Sources,
    *,
    folder: Callable[[str], Path],
    storage: Storage,
    report: Callable[[str], None] = print,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    eager: bool = False,
) -> NetCard:
    """Learn or fine-tune a net and publish it; a training that was killed goes on where it was.

    Parameters
    ----------
    training, sources
        How, and from what; a base is fine-tuned by a :class:`~.tuning.NetTuning`.
    folder
        Returns the folder for everything in between, for the training's identity.
    storage
        The store.
    report
        Takes each message.
    checkpoint_seconds
        How often a checkpoint is written.
    eager
        Whether to do without ``torch.compile`` on a GPU.

    Raises
    ------
    BadInputError
        If PyTorch is not installed, a picture cannot be read, or the folder belongs to another training.
    TransientError
        If another process is learning in the folder.
    """
    require_torch()
    identity = training.identity(sources.labelled, sources.general, sources.test, *sources.reviewed)
    work = Work(folder(identity), report)
    with work.hold(identity):
        if not work.has("student.npz"):
            sources_left, test = _test_pictures(sources, report)
            pictures = joined(sources_left.labelled, sources.general, sources.general_names)
            pictures = with_reviewed(pictures, sources.reviewed)
            bank = pack(work, pictures.encoded, training)
            _learn(work, training, bank, pictures, sources_left, test, checkpoint_seconds, eager=eager)
        card = ship(work, training, sources, storage)
        work.remove("pictures.npy", "*.checkpoint")
        return card


def _test_pictures(
    sources: Sources, report: Callable[[str], None]
) -> tuple[Sources, tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]]:
    """Return what is learned from, and the pixels and tags of the test pictures; none of them was reviewed."""
    test, labelled = sources.test, sources.labelled
    if test is None:
        rows = np.arange(len(labelled.encoded))
        test, labelled = (_part(labelled, rows[chosen]) for chosen in (rows % _HELD_BACK == 0, rows % _HELD_BACK > 0))
    elif set(test.names) - set(labelled.names):
        unknown = sorted(set(test.names) - set(labelled.names))
        raise BadInputError(f"{test.source}: has the tags {', '.join(unknown[:5])}, which {labelled.source} lacks")
    pixels = np.stack([_readable(encoded, number, test.source) for number, encoded in enumerate(test.encoded)])
    numbers = np.array([labelled.names.index(name) for name in test.names])
    learned = {plain(encoded, encode_again=False).tobytes() for part in sources.reviewed for encoded in part.encoded}
    is_new = np.array([picture.tobytes() not in learned for picture in pixels], dtype=np.bool_)
    if not is_new.all():
        report(f"{int((~is_new).sum()):,} test pictures were reviewed, too: they are learned from, and not measured")
    if not is_new.any():
        raise BadInputError(
            f"{test.source}: all of its pictures were reviewed, so none is left to measure; give --test"
        )
    return replace(sources, labelled=labelled), (pixels[is_new], numbers[test.labels][is_new])


def _part(pictures: NamedPictures, rows: npt.NDArray[np.intp]) -> NamedPictures:
    encoded = [pictures.encoded[row] for row in rows]
    return NamedPictures(pictures.source, pictures.sha256, encoded, pictures.labels[rows], pictures.names)


def _readable(encoded: bytes, number: int, source: str) -> npt.NDArray[np.uint8]:
    try:
        return plain(encoded, encode_again=False)
    except (OSError, ValueError, SyntaxError) as error:
        raise BadInputError(f"{source}: picture {number} cannot be read ({error}); remove it") from error


def pack(work: Work, encoded: list[bytes], training: NetTraining | NetTuning) -> npt.NDArray[np.uint8]:
    """Prepare all pictures in a file; return them, uint8, shape (pictures, preparations, 32, 32, 3).

    A picture's preparations depend on its number and the seed alone, so that packing may be killed and go on.
    """
    if not work.has("pictures.npy"):
        shape = (len(encoded), training.preparations, SIDE, SIDE, 3)
        done = int(work.path("packed.txt").read_text()) if work.has("packed.txt") else 0
        mode = "r+" if done and work.has("pictures.part") else "w+"
        done = done if mode == "r+" else 0
        target = np.lib.format.open_memmap(work.path("pictures.part"), mode=mode, dtype=np.uint8, shape=shape)
        progress = Progress("packing", len(encoded), work.say, done=done)
        for start in range(done, len(encoded), _PACKED_AT_ONCE):
            part = slice(start, min(start + _PACKED_AT_ONCE, len(encoded)))
            _pack_part(encoded[part], target[part], start, training, progress)
            target.flush()
            work.write_text("packed.txt", str(part.stop))
        work.path("pictures.part").replace(work.path("pictures.npy"))
        work.remove("packed.txt")
        work.say(f"packed {len(encoded):,} pictures in {training.preparations} preparations each")
    found: npt.NDArray[np.uint8] = np.load(work.path("pictures.npy"), mmap_mode="c")  # torch wants to own it
    return found


def _pack_part(
    encoded: list[bytes],
    target: npt.NDArray[np.uint8],
    start: int,
    training: NetTraining | NetTuning,
    progress: Progress,
) -> None:
    seed = training.seed * 1_000_000_000 + start
    try:
        prepare_all(
            encoded,
            target,
            first_seed=seed,
            processes=os.cpu_count() or 1,
            report=lambda count: progress.at(start + count),
        )
    except (OSError, ValueError, SyntaxError) as error:
        raise BadInputError(
            f"a picture between {start:,} and {start + len(encoded):,} cannot be read ({error}); remove it"
        ) from error


def _learn(
    work: Work,
    training: NetTraining | NetTuning,
    bank: npt.NDArray[np.uint8],
    pictures: LabelledPictures,
    sources: Sources,
    test: tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]],
    checkpoint_seconds: float,
    *,
    eager: bool,
) -> None:
    from tinytags_tasks.nets.recipe.learn import Learning  # they need torch
    from tinytags_tasks.nets.recipe.lesson import make_setup
    from tinytags_tasks.nets.recipe.tune import Tuning

    setup = make_setup(work, checkpoint_seconds, eager=eager)
    classes = len(sources.general.names) if sources.general else 0
    shared = (setup, bank, pictures, len(sources.labelled.names), classes, test)
    if isinstance(training, NetTraining):
        Learning(training, *shared).learn()
    else:
        Tuning(training, *shared).learn(_base(sources))


def _base(sources: Sources) -> Base:
    assert sources.base is not None  # noqa: S101 - whoever fine-tunes gives one; for the type checker
    return sources.base


def ship(work: Work, training: NetTraining | NetTuning, sources: Sources, storage: Storage) -> NetCard:
    """Write the learned net as ONNX with its background, and publish both with a card."""
    with np.load(work.path("student.npz")) as learned:
        arrays = dict(learned)
    scale = float(arrays["out.scale"])
    shape = SIZES[training.size][0] if isinstance(training, NetTraining) else _base(sources).shape
    content: bytes = int8_model(arrays, shape, training.name).SerializeToString(deterministic=True)
    net = work.write("net.onnx", lambda path: path.write_bytes(content))
    background, images = None, 0
    if sources.general is not None:
        background, images = make_background(net, scale, sources.general, sources.general_names)
        work.write("background.parquet", lambda path: path.write_bytes(background or b""))
    about: dict[str, Any] = json.loads(work.path("learned.json").read_text())
    base = sources.base.card if sources.base else None
    learned_from = [pictures for pictures in (sources.labelled, sources.general) if pictures]
    card = NetCard(
        version=net_version(training.name, content),
        height=SIDE,
        width=SIDE,
        dimensions=shape.stages[-1][0],
        scale=scale,
        arithmetic="int8",
        origin=f"learned by `tinytags nets train` from {f'{base.version} and ' if base else ''}"
        f"{sources.labelled.source}",
        preparation=PREPARATION,
        licence="; ".join(terms for terms in (base.licence if base else "", sources.licence) if terms),
        data=(
            *(base.data if base else ()),
            *(f"{one.source}: {len(one.encoded):,} pictures, {len(one.names)} classes" for one in learned_from),
        ),
        background_sha256=hashlib.sha256(background).hexdigest() if background else "",
        background_images=images,
        background_classes=len(sources.general.names) if sources.general else 0,
        parameters={**training.parameters(), **about["parameters"]},
        figures=about["figures"],
        reviews=(*(base.reviews if base else ()), *(part.use for part in sources.reviewed)),
        created=time_of_next(storage),
    )
    publish_net(card, content, background, storage)
    return card
