"""What people said of a corpus' pictures, as a part of what a head learns from.

A picture said to show a tag is one more picture of that tag, and one said to show none teaches "none of the tags". Each
counts as much as several labelled pictures, because it is of the corpus itself: how many,
:mod:`tinytags_tasks.train.review_weight` chooses.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tinytags_tasks.corpus.labelled import tags_of_set
from tinytags_tasks.errors import BadInputError
from tinytags_tasks.nets.catalogue import load_net_card
from tinytags_tasks.store.corpus_records import Corpus, load_corpus
from tinytags_tasks.store.embedding_files import Embeddings
from tinytags_tasks.store.lessons import Teaching, positions_sha256, read_taught, read_teaching
from tinytags_tasks.store.model_records import PIXELS, ReviewUse
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.train.features import Sight, see
from tinytags_tasks.train.parameters import TrainRequest

ENOUGH = 50
"""From how many reviews on the way to learn from them is chosen by cross-validation, and the Dag learns from them."""

FEWEST_OF_NEW_TAG = 5
"""How many pictures must show a tag that the labelled set lacks before it can be learned."""

FEWEST_NONE = 20
"""How many pictures must show none of the tags before they teach that to a model whose net has no background."""

_BATCH = 5_000
"""How many pictures are held in memory at a time."""


@dataclass(frozen=True)
class Reviews:
    """The reviews of a corpus that teach, as they were when a training began.

    Attributes
    ----------
    corpus
        The corpus.
    teaching
        The pictures that show one of the tags or none.
    labelled_tags, new_tags
        The tags of the labelled set, and those that only reviews have and are learned.
    other_tags
        The other tags that people named, with the number of pictures.
    """

    corpus: Corpus
    teaching: Teaching
    labelled_tags: tuple[str, ...]
    new_tags: tuple[str, ...] = ()
    other_tags: dict[str, int] = field(default_factory=dict)

    @property
    def tags(self) -> tuple[str, ...]:
        """The tags of the model."""
        return (*self.labelled_tags, *self.new_tags)

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """What each picture shows, int64, shape (pictures,): an index into the tags; their number means none."""
        index = {tag: number for number, tag in enumerate((*self.tags, ""))}
        return np.array([index[tag] for tag in self.teaching.tags], dtype=np.int64)

    @property
    def none(self) -> int:
        """How many pictures show none of the tags."""
        return self.teaching.tags.count("")

    def use(self, *, weight: float, replaced_background: bool) -> ReviewUse:
        """Return what a model's card says of them."""
        return ReviewUse(
            corpus=self.corpus.name,
            corpus_digest=self.corpus.digest,
            upto=self.teaching.upto,
            words=len(self.teaching),
            weight=weight,
            replaced_background=replaced_background,
            positions_sha256=positions_sha256(self.teaching.positions),
            of_tags=tuple(self.teaching.tags.count(tag) for tag in self.tags),
            none=self.none,
            new_tags=self.new_tags,
            other_tags=self.other_tags,
        )


@dataclass(frozen=True)
class Reviewed:
    """Reviewed pictures, as a head learns from them.

    Attributes
    ----------
    embeddings
        int8, shape (pictures, dimensions).
    labels
        int64, shape (pictures,): indexes into the tags; their number means none.
    weight
        How many times as much as a labelled picture each of them counts.
    """

    embeddings: Embeddings = field(repr=False)
    labels: npt.NDArray[np.int64] = field(repr=False)
    weight: float = 1.0


