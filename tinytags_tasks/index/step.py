"""The indexing step: scored blocks in, verified documents in the run's collection out."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tinytags_tasks import layout
from tinytags_tasks.block_files import BlockSource, KeywordsReader, block_sources, read_pixels, read_scored
from tinytags_tasks.blocks import format_block_numbers
from tinytags_tasks.errors import CorruptError, MissingError, TransientError
from tinytags_tasks.index.documents import document_bodies
from tinytags_tasks.records import BlockRecord, BlockState, Corpus, Run, now
from tinytags_tasks.settings import PROJECT_ROOT
from tinytags_tasks.solr import SolrClient
from tinytags_tasks.storage import Storage

CONFIGSET_FOLDER = PROJECT_ROOT / "solr" / "tinytags" / "conf"


@dataclass(frozen=True)
class IndexRequest:
    """Which blocks of which run."""

    run: str
    blocks: tuple[int, ...]


@dataclass(frozen=True)
class IndexResult:
    """What stands now; ``indexed`` counts the blocks that were not verified before."""

    run: str
    blocks: tuple[int, ...]
    documents: int
    indexed: int


def prepare(
    run_name: str,
    *,
    storage: Storage,
    solr: SolrClient,
    shards: int = 1,
    replicas: int = 1,
    configset: Path | None = None,
) -> str:
    """Make sure that a run's collection exists, with this version's schema; return its name."""
    path = layout.run_file(run_name)
    plan = Run.load(storage, path)
    name = solr.ensure_configset(configset or CONFIGSET_FOLDER)
    solr.ensure_collection(plan.collection, name, shards=shards, replicas=replicas)
    if plan.pruned:
        plan.replaced(pruned="").save(storage, path)
    return plan.collection


def run(
    request: IndexRequest, *, storage: Storage, solr: SolrClient, report: Callable[[str], None] = print
) -> IndexResult:
    """Let the collection hold exactly the scored images of these blocks, and verify it by counting.

    Ids are deterministic, so indexing again overwrites; what stands under a block and is not of its scored file is
    deleted by id. Nothing is visible before one commit for all blocks.

    Raises
    ------
    BadInputError
        When the run has no such block.
    MissingError
        When a block is not scored, or the run's collection was pruned.
    TransientError
        When Solr or HDFS cannot do their part now, or a count is not what it must be.
    """
    plan = Run.load(storage, layout.run_file(request.run))
    plan.check_blocks(request.blocks)
    plan.refuse_pruned()
    solr.wait_until_settled(plan.collection)
    records = {block: _ledger_record(plan, block, storage) for block in request.blocks}
    counts = solr.count_by_block(plan.collection, request.blocks)
    to_index = [
        block
        for block, record in records.items()
        if record.state is not BlockState.VERIFIED or record.kept != counts.get(block, 0)
    ]
    report(f"{len(records) - len(to_index)} of {len(records)} blocks are verified, {len(to_index)} to index")
    if to_index:
        storage.delete_leftovers(*(layout.ledger_file(plan.name, block) for block in to_index))
        corpus = Corpus.load(storage, layout.corpus_file(plan.corpus))
        keywords = KeywordsReader(storage)
        for source in block_sources(storage, corpus, to_index):
            records[source.block] = _post(plan, source, keywords, storage, solr)
        solr.commit(plan.collection)
        _delete_strangers(plan, {block: records[block] for block in to_index}, storage, solr)
        for block in to_index:
            records[block] = records[block].replaced(state=BlockState.VERIFIED, documents=records[block].kept)
            records[block].save(storage, layout.ledger_file(plan.name, block))
    documents = sum(record.kept for record in records.values())
    report(f"{documents:,} documents of {len(records)} blocks are in {plan.collection}")
    return IndexResult(plan.name, request.blocks, documents, len(to_index))


def _ledger_record(plan: Run, block: int, storage: Storage) -> BlockRecord:
    """Return a block's record, or that of its scored file where the ledger's is missing, failed or damaged."""
    try:
        record = BlockRecord.load(storage, layout.ledger_file(plan.name, block))
        if record.state is not BlockState.FAILED:
            return record
    except (MissingError, CorruptError):
        pass
    return _scored(plan, block, storage)[1]


def _scored(plan: Run, block: int, storage: Storage) -> tuple[object, BlockRecord]:
    try:
        return read_scored(storage, plan.name, block)
    except MissingError as error:
        raise MissingError(
            f"run {plan.name}: block {block} is not scored; run `tinytags score {plan.name} --blocks {block}` first"
        ) from error


def _post(plan: Run, source: BlockSource, keywords: KeywordsReader, storage: Storage, solr: SolrClient) -> BlockRecord:
    """Post a block's documents and write down that they are there, if not yet visible."""
    started = time.monotonic()
    table, scored = _scored(plan, source.block, storage)
    if scored.sha256 != source.sha256:
        raise CorruptError(
            f"run {plan.name}: block {source.block} was scored on other bytes than the shard holds; "
            f"delete {layout.scored_file(plan.name, source.block)} and score it again"
        )
    pixels = read_pixels(storage, source) if plan.thumbnails == "solr" else None
    bodies = document_bodies(table, source, pixels, plan.model, keywords.read(source))
    solr.post_documents(plan.collection, bodies)
    record = scored.replaced(
        state=BlockState.INDEXED, index_seconds=round(time.monotonic() - started, 3), indexed=now()
    )
    record.save(storage, layout.ledger_file(plan.name, source.block))
    return record


def _delete_strangers(plan: Run, records: dict[int, BlockRecord], storage: Storage, solr: SolrClient) -> None:
    """Delete what stands under these blocks without being of them, and see that the counts agree."""
    counts = solr.count_by_block(plan.collection, list(records))
    # All of a block's own documents were just acknowledged, so any others show in its count.
    crowded = [block for block, record in records.items() if counts.get(block, 0) != record.kept]
    if not crowded:
        return
    for block in crowded:
        table, _ = read_scored(storage, plan.name, block)
        own = {layout.document_id(plan.corpus, position) for position in table.column("position").to_pylist()}
        solr.delete_ids(
            plan.collection, [found for found in solr.ids_of_block(plan.collection, block) if found not in own]
        )
    solr.commit(plan.collection)
    counts = solr.count_by_block(plan.collection, list(records))
    wrong = [block for block, record in records.items() if counts.get(block, 0) != record.kept]
    if wrong:
        raise TransientError(
            f"run {plan.name}: Solr holds "
            + ", ".join(
                f"{counts.get(block, 0):,} of {records[block].kept:,} documents of block {block}" for block in wrong[:5]
            )
            + f" after indexing blocks {format_block_numbers(wrong)}; index them again"
        )
