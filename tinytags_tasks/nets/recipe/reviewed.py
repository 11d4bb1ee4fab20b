"""Reviewed pictures of corpora, as a net learns from them beside the labelled ones."""

import io
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from PIL import Image

from tinytags_tasks.errors import BadInputError
from tinytags_tasks.store.corpus_records import Corpus, load_corpus
from tinytags_tasks.store.lessons import Teaching, positions_sha256, read_taught, read_teaching
from tinytags_tasks.store.net_reviews import NetReviews
from tinytags_tasks.store.protocol import Storage

MOST_WEIGHT = 1_000


@dataclass(frozen=True)
class ReviewedPictures:
    """A corpus' pictures that people said show one of the tags, or none of them.

    Attributes
    ----------
    use
        What the net's card says of them.
    sha256
        Hash of all that decides what is learned: the version of the corpus, the pictures, what each shows, the weight.
    encoded
        PNG, so that nothing is lost.
    labels
        int64, shape (pictures,): indexes into the tags; their number means none.
    """

    use: NetReviews
    sha256: str
    encoded: list[bytes] = field(repr=False)
    labels: npt.NDArray[np.int64] = field(repr=False)


def read_reviewed(
    corpora: Sequence[str], tags: tuple[str, ...], weight: int, storage: Storage, report: Callable[[str], None]
) -> tuple[ReviewedPictures, ...]:
    """Return the reviewed pictures of corpora, each corpus once.

    Parameters
    ----------
    corpora
        Their names.
    tags
        The tags that are taught.
    weight
        How many times as often as a labelled picture each is to be drawn.
    storage
        The store.
    report
        Receives how many there are, and which other tags people named.

    Raises
    ------
    BadInputError
        If no review of one of them teaches anything, or the weight is out of range.
    MissingError
        If there is no such corpus.
    CorruptError
        If a log is damaged, or a picture is not the one that was looked at.
    """
    if not 1 <= weight <= MOST_WEIGHT:
        raise BadInputError(f"the weight of reviews is {weight}: it must be from 1 to {MOST_WEIGHT:,}")
    return tuple(
        _read_corpus(load_corpus(name, storage), tags, weight, storage, report) for name in dict.fromkeys(corpora)
    )


def _read_corpus(
    corpus: Corpus, tags: tuple[str, ...], weight: int, storage: Storage, report: Callable[[str], None]
) -> ReviewedPictures:
    said = read_teaching(corpus.name, corpus.digest, storage).spelt_as(tags)
    taught = said.part(said.of(tags, with_none=True))
    others = dict(sorted(Counter(tag for tag in said.tags if tag and tag not in tags).items()))
    if not len(taught):
        named = f"; people named {', '.join(others)}, which the labelled set would need to have" if others else ""
        raise BadInputError(
            f"no review of corpus {corpus.name} says that a picture shows one of the labelled set's tags, or none of "
            f"them{named}: review some of its pictures, or leave it out of --reviews"
        )
    report(f"{len(taught):,} reviews of corpus {corpus.name} join the labelled pictures, {weight} times each")
    if others:
        report(f"reviews also name {', '.join(others)}: a head can learn them, with `tinytags train --new-tags`")
    index = {tag: number for number, tag in enumerate((*tags, ""))}
    use = NetReviews(
        corpus=corpus.name,
        corpus_digest=corpus.digest,
        upto=taught.upto,
        words=len(taught),
        weight=weight,
        tags=tags,
        of_tags=tuple(taught.tags.count(tag) for tag in tags),
        none=taught.tags.count(""),
        other_tags=others,
        positions_sha256=positions_sha256(taught.positions),
    )
    return ReviewedPictures(
        use,
        f"{corpus.digest} {taught.sha256} {weight}",
        _encoded(corpus, taught, storage),
        np.array([index[tag] for tag in taught.tags], dtype=np.int64),
    )


def _encoded(corpus: Corpus, taught: Teaching, storage: Storage) -> list[bytes]:
    """Return the pictures without loss, in the form that all others come in."""
    encoded = []
    for stored in read_taught(corpus, taught, storage):
        pixels = np.frombuffer(stored, dtype=np.uint8).reshape(corpus.height, corpus.width, corpus.channels)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        encoded.append(buffer.getvalue())
    return encoded
