"""Auditing a run: every block's files and documents against what was committed, a sample of them byte by byte."""

import base64
import bisect
import itertools
import random
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from tinytags_tasks.blocks import format_block_numbers
from tinytags_tasks.clients.solr import SolrClient
from tinytags_tasks.errors import BadInputError, CorruptError, MissingError
from tinytags_tasks.publish.publications import live_run, refuse_without_collection
from tinytags_tasks.store import layout
from tinytags_tasks.store.block_files import read_scored
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.ledger import read_ledger
from tinytags_tasks.store.model_records import ModelCard
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.store.record import Record, now
from tinytags_tasks.store.record_series import append_record, record_numbers
from tinytags_tasks.store.run_identity import check_run, load_run
from tinytags_tasks.store.run_records import Audit, BlockRecord, Publication, Run
from tinytags_tasks.upkeep.block_check import BlockCheck, read_sources

_AT_ONCE = 2
"""Blocks whose documents are read at once."""

_IDS_AT_ONCE = 200


@dataclass(frozen=True)
class AuditRequest:
    """What is audited.

    Attributes
    ----------
    run
        The run; if empty, the one that is live under ``alias``.
    alias
        The alias that readers search.
    sample
        How many documents are compared byte by byte with their shard.
    blocks
        Only these blocks; None means all.
    """

    run: str = ""
    alias: str = "tinytags"
    sample: int = 1_000
    blocks: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        """Refuse a negative sample.

        Raises
        ------
        BadInputError
            If it is negative.
        """
        if self.sample < 0:
            raise BadInputError(f"--sample is {self.sample}: it must be 0 or more")


@dataclass(frozen=True)
class AuditResult:
    """What was found.

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
        What is wrong with records that are not of one block, such as a shard's manifest. Redoing blocks does not help.
    """

    run: str
    collection: str
    blocks: int
    documents: int
    sampled: int
    problems: dict[int, str]
    path: str
    input_problems: tuple[str, ...] = ()

    @property
    def wrong(self) -> tuple[int, ...]:
        """The numbers of the blocks with a problem."""
        return tuple(sorted(self.problems))


def audit_run(
    request: AuditRequest, *, storage: Storage, solr: SolrClient, report: Callable[[str], None] = print
) -> AuditResult:
    """Compare a run's collection with its ledger, its scored files and its corpus, and record what differs.

    A block, or a shard's manifest, that cannot be read is a finding; the others are compared nevertheless.

    Raises
    ------
    MissingError
        If nothing is live, or the run's collection does not exist.
    CorruptError
        If the run's record or its corpus' totals are damaged.
    TransientError
        If Solr or the store is not available.
    """
    run = load_run(request.run, storage) if request.run else live_run(request.alias, storage, solr)
    refuse_without_collection(run, solr)
    if request.blocks is not None:
        run.check_blocks(request.blocks)
    started = now()
    solr.wait_until_settled(run.collection)
    corpus = Corpus.load(storage, layout.corpus_file(run.corpus))
    check_run(run, corpus)
    records = read_ledger(storage, run, request.blocks)
    counts = solr.count_by_block(run.collection, request.blocks)
    sources = read_sources(storage, corpus, (record.block for record in records))
    check = BlockCheck(run, corpus, sources.by_block, counts, storage, solr)
    problems = _compare_blocks(records, check, report) | _foreign_documents(run, corpus, counts)
    sampled, differing = _Sample(run, corpus, storage, solr).compare(
        [record for record in records if record.block not in problems and record.kept], request.sample
    )
    problems |= differing
    audit = Audit(
        run=run.name,
        collection=run.collection,
        blocks=len(records),
        documents=sum(counts.values()),
        sampled=sampled,
        problems=dict(sorted(problems.items())),
        started=started,
        ended=now(),
        input_problems=(*sources.damaged.values(), *_damaged_records(run, request.alias, storage)),
    )
    path = append_record(audit, partial(layout.audit_file, run.name), storage)
    report(
        f"audited {len(records):,} blocks of {run.collection}: {audit.documents:,} documents, {sampled:,} of them "
        f"byte by byte; {_verdict(audit)}"
    )
    return AuditResult(
        run.name,
        run.collection,
        audit.blocks,
        audit.documents,
        sampled,
        dict(audit.problems),
        path,
        audit.input_problems,
    )


