"""The indexing step: scored blocks in, verified documents in the run's collection out."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tinytags_tasks import layout
from tinytags_tasks.ahead import run_ahead
from tinytags_tasks.block_files import (
    BlockSource,
    KeywordsReader,
    block_sources,
    documents_checksum,
    read_pixels,
    read_scored,
    scored_checksum,
)
from tinytags_tasks.block_lease import HeldBlocks, hold_blocks, is_held, refuse_lost
from tinytags_tasks.blocks import format_block_numbers
from tinytags_tasks.errors import CorruptError, FinalError, MissingError, TransientError
from tinytags_tasks.index.documents import document_bodies
from tinytags_tasks.index.javabin import MIME
from tinytags_tasks.lease import LEASE_SECONDS
from tinytags_tasks.ledger import read_ledger
from tinytags_tasks.records import BlockRecord, BlockState, Corpus, Run, now
from tinytags_tasks.settings import PROJECT_ROOT
from tinytags_tasks.solr import CONNECTIONS, SolrClient
from tinytags_tasks.storage import Storage

CONFIGSET_FOLDER = PROJECT_ROOT / "solr" / "tinytags" / "conf"

_AT_ONCE = 8
"""Small files that are written at once."""


@dataclass(frozen=True)
class IndexRequest:
    """Which blocks of which run; ``redo`` indexes those again that are verified."""

    run: str
    blocks: tuple[int, ...]
    redo: bool = False


@dataclass(frozen=True)
class IndexResult:
    """What stands now; ``indexed`` counts the blocks that were not verified before."""

    run: str
    blocks: tuple[int, ...]
    documents: int
    indexed: int


@dataclass(frozen=True)
class DeleteRequest:
    """Which blocks of which run shall have no documents."""

    run: str
    blocks: tuple[int, ...]


@dataclass(frozen=True)
class DeleteResult:
    """What was deleted."""

    run: str
    blocks: tuple[int, ...]
    documents: int


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
    request: IndexRequest,
    *,
    storage: Storage,
    solr: SolrClient,
    report: Callable[[str], None] = print,
    lease_seconds: float = LEASE_SECONDS,
) -> IndexResult:
    """Let the collection hold exactly the scored images of these blocks, and verify it by a checksum of each block.

    Ids are deterministic, so indexing again overwrites; what stands under a block and is not of its scored file is
    deleted by id. Nothing is visible before one commit for all blocks. A block that another writer holds is left to it,
    and looked at again when the others are done.

    Raises
    ------
    BadInputError
        When the run has no such block.
    MissingError
        When a block is not scored, or the run's collection was pruned.
    TransientError
        When Solr or HDFS cannot do their part now, or the documents are not what they must be.
    """
    plan = Run.load(storage, layout.run_file(request.run))
    plan.check_blocks(request.blocks)
    plan.refuse_pruned()
    _wait_until_settled(plan, solr)
    open_blocks = list(request.blocks)
    if not request.redo:
        open_blocks = _unverified(plan, request.blocks, storage, solr)
        report(f"{len(request.blocks) - len(open_blocks)} of {len(request.blocks)} blocks are verified")
    indexed = 0
    for held in hold_blocks(plan.name, open_blocks, storage=storage, report=report, lease_seconds=lease_seconds):
        # Another writer may have been here while it was waited for.
        blocks = held.blocks if request.redo else _unverified(plan, held.blocks, storage, solr)
        if blocks:
            _index(plan, replace(held, blocks=blocks), storage, solr, report)
            indexed += len(blocks)
    documents = sum(record.kept for record in read_ledger(storage, plan, request.blocks))
    report(f"{documents:,} documents of {len(request.blocks)} blocks are in {plan.collection}")
    return IndexResult(plan.name, request.blocks, documents, indexed)


def delete(
    request: DeleteRequest,
    *,
    storage: Storage,
    solr: SolrClient,
    report: Callable[[str], None] = print,
    lease_seconds: float = LEASE_SECONDS,
) -> DeleteResult:
    """Delete all documents of these blocks, one block at a time; their scored files stay.

    Raises
    ------
    BadInputError
        When the run has no such block.
    MissingError
        When the run's collection was pruned.
    TransientError
        When Solr or HDFS cannot do their part now.
    """
    plan = Run.load(storage, layout.run_file(request.run))
    plan.check_blocks(request.blocks)
    plan.refuse_pruned()
    _wait_until_settled(plan, solr)
    before = solr.count_by_block(plan.collection, request.blocks)
    for held in hold_blocks(plan.name, request.blocks, storage=storage, report=report, lease_seconds=lease_seconds):
        for record in read_ledger(storage, plan, held.blocks):
            if record.state in (BlockState.INDEXED, BlockState.VERIFIED):  # the ledger never promises what is going
                record = record.replaced(state=BlockState.SCORED, documents=None, checksum="", indexed="")
                record.save(storage, layout.ledger_file(plan.name, record.block))
            solr.delete_block(plan.collection, record.block)
        solr.commit(plan.collection)
        if left := solr.count_by_block(plan.collection, held.blocks):
            raise TransientError(
                f"run {plan.name}: blocks {format_block_numbers(left)} still have {sum(left.values()):,} documents in "
                f"{plan.collection} after they were deleted; delete them again"
            )
    report(f"{sum(before.values()):,} documents of blocks {format_block_numbers(request.blocks)} are deleted")
    return DeleteResult(plan.name, request.blocks, sum(before.values()))


def _wait_until_settled(plan: Run, solr: SolrClient) -> None:
    try:
        solr.wait_until_settled(plan.collection)
    except MissingError as error:
        raise _without_collection(plan) from error


def _without_collection(plan: Run) -> MissingError:
    return MissingError(
        f"run {plan.name}: its collection {plan.collection} is not in Solr; index the whole run with "
        f"`tinytags index {plan.name}`"
    )


def _unverified(plan: Run, blocks: Sequence[int], storage: Storage, solr: SolrClient) -> list[int]:
    counts = solr.count_by_block(plan.collection, blocks)
    return [
        record.block
        for record in read_ledger(storage, plan, blocks)
        if record.state is not BlockState.VERIFIED or record.kept != counts.get(record.block, 0)
    ]


def _index(plan: Run, held: HeldBlocks, storage: Storage, solr: SolrClient, report: Callable[[str], None]) -> None:
    """Post blocks, commit once, and verify each."""
    storage.delete_leftovers(*(layout.ledger_file(plan.name, block) for block in held.blocks))
    corpus = Corpus.load(storage, layout.corpus_file(plan.corpus))
    records, failures = _post_blocks(plan, block_sources(storage, corpus, held.blocks), storage, solr, report)
    solr.commit(plan.collection)
    wrong = _differing(plan, records, solr)
    if wrong:
        _delete_strangers(plan, wrong, storage, solr)
        wrong = _differing(plan, {block: records[block] for block in wrong}, solr)
    verified = [
        record.replaced(state=BlockState.VERIFIED, documents=record.kept)
        for block, record in records.items()
        if block not in wrong
    ]

    def save(record: BlockRecord) -> None:
        refuse_lost(storage, plan.name, record.block, held.writer)
        record.save(storage, layout.ledger_file(plan.name, record.block))

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(save, verified))
    if failures:
        _raise_failures(plan, failures, held, storage)
    if wrong:
        raise TransientError(
            f"run {plan.name}: in Solr, "
            + "; ".join(f"block {block} {problem}" for block, problem in list(wrong.items())[:5])
            + f" after indexing blocks {format_block_numbers(wrong)}; index them again"
        )


def _raise_failures(plan: Run, failures: Mapping[int, FinalError], held: HeldBlocks, storage: Storage) -> None:
    """Write down why blocks cannot be indexed, and raise it as one error."""
    for record in read_ledger(storage, plan, failures):
        if record.state is not BlockState.PLANNED and is_held(storage, plan.name, record.block, held.writer):
            record.replaced(state=BlockState.FAILED, reason=str(failures[record.block])).save(
                storage, layout.ledger_file(plan.name, record.block)
            )
    first = next(iter(failures.values()))
    if len(failures) == 1:
        raise first
    raise type(first)(
        f"run {plan.name}: indexing failed for blocks {format_block_numbers(failures)}: "
        + "; ".join(str(error) for error in list(failures.values())[:3])
    ) from first


@dataclass(frozen=True, eq=False)
class _Contents:
    """All that a block's documents are made of."""

    source: BlockSource
    table: pa.Table
    scored: BlockRecord
    pixels: npt.NDArray[np.uint8] | None
    keywords: list[str | None] | None


