"""Checking what a run was made from: the model, the shards and the scored files, as they are in the store now."""

import hashlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from tinytags_tasks.errors import CorruptError, MissingError
from tinytags_tasks.store import layout
from tinytags_tasks.store.corpus_records import Corpus, ShardManifest
from tinytags_tasks.store.ledger import contradiction
from tinytags_tasks.store.models import read_model
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.store.run_blocks import RunBlocks
from tinytags_tasks.store.run_records import BlockRecord, BlockState, Run

_AT_ONCE = 8
"""Files that are asked about at once."""


def shards_of(corpus: Corpus, blocks: Iterable[int]) -> list[int]:
    """Return the shards of blocks, ascending."""
    return sorted({block // corpus.blocks_per_shard for block in blocks})


def model_problem(run: Run, storage: Storage) -> str:
    """Return what is wrong with the model's file; empty if its bytes are those of the run's model."""
    try:
        read_model(storage, run.model)
    except (MissingError, CorruptError) as error:
        return str(error)
    return ""


def shard_problems(corpus: Corpus, shards: Iterable[int], storage: Storage) -> dict[int, str]:
    """Return the shards that are not those that were ingested, and why, with the remedy.

    A shard's bytes are not read: its size and the store's own checksum are compared with its manifest, and the store is
    asked for damage that it knows of. Its keywords are read.
    """

    def problem(shard: int) -> str:
        try:
            found = _shard_problem(corpus, shard, storage)
        except (MissingError, CorruptError) as error:
            found = str(error)
        if not found:
            return ""
        return (
            f"shard {shard} ({layout.shard_file(corpus.name, shard)}): {found}; write it again with "
            f"`tinytags ingest {corpus.name} --redo {shard}`"
        )

    shards = list(shards)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return {shard: found for shard, found in zip(shards, pool.map(problem, shards), strict=True) if found}


def _shard_problem(corpus: Corpus, shard: int, storage: Storage) -> str:
    path = layout.shard_file(corpus.name, shard)
    manifest = ShardManifest.load(storage, layout.shard_manifest_file(corpus.name, shard))
    expected_bytes, size_bytes = corpus.partition.images_in_shard(shard) * corpus.image_bytes, storage.size_bytes(path)
    if size_bytes != expected_bytes:
        return f"has {size_bytes:,} bytes, not {expected_bytes:,}"
    if damage := storage.known_damage(path):
        return damage
    if manifest.checksum and storage.checksum(path) != manifest.checksum:
        return "its bytes are not those that were ingested: the store's checksum of it has changed"
    if manifest.keywords_sha256 is None:
        return ""
    stored = storage.read(layout.keywords_file(corpus.name, shard))
    is_same = hashlib.sha256(stored).hexdigest() == manifest.keywords_sha256
    return "" if is_same else "its keywords are not those that were ingested"


@dataclass(frozen=True)
class ScoredFiles:
    """How scored files differ from the ledger.

    Attributes
    ----------
    changed
        Blocks whose file is not the one in the ledger, by its sha256, or cannot be read.
    contradicted
        Of the other blocks, those whose record in the ledger contradicts the file, corrected by people's words, and in
        which fields.
    unreadable_taken_down
        How many images of these blocks are unreadable by their file, and counted as taken down.
    """

    changed: list[int]
    contradicted: dict[int, str]
    unreadable_taken_down: int = 0


def compare_scored_files(records: Sequence[BlockRecord], blocks: RunBlocks) -> ScoredFiles:
    """Compare the ledger with the scored files: their hashes, and the counts that they and people's words give."""

    def compare(record: BlockRecord) -> tuple[str | None, int]:
        try:
            expected, scored = blocks.read_record(record.block, upto=record.corrections)
        except (MissingError, CorruptError):
            return None, 0
        if record.scored_sha256 not in ("", scored.scored_sha256):
            return None, 0
        wrong = contradiction(record, expected) if record.state is BlockState.VERIFIED else ""
        return wrong, scored.unreadable - expected.unreadable

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        compared = list(pool.map(compare, records))
    found = {record.block: wrong for record, (wrong, _) in zip(records, compared, strict=True)}
    return ScoredFiles(
        [block for block, wrong in found.items() if wrong is None],
        {block: wrong for block, wrong in found.items() if wrong},
        sum(taken_down for _, taken_down in compared),
    )
