"""The local lab: the forest's parameters tried in scikit-learn on a sample, before Spark learns from all of it.

The parameters mean the same in both: a pixel's values are first cut into as many bins of equally many images as MLlib
would, a node chooses among the square root of the values, a tree learns from images drawn with replacement, and each
tree has one vote.
"""

import itertools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import StratifiedKFold

from tinytags_tasks.corpus.labelled import LabelledSet
from tinytags_tasks.errors import BadInputError
from tinytags_tasks.train.images import read_labelled
from tinytags_tasks.train.parameters import TrainRequest, write_parameters

KEPT_FROM = 40
"""Accuracy in percent from which the table counts an image as kept."""

_Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class LabRequest:
    """What to try.

    Attributes
    ----------
    training
        The labelled set, and the parameters that are not searched.
    sample
        How many of its images to try on; all when there are fewer.
    trees, depth, bins
        The values to try, each with each.
    folds
        Parts of the sample, each of which is measured on once by forests that learned from the others.
    out
        Where the chosen parameters go, TOML; None writes none.
    """

    training: TrainRequest
    sample: int = 10_000
    trees: tuple[int, ...] = (5, 10, 20)
    depth: tuple[int, ...] = (6, 8, 10)
    bins: tuple[int, ...] = (50,)
    folds: int = 3
    out: str | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be tried.

        Raises
        ------
        BadInputError
            When a value is out of range.
        """
        if self.folds < 2:
            raise BadInputError(
                f"folds are {self.folds}: two or more are needed, to learn from one and measure on another"
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
    """How one set of parameters did.

    Attributes
    ----------
    training
        The parameters.
    accuracy, deviation
        Mean and standard deviation over the folds of the percentage of images whose winning tag is theirs.
    kept, precision
        Percentage of images with 40 % accuracy or more, and of these, the percentage that is right; None of none.
    seconds
        That one forest took to fit, mean over the folds.
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


def run(request: LabRequest, *, report: Callable[[str], None] = print) -> list[Finding]:
    """Try all candidates, write the best one's parameters down, and return all findings, the best one first.

    Raises
    ------
    BadInputError
        When the labelled file cannot be used, or a tag has too few images for the folds.
    """
    training = request.training
    labelled = read_labelled(Path(training.labelled), training.tags, training.height, training.width)
    images, labels = _sample(labelled, request)
    candidates = request.candidates()
    report(
        f"trying {len(candidates)} sets of parameters on {len(images):,} of {len(labelled.images):,} images, "
        f"{request.folds} folds each"
    )
    findings = _search(candidates, images, labels, len(labelled.tags), request.folds, report)
    # The best first; of equals, the forest that costs less.
    findings.sort(key=lambda each: (-each.accuracy, each.training.trees, each.training.depth, each.training.bins))
    if request.out:
        best = findings[0]
        remark = (
            f"chosen by `tinytags lab` among {len(findings)} on {len(images):,} images of {labelled.path.name}: "
            f"accuracy {best.accuracy:.2f} +- {best.deviation:.2f} % in {request.folds} folds"
        )
        write_parameters(request.out, best.training.forest, [remark])
        report(f"wrote {request.out}; train with `tinytags train {training.labelled} --parameters {request.out}`")
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
    """Fit every candidate in every fold, one a core: scikit-learn fits outside the interpreter's lock."""
    splits = list(StratifiedKFold(folds, shuffle=True, random_state=candidates[0].seed % 2**32).split(images, labels))
    jobs = [(candidate, learned, measured) for candidate in candidates for learned, measured in splits]
    # The longest first, so that no core waits for one at the end.
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
            pool.shutdown(cancel_futures=True)  # Ctrl-C waits for the forests that are being fitted, not for all
            raise
    return [_finding(candidate, measured) for candidate, measured in found.items()]


def _cost(candidate: TrainRequest) -> int:
    return candidate.trees * candidate.depth


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def _measure(votes: npt.NDArray[np.int64], labels: npt.NDArray[np.int64], trees: int, seconds: float) -> _Fold:
    winner = votes.argmax(axis=1)
    is_right = winner == labels
    kept = votes.max(axis=1) * 100 >= KEPT_FROM * trees
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


class SampleForest:
    """A forest of a training's parameters, in scikit-learn.

    Parameters
    ----------
    training
        The parameters.
    tags
        How many tags there are.
    jobs
        Trees that are fitted at once.
    """

    def __init__(self, training: TrainRequest, tags: int, jobs: int = 1) -> None:
        self._bins = training.bins
        self._tags = tags
        self._forest = RandomForestClassifier(
            n_estimators=training.trees,
            max_depth=training.depth,
            max_features="sqrt",
            random_state=training.seed % 2**32,
            n_jobs=jobs,
        )

    def fit(self, images: _Pixels, labels: npt.NDArray[np.int64]) -> "SampleForest":
        """Learn from images, uint8 of shape (images, values), and their labels."""
        self._places = bin_places(images, self._bins)
        self._forest.fit(self._binned(images), labels)
        return self

    def votes(self, images: _Pixels) -> npt.NDArray[np.int64]:
        """Return the trees' votes, int64 of shape (images, tags)."""
        binned = self._binned(images)
        votes = np.zeros((len(images), self._tags), dtype=np.int64)
        for tree in self._forest.estimators_:
            chosen = self._forest.classes_[tree.predict(binned, check_input=False).astype(np.int64)]
            votes[np.arange(len(images)), chosen] += 1
        return votes

    def _binned(self, images: _Pixels) -> npt.NDArray[np.float32]:
        """Return the number of each value's bin, in the type that scikit-learn's trees read."""
        binned = np.empty(images.shape, dtype=np.float32)
        for rows in _chunks(len(images)):
            binned[rows] = self._places[np.arange(images.shape[1]), images[rows]]
        return binned


def bin_places(images: _Pixels, bins: int) -> npt.NDArray[np.uint8]:
    """Cut each value of an image into bins of equally many images.

    Parameters
    ----------
    images
        uint8, shape (images, values).
    bins
        The most bins of a value; where it takes no more values than these, each is a bin.

    Returns
    -------
    numpy.ndarray
        uint8, shape (values, 256): the bin of each of the 256 that a value may be.
    """
    values = images.shape[1]
    places = np.empty((values, 256), dtype=np.uint8)
    for value in range(values):
        counts = np.bincount(images[:, value], minlength=256)
        if np.count_nonzero(counts) <= bins:
            places[value] = np.maximum(np.cumsum(counts > 0) - 1, 0)
        else:
            below = np.cumsum(counts) - counts
            places[value] = np.minimum(below * bins // len(images), bins - 1)
    return places


def _chunks(images: int, size: int = 1_000) -> Iterator[slice]:
    return (slice(start, start + size) for start in range(0, images, size))
