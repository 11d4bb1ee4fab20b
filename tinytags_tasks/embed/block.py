"""Embeds one block: reads its pixels in batches, and commits one file of embeddings. Runs inside a Spark worker."""

import socket
import threading
import time
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from tinytags_tasks.errors import CorruptError
from tinytags_tasks.nets.catalogue import load_net_card, read_net, remedy
from tinytags_tasks.nets.graph import embedding_graph
from tinytags_tasks.nets.running import embed, open_session, pictures_at_once
from tinytags_tasks.store import layout
from tinytags_tasks.store.block_files import BlockSource, images_per_batch, read_pixel_batches
from tinytags_tasks.store.block_lease import BlockLeases, embedding_leases
from tinytags_tasks.store.embedding_files import embeddings_sha256, write_embeddings
from tinytags_tasks.store.net_records import EmbeddedBlock
from tinytags_tasks.store.opening import open_store
from tinytags_tasks.store.protocol import StoreAddress
from tinytags_tasks.store.record import now

_CHANNELS = 3

_computing = threading.Lock()
"""Held by the thread of a worker that runs the net: Spark counts on one core per worker."""


@dataclass(frozen=True)
class BlockTask:
    """Everything needed to embed one block; small and serialisable.

    Attributes
    ----------
    source
        Where its bytes are.
    net
        The net's version.
    writer
        Who holds the lease on the block; empty if nobody else can write the block.
    redo
        Whether existing embeddings are written again.
    """

    source: BlockSource
    net: str
    writer: str = ""
    redo: bool = False

    @property
    def leases(self) -> BlockLeases:
        """The leases that its writer holds one of."""
        return embedding_leases(self.source.corpus, self.net)


def embed_block(task: BlockTask, address: StoreAddress, providers: tuple[str, ...]) -> None:
    """Commit a block's embeddings.

    Raises
    ------
    CorruptError
        If the shard's bytes do not match the manifest, or the net's file cannot be used.
    BadInputError
        If the worker's machine lacks one of the execution providers.
    TransientError
        If another writer took the block over because this one was silent for too long, or its driver is gone.
    """
    storage = open_store(address)
    source = task.source
    with _computing:
        session, dimensions = load_embedder(address, task.net, source.image_bytes, source.width, providers)
    embeddings = np.empty((source.images, dimensions), dtype=np.int8)
    at, seconds = 0, 0.0
    images = images_per_batch(source.image_bytes, pictures_at_once(session, source.image_bytes))
    for pixels in read_pixel_batches(storage, source, images):
        with _computing:
            started = time.monotonic()
            embeddings[at : at + len(pixels)] = embed(session, pixels)
            seconds += time.monotonic() - started
        at += len(pixels)
    record = EmbeddedBlock(
        corpus=source.corpus,
        block=source.block,
        net=task.net,
        source_sha256=source.sha256,
        images=source.images,
        dimensions=dimensions,
        sha256=embeddings_sha256(embeddings),
        seconds=round(seconds, 3),
        host=socket.gethostname(),
        embedded=now(),
    )
    if task.writer:
        task.leases.refuse_lost(storage, source.block, task.writer)
    write_embeddings(storage, embeddings, record, overwrite=task.redo)


@lru_cache(maxsize=2)
def load_embedder(
    address: StoreAddress, net: str, image_bytes: int, width: int, providers: tuple[str, ...]
) -> tuple[Any, int]:
    """Open a net for pictures of one size, once per worker process: a version is a hash, so its bytes never change.

    Returns
    -------
    tuple
        The session, which has embedded one picture, and the dimensions of an embedding.

    Raises
    ------
    MissingError
        If the net's file does not exist.
    CorruptError
        If its file is not what was published, or does not turn such pictures into embeddings as its card says.
    BadInputError
        If an execution provider is not available.
    """
    storage = open_store(address)
    card = load_net_card(storage, net)
    path = layout.net_file(net)
    graph = embedding_graph(read_net(storage, net), card, image_bytes // (_CHANNELS * width), width)
    session = open_session(graph, path, providers)
    try:
        shape = embed(session, np.zeros((1, image_bytes), dtype=np.uint8)).shape
    except Exception as error:  # ONNX Runtime's exceptions have no common base class
        raise CorruptError(f"{path}: cannot embed a picture ({str(error).strip()}); {remedy(net)}") from error
    if shape != (1, card.dimensions):
        raise CorruptError(
            f"{path}: its embeddings have {shape[1]:,} numbers, but its card says {card.dimensions:,}; {remedy(net)}"
        )
    return session, card.dimensions
