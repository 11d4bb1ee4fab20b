"""Orders pictures so that each differs most from those before it, by their embeddings: the most is learned from few."""

import numpy as np
import numpy.typing as npt

from tinytags_tasks.errors import CorruptError, MissingError
from tinytags_tasks.review.sampler import Numbers
from tinytags_tasks.store import layout
from tinytags_tasks.store.block_files import block_sources
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.embedding_files import read_embeddings
from tinytags_tasks.store.protocol import Storage

BLOCKS = 40
"""Embeddings of how many blocks are read at the most: reading those of thousands would take minutes."""

PICTURES = 2_000


def spread_out(positions: Numbers, blocks: Numbers, corpus: Corpus, net: str, storage: Storage) -> Numbers:
    """Return the place of each picture in such an order; -1 for pictures that are not in it.

    Parameters
    ----------
    positions, blocks
        Where the pictures are.
    corpus
        Their corpus.
    net
        The net whose embeddings are read; empty if there are none.
    """
    places = np.full(len(positions), -1, dtype=np.int64)
    stored = set(storage.names(layout.embeddings_folder(corpus.name, net))) if net else set()
    usable = [block for block in np.unique(blocks).tolist() if layout.embedding_file_name(block) in stored]
    rows: list[Numbers] = []
    found: list[npt.NDArray[np.float32]] = []
    for source in block_sources(storage, corpus, usable[:: max(1, -(-len(usable) // BLOCKS))]):
        try:
            embeddings, _ = read_embeddings(storage, source, net)
        except (MissingError, CorruptError):  # whoever scores finds and mends it; drawing does without
            continue
        here = np.flatnonzero(blocks == source.block)
        rows.append(here)
        found.append(embeddings[positions[here] - source.first].astype(np.float32))
    if rows:
        chosen = np.concatenate(rows)[:PICTURES]
        places[chosen[farthest_first(np.concatenate(found)[:PICTURES])]] = np.arange(len(chosen))
    return places


def farthest_first(embeddings: npt.NDArray[np.float32]) -> Numbers:
    """Return the order in which each is the farthest from all before it (Gonzalez, 1985), by the angle between them.

    Parameters
    ----------
    embeddings
        Shape (pictures, dimensions).
    """
    lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
    unit = embeddings / np.maximum(lengths, 1e-9)
    order = np.zeros(len(unit), dtype=np.int64)
    nearest = np.full(len(unit), np.inf, dtype=np.float32)
    for place in range(1, len(unit)):
        nearest = np.minimum(nearest, 1 - unit @ unit[order[place - 1]])
        nearest[order[:place]] = -1
        order[place] = int(nearest.argmax())
    return order
