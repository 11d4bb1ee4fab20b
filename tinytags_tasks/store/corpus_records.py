"""Records of a corpus: its source, its shards and its totals."""

from typing import ClassVar, Self

from pydantic import Field

from tinytags_tasks.blocks import Partition
from tinytags_tasks.errors import MissingError
from tinytags_tasks.near_names import choices
from tinytags_tasks.store import layout
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.store.record import Part, Record

PIXEL_ORDER = "row-major HWC uint8"
"""The layout of every image inside TinyTags, in memory and in a shard."""


class Source(Part):
    """What a corpus came from, as it was when it was listed.

    Two sources are the same if their :attr:`content` is the same, wherever they are.

    Attributes
    ----------
    path
        A file or folder of this machine, or an address such as ``s3://bucket/folder``.
    format
        The format of the source, by name.
    files, size_bytes, images
        How many files it has, their total size and how many images they hold.
    listing_sha256
        Hash of every file's name, size and version, which is its modification time or whatever a server gives as its
        version.
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
        """Everything that distinguishes it from another source, by name; see ``docs/adr/0017-identities.md``."""
        return {**self.timeless_content, "listing_sha256": self.listing_sha256}

    @property
    def timeless_content(self) -> dict[str, str | int]:
        """The part of its content that does not depend on files' modification times or a server's versions of them."""
        return {
            "format": self.format,
            "files": self.files,
            "size_bytes": self.size_bytes,
            "images": self.images,
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
    """One shard: what it holds and where it came from.

    Attributes
    ----------
    source
        The source, as it was when the shard was written.
    source_sha256
        Hash of the encoded images of the shard's own range; empty if the source holds pixels, because the blocks'
        hashes cover these.
    checksum
        The store's own checksum of the shard's file; empty if the store has none.
    keywords_sha256
        Hash of the shard's keywords file; None if the corpus has no keywords.
    unreadable
        Images that could not be read. They keep their position, filled with zeros, and are never scored.
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

    @classmethod
    def remedy(cls, path: str) -> str:
        """Return the command that writes a shard and its manifest again."""
        corpus, shard = layout.path_name(path), layout.path_number(path)
        return f"write the shard and its manifest again with `tinytags ingest {corpus} --redo {shard}`"


class Growth(Part):
    """What was appended to a corpus at one time.

    Attributes
    ----------
    images, unreadable
        How many images, and how many of them could not be read.
    source
        What was new in the corpus' source, as it was when it was listed.
    sha256
        Hash of the content of the corpus up to here; see ``docs/adr/0017-identities.md``.
    created
        When it was committed.
    """

    images: int
    unreadable: int
    source: Source
    sha256: str
    created: str


class Corpus(Record):
    """A corpus that is complete in the store. It is written last, so it exists only if the corpus is complete.

    Attributes
    ----------
    images, unreadable
        All of its images, whenever they came.
    source
        What it began with.
    digest
        Hash of the content that it began with: its version. Growing does not change it, because every position goes on
        meaning the same picture.
    growths
        What was appended to it since then, in order.
    """

    FORMAT: ClassVar[int] = 2

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
    growths: tuple[Growth, ...] = Field((), exclude_if=lambda growths: not growths)

    @property
    def written_format(self) -> int:
        """What an older TinyTags must not ignore: it would look for the appended images in the wrong shards."""
        return self.FORMAT if self.growths else 1

    @classmethod
    def remedy(cls, path: str) -> str:
        """Return the command that writes a corpus' record again from its shards' manifests."""
        return f"write it again from the shards' manifests with `tinytags ingest {layout.path_name(path)}`"

    @classmethod
    def load(cls, storage: Storage, path: str) -> Self:
        """Read a corpus' record; see :meth:`Record.load`. If it is missing, the error says what brings it back."""
        try:
            return super().load(storage, path)
        except MissingError as error:
            name = layout.path_name(path)
            raise MissingError(
                f"{error}: corpus {name} was never completely ingested, or was removed; ingest it with "
                f"`tinytags ingest {name}`, which brings its runs back if the images are the same"
            ) from error

    @property
    def sources(self) -> tuple[Source, ...]:
        """What it began with, and what was appended each time."""
        return (self.source, *(growth.source for growth in self.growths))

    @property
    def partition(self) -> Partition:
        """How it is divided into shards and blocks."""
        appended = tuple(growth.images for growth in self.growths)
        return Partition(self.images, self.shard_images, self.blocks_per_shard, appended)

    @property
    def image_bytes(self) -> int:
        """Size of one image, in bytes."""
        return self.height * self.width * self.channels

    @property
    def growth(self) -> str:
        """The hash of its last growth; empty if it never grew."""
        return self.growths[-1].sha256 if self.growths else ""

    @property
    def growth_hashes(self) -> tuple[str, ...]:
        """The hash of each growth, after an empty one for what the corpus began with."""
        return ("", *(growth.sha256 for growth in self.growths))

    def has_grown_to(self, growth: str) -> bool:
        """Return whether the corpus has a growth; empty is what it began with."""
        return growth in self.growth_hashes

    def as_of(self, growth: str) -> Self:
        """Return the corpus as it was after a growth; before the first one if it is empty.

        Raises
        ------
        MissingError
            If it did not grow like this.
        """
        known = self.growth_hashes
        if growth not in known:
            raise MissingError(
                f"corpus {self.name} does not have the images that it once grew by (growth {growth[:12]}); append them "
                f"again with `tinytags corpus grow {self.name}`"
            )
        kept, later = self.growths[: known.index(growth)], self.growths[known.index(growth) :]
        return self.replaced(
            growths=kept,
            images=self.images - sum(one.images for one in later),
            unreadable=self.unreadable - sum(one.unreadable for one in later),
        )


def load_corpus(name: str, storage: Storage) -> Corpus:
    """Return a corpus that is complete in the store.

    Raises
    ------
    MissingError
        If there is none of this name.
    CorruptError
        If its record is damaged.
    """
    try:
        return Corpus.load(storage, layout.corpus_file(name))
    except MissingError as error:
        names = [known for known in storage.names(layout.CORPORA) if storage.exists(layout.corpus_file(known))]
        raise MissingError(
            f"corpus {name} is not in the store: ingest it with `tinytags ingest {name}`; `tinytags corpus list` lists "
            f"the corpora ({choices(name, names)})"
        ) from error
