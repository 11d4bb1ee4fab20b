"""The review log of a corpus: people's words on its pictures, append-only, one file for each request.

A request's file appears by one rename, with the next free number, so two writers never lose a word of each other. A
later number wins. Words name the version of the corpus that they were said of: those on another version do not count
until they were carried over.
"""

import hashlib
import io
import re
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tinytags_tasks.errors import BadInputError, CorruptError
from tinytags_tasks.store import layout
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.protocol import LEFTOVER_SECONDS, Storage
from tinytags_tasks.store.record import now
from tinytags_tasks.store.review_records import OPINIONS, SCHEMA, LogPart, Verdict, Word

MOST_WORDS = 100_000
"""The most words of one request."""

_RECORD_KEY = b"tinytags.log"
_READERS = 8


def append_words(corpus: Corpus, words: Sequence[Word], *, by: str, run: str = "", storage: Storage) -> int:
    """Commit a request's words to a corpus' log, and return the request's number.

    Parameters
    ----------
    corpus
        The corpus, as it is now.
    words
        At least one, at most :data:`MOST_WORDS`.
    by
        Who says so.
    run
        The run that the pictures were shown of; empty if none was.

    Raises
    ------
    BadInputError
        If there are no words or too many, or a position is not in the corpus.
    TransientError
        If the store cannot write at the moment.
    """
    if not 1 <= len(words) <= MOST_WORDS:
        raise BadInputError(f"a request has 1 to {MOST_WORDS:,} words on pictures, not {len(words):,}")
    if wrong := [word.position for word in words if not 0 <= word.position < corpus.images]:
        raise BadInputError(
            f"position {wrong[0]} is not in corpus {corpus.name}, which has {corpus.images:,} images, from 0"
        )
    request = {"corpus_digest": corpus.digest, "by": by, "time": now(), "run": run}
    number = max((last for _, last in _parts(corpus.name, storage)), default=0) + 1
    storage.delete_leftovers(layout.review_log_file(corpus.name, number), least_age_seconds=LEFTOVER_SECONDS)
    while not _write_part(corpus.name, _as_table(words, {**request, "number": number}), storage):
        number += 1
    return number


def rows_sha256(table: pa.Table) -> str:
    """Return the sha256 of rows of a log: of their Arrow IPC stream, as one batch."""
    sink = io.BytesIO()
    plain = table.select(SCHEMA.names).cast(SCHEMA).replace_schema_metadata(None).combine_chunks()
    with pa.ipc.new_stream(sink, plain.schema) as writer:
        writer.write_table(plain)
    return hashlib.sha256(sink.getvalue()).hexdigest()


def _as_table(words: Sequence[Word], request: dict[str, object]) -> pa.Table:
    own = [name for name in SCHEMA.names if name not in request]
    columns = {name: [getattr(word, name) for word in words] for name in own}
    columns |= {name: [value] * len(words) for name, value in request.items()}
    return pa.table(columns, schema=SCHEMA)


def _write_part(corpus: str, table: pa.Table, storage: Storage) -> bool:
    """Commit rows as a part of a log; return False if another writer's part has this number."""
    numbers = table.column("number")
    first, last = pc.min(numbers).as_py(), pc.max(numbers).as_py()
    record = LogPart(corpus=corpus, first=first, last=last, words=len(table), sha256=rows_sha256(table))
    sink = io.BytesIO()
    pq.write_table(table.replace_schema_metadata({_RECORD_KEY: record.stored()}), sink, compression="zstd")
    path = layout.review_log_file(corpus, first, last if last != first else 0)
    return storage.write(path, sink.getvalue(), overwrite=False)


def _read_part(corpus: str, first: int, last: int, storage: Storage) -> pa.Table:
    path = layout.review_log_file(corpus, first, last if last != first else 0)
    stored = storage.read(path)
    try:
        table = pq.read_table(io.BytesIO(stored))
        record = LogPart.parse(table.schema.metadata[_RECORD_KEY], path)
        table = table.select(SCHEMA.names).cast(SCHEMA).replace_schema_metadata(None)
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise CorruptError(f"{path}: damaged ({error}); {LogPart.remedy(path)}") from error
    if (record.corpus, record.first, record.last) != (corpus, first, last) or record.sha256 != rows_sha256(table):
        raise CorruptError(f"{path}: damaged (its words are not those that were written); {LogPart.remedy(path)}")
    return table


