"""What is written down: corpus, shard manifest, model card, run, block record. JSON, read without any server."""

from collections.abc import Iterable
from datetime import UTC, datetime
from enum import StrEnum
from typing import Literal

from pydantic import Field

from tinytags_tasks.blocks import Partition
from tinytags_tasks.errors import BadInputError, MissingError
from tinytags_tasks.record_base import Part, Record
from tinytags_tasks.settings import Thumbnails

PIXEL_ORDER = "row-major HWC uint8"
"""How every image inside TinyTags lies in memory and in a shard."""


def now() -> str:
    """Return the present time in UTC, ISO 8601 to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class Source(Part):
    """What a corpus came from, as it was when it was listed.

    Two sources are the same when their :attr:`content` is, wherever they lie.

    Attributes
    ----------
    path
        A file or folder of this machine, or an address such as ``s3://bucket/folder``.
    format
        The format of the source, by name.
    files, size_bytes, images
        How many files, their bytes, their images.
    listing_sha256
        Hash of every file's name, size and version (its time of change, or what a server gives as such).
    head_sha256, tail_sha256
        Hash of the first 64 KiB of the first file, and of the last 64 KiB of the last one.
    """

    path: str
    format: str
    files: int
    size_bytes: int
    images: int
    listing_sha256: str
    head_sha256: str
    tail_sha256: str

    @property
    def content(self) -> dict[str, str | int]:
        """All that tells it from another source, by name; see ``docs/adr/0017-identities.md``."""
        return {
            "format": self.format,
            "files": self.files,
            "size_bytes": self.size_bytes,
            "images": self.images,
            "listing_sha256": self.listing_sha256,
            "head_sha256": self.head_sha256,
            "tail_sha256": self.tail_sha256,
        }


class Unreadable(Part):
    """An image that could not be read: its position, and why."""

    position: int
    reason: str


class BlockManifest(Part):
    """One block of a shard: its number, first position, images and the sha256 of its bytes."""

    number: int
    first: int
    images: int
    sha256: str


class ShardManifest(Record):
    """One shard: what it holds and where that came from.

    Attributes
    ----------
    source
        The source, as it was.
    source_sha256
        Hash of the encoded images of the shard's own range; empty where the source holds pixels, whose hash the blocks'
        own tell.
    checksum
        The store's own checksum of the shard's file; empty where the store has none.
    keywords_sha256
        Hash of the shard's keywords file; None when the corpus has no keywords.
    unreadable
        Images that could not be read: they keep their place, filled with zeros, and are never scored.
    """

    corpus: str
    shard: int
    first: int
    images: int
    image_bytes: int
    source: Source
    source_sha256: str = ""
    blocks: tuple[BlockManifest, ...]
    checksum: str = ""
    keywords_sha256: str | None = None
    unreadable: tuple[Unreadable, ...] = ()


class Corpus(Record):
    """A corpus that is whole in the store. Written last, so that its presence says so."""

    name: str
    description: str = ""
    images: int
    shard_images: int
    blocks_per_shard: int
    height: int
    width: int
    channels: int = 3
    pixel_order: str = PIXEL_ORDER
    preparation: str
    source: Source
    unreadable: int
    digest: str
    created: str

    @property
    def partition(self) -> Partition:
        """How it is cut."""
        return Partition(self.images, self.shard_images, self.blocks_per_shard)

    @property
    def image_bytes(self) -> int:
        """Bytes of one image."""
        return self.height * self.width * self.channels


class ThresholdFigures(Part):
    """What is kept from a threshold of confidence up, on images whose tags are known.

    Attributes
    ----------
    threshold
        The least confidence, in percent: the winning tag's share of an image's votes.
    votes
        The fewest votes for the winner that reach it.
    kept, right
        How many images are kept, and how many of these get their own tag.
    precision
        For each tag, in percent: of the kept images that get it, those whose tag it is. None where no image gets it.
    recall
        For each tag, in percent: of all images whose tag it is, those that are kept and get it. None where none has it.
    """

    threshold: int
    votes: int
    kept: int
    right: int
    precision: tuple[float | None, ...]
    recall: tuple[float | None, ...]


class Evaluation(Part):
    """A model's figures on images whose tags are known.

    Attributes
    ----------
    labelled_set, sha256
        The file's name and hash.
    images, accuracy
        How many, and the percentage whose winning tag is right, whatever its confidence.
    confusion
        Images by their own tag (row) and the winning tag (column).
    thresholds
        What is kept from each threshold of confidence up.
    """

    labelled_set: str
    sha256: str
    images: int
    accuracy: float
    confusion: tuple[tuple[int, ...], ...]
    thresholds: tuple[ThresholdFigures, ...]


class OtherFigures(Part):
    """What is kept from a threshold of confidence up, on images of other things.

    Attributes
    ----------
    threshold, votes
        As in :class:`ThresholdFigures`.
    tagged_without_tag
        Images that show none of the tags, but get one.
    tagged_with_tag, right
        Images of a tag that get any tag, and those that get theirs.
    """

    threshold: int
    votes: int
    tagged_without_tag: int
    tagged_with_tag: int
    right: int

    @property
    def tagged(self) -> int:
        """Images that get a tag."""
        return self.tagged_without_tag + self.tagged_with_tag


class OtherEvaluation(Part):
    """A model's figures on images most of which show none of its tags, as in a corpus.

    Attributes
    ----------
    labelled_set, sha256
        The file's name and hash.
    without_tag, with_tag, left_out
        Images of no tag, of a tag, and those whose right tag is arguable, which are not counted.
    thresholds
        What is tagged from each threshold of confidence up.
    """

    labelled_set: str
    sha256: str
    without_tag: int
    with_tag: int
    left_out: int
    thresholds: tuple[OtherFigures, ...]


Output = Literal["votes", "probabilities"]
"""What a model's output is: votes of trees, or probabilities in percent."""


