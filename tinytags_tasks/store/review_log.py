"""The review log of a corpus: people's words on its pictures, append-only, one file for each request.

A request's file appears by one rename, with the next free number, so two writers never lose a word of each other. A
later number wins. Words name the version of the corpus that they were said of: those on another version do not count
until they were carried over.

When many small files stand, whoever appends merges them, under the log's lease: the merged file appears by one rename,
and from then on the files that it holds do not count, whether they were deleted or not. A writer that was slow may find
its number free again because that file was merged and deleted. So each writer looks whether its file counts, and
otherwise writes it again with a higher number.
"""

import hashlib
import io
import itertools
import re
import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from weakref import WeakKeyDictionary, WeakValueDictionary

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tinytags_tasks.errors import BadInputError, CorruptError, MissingError, TinyTagsError
from tinytags_tasks.store import layout
from tinytags_tasks.store.corpus_records import Corpus
from tinytags_tasks.store.lease import Leases
from tinytags_tasks.store.parquet_bytes import read_parquet
from tinytags_tasks.store.protocol import LEFTOVER_SECONDS, Storage
from tinytags_tasks.store.record import now
from tinytags_tasks.store.review_records import OPINIONS, SCHEMA, SHOWING, LogPart, Verdict, Word

MOST_WORDS = 100_000
"""The most words of one request."""

MERGED_AT = 256
"""So many requests are merged into one file, once all of them are there."""

_SMALL_BYTES = 128 * 1024
"""The most bytes of a file that is merged with others: larger ones gain nothing, and would take much memory."""

_Part = tuple[int, int]
"""The numbers of the first and the last request in a file of a log."""

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
    number = last_number(corpus.name, storage)
    while True:
        number += 1
        storage.delete_leftovers(layout.review_log_file(corpus.name, number), least_age_seconds=LEFTOVER_SECONDS)
        while not _write_part(corpus.name, table := _as_table(words, {**request, "number": number}), storage):
            number += 1
        parts = _parts(corpus.name, storage)
        if (number, number) in parts or _is_merged(corpus.name, table, number, parts, storage):
            break
        storage.delete(layout.review_log_file(corpus.name, number))  # it was merged before this file was written
        number = last_number(corpus.name, storage)
    if _mergeable(corpus.name, parts, storage):
        with suppress(TinyTagsError):  # the words are committed; whoever reads a damaged file names it
            _merge(corpus.name, storage)
    return number


def _is_merged(corpus: str, rows: pa.Table, number: int, parts: Iterable[_Part], storage: Storage) -> bool:
    """Tell whether a request's own rows were merged since they were written."""
    covering = [part for part in parts if part[0] <= number <= part[1]]
    found = [_read_part(corpus, part, storage) for part in covering]
    return any(rows_sha256(part.filter(pc.equal(part.column("number"), number))) == rows_sha256(rows) for part in found)


def rows_sha256(table: pa.Table) -> str:
    """Return the sha256 of rows of a log: of their values alone, column by column."""
    digest = hashlib.sha256(len(table).to_bytes(8, "little"))
    for column_field in SCHEMA:
        column = table.column(column_field.name).cast(column_field.type)
        digest.update(column_field.name.encode())
        if column.null_count:  # no writer writes one
            digest.update(column.is_null().to_numpy().tobytes())
        if pa.types.is_string(column_field.type) or pa.types.is_binary(column_field.type):
            values = pa.concat_arrays(column.cast(pa.binary()).fill_null(b"").chunks or [pa.array([], pa.binary())])
            ends = np.frombuffer(values.buffers()[1], dtype=np.int32)[values.offset : values.offset + len(values) + 1]
            digest.update(np.diff(ends).astype("<i8").tobytes())
            if len(values) and ends[-1] > ends[0]:
                digest.update(memoryview(values.buffers()[2])[ends[0] : ends[-1]])
        else:
            digest.update(column.cast(pa.int64()).fill_null(0).to_numpy().astype("<i8").tobytes())
    return digest.hexdigest()


def _as_table(words: Sequence[Word], request: dict[str, object]) -> pa.Table:
    own = [name for name in SCHEMA.names if name not in request]
    columns = {name: [getattr(word, name) for word in words] for name in own}
    columns |= {name: [value] * len(words) for name, value in request.items()}
    return pa.table(columns, schema=SCHEMA)


def _path(corpus: str, first: int, last: int) -> str:
    return layout.review_log_file(corpus, first, last if last != first else 0)


def _write_part(corpus: str, table: pa.Table, storage: Storage) -> bool:
    """Commit rows as a part of a log; return False if another writer's part has this number."""
    numbers = table.column("number")
    first, last = pc.min(numbers).as_py(), pc.max(numbers).as_py()
    record = LogPart(corpus=corpus, first=first, last=last, words=len(table), sha256=rows_sha256(table))
    sink = io.BytesIO()
    pq.write_table(table.replace_schema_metadata({_RECORD_KEY: record.stored()}), sink, compression="zstd")
    return storage.write(_path(corpus, first, last), sink.getvalue(), overwrite=False)