def _compare_blocks(records: Sequence[BlockRecord], check: BlockCheck, report: Callable[[str], None]) -> dict[int, str]:
    """Return what is wrong with blocks, by their numbers."""
    problems: dict[int, str] = {}
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for done, (record, found) in enumerate(zip(records, pool.map(check.check, records), strict=True), 1):
            if found.problem:
                problems[record.block] = found.problem
            if done % 100 == 0:
                report(f"compared {done:,} of {len(records):,} blocks, {len(problems):,} of them differ")
    return problems


def _damaged_records(run: Run, alias: str, storage: Storage) -> list[str]:
    """Return what is wrong with records on which publishing, rolling back and ingesting again rely."""
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


def _foreign_documents(run: Run, corpus: Corpus, counts: Mapping[int, int]) -> dict[int, str]:
    """Return the documents under numbers that are no block's of the corpus."""
    return {
        block: f"{count:,} documents, and corpus {corpus.name} has no such block"
        for block, count in counts.items()
        if not 0 <= block < max(run.blocks, corpus.partition.blocks)
    }


def _verdict(audit: Audit) -> str:
    parts = [f"blocks {format_block_numbers(audit.problems)} differ"] if audit.problems else []
    if audit.input_problems:
        parts.append(f"{len(audit.input_problems):,} records are damaged")
    return " and ".join(parts) or "everything is as it was scored"


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


@dataclass(frozen=True)
class _Sample:
    """Compares a sample of documents with their shards."""

    run: Run
    corpus: Corpus
    storage: Storage
    solr: SolrClient

    def compare(self, records: Sequence[BlockRecord], sample: int) -> tuple[int, dict[int, str]]:
        """Compare documents that are drawn evenly from all blocks; return how many, and the blocks that differ."""
        ends = list(itertools.accumulate(record.kept for record in records))
        total = ends[-1] if ends else 0
        drawn: dict[int, list[int]] = {}
        for row in sorted(random.sample(range(total), min(sample, total))):  # others each time
            which = bisect.bisect_right(ends, row)
            drawn.setdefault(records[which].block, []).append(row - ends[which])  # from the block's end, so negative
        problems = {}
        for block, rows in drawn.items():
            try:
                table, _ = read_scored(self.storage, self.run.name, block)
                positions = table.column("position").to_pylist()
                problem = self._compare_images([positions[row] for row in rows])
            except (MissingError, CorruptError) as error:  # of this block; the others are compared nevertheless
                problem = str(error)
            if problem:
                problems[block] = problem
        return sum(map(len, drawn.values())), problems

    def _compare_images(self, positions: Sequence[int]) -> str:
        if self.run.thumbnails == "store":  # the page reads the shard itself
            return ""
        ids = [layout.document_id(self.run.corpus, position) for position in positions]
        for start in range(0, len(ids), _IDS_AT_ONCE):
            found = self.solr.images_by_id(self.run.collection, ids[start : start + _IDS_AT_ONCE])
            for position, name in list(zip(positions, ids, strict=True))[start : start + _IDS_AT_ONCE]:
                if found.get(name) is None or base64.b64decode(found[name]) != self._stored(position):
                    return f"document {name} has other bytes than the shard"
        return ""

    def _stored(self, position: int) -> bytes:
        shard, offset = divmod(position, self.corpus.shard_images)
        size = self.corpus.image_bytes
        return self.storage.read(layout.shard_file(self.corpus.name, shard), offset * size, size)