def find_reviews(request: TrainRequest, storage: Storage, report: Callable[[str], None]) -> Reviews | None:
    """Return the reviews that a training learns from; None if it does not ask for them, or they are too few.

    Raises
    ------
    BadInputError
        If none teaches anything, the corpus' images have another size, or the model sees pixels.
    MissingError
        If there is no such corpus, or no such net.
    """
    if request.reviews is None:
        return None
    if request.features == PIXELS:
        raise BadInputError(
            "reviews teach heads on a net's embeddings only: on pixels, a few hundred pictures change nothing; choose "
            "a net, or no reviews"
        )
    corpus = load_corpus(request.reviews, storage)
    if (corpus.height, corpus.width) != (request.height, request.width):
        raise BadInputError(
            f"the images of corpus {corpus.name} are {corpus.height}x{corpus.width}, and the model is to see "
            f"{request.height}x{request.width}: give the corpus' --height and --width"
        )
    tags = request.tags or tags_of_set(Path(request.labelled))
    teaching = read_teaching(corpus.name, corpus.digest, storage).spelt_as(tags)
    named = Counter(tag for tag in teaching.tags if tag and tag not in tags)
    new = tuple(sorted(tag for tag, count in named.items() if request.new_tags and count >= FEWEST_OF_NEW_TAG))
    others = {tag: count for tag, count in sorted(named.items()) if tag not in new}
    has_background = bool(load_net_card(storage, request.features).background_sha256)
    learns_none = request.none is not False and (has_background or teaching.tags.count("") >= FEWEST_NONE)
    is_known = teaching.of((*tags, *new), with_none=learns_none)
    reviews = Reviews(corpus, teaching.part(is_known), tags, new, others)
    if not len(reviews.teaching) and not request.least_reviews:
        raise BadInputError(_nothing_to_learn(corpus, others))
    _report_tags(reviews, request, report)
    if len(reviews.teaching) < max(1, request.least_reviews):
        report(
            f"{len(reviews.teaching):,} reviews of corpus {corpus.name} teach these tags, fewer than "
            f"{request.least_reviews:,}: learning from the labelled images alone"
        )
        return None
    return reviews


def _nothing_to_learn(corpus: Corpus, others: dict[str, int]) -> str:
    names = f"; people named {', '.join(others)}, which --new-tags learns from {FEWEST_OF_NEW_TAG} pictures on"
    return (
        f"no review of corpus {corpus.name} says that a picture shows one of the labelled set's tags, or none of them"
        f"{names if others else ''}: review some of its pictures, or train without --reviews"
    )


def _report_tags(reviews: Reviews, request: TrainRequest, report: Callable[[str], None]) -> None:
    """Say which tags people named that the model does not learn, and what would change that."""
    enough = [tag for tag, count in reviews.other_tags.items() if count >= FEWEST_OF_NEW_TAG]
    if enough and not request.new_tags:
        report(f"reviews also name {', '.join(enough)}, which the labelled set lacks: learn them, too, with --new-tags")
    few = [f"{tag} ({count})" for tag, count in reviews.other_tags.items() if count < FEWEST_OF_NEW_TAG]
    if few:
        report(f"reviews also name {', '.join(few)}: a new tag is learned from {FEWEST_OF_NEW_TAG} pictures on")


def embed_reviewed(reviews: Reviews, sight: Sight, storage: Storage, report: Callable[[str], None]) -> Reviewed:
    """Return the reviewed pictures as a net sees them.

    Their stored embeddings are not used: a million pictures' would be read for a thousand reviews.

    Raises
    ------
    CorruptError
        If a picture is not the one that was looked at, or its shard cannot be read.
    """
    corpus, teaching = reviews.corpus, reviews.teaching
    report(f"embedding {len(teaching):,} reviewed images of corpus {corpus.name}")
    shape = (corpus.height, corpus.width, corpus.channels)
    found: list[Embeddings] = []
    batch: list[npt.NDArray[np.uint8]] = []
    for stored in read_taught(corpus, teaching, storage):
        batch.append(np.frombuffer(stored, dtype=np.uint8).reshape(shape))
        if len(batch) == _BATCH:
            found.append(see(sight, np.stack(batch)))
            batch = []
    if batch:
        found.append(see(sight, np.stack(batch)))
    return Reviewed(np.concatenate(found), reviews.labels)