def _read_part(corpus: str, part: _Part, storage: Storage) -> pa.Table:
    path = _path(corpus, *part)
    stored = storage.read(path)
    try:
        table = read_parquet(stored)
        record = LogPart.parse(table.schema.metadata[_RECORD_KEY], path)
        table = table.select(SCHEMA.names).cast(SCHEMA).replace_schema_metadata(None)
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise CorruptError(f"{path}: damaged ({error}); {LogPart.remedy(path)}") from error
    if (record.corpus, record.first, record.last) != (corpus, *part) or record.sha256 != rows_sha256(table):
        raise CorruptError(f"{path}: damaged (its words are not those that were written); {LogPart.remedy(path)}")
    return table


def _listed(corpus: str, storage: Storage) -> set[_Part]:
    """Return all parts of a log that stand, whether they count or not."""
    found = set()
    for name in storage.names(layout.review_log_folder(corpus)):
        if match := re.fullmatch(r"(\d+)(?:-(\d+))?\.parquet", name):
            found.add((int(match[1]), int(match[2] or match[1])))
    return found


def last_number(corpus: str, storage: Storage) -> int:
    """Return the highest number that was ever given, as far as names tell: that of a file put aside counts, too."""
    names = storage.names(layout.review_log_folder(corpus))
    given = (re.match(r"(?:\d+-)?(\d+)\.parquet", name) for name in names)
    return max((int(match[1]) for match in given if match), default=0)


def _counting(found: Iterable[_Part]) -> list[_Part]:
    """Return the parts that count, in order: those that were merged into another do not."""
    counting: list[_Part] = []
    for first, last in sorted(found, key=lambda part: (part[0], -part[1])):
        if not counting or first > counting[-1][1]:
            counting.append((first, last))
    return counting


def _parts(corpus: str, storage: Storage) -> list[_Part]:
    """Return the parts of a log that count, in order.

    A listing while others write may have a file and lack an earlier one, so where a number is missing, a second listing
    tells whether it is.
    """
    found = _listed(corpus, storage)
    parts = _counting(found)
    ends = [0, *(last for _, last in parts)]
    if any(first != end + 1 for (first, _), end in zip(parts, ends, strict=False)):
        found |= {part for part in _listed(corpus, storage) if part[1] <= ends[-1]}
        parts = _counting(found)
    return parts


