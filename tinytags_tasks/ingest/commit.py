"""The last step of an ingestion: every shard is counted, then the corpus' totals are written."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from tinytags_tasks.corpus.formats.registry import find_format
from tinytags_tasks.errors import CorruptError, MissingError, ReconcileError
from tinytags_tasks.ingest.plan import IngestPlan, complete_corpus, load_plan
from tinytags_tasks.ingest.shards import most_unreadable, standing_manifest, too_many_unreadable
from tinytags_tasks.store import layout
from tinytags_tasks.store.corpus_records import Corpus, ShardManifest
from tinytags_tasks.store.identities import quoted
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.store.record import now


@dataclass(frozen=True)
class CommitResult:
    """What the corpus holds now."""

    corpus: str
    images: int
    shards: int
    blocks: int
    unreadable: int


def commit_corpus(corpus: str, *, storage: Storage, report: Callable[[str], None] = print) -> CommitResult:
    """Write a corpus' totals, if every shard is complete and every image is in one of them.

    Totals that are damaged are written again: the shards' manifests tell all of them.

    Raises
    ------
    MissingError
        If a shard is missing.
    CorruptError
        If a shard's manifest is damaged.
    BadInputError
        If more images are unreadable than the definition allows.
    ReconcileError
        If the counts do not agree, or a corpus that was complete has become another one.
    """
    plan = load_plan(storage, corpus)
    partition = plan.partition
    digest = hashlib.sha256(partition.identity.encode())
    images = unreadable = 0
    examples: dict[int, str] = {}
    for shard in range(partition.shards):
        manifest = standing_manifest(plan, shard, storage)
        if manifest is None:
            raise MissingError(
                f"{layout.shard_file(corpus, shard)}: is missing, or not what its manifest says; write it again with "
                f"`tinytags ingest {corpus} --redo {shard}`"
            )
        _add_to_digest(digest, manifest)
        images += sum(block.images for block in manifest.blocks)
        unreadable += len(manifest.unreadable)
        if len(examples) < 3:
            examples |= {image.position: image.reason for image in manifest.unreadable[:3]}
    if images != plan.source.images:
        raise ReconcileError(f"corpus {corpus}: its blocks have {images:,} images, its source {plan.source.images:,}")
    if unreadable > most_unreadable(plan):
        raise too_many_unreadable(plan, unreadable, examples)
    made = _totals(plan, unreadable, digest.hexdigest())
    is_damaged = False
    try:
        known = complete_corpus(storage, corpus)
    except CorruptError as error:
        report(f"{error}: done")
        known, is_damaged = None, True
    if known is not None and known.digest != made.digest:
        raise ReconcileError(
            f"corpus {corpus}: its shards are not those that it was committed with, though the source is the same "
            "(another version of Pillow decodes otherwise?); what was scored on it is of other bytes: remove it with "
            f"`tinytags corpus remove {corpus} --data`, then define and ingest it again"
        )
    if known is None:
        made.save(storage, layout.corpus_file(corpus), overwrite=is_damaged)
    _clear_away(plan, storage)
    report(
        f"corpus {corpus}: {images:,} images in {partition.shards} shards of {partition.blocks_per_shard} blocks, "
        f"{unreadable:,} unreadable"
    )
    return CommitResult(corpus, images, partition.shards, partition.blocks, unreadable)


def _clear_away(plan: IngestPlan, storage: Storage) -> None:
    """Delete leases and temporary files that killed writers left; with every shard whole, nobody needs them."""
    corpus = plan.definition.name
    listing = layout.source_file(corpus, plan.source.listing_sha256)
    leases = [layout.lease_file(corpus, shard) for shard in range(plan.partition.shards)]
    standing = set(storage.names(layout.shards_folder(corpus)))
    for lease in leases:
        if layout.file_name(lease) in standing:
            storage.delete(lease)
    storage.delete_leftovers(*leases)
    storage.delete_leftovers(layout.corpus_file(corpus), layout.ingest_plan_file(corpus), listing)


def _add_to_digest(digest: "hashlib._Hash", manifest: ShardManifest) -> None:
    """Add all that decides what is scored and indexed of a shard; see ``docs/adr/0017-identities.md``."""
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
