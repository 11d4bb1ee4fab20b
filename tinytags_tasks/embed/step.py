"""The embedding step: one Spark job commits one file of embeddings per block."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass

import pyarrow as pa
from pyspark import TaskContext

from tinytags_tasks.blocks import format_block_numbers
from tinytags_tasks.clients.spark import ConnectSpark, spark_errors
from tinytags_tasks.embed.block import BlockTask, load_embedder
from tinytags_tasks.embed.progress import Progress
from tinytags_tasks.embed.worker import embed_tasks
from tinytags_tasks.errors import CorruptError, MissingError
from tinytags_tasks.nets.catalogue import load_net_card, net_for, read_net
from tinytags_tasks.nets.running import CPU
from tinytags_tasks.outcomes import SPARK_COLUMNS, Outcome, failures_among, outcomes_among, raise_failures
from tinytags_tasks.store import layout
from tinytags_tasks.store.block_files import BlockSource, block_sources
from tinytags_tasks.store.block_lease import embedding_leases
from tinytags_tasks.store.corpus_records import load_corpus
from tinytags_tasks.store.embedding_files import embedding_sizes, unembedded
from tinytags_tasks.store.lease import LEASE_SECONDS
from tinytags_tasks.store.net_records import NetCard
from tinytags_tasks.store.opening import address_for_workers
from tinytags_tasks.store.protocol import Storage, StoreAddress
from tinytags_tasks.store.room import refuse_without_room

_IMAGES_PER_SPARK_TASK = 10_000
"""A net needs seconds for as many, a Spark task costs a tenth of one, and all cores end at about the same time."""

_BLOCKS_PER_JOB = 200
"""So that failures are not reported hours later, and another process can take blocks that are not begun."""

_FILE_BYTES = 4_096
"""What a file of embeddings has besides them, at most: its schema and its record."""


@dataclass(frozen=True)
class EmbedRequest:
    """Which blocks of which corpus to embed.

    Attributes
    ----------
    corpus
        The corpus' name.
    net
        A net's version, or a name as :func:`~tinytags_tasks.nets.catalogue.load_net_card` takes it.
    blocks
        The blocks' numbers; None means all.
    redo
        Whether blocks that are embedded already are embedded again.
    """

    corpus: str
    net: str
    blocks: tuple[int, ...] | None = None
    redo: bool = False


@dataclass(frozen=True)
class EmbedResult:
    """The blocks that are embedded by the net of this version; ``embedded`` counts those that this call embedded."""

    corpus: str
    net: str
    blocks: tuple[int, ...]
    embedded: int


def embed_blocks(
    request: EmbedRequest,
    *,
    storage: Storage,
    address: StoreAddress,
    connect_spark: ConnectSpark,
    report: Callable[[str], None] = print,
    lease_seconds: float = LEASE_SECONDS,
    providers: Sequence[str] = (CPU,),
) -> EmbedResult:
    """Embed and commit each block that is not embedded yet; if one fails, the others stay committed.

    Embeddings that are damaged at their end, or were made of other bytes than the shard holds now, are made again. A
    block that another writer holds is left to that writer, and checked again once that writer is done.

    Raises
    ------
    MissingError
        If there is no such corpus or net.
    BadInputError
        If the corpus does not have one of these blocks, or a worker lacks an execution provider.
    TransientError, FinalError
        If the store does not have enough space; or if blocks failed: which ones. The error is final if a retry cannot
        help any of them.
    """
    corpus = load_corpus(request.corpus, storage)
    net = _known_net(request.net, storage)
    blocks = tuple(range(corpus.partition.blocks)) if request.blocks is None else request.blocks
    sources = block_sources(storage, corpus, blocks)
    waiting = sources if request.redo else unembedded(sources, net, storage)
    report(f"{len(blocks) - len(waiting)} of {len(blocks)} blocks are embedded by {net}, {len(waiting)} to embed")
    if not waiting:
        return EmbedResult(corpus.name, net, blocks, 0)
    card = _stored_net(net, storage)
    needed = sum(source.images * card.dimensions + _FILE_BYTES for source in waiting)
    refuse_without_room(needed, f"embedding corpus {corpus.name}", storage, report)
    load_embedder(address, net, corpus.image_bytes, corpus.width, (CPU,))  # refused before any worker is asked
    with Progress(waiting, corpus.partition.blocks, net, storage, report).reported():
        job = _Job(net, address, connect_spark, tuple(providers), redo=request.redo)
        embedded = _embed_held(job, waiting, storage, report, lease_seconds)
    return EmbedResult(corpus.name, net, blocks, embedded)


def _known_net(name: str, storage: Storage) -> str:
    """Return the version of a net; if the card of the net that ships is damaged, it is written again."""
    try:
        return load_net_card(storage, name).version
    except (MissingError, CorruptError):
        return net_for(name, storage).version


def _stored_net(version: str, storage: Storage) -> NetCard:
    """Return the card of a net whose file is intact in the store; the net that ships is stored if need be."""
    with suppress(MissingError, CorruptError):
        read_net(storage, version)  # a session that is already open would not notice a replaced file
        return NetCard.load(storage, layout.net_card_file(version))
    card = net_for(version, storage)
    read_net(storage, version)
    return card


@dataclass(frozen=True)
class _Job:
    """What all Spark jobs of one request share."""

    net: str
    address: StoreAddress
    connect_spark: ConnectSpark
    providers: tuple[str, ...]
    redo: bool

    def run(self, tasks: list[BlockTask]) -> list[Outcome]:
        """Embed all blocks in one Spark job; return the failures."""
        address = address_for_workers(self.address)
        providers, redo = self.providers, self.redo  # a session cannot be sent to a worker

        def embed_numbers(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            context = TaskContext.get()
            is_retried = context is not None and context.attemptNumber() > 0 and not redo
            for batch in batches:
                chosen = [tasks[index] for index in batch.column(0).to_pylist()]
                outcomes = embed_tasks(chosen, address, providers, is_retried=is_retried)
                yield pa.RecordBatch.from_pylist([asdict(outcome) for outcome in outcomes])

        images = sum(task.source.images for task in tasks)
        partitions = max(1, min(len(tasks), -(-images // _IMAGES_PER_SPARK_TASK)))
        spark = self.connect_spark()
        try:
            with spark_errors(f"embedding blocks {format_block_numbers(task.source.block for task in tasks)}"):
                numbers = spark.range(0, len(tasks), 1, numPartitions=partitions)
                rows = numbers.mapInArrow(embed_numbers, SPARK_COLUMNS).collect()
        finally:
            spark.stop()
        return failures_among(outcomes_among(rows), [task.source.block for task in tasks])


def _embed_held(
    job: _Job,
    sources: Sequence[BlockSource],
    storage: Storage,
    report: Callable[[str], None],
    lease_seconds: float,
) -> int:
    """Embed the blocks while their leases are held; return how many this call embedded."""
    by_number = {source.block: source for source in sources}
    corpus = sources[0].corpus
    leases = embedding_leases(corpus, job.net)
    embedded, failures = 0, []
    for held in leases.hold(
        by_number, storage=storage, report=report, lease_seconds=lease_seconds, most=_BLOCKS_PER_JOB
    ):
        chosen = [by_number[block] for block in held.blocks]
        storage.delete_leftovers(*(layout.embeddings_file(corpus, job.net, block) for block in held.blocks))
        if not job.redo:
            chosen = unembedded(chosen, job.net, storage)  # another writer may have embedded them while we waited
            _delete_unusable(chosen, job.net, storage)
        if chosen:
            failed = job.run([BlockTask(source, job.net, held.writer, job.redo) for source in chosen])
            failures += [one for one in failed if leases.is_held(storage, one.block, held.writer)]
            embedded += len(chosen) - len(failed)
    numbers = format_block_numbers(failure.block for failure in failures)
    raise_failures(failures, f"{leases.subject}: blocks {numbers} failed")
    return embedded


def _delete_unusable(sources: Sequence[BlockSource], net: str, storage: Storage) -> None:
    """Delete the files of blocks that will be embedded; the caller holds the leases on them."""
    for block in embedding_sizes(sources, net, storage) if sources else ():
        storage.delete(layout.embeddings_file(sources[0].corpus, net, block))
