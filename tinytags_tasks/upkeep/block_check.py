"""Whether one block of a run is what was committed: its scored file, its record in the ledger, and its documents."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import pyarrow as pa

from tinytags_tasks.clients.solr import SolrClient
from tinytags_tasks.errors import CorruptError, MissingError
from tinytags_tasks.store import layout
from tinytags_tasks.store.block_documents import (
    compared_fields,
    documents_checksum,
    expected_checksum,
    first_checksum,
    is_present_version,
)
from tinytags_tasks.store.block_files import CONFIDENCE_COLUMN, BlockSource, KeywordsReader, block_sources, read_scored
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.ledger import read_ledger
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.store.record import now
from tinytags_tasks.store.run_records import BlockRecord, BlockState, Run

_SCORED_FIELDS = ("model", "sha256", "read", "kept", "below", "unreadable", "kept_by_tag")
"""Fields of a block's record that the scored file has as well."""


@dataclass(frozen=True)
class BlockFindings:
    """What is wrong with a block; each part is empty if it is as it should be.

    Attributes
    ----------
    scored
        The scored file is missing, damaged, or not what the block and the model can give.
    ledger
        The record in the ledger is missing, damaged, or contradicts the scored file.
    documents
        Solr holds other documents than were scored.
    is_unfinished
        Whether the record says that the block is not verified.
    rebuilt
        The record as the scored file and Solr prove it; None if they do not.
    """

    scored: str = ""
    ledger: str = ""
    documents: str = ""
    is_unfinished: bool = False
    rebuilt: BlockRecord | None = None

    @property
    def problem(self) -> str:
        """All that is wrong, for people; empty if nothing is."""
        return "; ".join(filter(None, (self.ledger, self.scored, self.documents)))


@dataclass(frozen=True)
class BlockSources:
    """Where blocks' bytes are, as the shards' manifests say, and which manifests cannot be read.

    Attributes
    ----------
    by_block
        Sources by the block's number; none for blocks of a shard whose manifest cannot be read.
    damaged
        What is wrong with a manifest, by its path.
    """

    by_block: Mapping[int, BlockSource] = field(default_factory=dict)
    damaged: Mapping[str, str] = field(default_factory=dict)


