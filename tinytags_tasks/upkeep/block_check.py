"""Whether one block of a run is what was committed: its scored file, its record in the ledger, its documents' number.

What the documents say is compared by :mod:`tinytags_tasks.publish.content`.
"""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from tinytags_tasks.errors import CorruptError, MissingError
from tinytags_tasks.store import layout
from tinytags_tasks.store.block_files import (
    CONFIDENCE_COLUMN,
    BlockSource,
    block_sources,
    none_bits,
    read_scored,
)
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.ledger import contradiction, read_ledger
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.store.run_blocks import RunBlocks, applied_to
from tinytags_tasks.store.run_records import BlockRecord, BlockState, Run


@dataclass(frozen=True)
class BlockFindings:
    """What is wrong with a block; each part is empty if it is as it should be.

    Attributes
    ----------
    scored
        The scored file is missing, damaged, or not what the block and the model can give.
    ledger
        The record in the ledger is missing, damaged, or contradicts the scored file and people's words.
    documents
        Solr holds another number of documents than it must.
    is_unfinished
        Whether the record says that the block is not verified.
    """

    scored: str = ""
    ledger: str = ""
    documents: str = ""
    is_unfinished: bool = False

    @property
    def problem(self) -> str:
        """All that is wrong, for people; empty if nothing is."""
        return "; ".join(filter(None, (self.ledger, self.scored, self.documents)))


def read_sources(storage: Storage, corpus: Corpus, blocks: Iterable[int]) -> dict[int, BlockSource]:
    """Look blocks up in their shards' manifests; those of a manifest that cannot be read are left out."""
    by_shard: dict[int, list[int]] = {}
    for block in blocks:
        by_shard.setdefault(block // corpus.blocks_per_shard, []).append(block)
    found: dict[int, BlockSource] = {}
    for numbers in by_shard.values():
        with suppress(MissingError, CorruptError):  # whoever checks the shards names it
            found |= {source.block: source for source in block_sources(storage, corpus, numbers)}
    return found


@dataclass(frozen=True)
class BlockCheck:
    """Checks blocks of one run.

    Attributes
    ----------
    blocks
        Reads the run's blocks.
    sources
        Where the blocks' bytes are.
    counts
        Solr's documents in each block that has any.
    """

    blocks: RunBlocks
    sources: Mapping[int, BlockSource]
    counts: Mapping[int, int]

    @property
    def run(self) -> Run:
        """The run."""
        return self.blocks.run

    @property
    def storage(self) -> Storage:
        """The store."""
        return self.blocks.storage

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
        is_verified = record.state is BlockState.VERIFIED
        if is_verified and record.scored_sha256 and scored.scored_sha256 != record.scored_sha256:
            return replace(
                findings, scored=f"its scored file is not the one that was committed ({record.scored_sha256[:12]}...)"
            )
        try:
            source = self.sources.get(record.block)
            expected = self.blocks.correct(table, scored, upto=applied_to(record), source=source).record
        except (MissingError, CorruptError) as error:
            return replace(findings, scored=f"it cannot be corrected: {error}")
        if is_verified:
            wrong = contradiction(record, expected)
            findings = replace(findings, ledger=f"its record in the ledger is wrong: {wrong}" if wrong else "")
        count = self.counts.get(record.block, 0)
        if count != expected.kept:
            findings = replace(findings, documents=f"has {count:,} of {expected.kept:,} documents")
        return findings

    def scored_problem(self, table: pa.Table, scored: BlockRecord) -> str:
        """Return how a scored file is not what the block and the run's model can give; empty if it may be."""
        if scored.model != self.run.model:
            return f"it was scored by {scored.model}"
        positions = table.column("position").to_numpy()
        block = self.blocks.corpus.partition.block(scored.block)
        is_in_order = bool((np.diff(positions) > 0).all())
        is_own = bool(((positions >= block.first) & (positions < block.first + block.images)).all())
        counted = {each["values"]: each["counts"] for each in table.column("tag").value_counts().to_pylist()}
        said = {tag: count for tag, count in scored.kept_by_tag.items() if count}
        source = self.sources.get(scored.block)
        expected: tuple[tuple[str, object, object], ...] = (
            ("read", scored.read, block.images),
            ("kept + below + none + unreadable", scored.accounted, scored.read),
            ("kept_by_tag", said, counted),
            ("positions", is_in_order and is_own, True),
        )
        if source:
            expected += (
                ("sha256", scored.sha256, source.sha256),
                ("unreadable", scored.unreadable, len(source.unreadable)),
                ("positions of unreadable images", bool(np.isin(source.unreadable, positions).any()), False),
            )
        for name, found, right in expected:
            if found != right:
                shown = "" if "positions" in name else f" {found}, and must be {right}"
                return f"wrong {name}{shown}"
        try:
            none = none_bits(table, scored, block.images)
        except CorruptError:
            return "wrong marks of none"
        if none is not None and none[positions - block.first].any():
            return "wrong marks of none"
        if not (table.column(CONFIDENCE_COLUMN).to_numpy() >= self.run.threshold).all():
            return f"it has images below the threshold of {self.run.threshold} %"
        return ""

    def _has_own_record(self, block: int) -> bool:
        """Tell whether the ledger has a record of a block that can be read."""
        try:
            found = BlockRecord.load(self.storage, layout.ledger_file(self.run.name, block))
        except (MissingError, CorruptError):
            return False
        return (found.run, found.block) == (self.run.name, block)


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
