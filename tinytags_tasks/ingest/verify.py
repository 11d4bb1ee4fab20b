"""Verifies that the store contains what the source contained."""

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tinytags_tasks.corpus.formats.registry import find_format, open_reader
from tinytags_tasks.corpus.reader import Listing
from tinytags_tasks.corpus.sources.files import SourceFiles, hash_ends
from tinytags_tasks.errors import BadInputError, CorruptError, MissingError
from tinytags_tasks.ingest.plan_records import IngestPlan, committed_corpus, load_committed_plan, open_plan_listing
from tinytags_tasks.ingest.shard_hash import ShardHash
from tinytags_tasks.ingest.shards import check_source_range, complete_manifest
from tinytags_tasks.ingest.verify_embeddings import VerifiedEmbeddings, verify_embeddings
from tinytags_tasks.prefetch import prefetch
from tinytags_tasks.store import layout
from tinytags_tasks.store.corpus_records import BlockManifest, ShardManifest, Source, Unreadable
from tinytags_tasks.store.protocol import Storage

_REPORT_SECONDS = 5.0
_BLOCKS_AHEAD = 1


@dataclass(frozen=True)
class VerifyResult:
    """What a comparison found.

    Attributes
    ----------
    corpus
        The corpus' name.
    shards, images
        How many were checked.
    damaged
        Shards with something wrong, and what is wrong with each.
    source
        What is wrong with the source; empty if nothing is, or the source was not checked.
    read_bytes
        How many bytes were read from the store.
    embeddings
        What was found of the embeddings of each net.
    """

    corpus: str
    shards: int
    images: int
    damaged: dict[int, str]
    source: str
    read_bytes: int
    embeddings: tuple[VerifiedEmbeddings, ...] = ()

    @property
    def is_intact(self) -> bool:
        """Whether nothing wrong was found."""
        return not (self.damaged or self.source or any(found.damaged for found in self.embeddings))


def verify_corpus(
    corpus: str,
    *,
    storage: Storage,
    files: SourceFiles | None,
    deep: bool = False,
    report: Callable[[str], None] = print,
) -> VerifyResult:
    """Compare a corpus in the store with its manifests and its source, and its embeddings with their records.

    Parameters
    ----------
    corpus
        The corpus' name.
    storage
        The store.
    files
        The files of its source; None checks only the store.
    deep
        Whether to read every byte of the shards, the embeddings and the source. Otherwise sizes, the store's own
        checksums, and the source's head and tail are compared, and the store is asked whether it knows of any damage.
        That takes a few requests per file, but does not find damage on a disk that nothing has read since.
    report
        Called with a line of progress every now and then.

    Raises
    ------
    MissingError
        If there is no such corpus, or its ingestion did not finish.
    CorruptError
        If its plan or its totals are damaged.
    """
    plan = load_committed_plan(storage, corpus)
    damaged: dict[int, str] = {}
    read_bytes = 0
    manifests: list[ShardManifest] = []
    for shard in range(plan.partition.shards):
        try:
            manifest = complete_manifest(plan, shard, storage)
        except (BadInputError, MissingError, CorruptError) as error:
            damaged[shard] = str(error)
            continue
        if manifest is None:
            damaged[shard] = _known_damage(corpus, shard, storage) or (
                "it is missing, or its size, checksum or keywords do not match its manifest"
            )
        else:
            manifests.append(manifest)
    totals = committed_corpus(storage, corpus)
    if totals is None and not damaged:
        raise MissingError(f"corpus {corpus}: its ingestion did not finish; run `tinytags ingest {corpus}`")
    if deep:
        for manifest, blocks in _wrong_blocks(manifests, storage, report):
            read_bytes += manifest.images * manifest.image_bytes
            if blocks:
                damaged[manifest.shard] = blocks
    whole = [manifest.shard for manifest in manifests if manifest.shard not in damaged]
    embeddings = verify_embeddings(totals, whole, storage=storage, deep=deep, report=report) if totals else ()
    read_bytes += sum(found.read_bytes for found in embeddings)
    source = "" if files is None else _compare_source(plan, manifests, storage, files, deep=deep, report=report)
    return VerifyResult(corpus, plan.partition.shards, plan.images, damaged, source, read_bytes, embeddings)