def _read_blocks(
    plan: Run, sources: Iterable[BlockSource], storage: Storage
) -> Iterator[_Contents | tuple[int, FinalError]]:
    """Yield each block's contents, or why it has none that can be indexed."""
    keywords = KeywordsReader(storage)
    for source in sources:
        try:
            yield _read_block(plan, source, keywords, storage)
        except FinalError as error:
            yield source.block, error


def _read_block(plan: Run, source: BlockSource, keywords: KeywordsReader, storage: Storage) -> _Contents:
    path = layout.scored_file(plan.name, source.block)
    again = f"tinytags score {plan.name} --blocks {source.block}"
    try:
        table, scored = read_scored(storage, plan.name, source.block)
    except MissingError as error:
        raise MissingError(f"run {plan.name}: block {source.block} is not scored; run `{again}` first") from error
    if scored.model != plan.model:
        raise CorruptError(f"{path}: was scored by {scored.model}, the run is of {plan.model}; run `{again} --redo`")
    if scored.sha256 != source.sha256:
        raise CorruptError(
            f"run {plan.name}: block {source.block} was scored on other bytes than the shard holds; run `{again} "
            f"--redo`, which writes {path} anew"
        )
    pixels = read_pixels(storage, source) if plan.thumbnails == "solr" else None
    return _Contents(source, table, scored, pixels, keywords.read(source))


