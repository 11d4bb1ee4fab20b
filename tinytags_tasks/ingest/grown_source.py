"""What is new in a source since a corpus was made from it: all that was there before must still be there, unchanged."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

from tinytags_tasks.corpus.listing import ListingFile, open_listing
from tinytags_tasks.corpus.reader import ListedItem
from tinytags_tasks.corpus.sources.files import SourceFiles, hash_ends
from tinytags_tasks.errors import BadInputError
from tinytags_tasks.ingest.plan_records import IngestPlan
from tinytags_tasks.ingest.refusals import timeless
from tinytags_tasks.store import layout
from tinytags_tasks.store.corpus_records import Source
from tinytags_tasks.store.protocol import Storage


@dataclass
class NewItems:
    """What is new in a source.

    Attributes
    ----------
    listing
        The new items in a temporary file, which whoever uses this closes.
    source
        The record of these items alone; None if there are none with images.
    moved
        The parts of the corpus whose files have other times than when they were listed, and the records of these parts
        with their new listings, which are in the store.
    """

    listing: ListingFile
    source: Source | None
    moved: dict[int, Source]


def find_new(known: IngestPlan, listing: ListingFile, files: SourceFiles, storage: Storage) -> NewItems:
    """Compare a source's new listing with the items that a corpus was made from.

    Items keep the order of the source, so each part of the corpus is found again in one pass, wherever new files stand
    between old ones. Names, sizes and keywords are compared, and the head and tail of each part.

    Raises
    ------
    BadInputError
        If something that was there before is missing or has changed.
    """
    moved: set[int] = set()
    new = ListingFile(item for part, item in _parted(known, listing, storage, moved) if part is None)
    try:
        for source in known.sources:
            _refuse_other_ends(known, source, files, storage)
        found = {part: _relist(known, part, listing, storage) for part in sorted(moved)}
        return NewItems(new, _source_of(new, known, files) if new.summary.images else None, found)
    except BaseException:
        new.close()
        raise


def _parted(
    known: IngestPlan, listing: ListingFile, storage: Storage, moved: set[int]
) -> Iterator[tuple[int | None, ListedItem]]:
    """Yield each item and the part of the corpus that has it, None for a new one; collect the parts that have moved."""
    rests = []
    for source in known.sources:
        stored = open_listing(storage, layout.source_file(known.definition.name, source.listing_sha256))
        rests.append(item for _, item in stored.items(0, stored.images))
    awaited: dict[tuple[str, int], tuple[int, ListedItem]] = {}

    def await_next(part: int) -> None:
        if item := next(rests[part], None):
            awaited[item.path, item.offset] = part, item

    for part in range(len(rests)):
        await_next(part)
    for item in listing.items():
        found = awaited.pop((item.path, item.offset), None)
        if found is None:
            yield None, item
            continue
        part, old = found
        if timeless(old) != timeless(item):
            raise _changed(known, f"the size or keyword of {item.path}")
        if old.version != item.version:
            moved.add(part)
        await_next(part)
        yield part, item
    if awaited:
        raise _changed(known, f"{min(awaited)[0]} is missing")


def _relist(known: IngestPlan, part: int, listing: ListingFile, storage: Storage) -> Source:
    """Write the listing of a part whose files have other times now, and return its record."""
    items = (item for found, item in _parted(known, listing, storage, set()) if found == part)
    with closing(ListingFile(items)) as relisted:
        sha256 = relisted.summary.sha256
        storage.write(layout.source_file(known.definition.name, sha256), relisted.content())
    return known.sources[part].replaced(listing_sha256=sha256)


def _refuse_other_ends(known: IngestPlan, source: Source, files: SourceFiles, storage: Storage) -> None:
    """Refuse a part whose first file has another head, or whose last one another tail, than when it was ingested."""
    stored = open_listing(storage, layout.source_file(known.definition.name, source.listing_sha256))
    first, last = (next(stored.items(position, 1))[1].path for position in (0, stored.images - 1))
    if hash_ends(files, files.current(first), files.current(last)) != (source.head_sha256, source.tail_sha256):
        raise _changed(known, f"the head of {first} or the tail of {last}")


def _source_of(new: ListingFile, known: IngestPlan, files: SourceFiles) -> Source:
    summary = new.summary
    head, tail = hash_ends(files, files.current(summary.first_path), files.current(summary.last_path))
    return Source(
        path=files.address,
        format=known.definition.format,
        files=summary.files,
        size_bytes=summary.size_bytes,
        images=summary.images,
        listing_sha256=summary.sha256,
        head_sha256=head,
        tail_sha256=tail,
    )


def _changed(known: IngestPlan, what: str) -> BadInputError:
    name = known.definition.name
    return BadInputError(
        f"corpus {name} was made from files of {known.source.path} that are missing or have changed since then "
        f"({what}); restore them, choose another name, or remove the corpus with `tinytags corpus remove {name} --data`"
    )
