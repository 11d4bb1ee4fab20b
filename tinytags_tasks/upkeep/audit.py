"""Auditing: every document against what was scored, and a share of the pictures byte by byte."""

from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from tinytags_tasks.blocks import format_block_numbers
from tinytags_tasks.clients.solr import SolrClient
from tinytags_tasks.errors import BadInputError, CorruptError, MissingError
from tinytags_tasks.publish.content import ContentComparison
from tinytags_tasks.publish.inputs import model_problem, shard_problems, shards_of
from tinytags_tasks.publish.live import live_run, refuse_without_collection
from tinytags_tasks.publish.pictures import PictureComparison
from tinytags_tasks.store import layout
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.ledger import read_ledger
from tinytags_tasks.store.model_records import ModelCard
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.store.record import Record, now
from tinytags_tasks.store.record_series import append_record, record_numbers
from tinytags_tasks.store.run_blocks import RunBlocks
from tinytags_tasks.store.run_identity import check_run, corpus_of_run, load_run, refuse_another_corpus
from tinytags_tasks.store.run_records import Audit, BlockRecord, Publication, Run
from tinytags_tasks.upkeep.block_check import BlockCheck, read_sources
from tinytags_tasks.upkeep.meanwhile import problems_that_stay
from tinytags_tasks.upkeep.rotation import compare_share, last_position, next_share, rotated_to

_AT_ONCE = 2
"""Blocks that are checked at once."""


@dataclass(frozen=True)
class AuditRequest:
    """What is audited.

    Attributes
    ----------
    run
        The run; if empty, the one that is live of ``corpus`` under ``alias``.
    alias
        The alias that readers search.
    sample
        How many pictures are compared byte by byte with their shard: the next ones after those that the last audit
        compared. None compares such a share that :data:`~tinytags_tasks.upkeep.rotation.AUDITS` audits compare all.
    blocks
        Only these blocks; None means all.
    is_deep
        Whether every picture is compared.
    corpus
        The corpus whose live run is audited; empty if only one is live.
    """

    run: str = ""
    alias: str = "tinytags"
    sample: int | None = None
    blocks: tuple[int, ...] | None = None
    is_deep: bool = False
    corpus: str = ""

    def __post_init__(self) -> None:
        """Refuse a negative sample.

        Raises
        ------
        BadInputError
            If it is negative.
        """
        if self.sample is not None and self.sample < 0:
            raise BadInputError(f"--sample is {self.sample}: it must be 0 or more")


@dataclass(frozen=True)
class AuditResult:
    """The findings of an audit.

    Attributes
    ----------
    run, collection
        What was audited.
    blocks, documents, sampled
        How many blocks, their documents, and how many of these were compared byte by byte.
    problems
        What is wrong with a block, by its number; the corpus has no block of a number that is out of range.
    path
        The audit's own record, which a backfill reads.
    input_problems
        What is wrong with the model, the shards, or records that are not of one block. Redoing blocks does not help.
    pictures_percent
        How much of the corpus has been compared byte by byte in this rotation of audits; None if the audit is of chosen
        blocks.
    pending
        Blocks whose documents do not follow the latest corrections and take-downs yet. This is no problem of the block.
    """

    run: str
    collection: str
    blocks: int
    documents: int
    sampled: int
    problems: dict[int, str]
    path: str
    input_problems: tuple[str, ...] = ()
    pictures_percent: float | None = None
    pending: tuple[int, ...] = ()

    @property
    def wrong(self) -> tuple[int, ...]:
        """The numbers of the blocks with a problem."""
        return tuple(sorted(self.problems))


