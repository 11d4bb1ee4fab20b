"""The import step: publishes an ONNX classifier from elsewhere as a model."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import onnx
from onnx import helper

from tinytags_tasks.corpus.labelled import file_sha256, refuse_missing, refuse_other_classes
from tinytags_tasks.corpus.labelled_copy import OpenSource, sets_here
from tinytags_tasks.corpus.sources.files import SourceFiles
from tinytags_tasks.errors import BadInputError
from tinytags_tasks.nets.onnx_file import read_onnx
from tinytags_tasks.nets.onnx_input import Layout
from tinytags_tasks.store import layout
from tinytags_tasks.store.model_records import Evaluation, ModelCard, OtherEvaluation
from tinytags_tasks.store.models import has_card, model_version, publish_model, restore_model, time_of_next
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.tags import check_tags
from tinytags_tasks.train.evaluation import read_yardstick
from tinytags_tasks.train.family import Classifier, model_metadata
from tinytags_tasks.train.features import Sight
from tinytags_tasks.train.gallery import Gallery
from tinytags_tasks.train.onnx_signature import Fitting, Kind
from tinytags_tasks.train.onnx_wrap import Wrapped, wrap_classifier
from tinytags_tasks.train.parameters import HEIGHT, WIDTH
from tinytags_tasks.train.report import render_report


@dataclass(frozen=True)
class ImportRequest:
    """Which classifier to import, and how to pass images to it.

    Attributes
    ----------
    onnx
        The ONNX file, by its path or address: one input of images, and an output with one number for each tag.
    tags
        The tags' names, in the order of that output.
    name
        First part of the model's version.
    height, width
        The size of the images that it takes, in pixels.
    scale, mean, std, layout, output, kind
        See :class:`tinytags_tasks.train.onnx_signature.Fitting`.
    test, other
        Labelled sets on which it is evaluated, as in training.
    licence, preparation
        For the card: the licence of the images it learned from, and how they were prepared.
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
        """Refuse values that cannot fit any classifier.

        Raises
        ------
        BadInputError
            If there is one: the field.
        """
        layout.given_name(self.name, "model")
        HEIGHT.check(self.height)
        WIDTH.check(self.width)
        if len(self.tags) < 2 or len(set(self.tags)) < len(self.tags) or not all(map(str.strip, self.tags)):
            raise BadInputError(f"tags are {', '.join(self.tags) or 'none'}: give two or more, each once")
        check_tags(self.tags, "tags")
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

    @property
    def fitting(self) -> Fitting:
        """How images are passed to the classifier, and what its output is."""
        return Fitting(
            height=self.height,
            width=self.width,
            tags=len(self.tags),
            scale=self.scale,
            mean=self.mean,
            std=self.std,
            layout=self.layout,
            output=self.output,
            kind=self.kind,
        )


@dataclass(frozen=True)
class ImportResult:
    """The published model's version; ``imported`` is False if it had been published before."""

    model: str
    imported: bool


def import_model(
    request: ImportRequest,
    *,
    storage: Storage,
    report: Callable[[str], None] = print,
    open_source: OpenSource = SourceFiles,
) -> ImportResult:
    """Publish a classifier from elsewhere, unless it has been published already.

    Files at an address, which ``open_source`` opens, are copied to this machine for as long as that takes.

    Raises
    ------
    BadInputError
        If the classifier does not fit the images or the tags, or a labelled file cannot be used.
    TransientError
        If the server of an address does not answer.
    """
    refuse_missing(request.test, request.other, open_source=open_source)
    given = (request.onnx, request.test, request.other)
    with sets_here(*given, open_source=open_source, report=report) as files:
        onnx_file, test, other = files.paths
        here = replace(request, onnx=onnx_file or "", test=test, other=other)
        return _import_here(here, storage, files.report)


def _import_here(request: ImportRequest, storage: Storage, report: Callable[[str], None]) -> ImportResult:
    """Publish a classifier; it and the labelled sets are on this machine."""
    if request.test:
        refuse_other_classes(Path(request.test), request.tags)
    path = Path(request.onnx)
    wrapped = wrap_classifier(read_onnx(path), request.fitting, str(path))
    report(f"{path}: gives {wrapped.kind} ({wrapped.output}), takes {wrapped.layout} images of {request.scale}")
    classifier = _classifier(request, wrapped)
    model = model_version(request.name, classifier.onnx_model)
    if has_card(storage, model):
        if restore_model(storage, model, classifier.onnx_model):
            report(f"model {model}: its file was missing or damaged, and is written again")
        report(f"model {model} is published already: nothing to do, and its card is not changed")
        return ImportResult(model, imported=False)
    yardstick = read_yardstick(
        request.test, request.other, request.tags, Sight(request.height, request.width), storage, report
    )
    gallery = Gallery()
    test, other = yardstick.measure(classifier, gallery)
    card = _card(request, model, classifier, test, other, time_of_next(storage))
    publish_model(card, classifier.onnx_model, render_report(card, gallery), storage)
    report(f"published {model}" + (f": test accuracy {test.accuracy:g}" if test else ""))
    return ImportResult(model, imported=True)


def _classifier(request: ImportRequest, wrapped: Wrapped) -> Classifier:
    colours = {name: ", ".join(map(str, getattr(request, name))) for name in ("mean", "std") if getattr(request, name)}
    return Classifier(
        onnx_model=_with_metadata(wrapped.onnx_model, request.tags),
        output="votes" if wrapped.kind == "votes" else "probabilities",
        total=wrapped.total,
        parameters={"scale": request.scale, "layout": wrapped.layout, "its output": wrapped.kind, **colours},
    )


def _card(
    request: ImportRequest,
    model: str,
    classifier: Classifier,
    test: Evaluation | None,
    other: OtherEvaluation | None,
    created: str,
) -> ModelCard:
    path = Path(request.onnx)
    return ModelCard(
        version=model,
        tags=request.tags,
        trees=classifier.total,
        output=classifier.output,
        height=request.height,
        width=request.width,
        preparation=request.preparation,
        origin=f"{path.name}, sha256 {file_sha256(path)}",
        labelled_set="",
        labelled_sha256="",
        labelled_images=0,
        licence=request.licence,
        parameters=classifier.parameters,
        metrics={"test_accuracy": test.accuracy, "test_images": float(test.images)} if test else {},
        libraries={name: version(name) for name in ("onnx", "onnxruntime", "numpy")},
        seconds={},
        created=created,
        test=test,
        other=other,
    )


def _with_metadata(onnx_model: bytes, tags: tuple[str, ...]) -> bytes:
    """Write the tags into the file, as training does, so that the same network with different tags is another model."""
    model = onnx.load_from_string(onnx_model)
    kept = {entry.key: entry.value for entry in model.metadata_props}
    helper.set_model_props(model, dict(sorted({**kept, **model_metadata(tags)}.items())))
    serialized: bytes = model.SerializeToString(deterministic=True)
    return serialized
