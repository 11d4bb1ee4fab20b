"""The import step: an ONNX classifier from elsewhere in, a published model out."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import onnx
from onnx import helper

from tinytags_tasks import layout
from tinytags_tasks.corpus.labelled import file_sha256
from tinytags_tasks.errors import BadInputError
from tinytags_tasks.models import model_version, publish_model, restore_model
from tinytags_tasks.records import PIXEL_ORDER, ModelCard, now
from tinytags_tasks.storage import Storage
from tinytags_tasks.train.evaluation import read_yardstick
from tinytags_tasks.train.onnx_wrap import Fitting, Kind, Layout, read_onnx, wrap_classifier
from tinytags_tasks.train.parameters import check_parameters
from tinytags_tasks.train.report import render_report


@dataclass(frozen=True)
class ImportRequest:
    """Which classifier, and how it takes images.

    Attributes
    ----------
    onnx
        The ONNX file: one input of images, and an output with a number for each tag.
    tags
        The tags' names, in the order of that output.
    name
        First part of the model's version.
    height, width
        Size of the images that it takes, in pixels.
    scale, mean, std, layout, output, kind
        See :class:`tinytags_tasks.train.onnx_wrap.Fitting`.
    test, other
        Parquet files that it is measured on, as for a training.
    licence, preparation
        For the card: of what it learned from, and how the pictures were made images.
    """

    onnx: str
    tags: tuple[str, ...]
    name: str = "imported"
    height: int = 32
    width: int = 32
    scale: Literal["0-255", "0-1"] = "0-255"
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    layout: Layout | None = None
    output: str = ""
    kind: Kind | None = None
    test: str | None = None
    other: str | None = None
    licence: str = ""
    preparation: str = ""

    def __post_init__(self) -> None:
        """Refuse what no classifier can be asked for.

        Raises
        ------
        BadInputError
            Naming the field.
        """
        layout.checked_name(self.name, "model")
        check_parameters({"height": self.height, "width": self.width})
        if len(self.tags) < 2 or len(set(self.tags)) < len(self.tags) or not all(map(str.strip, self.tags)):
            raise BadInputError(f"tags are {', '.join(self.tags) or 'none'}: give two or more, each of them once")
        for field, known in (
            ("scale", ("0-255", "0-1")),
            ("layout", (None, "hwc", "chw")),
            ("kind", (None, "votes", "scores", "probabilities")),
        ):
            if (value := getattr(self, field)) not in known:
                raise BadInputError(f"{field} is {value!r}: it must be {' or '.join(each for each in known if each)}")
        for field in ("mean", "std"):
            values = getattr(self, field)
            if values and (len(values) != 3 or not all(map(math.isfinite, values)) or (field == "std" and 0 in values)):
                raise BadInputError(f"{field} is {values}: it must be three numbers, for red, green and blue")


@dataclass(frozen=True)
class ImportResult:
    """The published model's version; ``imported`` is False when it stood already."""

    model: str
    imported: bool


def run(request: ImportRequest, *, storage: Storage, report: Callable[[str], None] = print) -> ImportResult:
    """Publish a classifier from elsewhere, unless it is published already.

    Raises
    ------
    BadInputError
        When it is no classifier of such images and tags, or a labelled file cannot be used.
    """
    path = Path(request.onnx)
    fitting = Fitting(
        height=request.height,
        width=request.width,
        tags=len(request.tags),
        scale=request.scale,
        mean=request.mean,
        std=request.std,
        layout=request.layout,
        output=request.output,
        kind=request.kind,
    )
    wrapped = wrap_classifier(read_onnx(path), fitting, str(path))
    report(f"{path}: gives {wrapped.kind} ({wrapped.output}), takes {wrapped.layout} images of {request.scale}")
    onnx_model = _with_metadata(wrapped.onnx_model, request.tags)
    model = model_version(request.name, onnx_model)
    if storage.exists(layout.card_file(model)):
        if restore_model(storage, model, onnx_model):
            report(f"model {model}: its file was missing or damaged, and is written again")
        report(f"model {model} is published already: nothing to do, and its card stays as it is")
        return ImportResult(model, imported=False)
    yardstick = read_yardstick(request.test, request.other, request.tags, request.height, request.width)
    test, other = yardstick.measure(onnx_model, wrapped.trees)
    metrics = {"test_accuracy": test.accuracy, "test_images": float(test.images)} if test else {}
    colours = {name: ", ".join(map(str, getattr(request, name))) for name in ("mean", "std") if getattr(request, name)}
    card = ModelCard(
        version=model,
        tags=request.tags,
        trees=wrapped.trees,
        output="votes" if wrapped.kind == "votes" else "probabilities",
        height=request.height,
        width=request.width,
        preparation=request.preparation,
        origin=f"{path.name}, sha256 {file_sha256(path)}",
        labelled_set="",
        labelled_sha256="",
        labelled_images=0,
        licence=request.licence,
        parameters={"scale": request.scale, "layout": wrapped.layout, "its output": wrapped.kind, **colours},
        metrics=metrics,
        libraries={name: version(name) for name in ("onnx", "onnxruntime", "numpy")},
        seconds={},
        created=now(),
        test=test,
        other=other,
    )
    publish_model(card, onnx_model, render_report(card), storage)
    report(f"published {model}" + (f": test accuracy {test.accuracy:g}" if test else ""))
    return ImportResult(model, imported=True)


def _with_metadata(onnx_model: bytes, tags: tuple[str, ...]) -> bytes:
    """Write the tags into the file, as training does: the same network with other tags is another model."""
    model = onnx.load_from_string(onnx_model)
    kept = {entry.key: entry.value for entry in model.metadata_props}
    helper.set_model_props(model, dict(sorted({**kept, "tags": json.dumps(tags), "pixel_order": PIXEL_ORDER}.items())))
    serialized: bytes = model.SerializeToString(deterministic=True)
    return serialized
