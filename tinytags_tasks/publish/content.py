"""Comparing content: whether Solr holds now, block by block, exactly the documents that it must.

These are what was scored, corrected by people's words up to the number in the block's record in the ledger.

Documents are read by ranges of positions, several at once, and hashed in order: memory does not grow with the run.
"""

import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from tinytags_tasks.blocks import Partition
from tinytags_tasks.clients.solr import EXPORT_POSITIONS, SolrClient
from tinytags_tasks.clients.solr_http import CONNECTIONS
from tinytags_tasks.errors import CorruptError, MissingError
from tinytags_tasks.prefetch import in_order
from tinytags_tasks.store.block_documents import (
    DocumentsHash,
    compared_fields,
    documents_checksum,
    expected_checksum,
    first_checksum,
    is_present_version,
)
from tinytags_tasks.store.block_files import KeywordsReader, block_sources, read_scored
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.store.run_blocks import RunBlocks
from tinytags_tasks.store.run_records import BlockRecord, Run

_AHEAD = CONNECTIONS + 1
"""Ranges of positions that are read or wait to be hashed."""

_DIFFERENT = "has documents with ids or fields that differ from what was scored"
_REPORT_SECONDS = 10.0


@dataclass(frozen=True)
class _Part:
    """Positions of one block, from ``first`` to before ``stop``; ``is_last`` if the block has none after these."""

    record: BlockRecord
    first: int
    stop: int
    is_last: bool

    @property
    def documents(self) -> int:
        """How many documents there are at most."""
        return min(self.record.kept, self.stop - self.first)


@dataclass
class ContentComparison:
    """Compares the documents of one run's blocks with what was scored.

    Attributes
    ----------
    run, corpus
        The run and its corpus.
    storage, solr
        Where scored files, manifests and keywords are, and where the documents are.
    recomputed
        Blocks whose expected checksum is computed from the files, even if the ledger has one.
    """

    run: Run
    corpus: Corpus
    storage: Storage
    solr: SolrClient
    recomputed: frozenset[int] = frozenset()
    _fields: frozenset[str] = field(init=False)
    _keywords: KeywordsReader = field(init=False)
    _blocks: RunBlocks = field(init=False)

    def __post_init__(self) -> None:
        """Ask Solr for the collection's fields."""
        self._fields = self.solr.field_names(self.run.collection)
        self._keywords = KeywordsReader(self.storage)
        self._blocks = RunBlocks(self.run, self.corpus, self.storage)

    def differing_blocks(self, records: Sequence[BlockRecord], report: Callable[[str], None]) -> dict[int, str]:
        """Return the blocks whose documents are not what was scored, and how they differ.

        Documents at positions, or of blocks, that the corpus does not have are left to the counts.

        Raises
        ------
        TransientError
            If Solr or the store is unavailable.
        """
        cores, fields = self.solr.export_cores(self.run.collection), compared_fields(self._fields)
        progress = _Progress(sum(record.kept for record in records), report)
        blocks = self.corpus.partition.blocks
        hashes: dict[int, DocumentsHash] = {}
        problems: dict[int, str] = {}

        def read(parts: list[_Part]) -> tuple[list[_Part], list[dict[str, Any]]]:
            found = self.solr.export(cores, fields, first=parts[0].first, last=parts[-1].stop - 1)
            return parts, [document for document in found if 0 <= document["block"] < blocks]

        for parts, documents in in_order(
            read, _together(_parts(self.corpus.partition, records)), threads=CONNECTIONS, ahead=_AHEAD
        ):
            at = 0
            for part in parts:
                end = len(documents) if part is parts[-1] else bisect_left(documents, part.stop, at, key=_position)
                hashes.setdefault(part.record.block, DocumentsHash()).add(documents[at:end])
                at = end
                if part.is_last:
                    problem = self._problem(part.record, hashes.pop(part.record.block).checksum())
                    if problem:
                        problems[part.record.block] = problem
            progress.add(len(documents))
        return problems

    def _problem(self, record: BlockRecord, found: str) -> str:
        """Return how a block's documents differ; empty if they do not."""
        is_trusted = is_present_version(record.checksum) and record.block not in self.recomputed
        if is_trusted and found == record.checksum:
            return ""
        try:
            table, scored = read_scored(self.storage, self.run.name, record.block)
            (source,) = block_sources(self.storage, self.corpus, [record.block])
            table = self._blocks.correct(table, scored, upto=record.corrections, source=source).table
            expected = expected_checksum(table, source, scored.model, self._keywords.read(source), self._fields)
        except (MissingError, CorruptError) as error:
            return f"cannot be compared with Solr: {error}"
        if found != expected:
            return _DIFFERENT
        if record.checksum != expected and record.checksum != first_checksum(table, self.run.corpus, scored.model):
            return "has documents as they were scored, but another checksum in the ledger"
        return ""


def compare_with_ledger(run: Run, records: Sequence[BlockRecord], solr: SolrClient) -> dict[int, str]:
    """Return the blocks whose documents do not have the checksum in the ledger, if that is of the present version.

    This needs no corpus: each block's documents are read by the block's number.
    """
    cores, fields = solr.export_cores(run.collection), compared_fields(solr.field_names(run.collection))

    def differs(record: BlockRecord) -> bool:
        return documents_checksum(solr.export(cores, fields, block=record.block)) != record.checksum

    comparable = [record for record in records if is_present_version(record.checksum)]
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        return {
            record.block: _DIFFERENT
            for record, is_other in zip(comparable, pool.map(differs, comparable), strict=True)
            if is_other
        }


def _position(document: Mapping[str, Any]) -> int:
    position: int = document["position"]
    return position


def _parts(partition: Partition, records: Sequence[BlockRecord]) -> Iterator[_Part]:
    """Cut blocks into parts that are small enough to be read at once."""
    for record in records:
        block = partition.block(record.block)
        end = block.first + block.images
        for first in range(block.first, max(end, block.first + 1), EXPORT_POSITIONS):
            stop = min(first + EXPORT_POSITIONS, end)
            yield _Part(record, first, stop, stop == end)


def _together(parts: Iterable[_Part]) -> Iterator[list[_Part]]:
    """Put adjoining parts together that are small enough to be read at once."""
    pending: list[_Part] = []
    documents = 0
    for part in parts:
        if pending and (part.first != pending[-1].stop or documents + part.documents > EXPORT_POSITIONS):
            yield pending
            pending, documents = [], 0
        pending.append(part)
        documents += part.documents
    if pending:
        yield pending


class _Progress:
    """Reports every few seconds how much is compared, and the time left."""

    def __init__(self, documents: int, report: Callable[[str], None]) -> None:
        self._documents = documents
        self._report = report
        self._started = self._reported = time.monotonic()
        self._compared = 0

    def add(self, documents: int) -> None:
        """Count documents that were compared."""
        self._compared += documents
        time_now = time.monotonic()
        if time_now - self._reported < _REPORT_SECONDS:
            return
        self._reported = time_now
        seconds_left = (time_now - self._started) * max(self._documents - self._compared, 0) / max(self._compared, 1)
        self._report(
            f"compared {self._compared:,} of {self._documents:,} documents with what was scored; about "
            f"{seconds_left:,.0f} s left"
        )
