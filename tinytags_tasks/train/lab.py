"""The lab: tries out parameters of a forest on pixels, on a sample, before training on the whole set in Spark."""

import itertools
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import StratifiedKFold

from tinytags_tasks.corpus.labelled import LabelledSet, refuse_missing
from tinytags_tasks.corpus.labelled_copy import OpenSource, sets_here
from tinytags_tasks.corpus.sources.files import SourceFiles
from tinytags_tasks.errors import BadInputError
from tinytags_tasks.train.images import read_labelled
from tinytags_tasks.train.parameters import TrainRequest, write_parameters
from tinytags_tasks.train.sample_forest import SampleForest
from tinytags_tasks.votes import is_kept, winners

KEPT_FROM = 40
"""The confidence, in percent, from which an image counts as kept."""

_Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class LabRequest:
    """What to try.

    Attributes
    ----------
    training
        The labelled set, and the parameters that are not varied; its head is a forest on pixels.
    sample
        How many of its images to use; all of them if there are fewer.
    trees, depth, bins
        The values to try, in every combination.
    folds
        Number of parts of the sample; each part is used once to evaluate forests that learned from the others.
    out
        The path of a TOML file for the chosen parameters; None writes no file.
    """

    training: TrainRequest
    sample: int = 10_000
    trees: tuple[int, ...] = (5, 10, 20)
    depth: tuple[int, ...] = (6, 8, 10)
    bins: tuple[int, ...] = (50,)
    folds: int = 3
    out: str | None = None

    def __post_init__(self) -> None:
        """Refuse values that cannot be tried.

        Raises
        ------
        BadInputError
            If a value is out of range.
        """
        if self.folds < 2:
            raise BadInputError(
                f"folds are {self.folds}: at least two are needed, to learn from one and measure on another"
            )
        if self.sample < 2 * self.folds:
            raise BadInputError(f"sample is {self.sample}: it must be {2 * self.folds} or more for {self.folds} folds")
        for name in ("trees", "depth", "bins"):
            if not getattr(self, name):
                raise BadInputError(f"{name}: give one value or more to try")
        self.candidates()

    def candidates(self) -> list[TrainRequest]:
        """Return a training for each combination of the values."""
        return [
            replace(self.training, trees=trees, depth=depth, bins=bins)
            for trees, depth, bins in itertools.product(
                *(sorted(set(values)) for values in (self.trees, self.depth, self.bins))
            )
        ]


@dataclass(frozen=True)
class Finding:
    """The results of one set of parameters.

    Attributes
    ----------
    training
        The parameters.
    accuracy, deviation
        Test accuracy in percent: its mean and standard deviation over the folds.
    kept, precision
        The percentage of images with a confidence of 40 % or more, and how many percent of these are right; None if no
        image is kept.
    seconds
        The time to fit one forest, as a mean over the folds.
    """

    training: TrainRequest
    accuracy: float
    deviation: float
    kept: float
    precision: float | None
    seconds: float


@dataclass(frozen=True)
class _Fold:
    right: int
    kept: int
    kept_right: int
    images: int
    seconds: float


def search_parameters(
    request: LabRequest, *, report: Callable[[str], None] = print, open_source: OpenSource = SourceFiles
) -> list[Finding]:
    """Try all candidates, write the best parameters to a file, and return all results, best first.

    A labelled set at an address, which ``open_source`` opens, is copied to this machine while it is read.

    Raises
    ------
    BadInputError
        If the labelled set cannot be used, or a tag has too few images for the folds.
    TransientError
        If the server of its address does not answer.
    """
    training = request.training
    refuse_missing(training.labelled, open_source=open_source)
    with sets_here(training.labelled, open_source=open_source, report=report) as sets:
        path = Path(sets.paths[0] or "")
        labelled = read_labelled(path, training.tags, training.height, training.width)
        images, labels = _sample(labelled, request)
    candidates = request.candidates()
    report(
        f"trying {len(candidates)} combinations of parameters on {len(images):,} of {len(labelled.images):,} images, "
        f"{request.folds} folds each"
    )
    findings = _search(candidates, images, labels, len(labelled.tags), request.folds, report)
    # The best first; if there is a tie, the cheapest forest first.
    findings.sort(key=lambda each: (-each.accuracy, each.training.trees, each.training.depth, each.training.bins))
    if request.out:
        best = findings[0]
        remark = (
            f"chosen by `tinytags lab` among {len(findings)} on {len(images):,} images of {labelled.path.name}: "
            f"accuracy {best.accuracy:.2f} +- {best.deviation:.2f} % in {request.folds} folds"
        )
        write_parameters(request.out, best.training.parameters, [remark])
        report(
            f"wrote {request.out}; train with `tinytags train {training.labelled} --features pixels --head forest "
            f"--parameters {request.out}`"
        )
    return findings