class ModelCard(Record):
    """A published model: how it was made, and its figures.

    Attributes
    ----------
    version, tags
        Name and content hash; the tags in the order of the model's output.
    trees
        What an image's votes add up to: a forest's trees, or 100 where the output is probabilities in percent.
    output
        See :data:`Output`.
    height, width, channels, pixel_order, preparation
        The images that it takes.
    origin
        The file it was imported from; empty where it was learned here.
    labelled_set, labelled_sha256, labelled_images
        What it was learned from.
    licence
        Licence of the labelled set.
    parameters, metrics, libraries, seconds, created
        How it was made, and its main figures.
    held_out
        Figures of a model learned with the same parameters from a part of the labelled set, on the rest of it.
    test, other
        Figures on a test set, and on images of other things.
    """

    version: str
    tags: tuple[str, ...]
    trees: int
    output: Output = "votes"
    height: int
    width: int
    channels: int = 3
    pixel_order: str = PIXEL_ORDER
    preparation: str
    origin: str = ""
    labelled_set: str
    labelled_sha256: str
    labelled_images: int
    licence: str = ""
    parameters: dict[str, int | float | str]
    metrics: dict[str, float]
    libraries: dict[str, str]
    seconds: dict[str, float]
    created: str
    held_out: Evaluation | None = None
    test: Evaluation | None = None
    other: OtherEvaluation | None = None

    @property
    def figures(self) -> dict[str, object]:
        """What the asset event of a new model says."""
        return {"model": self.version, "labelled_images": self.labelled_images, "tags": list(self.tags)}


class Training(Record):
    """Which model one labelled set and one set of parameters gave."""

    model: str


class Run(Record):
    """One pass of one model version over one corpus; its name is a hash of all that decides its content.

    ``pruned`` is when its collection was dropped to make room; empty while it stands, or was not made yet.
    ``configset`` is the name of what its collection is made with; empty in runs from before this was recorded.
    """

    name: str
    corpus: str
    corpus_digest: str
    description: str = ""
    model: str
    threshold: int
    thumbnails: Thumbnails = "solr"
    images: int
    blocks: int
    collection: str
    created: str
    pruned: str = ""
    configset: str = ""

    def refuse_pruned(self) -> None:
        """Refuse to go on with single blocks of a run whose collection was dropped.

        Raises
        ------
        MissingError
            When it was.
        """
        if self.pruned:
            raise MissingError(
                f"run {self.name}: its collection {self.collection} was dropped by `tinytags prune` ({self.pruned}); "
                f"index the whole run again with `tinytags index {self.name}`"
            )

    def check_blocks(self, blocks: Iterable[int]) -> None:
        """Refuse block numbers that the run has not.

        Raises
        ------
        BadInputError
            Naming the first of them.
        """
        if wrong := [block for block in blocks if not 0 <= block < self.blocks]:
            raise BadInputError(f"block {wrong[0]} is out of range: run {self.name} has blocks 0 to {self.blocks - 1}")


class Change(StrEnum):
    """How a collection became what an alias points at."""

    PUBLISHED = "published"
    ROLLED_BACK = "rolled back"
    FOUND = "found"


class Publication(Record):
    """What became live under an alias, when, and by which host.

    Attributes
    ----------
    change
        ``found`` is a switch that nobody wrote down: one that was killed in between, or made past TinyTags.
    run
        Empty where the collection is no run's of this store.
    previous
        The collection that was live before; empty where none was.
    """

    change: Change
    run: str
    collection: str
    previous: str
    time: str
    host: str


class BlockState(StrEnum):
    """What became of a block; a block without a record is planned."""

    PLANNED = "planned"
    SCORED = "scored"
    INDEXED = "indexed"
    VERIFIED = "verified"
    FAILED = "failed"


class BlockRecord(Record):
    """What became of one block in one run. ``read = kept + below + unreadable``, always.

    Attributes
    ----------
    sha256
        Of the block's bytes in its shard.
    scored_bytes, scored_sha256
        Of its scored file; 0 and empty in that file itself, and in records from before there were these.
    checksum
        Of what its documents say; see :func:`tinytags_tasks.block_files.documents_checksum`. Empty until indexed.
    """

    run: str
    block: int
    state: BlockState
    model: str = ""
    sha256: str = ""
    read: int = 0
    kept: int = 0
    below: int = 0
    unreadable: int = 0
    kept_by_tag: dict[str, int] = Field(default_factory=dict)
    scored_bytes: int = 0
    scored_sha256: str = ""
    documents: int | None = None
    checksum: str = ""
    reason: str = ""
    host: str = ""
    attempts: int = 0
    score_seconds: float = 0.0
    index_seconds: float = 0.0
    scored: str = ""
    indexed: str = ""


class Audit(Record):
    """What a comparison of a run's collection with its ledger, its scored files and its corpus found.

    Attributes
    ----------
    blocks, documents, sampled
        How many blocks were looked at, their documents, and how many of these were compared byte by byte.
    problems
        What is wrong with a block, by its number.
    """

    run: str
    collection: str
    blocks: int
    documents: int
    sampled: int
    problems: dict[int, str]
    started: str
    ended: str


class Claim(Record):
    """Which Dag run tags a corpus."""

    dag: str
    dag_run: str
