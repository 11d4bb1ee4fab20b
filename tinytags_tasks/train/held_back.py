"""Figures of the second head on what it did not learn from: labelled images that were held out, and background."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from tinytags_tasks.store.model_records import BackgroundUse, Evaluation, OtherEvaluation
from tinytags_tasks.train.evaluation import evaluate, evaluate_background
from tinytags_tasks.train.features import LabelledFeatures, head_votes
from tinytags_tasks.train.fitting import Fitted, Lesson
from tinytags_tasks.train.gallery import Gallery
from tinytags_tasks.train.images import read_rows
from tinytags_tasks.train.parameters import TrainRequest


def measure_held_out(
    fitted: Fitted, lesson: Lesson, labelled: LabelledFeatures, request: TrainRequest, gallery: Gallery
) -> Evaluation | None:
    """Return the second head's figures on the held-out images; None if there is no second head.

    If there is no test set, whose pictures are shown instead, some of the images are added to the gallery.
    """
    if fitted.partial is None:
        return None
    part = labelled.part(lesson.held_out)
    votes, total = head_votes(fitted.partial.onnx_model, part.values), fitted.partial.total
    if not request.test:
        rows = np.flatnonzero(lesson.held_out)

        def read(numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
            return read_rows(Path(request.labelled), rows[numbers], request.height, request.width)

        gallery.add("held_out", votes, part.labels, total, read)
    return evaluate(votes, part, total, labelled.sha256)


def measure_background(fitted: Fitted, lesson: Lesson, use: BackgroundUse | None) -> OtherEvaluation | None:
    """Return the second head's figures on background that it did not learn from; None if there is none."""
    if fitted.partial is None or use is None or not len(lesson.background_held_back):
        return None
    votes = head_votes(fitted.partial.onnx_model, lesson.background_held_back)
    return evaluate_background(votes, len(lesson.tags), fitted.partial.total, use.net, use.sha256)
