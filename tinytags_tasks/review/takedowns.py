"""Which pictures are taken down, and which have a keyword."""

import threading
from collections.abc import Iterator
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tinytags_tasks.corpus.keywords import normal_keyword
from tinytags_tasks.errors import BadInputError
from tinytags_tasks.store import layout
from tinytags_tasks.store.block_files import read_shard_keywords
from tinytags_tasks.store.corpus_records import Corpus, ShardManifest
from tinytags_tasks.store.protocol import Storage
from tinytags_tasks.store.review_log import (
    ReviewLog,
    last_request,
    of_version,
    positions_taken_down,
    shared_log,
    takedowns,
)

_lock = threading.Lock()
_known: WeakKeyDictionary[ReviewLog, tuple[int, str, npt.NDArray[np.int64]]] = WeakKeyDictionary()
"""Of each log: the last request and the version for which the positions were found, and these."""


def taken_down(corpus: Corpus, storage: Storage) -> npt.NDArray[np.int64]:
    """Return the positions of the pictures that are taken down now, ascending; whether Solr knows or not.

    Where somebody holds the shared log, what was read of it is kept: asking again costs one listing.

    Raises
    ------
    CorruptError
        If the log is damaged.
    TransientError
        If the store does not answer.
    """
    return taken_down_of(corpus.name, corpus.digest, storage)


def taken_down_of(corpus: str, digest: str, storage: Storage) -> npt.NDArray[np.int64]:
    """Return :func:`taken_down` of a version of a corpus by its digest."""
    log = shared_log(corpus, storage)
    words = log.read()
    last = last_request(words)
    with _lock:
        known = _known.get(log)
    if known is None or known[:2] != (last, digest):
        positions = positions_taken_down(of_version(words, digest))
        known = (last, digest, positions)
        with _lock:
            _known[log] = known
    return known[2]


def list_takedowns(corpus: Corpus, storage: Storage) -> pa.Table:
    """Return the words by which pictures are taken down now, by position, with the columns of the log."""
    return takedowns(of_version(ReviewLog(corpus.name, storage).read(), corpus.digest))


def positions_of_keyword(corpus: Corpus, keyword: str, storage: Storage) -> npt.NDArray[np.int64]:
    """Return the positions of all pictures that their source calls so, whether a model kept them or not.

    Raises
    ------
    BadInputError
        If the corpus has no keywords, or none of its pictures has this one.
    CorruptError
        If a shard's keywords are damaged.
    """
    found = list(_positions_by_shard(corpus, keyword, storage))
    if not found:
        raise BadInputError(f"corpus {corpus.name} has no keywords: name positions")
    positions = np.concatenate(found)
    if not len(positions):
        raise BadInputError(f"no picture of corpus {corpus.name} has the keyword {keyword!r}")
    return positions


def _positions_by_shard(corpus: Corpus, keyword: str, storage: Storage) -> Iterator[npt.NDArray[np.int64]]:
    for shard in range(corpus.partition.shards):
        manifest = ShardManifest.load(storage, layout.shard_manifest_file(corpus.name, shard))
        if manifest.keywords_sha256 is None:
            continue
        path = layout.keywords_file(corpus.name, shard)
        column = read_shard_keywords(storage, path, manifest.keywords_sha256)
        # Also as it was typed: an earlier TinyTags stored other forms.
        forms = pa.array([keyword, normal_keyword(keyword)])
        is_it = pc.is_in(column.cast(pa.string()), value_set=forms)
        yield np.flatnonzero(is_it.to_numpy()) + manifest.first