def _mergeable(corpus: str, parts: Sequence[_Part], storage: Storage) -> list[list[_Part]]:
    """Return the parts that are to be merged, those of each future part together.

    Only numbers up to a multiple of :data:`MERGED_AT` are merged, and those between two multiples together. So all who
    merge, however late, write the same parts, and no part ever holds only some of another's words. Where a number is
    missing, its file was put aside, and may be restored: a merged file must not cover it.
    """
    there: Counter[int] = Counter()
    for first, end in parts:
        there[(first - 1) // MERGED_AT] += end - first + 1
    whole = {number for number, requests in there.items() if requests == MERGED_AT}
    ripe = {part for part in parts if part[0] == part[1] and (part[0] - 1) // MERGED_AT in whole}
    if len(ripe) < 2:
        return []
    sizes = storage.sizes(layout.review_log_folder(corpus))

    def group(part: _Part) -> int:
        """Return the number of the range that a small file is in; -1 for others."""
        size = sizes.get(layout.file_name(_path(corpus, *part)), 0)
        return (part[0] - 1) // MERGED_AT if part in ripe and 0 < size <= _SMALL_BYTES else -1

    groups = [(number, list(together)) for number, together in itertools.groupby(parts, group)]
    return [together for number, together in groups if number >= 0 and len(together) > 1]


def _merge(corpus: str, storage: Storage) -> None:
    """Merge small files, unless another writer is merging them; delete the files that do not count any more."""
    with Leases(storage).hold(layout.review_log_lease_file(corpus)) as is_ours:
        if not is_ours:
            return
        for group in _mergeable(corpus, _parts(corpus, storage), storage):
            storage.delete_leftovers(_path(corpus, group[0][0], group[-1][1]))
            _write_part(corpus, _read_parts(corpus, group, storage), storage)
        # Only now, and only what a merged file holds: a kill before this line, or within it, loses nothing.
        found = _listed(corpus, storage)
        for part in found.difference(_counting(found)):
            storage.delete(_path(corpus, *part))


def _read_parts(corpus: str, parts: Sequence[_Part], storage: Storage) -> pa.Table:
    with ThreadPoolExecutor(_READERS) as pool:
        return pa.concat_tables(list(pool.map(lambda part: _read_part(corpus, part, storage), parts)))


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
            if new := self._new_parts():
                try:
                    read = _read_parts(self._corpus, new, self._storage)
                except MissingError:  # they were merged since they were listed
                    new = self._new_parts()
                    read = _read_parts(self._corpus, new, self._storage)
                unread = read.filter(pc.greater(read.column("number"), self._last))
                self._table = pa.concat_tables([self._table, unread]).combine_chunks()
                self._last = new[-1][1]
            return self._table

    def _new_parts(self) -> list[_Part]:
        return [part for part in _parts(self._corpus, self._storage) if part[1] > self._last]


_sharing = threading.Lock()
_shared: WeakKeyDictionary[Storage, WeakValueDictionary[str, ReviewLog]] = WeakKeyDictionary()


def shared_log(corpus: str, storage: Storage) -> ReviewLog:
    """Return the one reader of a corpus' log that all in this process share, so that its words are in memory once.

    It is kept as long as anybody holds it. Others may read it at any time, so ask the words that you got for their
    :func:`last_request`, not the log.
    """
    with _sharing:
        logs = _shared.setdefault(storage, WeakValueDictionary())
        log = logs.get(corpus)
        if log is None:
            log = logs[corpus] = ReviewLog(corpus, storage)
        return log


def read_words(corpus: Corpus, storage: Storage) -> pa.Table:
    """Return all words on this version of a corpus; those on another version are left out."""
    return of_version(ReviewLog(corpus.name, storage).read(), corpus.digest)


def last_request(words: pa.Table) -> int:
    """Return the number of the last request of words in the order of their requests; 0 without any."""
    return int(words.column("number")[-1].as_py()) if len(words) else 0


def of_version(words: pa.Table, digest: str) -> pa.Table:
    """Return the words that were said of one version of a corpus."""
    is_own = pc.equal(words.column("corpus_digest"), digest)
    # Nearly always they are all of one version, and then need no second place in memory.
    return words if pc.all(is_own, min_count=0).as_py() else words.filter(is_own)


def counting_words(words: pa.Table, verdicts: Iterable[Verdict] = OPINIONS) -> pa.Table:
    """Return for each picture the latest of its words of some kinds that was not undone, by position.

    Parameters
    ----------
    words
        Words on one version of a corpus, with the columns of ``SCHEMA``.
    verdicts
        The kinds; one that is not among them neither counts nor hides an earlier one.
    """
    words = standing_words(words, verdicts)
    positions = words.column("position").to_numpy()
    is_last = np.ones(len(positions), dtype=bool)
    is_last[:-1] = positions[1:] != positions[:-1]
    return words.filter(pa.array(is_last))


def takedowns(words: pa.Table) -> pa.Table:
    """Return the words by which pictures are taken down, by position, of words on one version of a corpus."""
    # Few words of a log are of these kinds: the others need not be sorted.
    kinds = pa.array([str(verdict) for verdict in (*SHOWING, Verdict.UNDO)])
    latest = counting_words(words.filter(pc.is_in(words.column("verdict"), value_set=kinds)), SHOWING)
    return latest.filter(pc.equal(latest.column("verdict"), str(Verdict.TAKEDOWN)))


def positions_taken_down(words: pa.Table) -> npt.NDArray[np.int64]:
    """Return the positions that are taken down, ascending, by words on one version of a corpus."""
    columns = ["position", "verdict", "undoes", "number"]  # to sort the others, too, would take much memory
    return np.asarray(takedowns(words.select(columns)).column("position"), dtype=np.int64)


def standing_words(words: pa.Table, verdicts: Iterable[Verdict] = OPINIONS) -> pa.Table:
    """Return all words of some kinds that were not undone, by position, the words on each in the order of saying."""
    if not len(words):
        return words
    order = pc.sort_indices(words, sort_keys=[("position", "ascending"), ("number", "ascending")])
    words = words.take(order)  # the sort is stable, so a request's later word on a picture comes later
    is_kind = pc.is_in(words.column("verdict"), value_set=pa.array([str(verdict) for verdict in verdicts]))
    return words.filter(pc.and_(is_kind, pa.array(~_is_undone(words))))


def _is_undone(words: pa.Table) -> npt.NDArray[np.bool_]:
    undoing = words.filter(pc.equal(words.column("verdict"), str(Verdict.UNDO)))
    names = ("position", "undoes", "number")
    rows = zip(*(undoing.column(name).to_pylist() for name in names), strict=True)
    undone = {(position, undoes) for position, undoes, number in rows if undoes < number}
    if not undone:
        return np.zeros(len(words), dtype=bool)
    own = zip(words.column("position").to_pylist(), words.column("number").to_pylist(), strict=True)
    return np.fromiter((word in undone for word in own), dtype=bool, count=len(words))
