"""Tells how differently two sets of pictures were prepared, whatever they show.

A model also learns how its pictures were compressed and resized: a net's rejection of strange pictures fell from 81 %
to 0.9 % after one JPEG encoding. So a simple classifier tries to tell the labelled images from those of the corpus by
features of preparation alone: how fast the energy falls with frequency (resizing, blur, sharpening), how it differs on
and off the grid of 8x8 blocks (JPEG), and how fast that of the colours falls (chroma subsampling).
"""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tinytags_tasks.errors import CorruptError
from tinytags_tasks.store.corpus_records import load_corpus
from tinytags_tasks.store.model_records import ModelCard, Probe
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.store.samples import sample_images
from tinytags_tasks.train.images import read_rows
from tinytags_tasks.train.parameters import TrainRequest

SAMPLE = 2_000
"""Images of each set at most."""

FEWEST = 20
"""Images of each set at least: with fewer, nothing can be said."""

_MOST_BYTES = 64 * 2**20
_BATCH_VALUES = 2**21
_FOLDS = 5
_SEED = 0

_SIDE = 8
"""Height and width of JPEG's blocks."""

_Planes = npt.NDArray[np.float32]


def probe_training(
    request: TrainRequest, labelled_images: int, storage: Storage, report: Callable[[str], None]
) -> Probe | None:
    """Return the probe of a training's labelled set and its corpus, and report a warning; None without a corpus.

    Parameters
    ----------
    request
        The training.
    labelled_images
        How many images its labelled set has.
    storage
        The store.
    report
        Receives the warning.

    Raises
    ------
    BadInputError, MissingError
        If the labelled set cannot be read, or there is no such corpus. A damaged corpus is only reported.
    """
    if request.corpus is None or labelled_images < FEWEST:
        return None
    images = min(labelled_images, SAMPLE, _MOST_BYTES // (request.height * request.width * 3))
    rows = np.arange(images) * labelled_images // images
    sample = read_rows(Path(request.labelled), rows, request.height, request.width)
    try:
        found = probe_corpus(sample, request.corpus, storage)
    except CorruptError as error:  # a damaged shard is no reason not to train: its blocks will say so
        report(f"warning: how the images were prepared is not compared ({error})")
        return None
    if found and found.warning:
        report(f"warning: {found.warning}")
    return found


def warn_again(request: TrainRequest, card: ModelCard, storage: Storage, report: Callable[[str], None]) -> None:
    """Report the warning of a model that exists already, whose card is never rewritten: as :func:`probe_training`."""
    if request.corpus and card.probe and card.probe.corpus_digest == load_corpus(request.corpus, storage).digest:
        if card.probe.warning:
            report(f"warning: {card.probe.warning}")
        return
    probe_training(request, card.labelled_images, storage, report)


def probe_corpus(labelled_images: npt.NDArray[np.uint8], corpus: str, storage: Storage) -> Probe | None:
    """Return how differently labelled images and a stored corpus were prepared; None if that cannot be said.

    Parameters
    ----------
    labelled_images
        uint8, shape (images, height, width, 3).
    corpus
        The corpus' name.
    storage
        The store.

    Raises
    ------
    MissingError
        If the store has no such corpus.
    CorruptError
        If a part of it that is read is damaged.
    """
    stored = load_corpus(corpus, storage)
    images = sample_images(storage, stored, min(SAMPLE, _MOST_BYTES // stored.image_bytes))
    sample = _sample(labelled_images)
    auroc = probe(sample, images)
    if auroc is None:
        return None
    return Probe(
        corpus=corpus,
        corpus_digest=stored.digest,
        labelled_images=len(sample),
        corpus_images=len(images),
        auroc=round(auroc, 3),
    )


def probe(one: npt.NDArray[np.uint8], other: npt.NDArray[np.uint8]) -> float | None:
    """Return how well two sets of pictures can be told apart by their preparation alone.

    Parameters
    ----------
    one, other
        uint8, shape (images, height, width, 3); the sizes may differ, but make the answer clear.

    Returns
    -------
    float or None
        AUROC of a logistic regression on pictures that it has not seen (cross-validation): 0.5 if nothing tells them
        apart, 1 if everything does. None if there are too few pictures, or if they are too small.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    if min(len(one), len(other)) < FEWEST or min(*one.shape[1:3], *other.shape[1:3]) < 2 * _SIDE:
        return None
    features = np.concatenate([looks(_sample(one)), looks(_sample(other))])
    is_other = np.repeat([0, 1], [min(len(one), SAMPLE), min(len(other), SAMPLE)])
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.05, class_weight="balanced", max_iter=500))
    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=_SEED)
    with threadpool_limits(1):  # as in tinytags_tasks.train.none
        scores = cross_val_predict(classifier, features, is_other, cv=folds, method="decision_function")
    return float(roc_auc_score(is_other, scores))


def looks(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Return the features of preparation: float32, shape (images, features).

    The pictures' contrast and brightness, which depend on what they show, are left out.
    """
    batch = max(1, _BATCH_VALUES // math.prod(images.shape[1:]))
    parts = [_looks(images[start : start + batch]) for start in range(0, len(images), batch)]
    return np.concatenate(parts)


def _looks(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    rgb = images.astype(np.float32)
    luma = rgb @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    on_grid, off_grid = _energies(luma, 0), _energies(luma, _SIDE // 2)
    chroma = (_energies(rgb[..., 2] - luma, 0) + _energies(rgb[..., 0] - luma, 0)) / 2
    return np.concatenate(
        [on_grid - off_grid, np.diff(off_grid, axis=1), np.diff(chroma[:, ::2], axis=1)], axis=1, dtype=np.float32
    )


def _energies(plane: _Planes, offset: int) -> _Planes:
    """Return the logarithm of pictures' energy by frequency, from low to high: shape (images, 14).

    A frequency is a diagonal of the coefficients of the discrete cosine transform of 8x8 blocks, whose grid begins at
    ``offset`` in both directions.
    """
    inside = plane[:, offset:, offset:]
    rows, columns = inside.shape[1] // _SIDE, inside.shape[2] // _SIDE
    blocks = inside[:, : rows * _SIDE, : columns * _SIDE].reshape(-1, rows, _SIDE, columns, _SIDE)
    transform = _cosines()
    coefficients = np.einsum("ij,nrjck,lk->nrcil", transform, blocks, transform, optimize=True)
    energy = np.log(np.square(coefficients).mean(axis=(1, 2)) + 1.0)  # 1: what rounding to whole values leaves
    diagonal = np.add.outer(np.arange(_SIDE), np.arange(_SIDE))
    return np.stack([energy[:, diagonal == number].mean(axis=1) for number in range(1, 2 * _SIDE - 1)], axis=1)


def _cosines() -> _Planes:
    """Return the matrix of the orthonormal discrete cosine transform (type II)."""
    at = np.arange(_SIDE)
    matrix = np.sqrt(2 / _SIDE) * np.cos(np.pi * np.outer(at, 2 * at + 1) / (2 * _SIDE))
    matrix[0] /= np.sqrt(2)
    cosines: _Planes = matrix.astype(np.float32)
    return cosines


def _sample(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return at most :data:`SAMPLE` images, evenly spread."""
    return images[np.arange(min(len(images), SAMPLE)) * len(images) // max(1, min(len(images), SAMPLE))]
