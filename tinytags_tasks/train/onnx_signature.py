"""Finds the output of an ONNX classifier with a number for each tag."""

from dataclasses import dataclass
from typing import Literal

import onnx

from tinytags_tasks.errors import BadInputError
from tinytags_tasks.nets.onnx_input import FLOATS, PixelFitting, shape_of, shown_shape

Kind = Literal["votes", "scores", "probabilities"]
"""Whole numbers with a constant sum; any numbers, higher is better; or numbers that add up to 1."""


@dataclass(frozen=True, kw_only=True)
class Fitting(PixelFitting):
    """How images are passed to a classifier, and what its output means.

    Attributes
    ----------
    tags
        Number of tags.
    output
        The name of its output; empty takes the only one that fits.
    kind
        None infers it from the output's values.
    """

    tags: int
    output: str = ""
    kind: Kind | None = None


def find_output(model: onnx.ModelProto, fitting: Fitting, where: str) -> str:
    """Return the name of the output with a value for each tag.

    Raises
    ------
    BadInputError
        If no output or several outputs have one.
    """
    outputs = {entry.name: entry for entry in model.graph.output}
    shown = ", ".join(f"{name} ({shown_shape(entry)})" for name, entry in outputs.items())
    if fitting.output:
        if fitting.output not in outputs:
            raise BadInputError(f"{where}: has no output {fitting.output}; its outputs are {shown}")
        candidates = [fitting.output]
    else:
        candidates = [name for name, entry in outputs.items() if entry.type.tensor_type.elem_type in FLOATS]
    fitting_names = [name for name in candidates if _has_value_for_each(outputs[name], fitting.tags)]
    if not fitting_names:
        raise BadInputError(f"{where}: no output has {fitting.tags} numbers, one for each tag; its outputs are {shown}")
    if len(fitting_names) > 1:
        raise BadInputError(f"{where}: has several outputs that fit ({', '.join(fitting_names)}); choose by --output")
    return fitting_names[0]


def _has_value_for_each(entry: onnx.ValueInfoProto, tags: int) -> bool:
    if not entry.type.HasField("tensor_type"):
        return False
    shape = shape_of(entry)
    return shape is None or (len(shape) == 2 and shape[1] in (None, tags))
