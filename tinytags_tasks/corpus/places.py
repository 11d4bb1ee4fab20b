"""Where images are in the files that their corpus was read from, as the corpus' listing has it."""

from collections.abc import Iterable
from dataclasses import dataclass

from tinytags_tasks.corpus.listing import StoredListing, open_listing
from tinytags_tasks.store import layout
from tinytags_tasks.store.corpus_records import Source
from tinytags_tasks.store.protocol import Storage


@dataclass(frozen=True)
class SourcePlace:
    """Where an image is in its corpus' source.

    Attributes
    ----------
    source
        The source's path or address.
    path
        The file, as the source names it.
    number, images
        Which of the file's images it is, from 0, and how many the file has.
    offset, size_bytes
        Where the image's own bytes begin in the file, and how many there are; of the whole file if that has more
        images than one.
    member
        The name of the image in the file, if that is a tar.
    """

    source: str
    path: str
    number: int
    images: int
    offset: int
    size_bytes: int
    member: str = ""

    @property
    def name(self) -> str:
        """What the file calls the image: a member's name, or its number; empty if the file is the image."""
        return self.member or (str(self.number) if self.images > 1 else "")

    def __str__(self) -> str:
        """Return it for people."""
        if self.member:
            return f"{self.path}, member {self.member}"
        if self.images > 1:
            return f"{self.path}, image {self.number:,} of {self.images:,} (from 0)"
        if self.offset:
            return f"{self.path}, {self.size_bytes:,} bytes from byte {self.offset:,}"
        return self.path


class ListedPlaces:
    """Looks up the places of a corpus' images; not for several threads at once.

    Parameters
    ----------
    storage
        The store.
    corpus
        The corpus' name.
    source
        What it was read from.

    Raises
    ------
    MissingError, CorruptError
        If its listing is missing, as that of a corpus of an older TinyTags is, or damaged.
    """

    def __init__(self, storage: Storage, corpus: str, source: Source) -> None:
        self._source = source.path
        self._listing: StoredListing = open_listing(storage, layout.source_file(corpus, source.listing_sha256))

    def find(self, positions: Iterable[int]) -> dict[int, SourcePlace]:
        """Return where images are, by position; without those that are in no file.

        Raises
        ------
        CorruptError
            If the listing is damaged.
        """
        return {
            position: SourcePlace(
                self._source,
                item.path,
                position - first,
                item.images,
                item.offset,
                item.size_bytes,
                item.member or "",
            )
            for position, (first, item) in self._listing.find(positions).items()
        }
