"""The indexing step: turns scored blocks into verified documents of the run's collection."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace

from tinytags_tasks.blocks import format_block_numbers
from tinytags_tasks.clients.solr import SolrClient
from tinytags_tasks.errors import CorruptError, FinalError, MissingError, TransientError, explained
from tinytags_tasks.index.posting import collection_missing, post_blocks
from tinytags_tasks.index.verification import delete_foreign_documents, differing_blocks, unverified_blocks
from tinytags_tasks.store import layout
from tinytags_tasks.store.block_files import block_sources, read_scored_record
from tinytags_tasks.store.block_lease import HeldBlocks, hold_blocks, is_held, refuse_lost
from tinytags_tasks.store.configsets import current_configset, keep_configset, kept_configset
from tinytags_tasks.store.lease import LEASE_SECONDS
from tinytags_tasks.store.ledger import read_ledger
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.store.run_blocks import RunBlocks
from tinytags_tasks.store.run_identity import corpus_of_run, refuse_another_corpus
from tinytags_tasks.store.run_records import UNRECORDED, BlockRecord, BlockState, Run

_AT_ONCE = 8
"""How many small files are read or written at the same time."""

IMAGES_PER_SHARD = 20_000_000
"""A shard of as many documents takes up to 61 GB, which a new replica must copy (docs/sizing.md)."""


@dataclass(frozen=True)
class IndexRequest:
    """Which blocks of which run to index; ``redo`` also indexes blocks that are verified already."""

    run: str
    blocks: tuple[int, ...]
    redo: bool = False


@dataclass(frozen=True)
class IndexResult:
    """How many documents the blocks have now; ``indexed`` counts the blocks that this call indexed."""

    run: str
    blocks: tuple[int, ...]
    documents: int
    indexed: int


@dataclass(frozen=True)
class DeleteRequest:
    """The blocks whose documents are to be deleted."""

    run: str
    blocks: tuple[int, ...]


@dataclass(frozen=True)
class DeleteResult:
    """What was deleted."""

    run: str
    blocks: tuple[int, ...]
    documents: int


def prepare_collection(
    run_name: str,
    *,
    storage: Storage,
    solr: SolrClient,
    shards: int | None = None,
    replicas: int = 1,
) -> str:
    """Make sure that a run's collection exists, and return its name.

    An existing collection keeps its configset, whatever this checkout has, and its shards, whatever is asked for. A new
    one is created with the configset that the run was planned with, or with this checkout's if the run is too old to
    have recorded one.

    Parameters
    ----------
    run_name
        The run.
    storage, solr
        Where its record is, and where its collection is to be.
    shards
        How many shards a new collection gets; by default one for every :data:`IMAGES_PER_SHARD` images of the run, of
        which each may become a document.
    replicas
        How many replicas each shard of a new collection gets.

    Raises
    ------
    MissingError
        If there is no such run, or its configset is in neither Solr, the store nor this checkout.
    CorruptError
        If the store's copy of its configset is damaged.
    """
    path = layout.run_file(run_name)
    run = Run.load(storage, path)
    if run.collection not in solr.collections():
        if not run.configset:
            configset = current_configset()
            keep_configset(configset, storage)
            run = run.replaced(configset=configset.name)
            run.save(storage, path)
        _make_collection(run, storage, solr, shards or -(-run.images // IMAGES_PER_SHARD) or 1, replicas)
    if run.pruned:
        run.replaced(pruned="").save(storage, path)
    return run.collection


def _make_collection(run: Run, storage: Storage, solr: SolrClient, shards: int, replicas: int) -> None:
    """Create a run's collection with the run's own configset."""
    is_uploaded = run.configset in solr.configset_names()
    if not is_uploaded:
        solr.upload_configset(kept_configset(run.configset, storage))
    try:
        solr.ensure_collection(run.collection, run.configset, shards=shards, replicas=replicas)
    except (FinalError, TransientError):
        if not is_uploaded:
            raise
        # It was pruned a moment ago, or Solr was killed while it was being uploaded.
        solr.upload_configset(kept_configset(run.configset, storage))
        solr.ensure_collection(run.collection, run.configset, shards=shards, replicas=replicas)


def index_blocks(
    request: IndexRequest,
    *,
    storage: Storage,
    solr: SolrClient,
    report: Callable[[str], None] = print,
    lease_seconds: float = LEASE_SECONDS,
) -> IndexResult:
    """Make the collection hold exactly the images of these blocks that are kept, and verify each block by a checksum.

    What is kept follows from the scored file and people's words on the corpus. Ids are deterministic, so indexing again
    overwrites documents. Documents of a block that must not be there are deleted by id. Nothing is visible until one
    commit for all blocks. A block that another writer holds is left to that writer, and checked again once the other
    blocks are done.

    Raises
    ------
    BadInputError
        If the run does not have one of these blocks.
    MissingError
        If a block is not scored, or the run's collection was pruned.
    TransientError
        If Solr or HDFS is unavailable, or the documents differ from what was scored.
    """
    run = Run.load(storage, layout.run_file(request.run))
    run.check_blocks(request.blocks)
    run.refuse_pruned()
    _wait_until_settled(run, solr)
    open_blocks = list(request.blocks)
    if not request.redo:
        open_blocks = unverified_blocks(run, request.blocks, storage, solr)
        report(f"{len(request.blocks) - len(open_blocks)} of {len(request.blocks)} blocks are verified")
    indexed = 0
    for held in hold_blocks(run.name, open_blocks, storage=storage, report=report, lease_seconds=lease_seconds):
        # Another writer may have verified them in the meantime.
        blocks = held.blocks if request.redo else unverified_blocks(run, held.blocks, storage, solr)
        if blocks:
            _index(run, replace(held, blocks=blocks), storage, solr, report)
            indexed += len(blocks)
    documents = sum(record.kept for record in read_ledger(storage, run, request.blocks))
    report(f"{documents:,} documents of {len(request.blocks)} blocks are in {run.collection}")
    return IndexResult(run.name, request.blocks, documents, indexed)


def delete_blocks(
    request: DeleteRequest,
    *,
    storage: Storage,
    solr: SolrClient,
    report: Callable[[str], None] = print,
    lease_seconds: float = LEASE_SECONDS,
) -> DeleteResult:
    """Delete all documents of these blocks, one block at a time; their scored files stay.

    Raises
    ------
    BadInputError
        If the run does not have one of these blocks.
    MissingError
        If the run's collection was pruned.
    TransientError
        If Solr or HDFS is unavailable, or another writer has taken over a block.
    """
    run = Run.load(storage, layout.run_file(request.run))
    run.check_blocks(request.blocks)
    run.refuse_pruned()
    _wait_until_settled(run, solr)
    before = solr.count_by_block(run.collection, request.blocks)
    for held in hold_blocks(run.name, request.blocks, storage=storage, report=report, lease_seconds=lease_seconds):
        for record in read_ledger(storage, run, held.blocks):
            refuse_lost(storage, run.name, record.block, held.writer)
            # The ledger first, so that it never promises documents that were deleted.
            if record.state in (BlockState.INDEXED, BlockState.VERIFIED):
                record = _as_scored(record, storage)
                record.save(storage, layout.ledger_file(run.name, record.block))
            solr.delete_block(run.collection, record.block)
        solr.commit(run.collection)
        if left := solr.count_by_block(run.collection, held.blocks):
            raise TransientError(
                f"run {run.name}: blocks {format_block_numbers(left)} still have {sum(left.values()):,} documents in "
                f"{run.collection} after they were deleted; delete them again"
            )
    report(f"{sum(before.values()):,} documents of blocks {format_block_numbers(request.blocks)} are deleted")
    return DeleteResult(run.name, request.blocks, sum(before.values()))


def _as_scored(record: BlockRecord, storage: Storage) -> BlockRecord:
    """Return the record of a block that has no documents any more; its counts are the model's again."""
    if record.corrections:
        with suppress(MissingError, CorruptError):  # whoever needs the file says so
            record = read_scored_record(storage, record.run, record.block)
    return record.replaced(state=BlockState.SCORED, documents=None, checksum="", indexed="", corrections=0)


