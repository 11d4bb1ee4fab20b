"""Chooses from a net's background what teaches a head "none of the tags": classes that show none of them.

A class is left out by its name if one of its names or everyday words contains a tag as a word, and by its look if a
head that knows the tags alone is sure of one in most of its pictures.
"""

import re
import warnings
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from tinytags_tasks.errors import BadInputError
from tinytags_tasks.nets.background import Background
from tinytags_tasks.store.embedding_files import Embeddings
from tinytags_tasks.train.features import LabelledFeatures

SURE = 0.9
"""From this share on, the tags' own head is sure of a tag."""

OFTEN = 0.5
"""A class is left out if the own head is sure of a tag in this share of its pictures.

With CIFAR-10's tags, that share is 0.60 or more in the 21 classes of the background that show one, and in the gazelle;
it is 0.50 in the police van, and 0.37 or less in all that show none.
"""

SELDOM = 0.125
"""The look counts only if the own head is sure in less than this share of the pictures of most classes.

A head that knows cats and dogs alone is sure that a trolleybus is one of them: every picture lies far on one side. Its
median class has a share of 0.14 to 0.3, and that of a head with ten tags 0.01 to 0.1.
"""

_MOST_IMAGES, _MOST_OF_TAG = 10_000, 1_000
"""How many images the own head learns from at the most."""


@dataclass(frozen=True)
class Chosen:
    """What teaches "none".

    Attributes
    ----------
    embeddings
        int8, shape (pictures, dimensions).
    left_out_by_name, left_out_by_look
        The classes of the background that are not among them.
    """

    embeddings: Embeddings = field(repr=False)
    left_out_by_name: tuple[str, ...]
    left_out_by_look: tuple[str, ...]

    def sample(self, most: int, seed: int) -> "Chosen":
        """Return at most so many of the pictures, drawn with a seed."""
        if len(self.embeddings) <= most:
            return self
        rows = np.random.default_rng(seed % 2**63).permutation(len(self.embeddings))[:most]
        return replace(self, embeddings=self.embeddings[np.sort(rows)])


def choose_background(background: Background, labelled: LabelledFeatures, net: str) -> Chosen:
    """Return the pictures of a background that show none of a labelled set's tags.

    Parameters
    ----------
    background
        The net's background.
    labelled
        The labelled set, as embeddings.
    net
        The net's version, for the message.

    Raises
    ------
    BadInputError
        If all of its classes name the tags or look like them.
    """
    classes = np.array(background.classes)
    kinds = dict(zip(background.classes, background.kinds, strict=True))
    by_name = {name for name in kinds if names_a_tag((name, *kinds[name]), labelled.tags)}
    remaining = sorted(set(kinds) - by_name)
    by_look = _look_like_tags(background.embeddings, classes, remaining, labelled) if remaining else set()
    is_none = ~np.isin(classes, sorted(by_name | by_look))
    if not is_none.any():
        raise BadInputError(
            f"every class of the background of {net} names one of the tags or looks like one, so nothing can teach "
            "none of them: train with --no-none, or with a net that has another background"
        )
    return Chosen(background.embeddings[is_none], tuple(sorted(by_name)), tuple(sorted(by_look)))


def names_a_tag(names: tuple[str, ...], tags: tuple[str, ...]) -> bool:
    """Return whether one of the names contains a tag: its words in a row, whatever their case, one or many of them."""
    texts = [_words(name) for name in names]
    return any(_contains(text, _words(tag)) for tag in tags for text in texts)


def _words(text: str) -> list[set[str]]:
    """Return each word of a text as the set of its forms; two words are the same if they share one."""
    return [
        {word, f"{word}s", f"{word}es", f"{word[:-1]}ies" if word.endswith("y") else word}
        for word in re.findall(r"[^\W_]+", text.lower())
    ]


def _contains(text: list[set[str]], words: list[set[str]]) -> bool:
    places = range(len(text) - len(words) + 1) if words else ()
    return any(all(a & b for a, b in zip(text[place:], words, strict=False)) for place in places)


def _look_like_tags(
    embeddings: Embeddings, classes: npt.NDArray[np.str_], remaining: list[str], labelled: LabelledFeatures
) -> set[str]:
    """Return the classes in most of whose pictures a head that knows the tags alone is sure of one of them."""
    chosen = _sample(labelled)
    values = labelled.values[chosen].astype(np.float32)
    mean, deviation = values.mean(axis=0), values.std(axis=0)
    scale = np.where(deviation > 0, 1 / np.maximum(deviation, 1e-6), 0).astype(np.float32)
    own = LogisticRegression(C=1 / 100, max_iter=50)
    # For so little, more threads mostly wait for each other: for ten times as long if other processes need the cores.
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # it need not be the best
        own.fit((values - mean) * scale, labelled.labels[chosen])
    is_sure = own.predict_proba((embeddings.astype(np.float32) - mean) * scale).max(axis=1) >= SURE
    shares = {name: float(is_sure[classes == name].mean()) for name in remaining}
    if np.median(list(shares.values())) >= SELDOM:
        return set()
    return {name for name, share in shares.items() if share >= OFTEN}


def _sample(labelled: LabelledFeatures) -> npt.NDArray[np.int64]:
    """Return the first images of each tag, as many as the own head needs."""
    of_tag = [np.flatnonzero(labelled.labels == label) for label in range(len(labelled.tags))]
    most = max(1, min(_MOST_OF_TAG, _MOST_IMAGES // len(of_tag)))
    return np.concatenate([places[:most] for places in of_tag])
