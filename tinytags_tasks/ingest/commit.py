"""The last step of an ingestion: count the images of every shard, then commit the corpus."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tinytags_tasks.blocks import Partition
from tinytags_tasks.corpus.formats.registry import find_format
from tinytags_tasks.errors import CorruptError, MissingError, ReconcileError
from tinytags_tasks.ingest.plan_records import IngestPlan, committed_corpus, load_plan
from tinytags_tasks.ingest.refused import refusal_noted
from tinytags_tasks.ingest.shards import (
    complete_manifest,
    decoded_differently,
    most_unreadable,
    too_many_unreadable,
)
from tinytags_tasks.store import layout
from tinytags_tasks.store.corpus_records import Corpus, Growth, ShardManifest, Source
from tinytags_tasks.store.lease import Leases
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.store.quoting import quoted
from tinytags_tasks.store.record import now


@dataclass(frozen=True)
class CommitResult:
    """What the corpus contains now.

    Attributes
    ----------
    new_images
        How many of its images are new since it was committed before; all, if it was not.
    awaited_images
        How many are to be appended, but are not in the store yet.
    """

    corpus: str
    images: int
    shards: int
    blocks: int
    unreadable: int
    new_images: int = 0
    awaited_images: int = 0


def commit_corpus(corpus: str, *, storage: Storage, report: Callable[[str], None] = print) -> CommitResult:
    """Write a corpus' totals, provided that every shard is complete and every image is in one.

    Totals that are damaged are written again from the shards' manifests. A complete corpus stays as it is while a
    growth lacks shards, such as when its source is away.

    Raises
    ------
    MissingError
        If a shard is missing or incomplete.
    CorruptError
        If a shard's manifest is damaged.
    BadInputError
        If more images are unreadable than the definition allows.
    ReconcileError
        If the counts do not agree, or the shards of a committed corpus have changed.
    """
    plan = load_plan(storage, corpus)
    known, is_damaged = None, False
    try:
        known = committed_corpus(storage, corpus)
    except CorruptError as error:
        report(f"{error}: done")
        is_damaged = True
    known_parts = 1 + len(known.growths) if known else 0
    parts: list[_PartTotals] = []
    for part in range(len(plan.sources)):
        try:
            parts.append(_add_up(plan, part, parts[-1].sha256 if parts else "", storage))
        except MissingError:
            if part == 0 or part < known_parts or is_damaged:
                raise
            break
    made = _totals(plan, parts, known)
    if known is not None and (known.digest != made.digest or known.growth not in made.growth_hashes):
        raise decoded_differently(corpus)
    if known is None:
        made.save(storage, layout.corpus_file(corpus), overwrite=is_damaged)
    elif len(made.growths) > len(known.growths):
        _replace(made, storage, report)
    if len(parts) == len(plan.sources) and storage.exists(layout.ingest_refusal_file(corpus)):
        storage.delete(layout.ingest_refusal_file(corpus))
    _delete_leftovers(plan, made.partition.shards, storage)
    new, awaited = made.images - (known.images if known else 0), plan.images - made.images
    partition = made.partition
    report(
        f"corpus {corpus}: {made.images:,} images in {partition.shards} shards of {partition.blocks_per_shard} blocks, "
        f"{made.unreadable:,} unreadable"
        + (f"; {new:,} of the images are new, {known.images:,} were there before" if known and new else "")
        + (f"; {awaited:,} more are awaited" if awaited else "")
    )
    return CommitResult(corpus, made.images, partition.shards, partition.blocks, made.unreadable, new, awaited)


def _replace(made: Corpus, storage: Storage, report: Callable[[str], None]) -> None:
    """Write the totals of a corpus that has grown, unless another process has written those of a later growth."""
    path = layout.corpus_file(made.name)
    with Leases(storage).wait_for(layout.corpus_lease_file(made.name), f"corpus {made.name}", report):
        known = committed_corpus(storage, made.name)
        if known is None or len(made.growths) > len(known.growths):
            made.save(storage, path)


@dataclass(frozen=True)
class _PartTotals:
    """What the manifests of one part of a corpus add up to; the hash is of all content up to its end."""

    source: Source
    unreadable: int
    sha256: str


def _add_up(plan: IngestPlan, part: int, before: str, storage: Storage) -> _PartTotals:
    """Add up the shards of what a corpus began with, or of one growth.

    Parameters
    ----------
    plan, part
        The plan, and the part's number.
    before
        The hash of all parts before it.
    storage
        The store.
    """
    corpus, source, partition = plan.definition.name, plan.sources[part], plan.partition
    identity = Partition(source.images, partition.shard_images, partition.blocks_per_shard).identity
    digest = hashlib.sha256((before + identity).encode())
    images = unreadable = 0
    examples: dict[int, str] = {}
    for shard in partition.shards_of_part(part):
        manifest = complete_manifest(plan, shard, storage)
        if manifest is None:
            raise MissingError(
                f"{layout.shard_file(corpus, shard)}: is missing or does not match its manifest; write it again with "
                f"`tinytags ingest {corpus} --redo {shard}`"
            )
        _add_to_digest(digest, manifest)
        images += sum(block.images for block in manifest.blocks)
        unreadable += len(manifest.unreadable)
        if len(examples) < 3:
            examples |= {image.position: image.reason for image in manifest.unreadable[:3]}
    if images != source.images:
        raise ReconcileError(
            f"corpus {corpus}: its blocks have {images:,} images, but its source has {source.images:,}"
        )
    if unreadable > most_unreadable(plan, source):
        with refusal_noted(plan, storage):
            raise too_many_unreadable(plan, source, examples, storage, unreadable)
    return _PartTotals(source, unreadable, digest.hexdigest())


def _delete_leftovers(plan: IngestPlan, shards: int, storage: Storage) -> None:
    """Delete leases and temporary files of killed writers; once these shards are complete, nothing needs them."""
    corpus = plan.definition.name
    listings = [layout.source_file(corpus, source.listing_sha256) for source in plan.sources]
    growths = [layout.growth_file(corpus, number) for number in range(1, len(plan.sources))]
    leases = [layout.lease_file(corpus, shard) for shard in range(shards)]
    existing = set(storage.names(layout.shards_folder(corpus)))
    for lease in leases:
        if layout.file_name(lease) in existing:
            storage.delete(lease)
    storage.delete_leftovers(*leases)
    storage.delete_leftovers(layout.corpus_file(corpus), layout.ingest_plan_file(corpus), *listings)
    if growths:
        totals_lease = layout.corpus_lease_file(corpus)
        storage.delete_leftovers(*growths)
        storage.delete_leftovers(totals_lease)
        if storage.exists(totals_lease):
            with Leases(storage).hold(totals_lease):  # which takes over a killed writer's, and returns it
                pass


def _add_to_digest(digest: "hashlib._Hash", manifest: ShardManifest) -> None:
    """Add everything that determines what is scored and indexed of a shard; see ``docs/adr/0017-identities.md``."""
    for block in manifest.blocks:
        digest.update(f"{block.number} {block.sha256}\n".encode())
    positions = ", ".join(str(image.position) for image in manifest.unreadable)
    digest.update(f"[{positions}]{quoted(manifest.keywords_sha256)}".encode())


def _totals(plan: IngestPlan, parts: Sequence[_PartTotals], known: Corpus | None) -> Corpus:
    definition = plan.definition
    created = now()
    earlier = {growth.sha256: growth for growth in known.growths} if known else {}
    growths = (
        Growth(
            images=part.source.images,
            unreadable=part.unreadable,
            source=part.source,
            sha256=part.sha256,
            created=created,
        )
        for part in parts[1:]
    )
    return Corpus(
        name=definition.name,
        description=definition.description,
        images=sum(part.source.images for part in parts),
        shard_images=definition.shard_images,
        blocks_per_shard=definition.blocks_per_shard,
        height=definition.height,
        width=definition.width,
        preparation=find_format(definition.format).preparation(definition),
        source=plan.source,
        unreadable=sum(part.unreadable for part in parts),
        digest=parts[0].sha256,
        created=known.created if known else created,
        growths=tuple(earlier.get(growth.sha256, growth) for growth in growths),
    )