def audit_run(
    request: AuditRequest, *, storage: Storage, solr: SolrClient, report: Callable[[str], None] = print
) -> AuditResult:
    """Compare a run's collection with its ledger, its scored files and its corpus, and record what differs.

    A block, a shard or a record that cannot be read is a finding; everything else is compared nevertheless.

    Raises
    ------
    BadInputError
        If neither a run nor a corpus is named, and several corpora are live.
    MissingError
        If nothing is live, or the run's collection does not exist.
    CorruptError
        If the run's record, its corpus' totals or people's words on it are damaged, or the corpus was ingested again
        from other images.
    TransientError
        If Solr or the store is not available.
    """
    run = load_run(request.run, storage) if request.run else live_run(request.alias, request.corpus, storage, solr)
    refuse_without_collection(run, solr)
    if request.blocks is not None:
        run.check_blocks(request.blocks)
    started = now()
    solr.wait_until_settled(run.collection)
    corpus = corpus_of_run(run, storage)
    check_run(run, corpus)
    refuse_another_corpus(run, corpus)
    records = read_ledger(storage, run, request.blocks)
    counts = solr.count_by_block(run.collection, request.blocks)
    broken_shards = shard_problems(corpus, shards_of(corpus, (record.block for record in records)), storage)
    sources = read_sources(storage, corpus, (record.block for record in records))
    blocks = RunBlocks(run, corpus, storage)
    pending = blocks.pending(records)
    problems = _compare_files(records, BlockCheck(blocks, sources, counts), report)
    problems |= _foreign_documents(run, corpus, counts)
    good = [record for record in records if record.block not in problems]
    first = 0 if request.is_deep or request.blocks is not None else last_position(run.name, storage)
    wanted = sum(record.kept for record in good) if request.is_deep else request.sample
    readable = [record for record in good if record.block // corpus.blocks_per_shard not in broken_shards]
    share = next_share(corpus, readable, first, wanted)
    content = ContentComparison(run, corpus, storage, solr, recomputed=share.blocks)
    differing = content.differing_blocks(good, report)
    compared = compare_share(share, corpus, PictureComparison(run, corpus, storage, solr))
    problems |= compared.problems | differing
    rotated = rotated_to(share, compared, corpus, problems, broken_shards)
    problems = problems_that_stay(
        problems,
        records,
        partial(RunBlocks, run, corpus, storage),
        partial(_compare_again, run, corpus, storage, solr, report, frozenset(compared.problems)),
    )
    if pending:
        pending = RunBlocks(run, corpus, storage).pending(read_ledger(storage, run, pending))
    inputs = [model_problem(run, storage), *broken_shards.values(), *compared.damaged.values()]
    inputs += _damaged_records(run, request.alias, storage)
    audit = Audit(
        run=run.name,
        collection=run.collection,
        blocks=len(records),
        documents=sum(counts.values()),
        sampled=compared.documents,
        problems=dict(sorted(problems.items())),
        started=started,
        ended=now(),
        input_problems=tuple(problem for problem in inputs if problem),
        pictures_to=rotated if request.blocks is None else None,
        pending=tuple(pending),
    )
    path = append_record(audit, partial(layout.audit_file, run.name), storage)
    return _result(audit, path, corpus, report)


def _compare_files(records: Sequence[BlockRecord], check: BlockCheck, report: Callable[[str], None]) -> dict[int, str]:
    """Return what is wrong with blocks, apart from what their documents say."""
    problems: dict[int, str] = {}
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for done, (record, found) in enumerate(zip(records, pool.map(check.check, records), strict=True), 1):
            if found.problem:
                problems[record.block] = found.problem
            if done % 100 == 0:
                report(f"{done:,} of {len(records):,} scored files are read, {len(problems):,} blocks differ")
    return problems


def _compare_again(
    run: Run,
    corpus: Corpus,
    storage: Storage,
    solr: SolrClient,
    report: Callable[[str], None],
    differing: Collection[int],
    records: Sequence[BlockRecord],
) -> dict[int, str]:
    """Return what is wrong with blocks now; of pictures, only with those of the blocks of which any differed."""
    numbers = [record.block for record in records]
    blocks, sources = RunBlocks(run, corpus, storage), read_sources(storage, corpus, numbers)
    problems = _compare_files(
        records, BlockCheck(blocks, sources, solr.count_by_block(run.collection, numbers)), report
    )
    good = [record for record in records if record.block not in problems]
    problems |= ContentComparison(run, corpus, storage, solr).differing_blocks(good, report)
    seen = [record for record in good if record.block in differing]
    share = next_share(corpus, seen, 0, sum(record.kept for record in seen))
    return compare_share(share, corpus, PictureComparison(run, corpus, storage, solr)).problems | problems


def _foreign_documents(run: Run, corpus: Corpus, counts: Mapping[int, int]) -> dict[int, str]:
    """Return the documents under numbers that are no block's of the corpus."""
    return {
        block: f"{count:,} documents, and corpus {corpus.name} has no such block"
        for block, count in counts.items()
        if not 0 <= block < max(run.blocks, corpus.partition.blocks)
    }


def _damaged_records(run: Run, alias: str, storage: Storage) -> list[str]:
    """Return what is wrong with records on which publishing, rolling back and scoring rely."""
    publication = partial(layout.publication_file, alias)
    kinds: list[tuple[str, type[Record]]] = [(layout.card_file(run.model), ModelCard)]
    kinds += [(publication(number), Publication) for number in record_numbers(publication, storage)]
    damaged = []
    for path, kind in kinds:
        try:
            kind.load(storage, path)
        except (MissingError, CorruptError) as error:
            damaged.append(str(error))
    return damaged


def _result(audit: Audit, path: str, corpus: Corpus, report: Callable[[str], None]) -> AuditResult:
    verdict = (
        f"blocks {format_block_numbers(audit.problems)} differ" if audit.problems else "everything is as it was scored"
    )
    report(
        f"audited {audit.blocks:,} blocks of {audit.collection}: {audit.documents:,} documents, {audit.sampled:,} of "
        f"them byte by byte; {verdict}"
    )
    percent = None
    if audit.pictures_to is not None:
        percent = 100.0 * audit.pictures_to / corpus.images if corpus.images else 100.0
        report(f"{percent:.1f} % of the corpus has been compared byte by byte in this rotation of audits")
    if audit.pending:
        report(
            f"blocks {format_block_numbers(audit.pending)} are pending: their documents do not follow the latest "
            "corrections and take-downs yet"
        )
    for problem in audit.input_problems:
        report(problem)
    return AuditResult(
        run=audit.run,
        collection=audit.collection,
        blocks=audit.blocks,
        documents=audit.documents,
        sampled=audit.sampled,
        problems=dict(audit.problems),
        path=path,
        input_problems=audit.input_problems,
        pictures_percent=percent,
        pending=audit.pending,
    )


def last_audit(run_name: str, storage: Storage) -> Audit:
    """Return the record of a run's last audit.

    Raises
    ------
    MissingError
        If there was none.
    CorruptError
        If its record is damaged.
    """
    numbers = record_numbers(partial(layout.audit_file, run_name), storage)
    if not numbers:
        raise MissingError(f"run {run_name} was never audited: run `tinytags audit {run_name}`")
    return Audit.load(storage, layout.audit_file(run_name, max(numbers)))