def _sample(labelled: LabelledSet, request: LabRequest) -> tuple[_Pixels, npt.NDArray[np.int64]]:
    random = np.random.default_rng(request.training.seed % 2**63)
    chosen = np.sort(random.permutation(len(labelled.images))[: request.sample])
    labels = labelled.labels[chosen]
    found, counts = np.unique(labels, return_counts=True)
    if len(found) < 2 or counts.min() < request.folds:
        raise BadInputError(
            f"{labelled.path}: a tag has {counts.min()} images in the sample, fewer than the {request.folds} folds; "
            "give a larger --sample or fewer --cv"
        )
    return labelled.images[chosen].reshape(len(chosen), -1), labels


def _search(
    candidates: Sequence[TrainRequest],
    images: _Pixels,
    labels: npt.NDArray[np.int64],
    tags: int,
    folds: int,
    report: Callable[[str], None],
) -> list[Finding]:
    """Fit every candidate in every fold, one per core; scikit-learn releases the interpreter's lock."""
    splits = list(StratifiedKFold(folds, shuffle=True, random_state=candidates[0].seed % 2**32).split(images, labels))
    jobs = [(candidate, learned, measured) for candidate in candidates for learned, measured in splits]
    # The longest first, so that no core is idle towards the end.
    jobs.sort(key=lambda job: -_cost(job[0]))
    found: dict[TrainRequest, list[_Fold]] = {candidate: [] for candidate in candidates}
    total, done, started = sum(_cost(job[0]) for job in jobs), 0, time.monotonic()

    def try_fold(candidate: TrainRequest, learned: npt.NDArray[np.int64], measured: npt.NDArray[np.int64]) -> _Fold:
        began = time.perf_counter()
        forest = SampleForest(candidate, tags).fit(images[learned], labels[learned])
        seconds = time.perf_counter() - began
        return _measure(forest.votes(images[measured]), labels[measured], candidate.trees, seconds)

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        running = {pool.submit(try_fold, *job): job[0] for job in jobs}
        try:
            for number, future in enumerate(as_completed(running), 1):
                candidate = running[future]
                found[candidate].append(future.result())
                done += _cost(candidate)
                left = (time.monotonic() - started) * (total - done) / done
                report(f"{number} of {len(jobs)} forests, about {_duration(left)} left")
        except BaseException:
            pool.shutdown(cancel_futures=True)  # Ctrl-C waits only for the forests that are being fitted
            raise
    return [_finding(candidate, measured) for candidate, measured in found.items()]


def _cost(candidate: TrainRequest) -> int:
    return candidate.trees * candidate.depth


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def _measure(votes: npt.NDArray[np.int64], labels: npt.NDArray[np.int64], trees: int, seconds: float) -> _Fold:
    winner, won = winners(votes)
    is_right = winner == labels
    kept = is_kept(won, KEPT_FROM, trees)
    return _Fold(int(is_right.sum()), int(kept.sum()), int((kept & is_right).sum()), len(labels), seconds)


def _finding(training: TrainRequest, folds: Sequence[_Fold]) -> Finding:
    accuracies = [100 * fold.right / fold.images for fold in folds]
    kept = sum(fold.kept for fold in folds)
    return Finding(
        training=training,
        accuracy=float(np.mean(accuracies)),
        deviation=float(np.std(accuracies)),
        kept=100 * kept / sum(fold.images for fold in folds),
        precision=100 * sum(fold.kept_right for fold in folds) / kept if kept else None,
        seconds=float(np.mean([fold.seconds for fold in folds])),
    )