def _known_damage(corpus: str, shard: int, storage: Storage) -> str:
    """Return the damage that the store knows of in a shard; empty if there is none, or no such shard."""
    try:
        return storage.known_damage(layout.shard_file(corpus, shard))
    except MissingError:
        return ""


def _wrong_blocks(
    manifests: list[ShardManifest], storage: Storage, report: Callable[[str], None]
) -> Iterator[tuple[ShardManifest, str]]:
    """Yield each shard and what is wrong with its blocks; the next block is read while one is hashed."""
    reported = started = time.monotonic()
    total, done = sum(manifest.images * manifest.image_bytes for manifest in manifests), 0
    for manifest in manifests:
        path = layout.shard_file(manifest.corpus, manifest.shard)
        wrong, unread = [], []
        for block, content in prefetch(_stored_blocks(manifest, path, storage), _BLOCKS_AHEAD):
            if isinstance(content, CorruptError):
                unread.append(f"block {block.number} cannot be read: {content}")
            elif hashlib.sha256(content).hexdigest() != block.sha256:
                wrong.append(block.number)
            done += block.images * manifest.image_bytes
            if time.monotonic() - reported > _REPORT_SECONDS:
                reported = time.monotonic()
                seconds = reported - started
                report(
                    f"read {done / 1e9:,.2f} of {total / 1e9:,.2f} GB, {done / 1e6 / seconds:,.0f} MB/s, "
                    f"{seconds / done * (total - done):,.0f} s left"
                )
        if wrong:
            numbers = ", ".join(map(str, wrong[:20]))
            unread.insert(0, f"the bytes of blocks {numbers} are not what was ingested")
        yield manifest, "; ".join(unread[:3])


def _stored_blocks(
    manifest: ShardManifest, path: str, storage: Storage
) -> Iterator[tuple[BlockManifest, bytes | CorruptError]]:
    """Yield each block and its bytes, or why they cannot be read."""
    for block in manifest.blocks:
        offset = (block.first - manifest.first) * manifest.image_bytes
        try:
            yield block, storage.read(path, offset, block.images * manifest.image_bytes)
        except CorruptError as error:
            yield block, error


def _compare_source(
    plan: IngestPlan,
    manifests: list[ShardManifest],
    storage: Storage,
    files: SourceFiles,
    *,
    deep: bool,
    report: Callable[[str], None],
) -> str:
    """Return what is wrong with the source; empty if nothing is."""
    listing = open_plan_listing(plan, storage)
    try:
        first = 0
        for source in plan.sources:
            if problem := _compare_ends(source, first, listing, files, deep=deep, report=report):
                return problem
            first += source.images
        if not deep:
            return ""
        holds_pixels = find_format(plan.definition.format).holds_pixels
        reader = open_reader(plan.definition, files, listing)
        try:
            for manifest in manifests:
                report(f"comparing the source of shard {manifest.shard}")
                found = ShardHash(manifest.blocks, manifest.image_bytes)
                for batch in reader.batches(manifest.first, manifest.images, decode=holds_pixels):
                    found.add(batch)
                check_source_range(manifest, found, plan, holds_pixels=holds_pixels)
        finally:
            reader.close()
    except (BadInputError, CorruptError) as error:
        return str(error)
    return ""


def _compare_ends(
    source: Source, first: int, listing: Listing, files: SourceFiles, *, deep: bool, report: Callable[[str], None]
) -> str:
    """Return what is wrong with the first and the last file of what is in a corpus from a position on."""
    items = [next(iter(listing.items(position, 1)))[1] for position in (first, first + source.images - 1)]
    current = [files.current(item.path) for item in items]
    for item, file in zip(items, current, strict=True):
        if item.offset == 0 and not deep and file.size_bytes != item.size_bytes:
            files.check_unchanged(item.path, item.size_bytes, item.version)  # which says how
        if file.version != item.version:
            report(f"{files.name(item.path)}: its time has changed since it was listed; its content is compared")
    if hash_ends(files, *current) != (source.head_sha256, source.tail_sha256):
        return f"{source.path}: its head or tail has changed since it was ingested"
    return ""


def iterate_unreadable(corpus: str, *, storage: Storage) -> Iterator[Unreadable]:
    """Yield a corpus' unreadable images in the order of their positions."""
    plan = load_committed_plan(storage, corpus)
    for shard in range(plan.partition.shards):
        yield from ShardManifest.load(storage, layout.shard_manifest_file(corpus, shard)).unreadable
