"""Verifies that a corpus' embeddings are what was written, and were made of the bytes that its shards hold."""

import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from tinytags_tasks.errors import CorruptError, MissingError
from tinytags_tasks.store import layout
from tinytags_tasks.store.block_files import BlockSource, block_sources
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.embedding_files import read_embedding_record, read_embeddings
from tinytags_tasks.store.protocol import Storage

_READERS = 4
_REPORT_SECONDS = 5.0


@dataclass(frozen=True)
class VerifiedEmbeddings:
    """What was found of one net's embeddings.

    Attributes
    ----------
    net
        The net's version.
    blocks
        How many of the blocks have a file of embeddings.
    damaged
        Blocks with something wrong, and what is wrong with each.
    read_bytes
        How many bytes were read and compared with their hash.
    """

    net: str
    blocks: int
    damaged: dict[int, str]
    read_bytes: int


def verify_embeddings(
    corpus: Corpus, shards: Iterable[int], *, storage: Storage, deep: bool, report: Callable[[str], None]
) -> tuple[VerifiedEmbeddings, ...]:
    """Check a corpus' embeddings against their records and the manifests.

    Parameters
    ----------
    corpus
        The corpus.
    shards
        The shards whose manifests can be used; the blocks of others are left out.
    storage
        The store.
    deep
        Whether to read every byte. Otherwise the record at the end of each file is read, and the store is asked whether
        it knows of any damage.
    report
        Called with a line of progress every now and then.
    """
    nets = storage.names(layout.all_embeddings_folder(corpus.name))
    if not nets:
        return ()
    blocks = [block.number for shard in shards for block in corpus.partition.blocks_of_shard(shard)]
    sources = block_sources(storage, corpus, blocks)
    return tuple(_verify_net(corpus.name, net, sources, storage, report, deep=deep) for net in nets)


def _verify_net(
    corpus: str,
    net: str,
    sources: Iterable[BlockSource],
    storage: Storage,
    report: Callable[[str], None],
    *,
    deep: bool,
) -> VerifiedEmbeddings:
    sizes = storage.sizes(layout.embeddings_folder(corpus, net))
    existing = [source for source in sources if layout.embedding_file_name(source.block) in sizes]
    damaged: dict[int, str] = {}

    def problem(source: BlockSource) -> str:
        return _problem(source, net, sizes[layout.embedding_file_name(source.block)], storage, deep=deep)

    reported = time.monotonic()
    with ThreadPoolExecutor(_READERS) as pool:
        for done, (source, found) in enumerate(zip(existing, pool.map(problem, existing), strict=True), start=1):
            if found:
                damaged[source.block] = found
            if time.monotonic() - reported > _REPORT_SECONDS:
                reported = time.monotonic()
                report(f"checked {done:,} of {len(existing):,} files of embeddings by {net}")
    read_bytes = sum(sizes[layout.embedding_file_name(source.block)] for source in existing) if deep else 0
    return VerifiedEmbeddings(net, len(existing), damaged, read_bytes)


def _problem(source: BlockSource, net: str, size_bytes: int, storage: Storage, *, deep: bool) -> str:
    """Return what is wrong with a block's embeddings; empty if nothing is."""
    path = layout.embeddings_file(source.corpus, net, source.block)
    try:
        if deep:
            read_embeddings(storage, source, net)
        else:
            read_embedding_record(storage, source, net, size_bytes)
        return storage.known_damage(path)
    except CorruptError as error:
        return str(error)
    except MissingError:  # pruned, or about to be made again
        return ""
