"""Frames of pictures whose truth is known, and words of a reviewer who knows it: no store, no engines."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tinytags_tasks.derived_fields import random_numbers
from tinytags_tasks.review.draw import Drawn
from tinytags_tasks.review.frame import SCHEMA, Frame
from tinytags_tasks.review.strata import Strata
from tinytags_tasks.store.review_records import SCHEMA as WORDS

TAGS = ("cat", "dog", "emu")
RUN, DIGEST = "pets-1", "d1"
NONE = -1
"""The truth of a picture that shows none of the tags."""

UNCLEAR = -2

Numbers = npt.NDArray[np.int64]


def make_frame(
    tags: Numbers, confidences: Numbers, *, seed: int = 1, threshold: int = 40, names: Sequence[str] = TAGS
) -> Frame:
    """Return the frame of pictures by what a model says of each: the index of a tag, or the number of tags for none."""
    strata = Strata(tuple(names), threshold)
    is_none = tags >= len(names)
    kept = ~is_none & (confidences >= threshold)
    safe = np.minimum(tags, len(names) - 1)
    of = np.where(kept, strata.index(safe, confidences), strata.none + np.where(is_none, 0, 1))
    positions = np.arange(len(tags))
    order = np.lexsort((random_numbers(seed, positions), of))
    sizes = np.bincount(of, minlength=strata.number)
    firsts = np.cumsum(sizes) - sizes
    columns = {
        "stratum": (np.cumsum(sizes > 0) - 1)[of[order]],
        "position": order,
        "block": order // 1000,
        "confidence": np.where(kept[order], confidences[order], -1),
        "order": np.arange(len(order)) - firsts[of[order]],
        "spread": np.full(len(order), -1),
    }
    counts = np.zeros((len(names), 101), dtype=np.int64)
    np.add.at(counts, (tags[kept], confidences[kept]), 1)
    return Frame(
        run=RUN,
        corpus="pets",
        corpus_digest=DIGEST,
        model="m",
        tags=tuple(names),
        threshold=threshold,
        strata=tuple(each for each in strata.with_images(sizes) if each.images),
        pictures=pa.table([columns[name] for name in SCHEMA.names], names=SCHEMA.names).cast(SCHEMA),
        counts={tag: tuple(row.tolist()) for tag, row in zip(names, counts, strict=True)},
    )


class Corpus(NamedTuple):
    """Pictures: what a model says of them (the index of a tag, a confidence), and what they show."""

    tags: Numbers
    sure: Numbers
    truth: Numbers


def make_corpus(images: int, seed: int = 5) -> Corpus:
    """Return pictures of which the surer are the more often right, and some tags more often than others."""
    rng = np.random.default_rng(seed)
    tags = rng.choice(4, images, p=[0.25, 0.15, 0.1, 0.5])
    confidences = np.where(tags < 3, (40 + 60 * rng.beta(1.2, 0.7, images)).astype(np.int64), 0)
    harder = np.array([1.0, 0.2, -0.6, 0.0])[tags]
    right = rng.random(images) < 1 / (1 + np.exp(-(-1.0 + 0.07 * (confidences - 40) + harder)))
    other = rng.choice([0, 1, 2, NONE], images, p=[0.1, 0.1, 0.1, 0.7])
    missed = rng.choice([0, 1, 2, NONE], images, p=[0.05, 0.03, 0.02, 0.9])
    truth = np.where(tags == 3, missed, np.where(right, tags, np.where(other == tags, NONE, other)))
    return Corpus(tags, confidences, truth)


def look(
    drawn: Sequence[Drawn], truth: Numbers, number: int, *, run: str = RUN, names: Sequence[str] = TAGS, **changes: str
) -> pa.Table:
    """Return the words of a reviewer on pictures, as one request."""
    shown = [int(truth[each.position]) for each in drawn]
    rows = [
        {
            "position": each.position,
            "verdict": "tag" if label >= 0 else "none" if label == NONE else "unclear",
            "tag": names[label] if label >= 0 else "",
            "picture": b"",
            "is_public": False,
            "why": str(each.why),
            "shown_tag": each.tag,
            "shown_confidence": each.confidence,
            "reason": "",
            "undoes": 0,
            "number": number,
            "corpus_digest": DIGEST,
            "by": "ann",
            "time": "",
            "run": run,
            **changes,
        }
        for each, label in zip(drawn, shown, strict=True)
    ]
    return pa.Table.from_pylist(rows, schema=WORDS)
