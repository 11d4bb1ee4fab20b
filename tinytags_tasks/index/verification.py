"""Verifies, block by block, that Solr has exactly the documents that were posted."""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from tinytags_tasks.blocks import Partition
from tinytags_tasks.clients.solr import SolrClient
from tinytags_tasks.clients.solr_http import CONNECTIONS
from tinytags_tasks.store import layout
from tinytags_tasks.store.block_documents import DocumentsHash, compared_fields
from tinytags_tasks.store.ledger import read_ledger
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.store.run_blocks import RunBlocks
from tinytags_tasks.store.run_records import BlockRecord, BlockState, Run


def unverified_blocks(run: Run, blocks: Sequence[int], storage: Storage, solr: SolrClient) -> list[int]:
    """Return the blocks that are not verified according to the ledger, or whose number of documents has changed."""
    counts = solr.count_by_block(run.collection, blocks)
    return [
        record.block
        for record in read_ledger(storage, run, blocks)
        if record.state is not BlockState.VERIFIED or record.kept != counts.get(record.block, 0)
    ]


def differing_blocks(
    run: Run, partition: Partition, records: Mapping[int, BlockRecord], solr: SolrClient
) -> dict[int, str]:
    """Return the blocks whose documents are not what was scored, and how they differ."""
    counts = solr.count_by_block(run.collection, list(records))
    cores, fields = solr.export_cores(run.collection), compared_fields(solr.field_names(run.collection))

    def difference(record: BlockRecord) -> str:
        count = counts.get(record.block, 0)
        if count != record.kept:
            return f"has {count:,} of {record.kept:,} documents"
        found = DocumentsHash()
        for documents in solr.export_block(cores, fields, partition.block(record.block)):
            found.add(documents)
        if found.checksum() != record.checksum:
            return "has documents with ids or fields that differ from what was scored"
        return ""

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        differences = zip(records, pool.map(difference, records.values()), strict=True)
        return {block: found for block, found in differences if found}


def delete_foreign_documents(blocks: RunBlocks, numbers: Iterable[int], solr: SolrClient) -> None:
    """Delete the documents of these blocks that are not of images that are kept."""
    run = blocks.run
    for block in numbers:
        table = blocks.read(block).table
        own = {layout.document_id(run.corpus, position) for position in table.column("position").to_pylist()}
        foreign = [found for found in solr.ids_of_block(run.collection, block) if found not in own]
        solr.delete_ids(run.collection, foreign)
    solr.commit(run.collection)
