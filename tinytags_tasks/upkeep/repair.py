"""Repairing records: what a run's files and Solr prove is written again; no document is touched."""

from collections.abc import Callable, Sequence
from functools import partial

from tinytags_tasks.blocks import format_block_numbers
from tinytags_tasks.clients.solr import SolrClient
from tinytags_tasks.errors import CorruptError
from tinytags_tasks.publish.publications import live_collection, lock_alias, run_of
from tinytags_tasks.store import layout
from tinytags_tasks.store.block_lease import hold_blocks, is_held
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.ledger import read_ledger
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.store.record import now
from tinytags_tasks.store.record_series import record_numbers
from tinytags_tasks.store.run_identity import load_run, rebuild_run
from tinytags_tasks.store.run_records import BlockRecord, Change, Publication, Run
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
    sources = read_sources(storage, corpus, blocks).by_block
    counts = solr.count_by_block(run.collection, blocks)

    def rebuildable(numbers: Sequence[int], check: BlockCheck) -> dict[int, BlockRecord]:
        found = {record.block: check.check(record) for record in read_ledger(storage, run, numbers)}
        return {
            block: findings.rebuilt
            for block, findings in found.items()
            if findings.ledger and findings.rebuilt and not findings.is_unfinished
        }

    candidates = list(rebuildable(blocks, BlockCheck(run, corpus, sources, counts, storage, solr)))
    rebuilt: list[int] = []
    for held in hold_blocks(run.name, candidates, storage=storage, report=report):
        counts = solr.count_by_block(run.collection, held.blocks)
        check = BlockCheck(run, corpus, sources, counts, storage, solr)
        for block, record in rebuildable(held.blocks, check).items():  # another writer may have been there meanwhile
            if is_held(storage, run.name, block, held.writer):
                record.save(storage, layout.ledger_file(run.name, block))
                rebuilt.append(block)
    if rebuilt:
        report(
            f"run {run.name}: the ledger's records of blocks {format_block_numbers(rebuilt)} are written again from "
            "their scored files, which Solr's documents equal"
        )
    return tuple(sorted(rebuilt))


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


def repair_history(alias: str, storage: Storage, solr: SolrClient, report: Callable[[str], None]) -> None:
    """Write damaged records of an alias' history again, as far as the changes before and after them tell.

    Raises
    ------
    TransientError
        If another process keeps changing the alias.
    """
    path_of = partial(layout.publication_file, alias)
    damaged = [number for number in record_numbers(path_of, storage) if _publication(path_of(number), storage) is None]
    if not damaged:
        return
    with lock_alias(alias, storage, report):
        numbers = record_numbers(path_of, storage)
        for at, number in enumerate(numbers):
            path = path_of(number)
            if _publication(path, storage):
                continue
            before = _publication(path_of(numbers[at - 1]), storage) if at else None
            after = _publication(path_of(numbers[at + 1]), storage) if at + 1 < len(numbers) else None
            collection = after.previous if after else live_collection(alias, solr)
            if not collection:
                storage.delete(path)
                report(f"{path}: damaged, and nothing tells what it said: it is deleted")
                continue
            run = run_of(collection, storage)
            Publication(
                change=Change.FOUND,
                run=run.name if run else "",
                collection=collection,
                previous=before.collection if before else "",
                time=neighbour.time if (neighbour := after or before) else now(),
                host="",
            ).save(storage, path)
            report(f"{path}: was damaged, and is written again: {collection} was live then")


def _publication(path: str, storage: Storage) -> Publication | None:
    try:
        return Publication.load(storage, path)
    except CorruptError:
        return None
