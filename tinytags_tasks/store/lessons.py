"""What people's words teach a model: which pictures show one of its tags, or none of them.

The latest opinion on a picture counts, whatever it was asked for. ``wrong`` and ``unclear`` teach nothing: they do not
say what the picture shows. Pictures that were taken down teach nothing either.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tinytags_tasks.errors import CorruptError
from tinytags_tasks.store import layout
from tinytags_tasks.store.corpus_records import Corpus, load_corpus
from tinytags_tasks.store.image_ranges import read_images
from tinytags_tasks.store.model_records import ModelCard, ReviewUse
from tinytags_tasks.store.net_reviews import NetReviews
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.store.review_log import ReviewLog, counting_words, of_version, takedowns
from tinytags_tasks.store.review_records import Verdict, picture_hash
from tinytags_tasks.tags import tag_form

Positions = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Teaching:
    """The words on one version of a corpus that can teach, by position.

    Attributes
    ----------
    upto
        The number of the last request of the log that was read.
    positions
        int64, shape (pictures,), ascending.
    tags
        What each picture shows; empty if none of the tags.
    pictures
        How each word names its picture: the beginning of the sha256 of its bytes.
    """

    upto: int
    positions: Positions = field(repr=False)
    tags: tuple[str, ...] = field(repr=False)
    pictures: tuple[bytes, ...] = field(repr=False)

    def __len__(self) -> int:
        """Return how many pictures there are."""
        return len(self.tags)

    @property
    def sha256(self) -> str:
        """The hash of all that decides what is learned: which pictures, and what each shows."""
        rows = zip(self.positions.tolist(), self.tags, self.pictures, strict=True)
        text = "\n".join(f"{position} {picture.hex()} {tag}" for position, tag, picture in rows)
        return hashlib.sha256(text.encode()).hexdigest()

    def part(self, chosen: npt.NDArray[np.bool_]) -> "Teaching":
        """Return some of the pictures."""
        places = np.flatnonzero(chosen).tolist()
        return Teaching(
            self.upto,
            self.positions[chosen],
            tuple(self.tags[place] for place in places),
            tuple(self.pictures[place] for place in places),
        )

    def spelt_as(self, tags: Sequence[str]) -> "Teaching":
        """Return the same with one spelling for each tag: that of ``tags``, or else the one that most words have.

        People write ``Dog`` where the model has ``dog``; search makes no difference either.
        """
        spelling: dict[str, str] = {}
        for tag, _ in sorted(Counter(self.tags).items(), key=lambda each: (-each[1], each[0])):
            spelling.setdefault(tag_form(tag), tag)
        spelling |= {tag_form(tag): tag for tag in tags}
        return replace(self, tags=tuple(spelling[tag_form(tag)] for tag in self.tags))

    def of(self, tags: Sequence[str], *, with_none: bool) -> npt.NDArray[np.bool_]:
        """Return which of the pictures show one of some tags, or none if that teaches, too."""
        known = {*tags, ""} if with_none else set(tags)
        return np.array([tag in known for tag in self.tags], dtype=np.bool_)


def read_teaching(corpus: str, digest: str, storage: Storage, upto: int | None = None) -> Teaching:
    """Return the words on a version of a corpus that can teach.

    Parameters
    ----------
    corpus, digest
        The corpus' name and the version's digest.
    storage
        The store.
    upto
        The number of the last request that counts; None takes all.

    Raises
    ------
    CorruptError
        If the log is damaged.
    TransientError
        If the store does not answer.
    """
    log = ReviewLog(corpus, storage)
    words = log.read()
    if upto is not None:
        words = words.filter(pc.less_equal(words.column("number"), upto))
    words = of_version(words, digest)
    down = takedowns(words).column("position")
    said = counting_words(words)
    teaches = pc.is_in(said.column("verdict"), value_set=pa.array([str(Verdict.TAG), str(Verdict.NONE)]))
    is_down = pc.is_in(said.column("position"), value_set=down.combine_chunks())
    said = said.filter(pc.and_(teaches, pc.invert(is_down)))
    return Teaching(
        log.last if upto is None else upto,
        said.column("position").to_numpy().astype(np.int64),
        tuple(said.column("tag").to_pylist()),
        tuple(said.column("picture").to_pylist()),
    )


def positions_sha256(positions: Positions) -> str:
    """Return the hash of positions."""
    return hashlib.sha256(np.ascontiguousarray(positions, dtype="<i8").data).hexdigest()


def read_taught(corpus: Corpus, teaching: Teaching, storage: Storage) -> Iterator[memoryview]:
    """Yield the pictures that teach, in the order of their positions, compared with what the words say was looked at.

    They are read from the shards by ranges of bytes: a thousand reviews of a million images need few of them.

    Raises
    ------
    CorruptError
        If a picture is not the one that was looked at, or its shard cannot be read.
    """
    known = dict(zip(teaching.positions.tolist(), teaching.pictures, strict=True))
    for position, stored in read_images(corpus, known, storage):
        if known[position] and picture_hash(stored) != known[position]:
            shard, _ = corpus.partition.place(position)
            raise CorruptError(
                f"{layout.shard_file(corpus.name, shard)}: position {position} is not the picture that was reviewed; "
                f"write the shard again with `tinytags ingest {corpus.name} --redo {shard}`"
            )
        yield stored


def learned_positions(card: ModelCard, storage: Storage, corpus: str | None = None) -> set[int]:
    """Return the positions of the pictures whose reviews a model learned from: they say nothing about its precision.

    What its net was fine-tuned with is part of them.

    Parameters
    ----------
    card
        The model's card.
    storage
        The store.
    corpus
        The corpus that is asked about; None takes the one that the model's head learned from. If that one's source
        changed since then, the same pictures are found again by the words that were carried over.

    Raises
    ------
    CorruptError
        If the log is damaged, or no longer has the words that the model or its net learned from.
    """
    head = card.reviews
    corpus = corpus or (head.corpus if head else None)
    found = set[int]()
    if head and head.corpus == corpus:
        remedy = f"model {card.version} learned from", "train again with `tinytags train --reviews`"
        found |= _positions_of(head, card.tags, with_none=card.none, remedy=remedy, storage=storage)
    for use in card.net_reviews:
        if use.corpus == corpus:
            remedy = f"net {card.features} learned from", "train a net again with `tinytags nets train --reviews`"
            found |= _positions_of(use, use.tags, with_none=True, remedy=remedy, storage=storage)
    return found


def _positions_of(
    use: ReviewUse | NetReviews, tags: Sequence[str], *, with_none: bool, remedy: tuple[str, str], storage: Storage
) -> set[int]:
    """Return the positions, in the corpus as it is now, of the pictures whose words were learned from."""
    taught = read_teaching(use.corpus, use.corpus_digest, storage, use.upto)
    # Models from before spellings were matched learned only from words that are spelt as their tags.
    for words_taught in (taught.spelt_as(tags), taught):
        is_learned = words_taught.of(tags, with_none=with_none)
        positions = taught.positions[is_learned]
        if positions_sha256(positions) == use.positions_sha256:
            break
    else:
        who, what = remedy
        raise CorruptError(
            f"{layout.review_log_folder(use.corpus)}: does not have the words that {who}; "
            f"restore the missing files from a copy, or {what}"
        )
    if (digest := load_corpus(use.corpus, storage).digest) == use.corpus_digest:
        return set(positions.tolist())
    pictures = {picture for picture, learned in zip(taught.pictures, is_learned, strict=True) if learned and picture}
    words = of_version(ReviewLog(use.corpus, storage).read(), digest)
    rows = zip(words.column("position").to_pylist(), words.column("picture").to_pylist(), strict=True)
    return {position for position, picture in rows if picture in pictures}