def _parts(corpus: str, storage: Storage) -> list[tuple[int, int]]:
    """Return the first and last number of each part that counts; parts that were merged into another do not."""
    found = []
    for name in storage.names(layout.review_log_folder(corpus)):
        if match := re.fullmatch(r"(\d+)(?:-(\d+))?\.parquet", name):
            found.append((int(match[1]), int(match[2] or match[1])))
    counting: list[tuple[int, int]] = []
    for first, last in sorted(found, key=lambda part: (part[0], -part[1])):
        if not counting or first > counting[-1][1]:
            counting.append((first, last))
    return counting


class ReviewLog:
    """Reads a corpus' log; what was read is kept, so that reading again asks only for what is new.

    Parameters
    ----------
    corpus
        The name of the corpus.
    storage
        The store.
    """

    def __init__(self, corpus: str, storage: Storage) -> None:
        self._corpus = corpus
        self._storage = storage
        self._table = SCHEMA.empty_table()
        self._last = 0
        self._lock = threading.Lock()

    @property
    def last(self) -> int:
        """The number of the last request that was read; 0 if there is none."""
        return self._last

    def read(self) -> pa.Table:
        """Return all words in the order of their requests, with the columns of ``SCHEMA``.

        Raises
        ------
        CorruptError
            If a file is damaged.
        TransientError
            If the store does not answer.
        """
        with self._lock:
            new = [part for part in _parts(self._corpus, self._storage) if part[1] > self._last]
            if new:
                with ThreadPoolExecutor(_READERS) as pool:
                    tables = pool.map(lambda part: _read_part(self._corpus, part[0], part[1], self._storage), new)
                    read = pa.concat_tables(list(tables))
                unread = read.filter(pc.greater(read.column("number"), self._last))
                self._table = pa.concat_tables([self._table, unread]).combine_chunks()
                self._last = new[-1][1]
            return self._table


def read_words(corpus: Corpus, storage: Storage) -> pa.Table:
    """Return all words on this version of a corpus; those on another version are left out."""
    return of_version(ReviewLog(corpus.name, storage).read(), corpus.digest)


def of_version(words: pa.Table, digest: str) -> pa.Table:
    """Return the words that were said of one version of a corpus."""
    return words.filter(pc.equal(words.column("corpus_digest"), digest))


def counting_words(words: pa.Table, verdicts: Iterable[Verdict] = OPINIONS) -> pa.Table:
    """Return for each picture the latest of its words of some kinds that was not undone, by position.

    Parameters
    ----------
    words
        Words on one version of a corpus, with the columns of ``SCHEMA``.
    verdicts
        The kinds; one that is not among them neither counts nor hides an earlier one.
    """
    if not len(words):
        return words
    order = pc.sort_indices(words, sort_keys=[("position", "ascending"), ("number", "ascending")])
    words = words.take(order)  # the sort is stable, so a request's later word on a picture comes later
    is_kind = pc.is_in(words.column("verdict"), value_set=pa.array([str(verdict) for verdict in verdicts]))
    words = words.filter(pc.and_(is_kind, pa.array(~_is_undone(words))))
    positions = words.column("position").to_numpy()
    is_last = np.ones(len(positions), dtype=bool)
    is_last[:-1] = positions[1:] != positions[:-1]
    return words.filter(pa.array(is_last))


def _is_undone(words: pa.Table) -> npt.NDArray[np.bool_]:
    undoing = words.filter(pc.equal(words.column("verdict"), str(Verdict.UNDO)))
    undone = set(zip(undoing.column("position").to_pylist(), undoing.column("undoes").to_pylist(), strict=True))
    if not undone:
        return np.zeros(len(words), dtype=bool)
    own = zip(words.column("position").to_pylist(), words.column("number").to_pylist(), strict=True)
    return np.fromiter((word in undone for word in own), dtype=bool, count=len(words))
