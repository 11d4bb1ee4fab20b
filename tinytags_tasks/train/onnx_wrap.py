"""Gives an ONNX classifier the interface that scoring needs: input ``pixels``, output ``votes``.

::

    pixels uint8 (images, height * width * 3), row-major HWC
      -> Reshape, Transpose   to the layout that the classifier takes
      -> Cast, Div, Sub, Div  to its type and scale
      -> the classifier, its names prefixed
      -> Softmax              where it gives scores
      -> Mul 100              unless it gives votes
    votes float32 (images, tags), adding up to the number of trees, or to 100
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from tinytags_tasks.errors import BadInputError
from tinytags_tasks.nets.onnx_file import first_line
from tinytags_tasks.nets.onnx_input import PREFIX, Layout, find_layout, take_pixels
from tinytags_tasks.train.onnx_signature import Fitting, Kind, find_output

PERCENT = 100
"""The sum of the votes of a classifier that gives probabilities."""

_MOST_VOTES = 32_767  # the largest value that a column of a scored file can hold


@dataclass(frozen=True)
class Wrapped:
    """A classifier with that interface; ``total`` is the sum of an image's votes."""

    onnx_model: bytes = field(repr=False)
    total: int
    kind: Kind
    layout: Layout
    output: str


def wrap_classifier(model: onnx.ModelProto, fitting: Fitting, where: str) -> Wrapped:
    """Give a classifier that interface, and try it out.

    Parameters
    ----------
    model
        The classifier.
    fitting
        How images are passed to it.
    where
        Its file, for messages.

    Raises
    ------
    BadInputError
        If its input does not fit the images, its output does not fit the tags, or a trial run gives unexpected values.
    """
    layout = find_layout(model, fitting, where)
    output = find_output(model, fitting, where)
    plain = _with_pixels(model, fitting, layout, output)
    values = _run_on_noise(plain, fitting, where, output)
    kind = fitting.kind or _kind_of(values)
    total = _sum_of_votes(values, where) if kind == "votes" else PERCENT
    if kind == "probabilities" and not _are_probabilities(values):
        raise BadInputError(f"{where}: its output {output} is not probabilities: from 0 to 1, and adding up to 1")
    finished = _with_votes(plain, kind, fitting.tags)
    return Wrapped(finished.SerializeToString(deterministic=True), total, kind, layout, output)


def _with_pixels(model: onnx.ModelProto, fitting: Fitting, layout: Layout, output: str) -> onnx.ModelProto:
    """Return the classifier with the input ``pixels``, and only the chosen output."""
    wrapped, _ = take_pixels(model, fitting, layout, flat=True)
    graph = wrapped.graph
    graph.node.append(helper.make_node("Cast", [PREFIX + output], ["values"], to=TensorProto.FLOAT))
    graph.output.append(helper.make_tensor_value_info("values", TensorProto.FLOAT, ["images", fitting.tags]))
    return wrapped


def _with_votes(plain: onnx.ModelProto, kind: Kind, tags: int) -> onnx.ModelProto:
    """Return the classifier with the output ``votes``."""
    model = onnx.ModelProto()
    model.CopyFrom(plain)
    graph, at = model.graph, "values"
    if kind == "scores":
        graph.node.append(helper.make_node("Softmax", [at], ["shares"], axis=1))
        at = "shares"
    if kind == "votes":
        graph.node.append(helper.make_node("Identity", [at], ["votes"]))
    else:
        graph.initializer.append(numpy_helper.from_array(np.array(PERCENT, dtype=np.float32), "percent"))
        graph.node.append(helper.make_node("Mul", [at, "percent"], ["votes"]))
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info("votes", TensorProto.FLOAT, ["images", tags]))
    return model


def _run_on_noise(model: onnx.ModelProto, fitting: Fitting, where: str, output: str) -> npt.NDArray[np.float32]:
    """Run a classifier on some images, together and one by one; return its values, float32 (images, tags)."""
    values_of_image = fitting.height * fitting.width * 3
    pixels = np.random.default_rng(0).integers(0, 256, (16, values_of_image), dtype=np.uint8)
    pixels[0], pixels[1] = 0, 255
    pixels[2] = np.linspace(0, 255, values_of_image, dtype=np.uint8)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what it would print is raised as well
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        (together,) = session.run(["values"], {"pixels": pixels})
        alone = [session.run(["values"], {"pixels": pixels[at : at + 1]})[0] for at in range(4)]
    except Exception as error:  # ONNX Runtime's exceptions have no common base class
        raise BadInputError(
            f"{where}: fails on images of {fitting.height}x{fitting.width} ({first_line(error)})"
        ) from error
    if together.shape != (len(pixels), fitting.tags):
        raise BadInputError(
            f"{where}: its output {output} is {'x'.join(map(str, together.shape))} for {len(pixels)} images; "
            f"with {fitting.tags} tags it must be {len(pixels)}x{fitting.tags}"
        )
    if not np.isfinite(together).all():
        raise BadInputError(
            f"{where}: its output {output} has values that are not finite numbers (NaN) on images of noise"
        )
    if not np.allclose(np.concatenate(alone), together[:4], rtol=1e-3, atol=1e-4):
        raise BadInputError(
            f"{where}: an image gets other values alone than in a batch; export it for inference, not for training"
        )
    found: npt.NDArray[np.float32] = together
    return found


def _are_probabilities(values: npt.NDArray[np.float32]) -> bool:
    return bool((values >= 0).all() and (np.abs(values.sum(axis=1) - 1) < 0.004).all())


def _kind_of(values: npt.NDArray[np.float32]) -> Kind:
    if _are_probabilities(values):
        return "probabilities"
    sums = values.sum(axis=1)
    are_whole = (values >= 0).all() and (values == np.round(values)).all()
    return "votes" if are_whole and (sums == sums[0]).all() and 0 < sums[0] <= _MOST_VOTES else "scores"


def _sum_of_votes(values: npt.NDArray[np.float32], where: str) -> int:
    if _kind_of(values) != "votes":
        raise BadInputError(f"{where}: its output is not votes: whole numbers that add up to the same for every image")
    return int(values[0].sum())
