"""Measures a run from the store: its frame, and its corpus' review log as it is now."""

from collections.abc import Callable

from tinytags_tasks.errors import TinyTagsError
from tinytags_tasks.review.frame import load_frame, stored_frame
from tinytags_tasks.review.intervals import Estimate
from tinytags_tasks.review.precision import NOT_MEASURED, PrecisionTable, measure
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.store.review_log import ReviewLog, of_version
from tinytags_tasks.store.run_records import Run


def measure_run(run: Run, storage: Storage, report: Callable[[str], None]) -> PrecisionTable:
    """Return what the reviews of a run's corpus say of it, after making its frame if it has none.

    Raises
    ------
    BadInputError
        If the run is not completely scored, or of another version of its corpus.
    """
    frame = load_frame(run, storage, report)
    return measure(frame, of_version(ReviewLog(run.corpus, storage).read(), run.corpus_digest))


def overall_precision(run: Run, storage: Storage) -> Estimate | None:
    """Return the measured precision of all images with a tag; None if nobody measured it, or it cannot be read.

    For lists: nothing is made, and a damaged log is reported by whoever uses it.
    """
    try:
        frame = stored_frame(run, storage)
        if frame is None:
            return None
        return measure(frame, of_version(ReviewLog(run.corpus, storage).read(), run.corpus_digest)).overall
    except TinyTagsError:
        return None


def describe(estimate: Estimate | None) -> str:
    """Return a precision for people."""
    return NOT_MEASURED if estimate is None else str(estimate)
