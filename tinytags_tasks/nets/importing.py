"""Publishes an ONNX network from elsewhere as a net, in int8 where that keeps the ranking of pictures."""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from tinytags_tasks.errors import BadInputError
from tinytags_tasks.nets.arithmetic import Arithmetic, Measure, Report, choose_form, scale_of
from tinytags_tasks.nets.calibration import resized
from tinytags_tasks.nets.catalogue import net_version, publish_net, time_of_next
from tinytags_tasks.nets.graph import embedding_graph
from tinytags_tasks.nets.onnx_embedding import NetFitting, WrappedNet, find_size, wrap_net
from tinytags_tasks.nets.onnx_file import read_onnx
from tinytags_tasks.nets.onnx_input import Layout
from tinytags_tasks.nets.onnx_pooling import Tokens
from tinytags_tasks.nets.running import embed, open_session
from tinytags_tasks.store import layout
from tinytags_tasks.store.net_records import NetCard
from tinytags_tasks.store.protocol import Storage

FEWEST_PICTURES = 64
LARGEST_SIDE = 1024

Pixels = npt.NDArray[np.uint8]

ReadPictures = Callable[[int, int], Pixels]
"""Returns pictures for a net that takes this height and width: uint8 (pictures, height, width, 3), in any size."""


@dataclass(frozen=True)
class NetImport:
    """Which network to import, and how to pass images to it.

    Attributes
    ----------
    onnx
        The ONNX file: one input of images, and an output that describes each image by a row of numbers.
    name
        First part of the net's version.
    height, width
        The size of the images that it takes, in pixels; None takes the size that its input declares.
    scale, mean, std, layout, output, tokens
        See :class:`tinytags_tasks.nets.onnx_embedding.NetFitting`.
    arithmetic
        See :data:`tinytags_tasks.nets.arithmetic.Arithmetic`.
    licence, preparation
        For the card: the terms of what it learned from, and how those pictures were prepared.
    """

    onnx: str
    name: str
    height: int | None = None
    width: int | None = None
    scale: Literal["0-255", "0-1"] = "0-255"
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    layout: Layout | None = None
    output: str = ""
    tokens: Tokens | None = None
    arithmetic: Arithmetic = "auto"
    licence: str = ""
    preparation: str = ""

    def __post_init__(self) -> None:
        """Refuse values that cannot fit any network.

        Raises
        ------
        BadInputError
            If there is one: the field.
        """
        layout.given_name(self.name, "net")
        for name in ("height", "width"):
            side = getattr(self, name)
            if side is not None and not 1 <= side <= LARGEST_SIDE:
                raise BadInputError(f"{name} is {side}: it must be from 1 to {LARGEST_SIDE:,}")
        for name, known in (
            ("scale", ("0-255", "0-1")),
            ("layout", (None, "hwc", "chw")),
            ("tokens", (None, "first", "mean")),
            ("arithmetic", ("auto", "int8", "float32")),
        ):
            if (value := getattr(self, name)) not in known:
                raise BadInputError(f"{name} is {value!r}: it must be {' or '.join(each for each in known if each)}")
        for name in ("mean", "std"):
            values = getattr(self, name)
            if values and (len(values) != 3 or not all(map(math.isfinite, values)) or (name == "std" and 0 in values)):
                raise BadInputError(f"{name} is {values}: it must be three numbers, for red, green and blue")


@dataclass(frozen=True)
class NetImported:
    """The published net's card; ``imported`` is False if it had been published before."""

    card: NetCard
    imported: bool


def import_net(
    request: NetImport, read_pictures: ReadPictures, pictures_from: str, *, storage: Storage, report: Report = print
) -> NetImported:
    """Publish a network from elsewhere as a net, unless it has been published already.

    Parameters
    ----------
    request
        Which, and how.
    read_pictures
        Returns what its numbers are calibrated on: pictures like those that it will see, in any size.
    pictures_from
        Where these come from, for the card.
    storage
        The store.
    report
        Takes each message.

    Raises
    ------
    BadInputError
        If the network does not fit, there are too few pictures, or int8 was asked for and ranks worse than float32.
    """
    path = Path(request.onnx)
    model = read_onnx(path)
    height, width = find_size(model, request.height, request.width, request.layout, str(path))
    fitting = _fitting(request, height, width)
    wrapped = wrap_net(model, fitting, str(path))
    pooled = f", {wrapped.pooled}" if wrapped.pooled else ""
    report(f"{path}: takes {wrapped.layout} pictures of {height}x{width}, gives {wrapped.output}{pooled}")
    pictures = read_pictures(height, width)
    if len(pictures) < FEWEST_PICTURES:
        raise BadInputError(
            f"{pictures_from}: {len(pictures)} pictures are too few to calibrate a net on; give {FEWEST_PICTURES} or "
            "more, by --corpus or --labelled"
        )
    card, content = _make(request, wrapped, fitting, pictures, pictures_from, time_of_next(storage), report)
    _check_in_pipeline(content, card, pictures, str(path))
    imported = publish_net(card, content, None, storage)
    if not imported:
        report(f"net {card.version} is published already: its card is not changed")
    return NetImported(card, imported)


def _fitting(request: NetImport, height: int, width: int) -> NetFitting:
    given = {name: getattr(request, name) for name in ("scale", "mean", "std", "layout", "output", "tokens")}
    return NetFitting(height=height, width=width, **given)


def _make(
    request: NetImport,
    wrapped: WrappedNet,
    fitting: NetFitting,
    pictures: Pixels,
    pictures_from: str,
    created: str,
    report: Report,
) -> tuple[NetCard, bytes]:
    """Return the card and the file of the form that is published."""
    path = Path(request.onnx)
    pixels = resized(pictures, fitting.height, fitting.width)
    measure = Measure(pixels, str(path))
    report(f"measuring on {len(pixels):,} pictures from {pictures_from}")
    as_given = measure.run(wrapped.model)
    scale = scale_of(as_given[measure.calibrating], str(path))
    form = choose_form(wrapped.model, request.arithmetic, measure, scale, as_given, report)
    colours = {name: ", ".join(map(str, getattr(request, name))) for name in ("mean", "std") if getattr(request, name)}
    parameters: dict[str, int | float | str] = {
        "scale of pixels": request.scale,
        **colours,
        "layout": wrapped.layout,
        "output": wrapped.output,
        **({"pooled": wrapped.pooled} if wrapped.pooled else {}),
        **({"exported for images": wrapped.exported_for} if wrapped.exported_for else {}),
        **({"in int8": form.operators} if form.operators else {}),
        "calibrated on": f"{len(pixels)} pictures from {pictures_from}",
        **{f"{name}'s version": version(name) for name in ("onnx", "onnxruntime")},
    }
    card = NetCard(
        version=net_version(request.name, form.content),
        height=fitting.height,
        width=fitting.width,
        dimensions=wrapped.dimensions,
        scale=scale,
        arithmetic=form.arithmetic,
        origin=f"{path.name}, sha256 {hashlib.sha256(path.read_bytes()).hexdigest()}",
        preparation=request.preparation,
        licence=request.licence,
        parameters=parameters,
        figures=form.figures,
        created=created,
    )
    return card, form.content


def _check_in_pipeline(content: bytes, card: NetCard, pictures: Pixels, where: str) -> None:
    """Embed some pictures as the pipeline will, before anything is published."""
    height, width = pictures.shape[1:3]
    session = open_session(embedding_graph(content, card, height, width), where, threads=0)
    some = pictures[:8]
    if not embed(session, some.reshape(len(some), -1)).any():
        raise BadInputError(f"{where}: gives zeros for the pictures; check --scale, --mean and --std")
