"""Repairing a run's records: what its files and Solr prove is written again; no document is touched."""

from collections.abc import Callable, Sequence

from tinytags_tasks.blocks import format_block_numbers
from tinytags_tasks.clients.solr import SolrClient
from tinytags_tasks.correct.apply import ApplyResult, apply_corrections
from tinytags_tasks.errors import CorruptError, MissingError
from tinytags_tasks.publish.content import ContentComparison
from tinytags_tasks.store import layout
from tinytags_tasks.store.block_documents import expected_checksum, first_checksum
from tinytags_tasks.store.block_files import KeywordsReader
from tinytags_tasks.store.block_lease import hold_blocks, is_held
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.ledger import read_ledger
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.store.record import now
from tinytags_tasks.store.run_blocks import RunBlocks, applied_to
from tinytags_tasks.store.run_identity import load_run, rebuild_run
from tinytags_tasks.store.run_records import BlockRecord, BlockState, Run
from tinytags_tasks.upkeep.block_check import BlockCheck, read_sources


def rebuild_ledger_records(
    run: Run,
    corpus: Corpus,
    blocks: Sequence[int],
    *,
    storage: Storage,
    solr: SolrClient,
    report: Callable[[str], None],
) -> tuple[int, ...]:
    """Write the records of those blocks again whose scored file and documents are good; return these blocks.

    A block that is unfinished by its own record, such as one that failed, is not among them.
    """
    candidates = list(_provable_records(run, corpus, blocks, storage, solr))
    rebuilt: list[int] = []
    for held in hold_blocks(run.name, candidates, storage=storage, report=report):
        # Another writer may have changed them meanwhile.
        records = _provable_records(run, corpus, held.blocks, storage, solr)
        differing = ContentComparison(run, corpus, storage, solr).differing_blocks(list(records.values()), report)
        for block, record in records.items():
            if block not in differing and is_held(storage, run.name, block, held.writer):
                record.save(storage, layout.ledger_file(run.name, block))
                rebuilt.append(block)
    if rebuilt:
        report(
            f"run {run.name}: the ledger's records of blocks {format_block_numbers(rebuilt)} are written again from "
            "their scored files, which Solr's documents equal"
        )
    return tuple(sorted(rebuilt))


def _provable_records(
    run: Run, corpus: Corpus, blocks: Sequence[int], storage: Storage, solr: SolrClient
) -> dict[int, BlockRecord]:
    """Return the records of blocks as they must be if the documents are right, where the ledger has others."""
    sources, counts = read_sources(storage, corpus, blocks), solr.count_by_block(run.collection, blocks)
    run_blocks = RunBlocks(run, corpus, storage)
    check = BlockCheck(run_blocks, sources, counts)
    fields, keywords = solr.field_names(run.collection), KeywordsReader(storage)
    found = {}
    for record in read_ledger(storage, run, blocks):
        findings = check.check(record)
        if findings.scored or findings.documents or findings.is_unfinished or record.block not in sources:
            continue
        block = run_blocks.read(record.block, upto=applied_to(record))
        source = sources[record.block]
        try:
            checksum = expected_checksum(block.table, source, run.model, keywords.read(source), fields)
        except (MissingError, CorruptError):  # the keywords: redoing the block says so
            continue
        if findings.ledger or record.checksum not in (checksum, first_checksum(block.table, run.corpus, run.model)):
            is_readable = record.state is BlockState.VERIFIED
            found[record.block] = block.record.replaced(
                state=BlockState.VERIFIED,
                documents=block.record.kept,
                checksum=checksum,
                indexed=record.indexed if is_readable and record.indexed else now(),
                index_seconds=record.index_seconds if is_readable else 0.0,
            )
    return found


def apply_pending(
    run_name: str, *, storage: Storage, solr: SolrClient, report: Callable[[str], None] = print
) -> ApplyResult:
    """Make a run's documents follow people's words, where a killed process left that undone.

    Raises
    ------
    FinalError, TransientError
        As :func:`~tinytags_tasks.correct.apply.apply_corrections`.
    """
    return apply_corrections(load_run(run_name, storage), storage=storage, solr=solr, report=report)


def count_foreign_documents(run: Run, corpus: Corpus, storage: Storage, solr: SolrClient) -> dict[int, int]:
    """Return the documents that may be deleted: of no block of the run or the corpus, and of no scored file.

    Returns
    -------
    dict
        How many documents there are under a block's number.
    """
    blocks = max(run.blocks, corpus.partition.blocks)
    scored = set(storage.names(layout.scored_folder(run.name)))
    return {
        block: count
        for block, count in solr.count_by_block(run.collection).items()
        if not 0 <= block < blocks and layout.file_name(layout.scored_file(run.name, block)) not in scored
    }


def repair_run_record(name: str, storage: Storage, report: Callable[[str], None]) -> Run:
    """Return a run, whose record is written again if it is damaged and its name proves what it was.

    Raises
    ------
    MissingError
        If there is no such run, or nothing in the store proves what it was.
    """
    try:
        return load_run(name, storage)
    except CorruptError as error:
        run = rebuild_run(name, storage)
        run.save(storage, layout.run_file(name))
        report(f"{error}: it is written again, as the run's name proves")
        return run