def _wait_until_settled(run: Run, solr: SolrClient) -> None:
    try:
        solr.wait_until_settled(run.collection)
    except MissingError as error:
        raise collection_missing(run) from error


def _index(run: Run, held: HeldBlocks, storage: Storage, solr: SolrClient, report: Callable[[str], None]) -> None:
    """Post blocks, commit once, and verify each block."""
    storage.delete_leftovers(*(layout.ledger_file(run.name, block) for block in held.blocks))
    corpus = corpus_of_run(run, storage)
    refuse_another_corpus(run, corpus)
    blocks = RunBlocks(run, corpus, storage)
    records, failures = post_blocks(held, blocks, block_sources(storage, corpus, held.blocks), solr, report)
    solr.commit(run.collection)
    wrong = differing_blocks(run, corpus.partition, records, solr)
    if wrong:
        delete_foreign_documents(blocks, wrong, solr)
        wrong = differing_blocks(run, corpus.partition, {block: records[block] for block in wrong}, solr)
    verified = [
        record.replaced(state=BlockState.VERIFIED, documents=record.kept)
        for block, record in records.items()
        if block not in wrong
    ]

    def save(record: BlockRecord) -> None:
        refuse_lost(storage, run.name, record.block, held.writer)
        record.save(storage, layout.ledger_file(run.name, record.block))

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(save, verified))
    if failures:
        _raise_failures(run, failures, held, storage)
    if wrong:
        raise TransientError(
            f"run {run.name}: in Solr, "
            + "; ".join(f"block {block} {problem}" for block, problem in list(wrong.items())[:5])
            + f" after indexing blocks {format_block_numbers(wrong)}; index them again"
        )


def _raise_failures(run: Run, failures: Mapping[int, FinalError], held: HeldBlocks, storage: Storage) -> None:
    """Record why blocks cannot be indexed, and raise all reasons as one error."""
    for record in read_ledger(storage, run, failures):
        if record.state not in UNRECORDED and is_held(storage, run.name, record.block, held.writer):
            record.replaced(state=BlockState.FAILED, reason=str(failures[record.block])).save(
                storage, layout.ledger_file(run.name, record.block)
            )
    first = next(iter(failures.values()))
    if len(failures) == 1:
        raise first
    raise explained(
        first,
        f"run {run.name}: indexing failed for blocks {format_block_numbers(failures)}: "
        + "; ".join(str(error) for error in list(failures.values())[:3]),
    )