def _post_blocks(
    plan: Run, sources: Iterable[BlockSource], storage: Storage, solr: SolrClient, report: Callable[[str], None]
) -> tuple[dict[int, BlockRecord], dict[int, FinalError]]:
    """Post blocks one after another; return the records of those that are acknowledged, and why others are not.

    While one block's last bodies are on their way, the next one's follow: Solr never waits for a block to end.
    """
    records: dict[int, BlockRecord] = {}
    failures: dict[int, FinalError] = {}

    def finish(found: _Contents, started: float, answers: list[Future[dict[str, Any]]]) -> None:
        try:
            for answer in answers:
                answer.result()
        except MissingError as error:  # no block's fault
            raise _without_collection(plan) from error
        except FinalError as error:  # the others of the group go on
            failure = type(error)(f"run {plan.name}: Solr refuses a document of block {found.source.block}: {error}")
            failure.__cause__ = error
            failures[found.source.block] = failure
            return
        record = found.scored.replaced(
            state=BlockState.INDEXED,
            checksum=scored_checksum(found.table, plan.corpus, plan.model),
            index_seconds=round(time.monotonic() - started, 3),
            indexed=now(),
        )
        record.save(storage, layout.ledger_file(plan.name, found.source.block))
        records[found.source.block] = record
        report(f"block {found.source.block}: {record.kept:,} documents are posted")

    with solr.posting(plan.collection, MIME) as post:
        last: tuple[_Contents, float, list[Future[dict[str, Any]]]] | None = None
        for found in run_ahead(_read_blocks(plan, sources, storage), 1):
            if not isinstance(found, _Contents):
                failures[found[0]] = found[1]
                continue
            bodies = document_bodies(found.table, found.source, found.pixels, plan.model, found.keywords)
            current = found, time.monotonic(), [post(body) for body in bodies]
            if last:
                finish(*last)
            last = current
        if last:
            finish(*last)
    return records, failures


def _differing(plan: Run, records: Mapping[int, BlockRecord], solr: SolrClient) -> dict[int, str]:
    """Return the blocks whose documents are not what was scored, and how they differ."""
    counts = solr.count_by_block(plan.collection, list(records))

    def problem(record: BlockRecord) -> str:
        count = counts.get(record.block, 0)
        if count != record.kept:
            return f"has {count:,} of {record.kept:,} documents"
        if documents_checksum(solr.rows_of_block(plan.collection, record.block)) != record.checksum:
            return "has other tags, votes or ids than were scored"
        return ""

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        problems = zip(records, pool.map(problem, records.values()), strict=True)
        return {block: found for block, found in problems if found}


def _delete_strangers(plan: Run, blocks: Iterable[int], storage: Storage, solr: SolrClient) -> None:
    """Delete what stands under these blocks without being of them."""
    for block in blocks:
        table, _ = read_scored(storage, plan.name, block)
        own = {layout.document_id(plan.corpus, position) for position in table.column("position").to_pylist()}
        solr.delete_ids(
            plan.collection, [found for found in solr.ids_of_block(plan.collection, block) if found not in own]
        )
    solr.commit(plan.collection)