def read_sources(storage: Storage, corpus: Corpus, blocks: Iterable[int]) -> BlockSources:
    """Look blocks up in their shards' manifests; a manifest that cannot be read does not hinder the others."""
    by_shard: dict[int, list[int]] = {}
    for block in blocks:
        by_shard.setdefault(block // corpus.blocks_per_shard, []).append(block)
    found: dict[int, BlockSource] = {}
    damaged = {}
    for shard, numbers in by_shard.items():
        try:
            found |= {source.block: source for source in block_sources(storage, corpus, numbers)}
        except (MissingError, CorruptError) as error:
            damaged[layout.shard_manifest_file(corpus.name, shard)] = str(error)
    return BlockSources(found, damaged)


@dataclass(frozen=True)
class BlockCheck:
    """Checks blocks of one run.

    Attributes
    ----------
    run, corpus
        The run and its corpus.
    sources
        Where the blocks' bytes are.
    counts
        Solr's documents in each block that has any.
    compares_documents
        Whether a block's documents are read from Solr and compared. Without it only their number is compared, and no
        record is rebuilt: an audit compares the documents of all blocks in one go.
    """

    run: Run
    corpus: Corpus
    sources: Mapping[int, BlockSource]
    counts: Mapping[int, int]
    storage: Storage
    solr: SolrClient
    compares_documents: bool = True

    def check(self, record: BlockRecord) -> BlockFindings:
        """Return what is wrong with a block.

        Parameters
        ----------
        record
            Its record, as :func:`~tinytags_tasks.store.ledger.read_ledger` returns it.
        """
        findings = BlockFindings()
        if record.state is not BlockState.VERIFIED:
            reason = f"is {record.state}, not verified" + (f" ({record.reason})" if record.reason else "")
            findings = BlockFindings(ledger=reason, is_unfinished=self._has_own_record(record.block))
        try:
            table, scored = read_scored(self.storage, self.run.name, record.block)
        except (MissingError, CorruptError) as error:
            return replace(findings, scored=str(error))
        if problem := self.scored_problem(table, scored):
            return replace(findings, scored=f"its scored file is damaged ({problem})")
        if record.state is BlockState.VERIFIED:
            if record.scored_sha256 and scored.scored_sha256 != record.scored_sha256:
                return replace(
                    findings,
                    scored=f"its scored file is not the one that was committed ({record.scored_sha256[:12]}...)",
                )
            findings = replace(findings, ledger=self._contradiction(record, scored, table))
        if problem := self._count_problem(record.block, scored.kept):
            return replace(findings, documents=problem)
        if not self.compares_documents:
            return findings
        try:
            checksum = self._expected_checksum(table, scored)
        except (MissingError, CorruptError) as error:
            return replace(findings, documents=f"cannot be compared with Solr: {error}")
        if self._checksum_in_solr(record.block) != checksum:
            return replace(findings, documents="has documents with ids or fields that differ from what was scored")
        is_readable = record.state is BlockState.VERIFIED
        return replace(
            findings,
            rebuilt=scored.replaced(
                state=BlockState.VERIFIED,
                documents=scored.kept,
                checksum=checksum,
                indexed=record.indexed if is_readable and record.indexed else now(),
                index_seconds=record.index_seconds if is_readable else 0.0,
            ),
        )

    def scored_problem(self, table: pa.Table, scored: BlockRecord) -> str:
        """Return how a scored file is not what the block and the run's model can give; empty if it may be."""
        if scored.model != self.run.model:
            return f"it was scored by {scored.model}"
        positions = table.column("position").to_pylist()
        block = self.corpus.partition.block(scored.block)
        own = range(block.first, block.first + block.images)
        counted = {tag: count for tag, count in Counter(table.column("tag").to_pylist()).items() if count}
        said = {tag: count for tag, count in scored.kept_by_tag.items() if count}
        source = self.sources.get(scored.block)
        expected: tuple[tuple[str, object, object], ...] = (
            ("read", scored.read, block.images),
            ("kept + below + unreadable", scored.kept + scored.below + scored.unreadable, scored.read),
            ("kept_by_tag", said, counted),
            ("positions", positions, sorted({position for position in positions if position in own})),
        )
        if source:
            expected += (
                ("sha256", scored.sha256, source.sha256),
                ("unreadable", scored.unreadable, len(source.unreadable)),
                ("positions of unreadable images", sorted(set(positions) & set(source.unreadable)), []),
            )
        for name, found, right in expected:
            if found != right:
                shown = "" if "positions" in name else f" {found}, and must be {right}"
                return f"wrong {name}{shown}"
        if any(confidence < self.run.threshold for confidence in table.column(CONFIDENCE_COLUMN).to_pylist()):
            return f"it has images below the threshold of {self.run.threshold} %"
        return ""

    def _has_own_record(self, block: int) -> bool:
        """Tell whether the ledger has a record of a block that can be read."""
        try:
            found = BlockRecord.load(self.storage, layout.ledger_file(self.run.name, block))
        except (MissingError, CorruptError):
            return False
        return (found.run, found.block) == (self.run.name, block)

    def _contradiction(self, record: BlockRecord, scored: BlockRecord, table: pa.Table) -> str:
        """Return the fields of a ledger's record that the scored file contradicts; empty if none is.

        A checksum of the present version covers more than the scored file: who compares the documents compares it.
        """
        pairs = [(name, getattr(record, name), getattr(scored, name)) for name in _SCORED_FIELDS]
        pairs.append(("documents", record.documents, scored.kept))
        if not is_present_version(record.checksum):
            pairs.append(("checksum", record.checksum, first_checksum(table, self.run.corpus, self.run.model)))
        elif self.compares_documents and record.block in self.sources:
            pairs.append(("checksum", record.checksum, self._expected_checksum(table, scored)))
        if record.scored_bytes:
            pairs.append(("scored_bytes", record.scored_bytes, scored.scored_bytes))
        wrong = [
            f"{name} is {_short(said)}, and must be {_short(right)}" for name, said, right in pairs if said != right
        ]
        return f"its record in the ledger is wrong: {', '.join(wrong)}" if wrong else ""

    def _count_problem(self, block: int, kept: int) -> str:
        """Return how many documents Solr has of a block if there are more or fewer than were kept; else nothing."""
        count = self.counts.get(block, 0)
        return f"has {count:,} of {kept:,} documents" if count != kept else ""

    def _expected_checksum(self, table: pa.Table, scored: BlockRecord) -> str:
        """Return the checksum that a block's documents must have.

        Raises
        ------
        MissingError, CorruptError
            If the shard's manifest or keywords cannot be read.
        """
        source = self.sources.get(scored.block)
        if source is None:
            (source,) = block_sources(self.storage, self.corpus, [scored.block])  # says what is wrong with the manifest
        keywords = KeywordsReader(self.storage).read(source)
        fields = self.solr.field_names(self.run.collection)
        return expected_checksum(table, source, scored.model, keywords, fields)

    def _checksum_in_solr(self, block: int) -> str:
        fields = compared_fields(self.solr.field_names(self.run.collection))
        return documents_checksum(self.solr.export(self.solr.export_cores(self.run.collection), fields, block=block))


def damaged_scored_file(check: BlockCheck, block: int) -> str:
    """Return how a block's scored file is not what was committed; empty if it is, or does not exist."""
    (record,) = read_ledger(check.storage, check.run, [block])
    try:
        table, scored = read_scored(check.storage, check.run.name, block)
    except MissingError:
        return ""
    except CorruptError as error:
        return str(error)
    if record.scored_sha256 and scored.scored_sha256 != record.scored_sha256:
        return "it is not the file that was committed"
    return check.scored_problem(table, scored)


def _short(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{tag} {count}" for tag, count in value.items()) or "empty"
    return (f"{value[:12]}..." if len(value) > 40 else value or "empty") if isinstance(value, str) else str(value)
