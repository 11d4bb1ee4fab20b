"""Auditing what stands in Solr: every block's documents against what was scored, and a sample of them byte by byte."""

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
from tinytags_tasks.store.block_files import documents_checksum, read_scored, scored_checksum
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.ledger import read_ledger
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.store.record import now
from tinytags_tasks.store.record_series import append_record, record_numbers
from tinytags_tasks.store.run_records import Audit, BlockRecord, BlockState, Run

_AT_ONCE = 2
"""Blocks whose documents are read at once."""

_IDS_AT_ONCE = 200


@dataclass(frozen=True)
class AuditRequest:
    """What is looked at.

    Attributes
    ----------
    run
        The run; empty means what is live under ``alias``.
    alias
        What readers search.
    sample
        How many documents are compared byte by byte with their shard.
    blocks
        Only these; None means all.
    """

    run: str = ""
    alias: str = "tinytags"
    sample: int = 1_000
    blocks: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        """Refuse a number below zero.

        Raises
        ------
        BadInputError
            When it is.
        """
        if self.sample < 0:
            raise BadInputError(f"--sample is {self.sample}: it must be 0 or more")


@dataclass(frozen=True)
class AuditResult:
    """What was found.

    Attributes
    ----------
    run, collection
        What was looked at.
    blocks, documents, sampled
        How many blocks, their documents, and how many of these were compared byte by byte.
    problems
        What is wrong with a block, by its number; a number that the run has not is of documents without a block.
    path
        Where this was written down, for a backfill to take.
    """

    run: str
    collection: str
    blocks: int
    documents: int
    sampled: int
    problems: dict[int, str]
    path: str

    @property
    def wrong(self) -> tuple[int, ...]:
        """The numbers of the blocks with a problem."""
        return tuple(sorted(self.problems))


def audit_run(
    request: AuditRequest, *, storage: Storage, solr: SolrClient, report: Callable[[str], None] = print
) -> AuditResult:
    """Compare a run's collection with its ledger, its scored files and its corpus, and write down what differs.

    Raises
    ------
    MissingError
        When nothing is live, or the run's collection is not there.
    TransientError
        When Solr or the store cannot do their part now.
    """
    run = Run.load(storage, layout.run_file(request.run)) if request.run else live_run(request.alias, storage, solr)
    refuse_without_collection(run, solr)
    if request.blocks is not None:
        run.check_blocks(request.blocks)
    started = now()
    solr.wait_until_settled(run.collection)
    corpus = Corpus.load(storage, layout.corpus_file(run.corpus))
    records = read_ledger(storage, run, request.blocks)
    counts = solr.count_by_block(run.collection, request.blocks)
    look = _Look(run, corpus, counts, storage, solr)
    problems: dict[int, str] = {}
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for done, (record, problem) in enumerate(zip(records, pool.map(look.at_block, records), strict=True), 1):
            if problem:
                problems[record.block] = problem
            if done % 100 == 0:
                report(f"{done:,} of {len(records):,} blocks are compared, {len(problems):,} of them differ")
    problems |= {
        block: f"{count:,} documents, and run {run.name} has no such block"
        for block, count in counts.items()
        if not 0 <= block < run.blocks
    }
    good = [record for record in records if record.block not in problems and record.kept]
    sampled, differing = look.at_sample(good, request.sample)
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
    )
    path = append_record(audit, partial(layout.audit_file, run.name), storage)
    verdict = f"blocks {format_block_numbers(problems)} differ" if problems else "all is as it was scored"
    report(
        f"audited {len(records):,} blocks of {run.collection}: {audit.documents:,} documents, {sampled:,} of them "
        f"byte by byte; {verdict}"
    )
    return AuditResult(run.name, run.collection, audit.blocks, audit.documents, sampled, dict(audit.problems), path)


def last_audit(run_name: str, storage: Storage) -> Audit:
    """Return what the last audit of a run found.

    Raises
    ------
    MissingError
        When there was none.
    """
    numbers = record_numbers(partial(layout.audit_file, run_name), storage)
    if not numbers:
        raise MissingError(f"run {run_name} was never audited: run `tinytags audit {run_name}`")
    return Audit.load(storage, layout.audit_file(run_name, max(numbers)))


@dataclass(frozen=True)
class _Look:
    """Looks at blocks of one run."""

    run: Run
    corpus: Corpus
    counts: Mapping[int, int]
    storage: Storage
    solr: SolrClient

    def at_block(self, record: BlockRecord) -> str:
        """Return what is wrong with a block; empty when nothing is."""
        if record.state is not BlockState.VERIFIED:
            return f"is {record.state}, not verified" + (f" ({record.reason})" if record.reason else "")
        try:
            table, scored = read_scored(self.storage, self.run.name, record.block)
        except (MissingError, CorruptError) as error:
            return str(error)
        if record.scored_sha256 and scored.scored_sha256 != record.scored_sha256:
            return f"its scored file is not the one that was committed ({record.scored_sha256[:12]}...)"
        if scored.kept != record.kept:
            return f"the ledger says that {record.kept:,} images were kept, the scored file {scored.kept:,}"
        if scored.model != self.run.model:
            return f"was scored by {scored.model}"
        if self.counts.get(record.block, 0) != record.kept:
            return f"has {self.counts.get(record.block, 0):,} of {record.kept:,} documents"
        expected = scored_checksum(table, self.run.corpus, self.run.model)
        if documents_checksum(self.solr.rows_of_block(self.run.collection, record.block)) != expected:
            return "has documents with other ids, tags, votes or accuracies than were scored"
        return ""

    def at_sample(self, records: Sequence[BlockRecord], sample: int) -> tuple[int, dict[int, str]]:
        """Compare documents that are drawn from all blocks alike; return how many, and the blocks that differ."""
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
                problem = self._at_images([positions[row] for row in rows])
            except (MissingError, CorruptError) as error:  # of this block; the others are compared nevertheless
                problem = str(error)
            if problem:
                problems[block] = problem
        return sum(map(len, drawn.values())), problems

    def _at_images(self, positions: Sequence[int]) -> str:
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
