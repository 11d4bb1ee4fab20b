"""The last step of an ingestion: count the images of every shard, then commit the corpus."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from tinytags_tasks.corpus.formats.registry import find_format
from tinytags_tasks.errors import CorruptError, MissingError, ReconcileError
from tinytags_tasks.ingest.plan import IngestPlan, committed_corpus, load_plan
from tinytags_tasks.ingest.refusal import refusal_noted
from tinytags_tasks.ingest.shards import (
    complete_manifest,
    decoded_differently,
    most_unreadable,
    too_many_unreadable,
)
from tinytags_tasks.store import layout
from tinytags_tasks.store.corpus_records import Corpus, ShardManifest
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.store.quoting import quoted
from tinytags_tasks.store.record import now


@dataclass(frozen=True)
class CommitResult:
    """What the corpus contains now."""

    corpus: str
    images: int
    shards: int
    blocks: int
    unreadable: int


def commit_corpus(corpus: str, *, storage: Storage, report: Callable[[str], None] = print) -> CommitResult:
    """Write a corpus' totals, provided that every shard is complete and every image is in one.

    Totals that are damaged are written again from the shards' manifests.

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
    partition = plan.partition
    digest = hashlib.sha256(partition.identity.encode())
    images = unreadable = 0
    examples: dict[int, str] = {}
    for shard in range(partition.shards):
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
    if images != plan.source.images:
        raise ReconcileError(
            f"corpus {corpus}: its blocks have {images:,} images, but its source has {plan.source.images:,}"
        )
    if unreadable > most_unreadable(plan):
        with refusal_noted(plan, storage):
            raise too_many_unreadable(plan, unreadable, examples, storage)
    made = _totals(plan, unreadable, digest.hexdigest())
    is_damaged = False
    try:
        known = committed_corpus(storage, corpus)
    except CorruptError as error:
        report(f"{error}: done")
        known, is_damaged = None, True
    if known is not None and known.digest != made.digest:
        raise decoded_differently(corpus)
    if known is None:
        made.save(storage, layout.corpus_file(corpus), overwrite=is_damaged)
    if storage.exists(layout.ingest_refusal_file(corpus)):
        storage.delete(layout.ingest_refusal_file(corpus))
    _delete_leftovers(plan, storage)
    report(
        f"corpus {corpus}: {images:,} images in {partition.shards} shards of {partition.blocks_per_shard} blocks, "
        f"{unreadable:,} unreadable"
    )
    return CommitResult(corpus, images, partition.shards, partition.blocks, unreadable)


def _delete_leftovers(plan: IngestPlan, storage: Storage) -> None:
    """Delete leases and temporary files of killed writers; once every shard is complete, nothing needs them."""
    corpus = plan.definition.name
    listing = layout.source_file(corpus, plan.source.listing_sha256)
    leases = [layout.lease_file(corpus, shard) for shard in range(plan.partition.shards)]
    existing = set(storage.names(layout.shards_folder(corpus)))
    for lease in leases:
        if layout.file_name(lease) in existing:
            storage.delete(lease)
    storage.delete_leftovers(*leases)
    storage.delete_leftovers(layout.corpus_file(corpus), layout.ingest_plan_file(corpus), listing)


def _add_to_digest(digest: "hashlib._Hash", manifest: ShardManifest) -> None:
    """Add everything that determines what is scored and indexed of a shard; see ``docs/adr/0017-identities.md``."""
    for block in manifest.blocks:
        digest.update(f"{block.number} {block.sha256}\n".encode())
    positions = ", ".join(str(image.position) for image in manifest.unreadable)
    digest.update(f"[{positions}]{quoted(manifest.keywords_sha256)}".encode())


def _totals(plan: IngestPlan, unreadable: int, digest: str) -> Corpus:
    definition = plan.definition
    return Corpus(
        name=definition.name,
        description=definition.description,
        images=plan.source.images,
        shard_images=definition.shard_images,
        blocks_per_shard=definition.blocks_per_shard,
        height=definition.height,
        width=definition.width,
        preparation=find_format(definition.format).preparation(definition),
        source=plan.source,
        unreadable=unreadable,
        digest=digest,
        created=now(),
    )
